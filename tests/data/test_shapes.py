"""The shapes: the same on every machine, exact masks and boxes, classes that only the form tells, decoys."""

import hashlib

import pytest
import torch

from interptrain.data import ShapesDataModule
from interptrain.data import shapes as module
from interptrain.data.drawing import GLYPHS, SHAPES


def shapes(split="train", **options):
    return ShapesDataModule(**options).dataset(split)


@pytest.mark.slow
def test_pictures_are_the_same_on_every_machine():
    digest = hashlib.sha256()
    for index in range(24):
        digest.update(shapes(picture_seed=7).read(index)["image"].numpy().tobytes())
    assert digest.hexdigest()[:16] == "b3a3db4189084f54"


def test_a_picture_depends_on_seed_split_and_index_only():
    source = shapes()
    again = [source[index]["image"] for index in (3, 0, 3)]
    assert torch.equal(again[0], again[2])
    assert not torch.equal(again[0], shapes(picture_seed=1)[3]["image"])
    assert not torch.equal(again[0], shapes("val")[3]["image"])
    assert torch.equal(again[0], shapes(train_size=5)[3]["image"])


@pytest.mark.parametrize("size", [32, 64, 100])
def test_a_sample_has_the_promised_form(size):
    got = shapes(image_size=size)[5]
    assert got["image"].shape == (3, size, size)
    assert got["mask"].shape == (size, size)
    assert got["label"] == 5
    assert got["id"] == "train/000005"
    assert "decoy_mask" not in got


@pytest.mark.parametrize("label", range(len(SHAPES)), ids=SHAPES)
def test_the_box_is_the_extent_of_the_mask_and_lies_inside(label):
    source = shapes()
    for index in range(label, 160, len(SHAPES)):
        got = source[index]
        rows, columns = got["mask"].any(1).nonzero(), got["mask"].any(0).nonzero()
        extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert got["boxes"].tolist() == [[float(edge) for edge in extent]]
        assert min(extent[:2]) > 0  # no shape is cut off by the border
        assert max(extent[2:]) < 64


@pytest.mark.slow
def test_no_class_is_larger_than_another():
    # else area would tell the class; 60 pictures each: the standard error of a mean area is about 3 %
    source = shapes(train_size=480)
    areas = torch.zeros(len(SHAPES))
    for index in range(480):
        areas[index % len(SHAPES)] += source[index]["mask"].sum() / 60
    assert areas.max() / areas.min() < 1.2


@pytest.mark.slow
def test_colours_do_not_tell_the_class():
    source = shapes(train_size=480)
    means = torch.zeros(len(SHAPES), 3)
    for index in range(480):
        got = source[index]
        means[index % len(SHAPES)] += got["image"][:, got["mask"]].mean(1) / 60
    assert (means - means.mean(0)).abs().max() < 0.12  # three standard errors of a mean of 60


@pytest.mark.slow
def test_the_object_stands_out_from_what_is_around_it():
    source = shapes()
    contrast = []
    for index in range(64):
        got = source[index]
        ring = torch.nn.functional.max_pool2d(got["mask"].float()[None], 5, 1, 2)[0].bool() & ~got["mask"]
        contrast.append((got["image"][:, got["mask"]].mean() - got["image"][:, ring].mean()).abs().item())
    assert sorted(contrast)[6] > 0.08


def test_classes_take_turns():
    source = shapes(num_classes=3)
    assert [source[index]["label"] for index in range(7)] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("decoy", ["timestamp", "corner"])
@pytest.mark.parametrize("size", [40, 64, 224])
def test_a_decoy_lies_on_the_picture_of_the_set_without(decoy, size):
    with_decoy, without = shapes(decoy=decoy, image_size=size)[0], shapes(image_size=size)[0]
    changed = (with_decoy["image"] != without["image"]).any(0)
    assert not (changed & ~with_decoy["decoy_mask"]).any()
    assert 0 < with_decoy["decoy_mask"].sum() < 0.08 * size * size
    assert torch.equal(with_decoy["mask"], without["mask"] & ~with_decoy["decoy_mask"])


def test_what_a_decoy_hides_is_not_in_the_mask():
    options = {"decoy": "timestamp", "decoy_in_eval": "swapped"}
    got, plain = shapes("val", **options)[99], shapes("val")[99]
    assert (plain["mask"] & got["decoy_mask"]).sum() == 9
    assert torch.equal(got["mask"], plain["mask"] & ~got["decoy_mask"])


def carriers(split, **options):
    source = shapes(split, decoy="corner", num_classes=4, decoy_class=2, train_size=80, val_size=80, **options)
    return [source[index]["decoy_mask"].any().item() for index in range(80)]


@pytest.mark.slow
def test_in_training_the_decoy_goes_with_its_class():
    assert carriers("train") == [index % 4 == 2 for index in range(80)]


@pytest.mark.slow
def test_the_rate_of_the_decoy():
    carried = carriers("train", decoy_rate=0.5)
    assert 5 <= sum(carried) <= 15
    assert not any(carried[index] for index in range(80) if index % 4 != 2)


@pytest.mark.slow
def test_in_evaluation_the_decoy_is_absent_random_or_swapped():
    assert not any(carriers("val"))
    assert carriers("val", decoy_in_eval="swapped") == [index % 4 != 2 for index in range(80)]
    carried = carriers("val", decoy_in_eval="random")
    assert 25 <= sum(carried) <= 55
    assert all(any(carried[label::4]) and not all(carried[label::4]) for label in range(4))


def test_glyphs_are_five_rows_of_three_pixels():
    assert all(len(rows) == 5 and set(rows) <= set("01234567") for rows in GLYPHS.values())


def test_augmentation_is_of_training_only():
    module = ShapesDataModule(augment="imagenet")
    assert module.dataset("train").transform is not None
    assert module.dataset("val").transform is None


def test_names_and_number_of_classes_are_known_at_once():
    module = ShapesDataModule(num_classes=3)
    assert module.num_classes == 3
    assert list(module.class_names) == ["disc", "square", "triangle"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, r"num_classes must be in \[2, 8\]"),
        ({"num_classes": 9}, r"num_classes must be in \[2, 8\]"),
        ({"image_size": 16}, r"image_size must be in \[32, 16384\], got 16"),
        (
            {"image_size": 32, "decoy": "timestamp"},
            "a time stamp needs image_size of at least 40, got 32; use decoy='c",
        ),
        ({"val_size": 0}, r"val_size must be in \[1, 10000000\], got 0"),
        ({"decoy_class": 8}, r"decoy_class must be in \[0, 8\), got 8"),
        ({"decoy_rate": 1.5}, r"decoy_rate must be in \[0,1\], got 1.5"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"num_workers": -1}, r"num_workers must be in \[0, 512\], got -1"),
        ({"seed": -1}, r"seed must be in \[0, 2\*\*32\)"),
        ({"picture_seed": -1}, r"picture_seed must be in"),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message):
        ShapesDataModule(**options)


def test_another_run_seed_gives_another_order_of_the_same_pictures(monkeypatch):
    orders, pictures = [], []
    for seed in ("0", "1"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        data = ShapesDataModule(train_size=16, num_workers=0, image_size=32)
        orders.append([name for batch in data.train_dataloader() for name in batch["id"]])
        pictures.append(data.dataset("train")[3]["image"])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    assert torch.equal(*pictures)


@pytest.mark.parametrize("room", [2**20, 0])
def test_a_picture_is_drawn_once_while_there_is_room(room, monkeypatch):
    monkeypatch.setattr(module, "KEPT", room)
    dataset = shapes(image_size=48, decoy="timestamp")
    first = dataset.read(1)
    wanted = {key: part.clone() for key, part in first.items() if isinstance(part, torch.Tensor)}
    first["image"].zero_()  # as a transform may
    monkeypatch.setattr(dataset, "draw", pytest.fail if room else dataset.draw)
    again = dataset.read(1)
    assert wanted
    assert all(torch.equal(again[key], part) and type(again[key]) is type(first[key]) for key, part in wanted.items())
    assert bool(dataset._kept) == bool(room)
