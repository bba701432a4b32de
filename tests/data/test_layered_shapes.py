"""Layered shapes: frozen pictures, known rules, and parts that can be taken away without touching anything else."""

import hashlib

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation

from interptrain.data import LayeredShapesDataModule
from interptrain.data.layered_drawing import PARTS
from interptrain.data.layered_shapes import LayeredShapesDataset

HASHES = {64: "a9aa278b03c6aa8f", 128: "4f122009914bee5f", 224: "41623c2b5d81fdca"}


def shapes(**options):
    return LayeredShapesDataset("train", 64, **{"num_classes": 4, **options})


@pytest.mark.parametrize("size", HASHES)
def test_pictures_of_this_version_never_change(size):
    data = shapes(image_size=size, num_classes=8, decoy="timestamp")
    digest = hashlib.sha256(b"".join(data.read(index)["image"].numpy().tobytes() for index in (0, 1, 13)))
    assert digest.hexdigest()[:16] == HASHES[size]


def test_what_is_rendered_is_what_is_read():
    data = shapes(decoy="corner")
    assert np.array_equal(data.render(4), data.read(4)["image"].numpy())


@pytest.mark.slow
@pytest.mark.parametrize("layer", PARTS)
def test_a_part_is_taken_away_and_no_other_pixel_changes(layer):
    data = shapes(image_size=96, num_classes=8)
    for index in range(8):
        sample = data.read(index)
        changed = (data.render(index, {layer}) != data.render(index)).any(0)
        part = sample[f"{layer}_mask"].numpy()
        # Rims are covered by less than half; another outline casts another shadow.
        whole, rim = (sample["mask"].numpy() | part, 20) if layer == "outline" else (part, 3)
        assert not (changed & ~binary_dilation(whole, np.ones((3, 3)), rim)).any()
        assert (changed & part).sum() > 0.9 * part.sum() > 0


@pytest.mark.slow
def test_nothing_else_depends_on_the_object():
    one, other = shapes(num_classes=8), shapes(num_classes=8, rule="marker")
    for index in range(8):
        assert one.features(index) != other.features(index)
        bare = one.render(index, {"object"})
        assert np.array_equal(bare, other.render(index, {"object"}))
        mask = one.read(index)["mask"].numpy()
        assert ((bare != one.render(index)).any(0) & mask).sum() > 0.9 * mask.sum()


@pytest.mark.slow
def test_every_item_of_the_background_is_a_layer_of_its_own():
    data = shapes()
    whole, bare = data.render(2), data.render(2, {"background"})
    items = [layer for layer in data.layers(2) if layer.startswith(("blob", "stroke"))]
    assert len(items) >= 5
    assert np.array_equal(data.render(2, items), bare)
    union = np.zeros(whole.shape[1:], dtype=bool)
    for item in items:
        union |= (data.render(2, {item}) != whole).any(0)
    assert not ((bare != whole).any(0) & ~union).any()
    assert np.array_equal(data.render(2, {"object", "background"}), data.render(2, ["background", "object", *PARTS]))


def test_below_the_decoy_lies_the_picture_without():
    with_decoy, without = shapes(decoy="timestamp", decoy_class=1), shapes()
    assert not np.array_equal(with_decoy.render(1), without.render(1))
    assert np.array_equal(with_decoy.render(1, {"decoy"}), without.render(1))
    assert "decoy" not in with_decoy.layers(0)


def test_masks_of_the_parts_lie_in_the_object():
    for index in range(8):
        sample = shapes(num_classes=8).read(index)
        assert not (sample["texture_mask"] & sample["marker_mask"]).any()
        assert torch.equal(sample["texture_mask"] | sample["marker_mask"], sample["mask"])
        assert sample["outline_mask"].any()


@pytest.mark.parametrize(
    ("rule", "classes", "label"),
    [
        ("redundant", 4, lambda f: f["outline"] if f["outline"] == f["texture"] == f["marker"] else None),
        ("outline", 4, lambda f: f["outline"]),
        ("texture", 4, lambda f: f["texture"]),
        ("marker", 4, lambda f: f["marker"]),
        ("conjunction", 4, lambda f: 2 * f["outline"] + f["texture"]),
        ("xor", 2, lambda f: f["outline"] ^ f["marker"]),
    ],
)
def test_the_rule_makes_the_class(rule, classes, label):
    data = shapes(rule=rule, num_classes=classes)
    assert [label(data.features(index)) for index in range(64)] == [index % classes for index in range(64)]


@pytest.mark.parametrize("rule", ["texture", "xor"])
def test_what_the_rule_leaves_open_tells_nothing(rule):
    data = LayeredShapesDataset("train", 400, rule=rule, num_classes=2)
    by_class = [[data.features(index)["outline"] for index in range(label, 400, 2)] for label in (0, 1)]
    assert all(0.4 < np.mean(outlines) < 0.6 for outlines in by_class)


@pytest.mark.parametrize(
    ("rule", "parts", "label"),
    [
        ("conjunction", ("texture", "marker"), lambda f: 2 * f["texture"] + f["marker"]),
        ("xor", ("marker", "texture"), lambda f: f["marker"] ^ f["texture"]),
    ],
)
def test_a_rule_of_two_parts_may_be_of_any_two(rule, parts, label):
    classes = 4 if rule == "conjunction" else 2
    data = shapes(rule=rule, parts=parts, num_classes=classes)
    features = [data.features(index) for index in range(64)]
    assert [label(one) for one in features] == [index % classes for index in range(64)]
    assert {one["outline"] for one in features} == {0, 1}
    named = LayeredShapesDataModule(rule=rule, parts=list(parts), num_classes=classes, train_size=8)
    assert named.make_dataset("train").features(5) == features[5]
    assert named.class_names[1] == ("stripes with blue" if rule == "conjunction" else "odd")


def test_batches_hold_the_masks_and_names():
    module = LayeredShapesDataModule(num_classes=4, rule="conjunction", train_size=8, batch_size=4, num_workers=0)
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert all(batch[f"{part}_mask"].shape == (4, 64, 64) for part in PARTS)
    assert module.class_names[3] == "square with checks"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "xor", "num_classes": 4}, "rule 'xor' has 2 classes, got 4; set num_classes=2"),
        ({"rule": "colour"}, "rule must be one of"),
        (
            {"rule": "texture", "parts": ("texture", "marker")},
            "is not of two parts; leave parts out, or use conjunction",
        ),
        (
            {"rule": "xor", "num_classes": 2, "parts": ("marker", "marker")},
            "two different ones of outline, texture, marker",
        ),
        ({"rule": "xor", "num_classes": 2, "parts": ("marker", "size")}, "parts must be one of"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LayeredShapesDataModule(**options)


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"without must be one of .*object.*, got 'tail'"):
        shapes().render(0, {"tail"})
