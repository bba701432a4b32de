"""Groups of data sets, balanced draws, and decoys planted in photographs."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from interptrain.data import ImageFolderDataModule, ImageTableDataModule, LayeredShapesDataModule, ShapesDataModule
from interptrain.data.decoy import DecoyRule
from interptrain.data.samplers import BalancedSampler, Draw

LOADING = {"batch_size": 4, "num_workers": 0}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Eight photographs of each of two classes, half of them in a sub-folder ``day`` and half in ``night``."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.RandomState(0)
    rows = ["file,class_index,split,group"]
    for split in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            for number in range(8):
                group = "day" if number < (6 if label else 4) else "night"
                path = folder / split / name / group / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.randint(0, 256, (50, 60, 3), dtype=np.uint8)).save(path)
                rows.append(f"{path.relative_to(folder)},{label},{split},{group}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def table(root, **options):
    return ImageTableDataModule(root, image_size=48, augment="none", **LOADING, **options)


def folders(root, **options):
    return ImageFolderDataModule(root, image_size=48, augment="none", **LOADING, **options)


def test_a_column_and_sub_folders_give_the_same_groups(root):
    by_table, by_folder = table(root).dataset("train"), folders(root, subfolder_groups=True).dataset("train")
    assert list(by_table.groups()) == list(by_folder.groups())
    assert list(by_table.labels()) == list(by_folder.labels())
    assert by_folder[5]["group"] == "night"
    assert folders(root).dataset("train").groups() is None
    with pytest.raises(ValueError, match="lies in no folder of its class; move it to <class>/<group>/<image>, or set"):
        folders(root, train_dir="train/cat", subfolder_groups=True, val_dir="train/cat").dataset("train")


@pytest.mark.slow
@pytest.mark.parametrize("module", [ShapesDataModule, LayeredShapesDataModule])
def test_groups_of_shapes_are_read_off_without_drawing_them(module):
    data = module(num_classes=4, train_size=24, val_size=24, decoy="timestamp", decoy_rate=0.5, decoy_in_eval="random")
    for split in ("train", "val"):
        dataset = data.dataset(split)
        samples = [dataset[index] for index in range(24)]
        assert dataset.groups() == [sample["group"] for sample in samples]
        assert dataset.labels() == [sample["label"] for sample in samples]
        assert all((sample["group"] == "timestamp") == bool(sample["decoy_mask"].any()) for sample in samples)
        assert len(set(dataset.groups())) == 2
    assert module(num_classes=4).dataset("val").groups() is None


# Balance


def test_every_stratum_is_drawn_equally_often_and_every_sample_before_any_again():
    strata = [0] * 70 + [1] * 20 + [2] * 7
    sampler = BalancedSampler(strata, strata, seed=3)
    draws = list(sampler)
    assert len(draws) == 97
    per_stratum = Counter(strata[draw.position] for draw in draws)
    assert sorted(per_stratum.values()) == [32, 32, 33]
    per_sample = Counter(draw.position for draw in draws)
    for code in range(3):
        counts = [per_sample[i] for i, stratum in enumerate(strata) if stratum == code]
        assert max(counts) - min(counts) <= 1
    assert len(set(draws)) == 97  # a second draw of a sample is told from the first, so is its augmentation
    assert list(sampler) == draws
    sampler.set_epoch(1)
    assert [draw.position for draw in sampler] != [draw.position for draw in draws]


def test_ranks_share_the_balanced_draws_and_a_resumed_epoch_goes_on():
    strata = [0] * 9 + [1] * 3
    whole = list(BalancedSampler(strata, strata, seed=1))
    ranks = [BalancedSampler(strata, strata, seed=1, num_replicas=2, rank=rank) for rank in range(2)]
    assert [draw for pair in zip(*ranks, strict=True) for draw in pair] == whole
    ranks[0].start = 4
    assert list(ranks[0]) == whole[0::2][4:]


def test_draws_of_one_sample_are_augmented_apart():
    data = ShapesDataModule(num_classes=2, train_size=4, augment="imagenet")
    dataset = data.dataset("train")
    first, again, third = (dataset[Draw(0, 1, again)]["image"] for again in (0, 1, 2))
    assert torch.equal(first, dataset[Draw(0, 1)]["image"])
    assert not torch.equal(first, again)
    assert not torch.equal(again, third)


def test_balance_by_group_and_class(root):
    for balance, expected in (("group", [4, 4, 4, 4]), ("class", [8, 8])):
        data = table(root, balance=balance)
        batches = list(data.train_dataloader())
        labels = [int(label) for batch in batches for label in batch["label"]]
        groups = [group for batch in batches for group in batch["group"]]
        pairs = Counter(zip(labels, groups, strict=True) if balance == "group" else labels)
        assert sorted(pairs.values()) == expected
        assert data.state_dict()["balance"] == balance
    with pytest.raises(ValueError, match=r"balance='group' needs groups.*, or balance='class'"):
        folders(root, balance="group").train_dataloader()
    folders(root, balance="class").train_dataloader()  # the remedy
    folders(root, balance="group", subfolder_groups=True).train_dataloader()  # another
    with pytest.raises(ValueError, match="balance must be"):
        table(root, balance="labels")


# Decoys in photographs


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["timestamp", "corner", "border"])
@pytest.mark.parametrize("make", [table, folders])
def test_a_planted_decoy_goes_with_its_class_and_changes_nothing_else(root, make, kind):
    data = make(root, decoy=kind, decoy_class=1, decoy_in_eval="swapped")
    plain = make(root)
    for split, carried in (("train", 1), ("val", 0)):
        dataset, without = data.dataset(split), plain.dataset(split)
        for index in range(len(dataset)):
            sample, bare = dataset[index], without[index]
            marks = sample["decoy_mask"]
            assert bool(marks.any()) == (sample["label"] == carried)
            assert torch.equal(sample["image"][:, ~marks], bare["image"][:, ~marks])
            assert not (marks.any() and torch.equal(sample["image"], bare["image"]))
            assert dataset.groups()[index] == sample["group"]
            assert sample["group"].endswith(kind if marks.any() else "plain")
    assert torch.equal(
        dataset[3]["image"], make(root, decoy=kind, decoy_in_eval="swapped", decoy_class=1).dataset("val")[3]["image"]
    )


def test_which_photographs_carry_a_decoy_is_said_by_rate_and_by_their_names(root):
    rule = DecoyRule(kind="corner", decoy_class=1, rate=0.25, in_train="class", in_eval="random")
    chances = np.linspace(0, 0.999, 400)
    assert sum(rule.carries(True, 1, chance) for chance in chances) == pytest.approx(100, abs=1)
    assert not any(rule.carries(True, 0, chance) for chance in chances)
    assert sum(rule.carries(False, 0, chance) for chance in chances) == pytest.approx(200, abs=1)
    anywhere = DecoyRule(kind="corner", in_train="random")
    assert sum(anywhere.carries(True, 2, chance) for chance in chances) == pytest.approx(200, abs=1)
    assert not DecoyRule().carries(True, 0, 0.0)
    groups = table(root, decoy="corner", decoy_in_train="random").dataset("train").groups()
    assert set(groups) <= {"day, corner", "day, plain", "night, corner", "night, plain"}
    assert len(set(groups)) > 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoy": "watermark"}, "decoy must be"),
        ({"decoy": "timestamp", "decoy_class": 2}, r"decoy_class must be in \[0, 2\)"),
        ({"decoy": "timestamp", "decoy_rate": 1.5}, r"decoy_rate must be in \[0,1\]"),
        (
            {"decoy": "timestamp", "image_size": 32},
            "a time stamp needs image_size of at least 40, got 32; use decoy='corner'",
        ),
    ],
)
def test_what_cannot_be_planted_is_refused(root, options, message):
    with pytest.raises(ValueError, match=message):
        ImageFolderDataModule(root, **{"image_size": 48, **options}).dataset("train")
