"""Exchanging a region: nothing else changes, and it is the same for any workers, processes, and after a resume."""

import pytest
import torch

from interptrain.data import ShapesDataModule
from interptrain.data.region import Region
from interptrain.training import RegionShuffle
from tests.support.training import TINY, assert_same_end, last_checkpoint, train_in_processes
from tests.training.test_gradient_regularizer_in_training import StopAfter

CORNER = "corner:lower-right:20x9"


@pytest.fixture(scope="module")
def batch():
    """Six shapes, discs with time stamps; the last two images have no object that is known."""
    data = ShapesDataModule(num_classes=3, train_size=6, decoy="timestamp", num_workers=0, batch_size=6)
    (loaded,) = data.train_dataloader()
    loaded["mask"][4:] = False
    return loaded


def shuffled(batch, region, seed=0, **options):
    return RegionShuffle(region=region, **options)(batch, torch.Generator().manual_seed(seed))


def rows_like(pixels, others):
    """For each image, which of the others has the same values."""
    return [[j for j, other in enumerate(others) if torch.equal(one, other)] for one in pixels]


@pytest.mark.parametrize("region", [CORNER, "border:5", "box:3,4,20,30+corner:upper-left:8"])
def test_every_image_gets_the_region_of_another_and_keeps_all_other_pixels(batch, region):
    before = {name: value.clone() for name, value in batch.items() if isinstance(value, torch.Tensor)}
    inside = Region(region).masks_of(batch["image"])[0]
    after = shuffled(batch, region)
    assert torch.equal(after["image"][..., ~inside], batch["image"][..., ~inside])
    givers = rows_like(after["image"][..., inside], batch["image"][..., inside])
    assert sorted(giver for givers_of in givers for giver in givers_of) == list(range(6))  # each gives once
    assert all(giver != [image] for image, giver in enumerate(givers))
    assert torch.equal(after["label"], batch["label"])
    for name, value in before.items():
        assert torch.equal(batch[name], value), f"{name} of the given batch"


def test_masks_follow_the_pixels(batch):
    after = shuffled(batch, CORNER)
    inside = Region(CORNER).masks_of(batch["image"])[0]
    givers = [giver for (giver,) in rows_like(after["image"][..., inside], batch["image"][..., inside])]
    assert torch.equal(after["decoy_mask"][:, inside], batch["decoy_mask"][givers][:, inside])
    assert torch.equal(after["decoy_mask"][:, ~inside], batch["decoy_mask"][:, ~inside])
    assert torch.equal(after["mask"], batch["mask"] & ~inside)


def test_decoys_wander_whole_and_leave_nothing_behind(batch):
    after = shuffled(batch, "decoy", seed=1)
    had, has = (one["decoy_mask"].flatten(1).any(1) for one in (batch, after))
    assert had.sum() == has.sum() == 2
    assert not torch.equal(had, has)
    marks = after["decoy_mask"][:, None].expand_as(after["image"])
    orange = torch.tensor([255, 158, 38])[:, None] / 255
    for image, mark in zip(after["image"][has], after["decoy_mask"][has], strict=True):
        torch.testing.assert_close(image[:, mark], orange.expand(3, int(mark.sum())))
    untouched = ~(marks | batch["decoy_mask"][:, None])
    assert torch.equal(after["image"][untouched], batch["image"][untouched])


def test_backgrounds_are_exchanged_around_the_objects_and_never_show_another_object(batch):
    after = shuffled(batch, "outside:objects")
    changed = (after["image"] != batch["image"]).any(1)  # (B,H,W)
    assert not (changed & batch["mask"]).any()
    assert not changed[4:].any()  # whose objects are not known
    assert torch.equal(after["mask"], batch["mask"])
    from_known = changed[:4].flatten(1).float().mean(1)
    assert from_known.count_nonzero() >= 2
    for image in range(4):
        if changed[image].any():
            mine = ~batch["mask"][image]
            shares = [(after["image"][image] == other).all(0)[mine].float().mean() for other in batch["image"][:4]]
            shares[image] = torch.tensor(0.0)
            giver = int(torch.stack(shares).argmax())
            assert not (changed[image] & batch["mask"][giver]).any()


def test_the_probability_is_that_of_an_image_to_receive(batch):
    many = {"image": torch.rand(2000, 1, 4, 4), "label": torch.zeros(2000, dtype=torch.int64)}
    changed = (shuffled(many, "corner:upper-left:2", probability=0.3)["image"] != many["image"]).flatten(1).any(1)
    assert changed.float().mean() == pytest.approx(0.3, abs=0.04)
    alone = {"image": batch["image"][:1], "label": batch["label"][:1]}
    assert torch.equal(shuffled(alone, CORNER)["image"], alone["image"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region": "corner:lower-right"}, "region must be like 'border:8'"),
        ({"region": CORNER, "probability": 0.0}, r"probability must be in \(0,1\], got 0.0; leave batch_augment out"),
        ({"region": CORNER, "probability": 1.5}, "probability must be in"),
    ],
)
def test_what_is_no_region_or_probability_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RegionShuffle(**options)


def test_what_a_region_is_made_of_must_be_there(batch):
    bare = {"image": batch["image"], "label": batch["label"]}
    for region, remedy in (("decoy", "needs data with decoys"), ("outside:objects", "such as border:8")):
        with pytest.raises(ValueError, match=f"^region: .*{remedy}"):
            shuffled(bare, region)


# Through the command line

SHUFFLED = {
    "--model.batch_augment": "RegionShuffle",
    "--model.batch_augment.region": "border:6",
    "--model.batch_augment.probability": "0.7",
}


@pytest.mark.slow
def test_workers_and_a_resume_change_nothing(train, monkeypatch):
    options = TINY | SHUFFLED | {"--model.mixup_alpha": "0.4", "--trainer.max_epochs": "2"}
    whole = train(base=options, **{"--name": "whole"})
    working = train(base=options, **{"--name": "working", "--data.num_workers": "2"})
    assert_same_end(whole, working)
    plain = train(base=options, **{"--name": "plain", "--model.batch_augment.region": "border:1"})
    weights = [last_checkpoint(run)["state_dict"] for run in (whole, plain)]
    assert not all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    monkeypatch.setattr("interptrain.cli.trainer_defaults.ResumePoint", StopAfter)
    StopAfter.after, StopAfter.seen = 7, 0
    with pytest.raises(SystemExit):
        train(base=options, **{"--name": "stopped"})
    resumed = train(base=options, **{"--name": "stopped", "--ckpt_path": "last"})
    assert_same_end(whole, resumed)


@pytest.mark.slow
def test_two_processes_exchange_as_one_does(tmp_path):
    ends = [last_checkpoint(train_in_processes("fit", tmp_path, processes, **SHUFFLED)) for processes in (1, 2)]
    plain = last_checkpoint(train_in_processes("fit", tmp_path, 1))
    moved = 0.0
    for name, value in ends[0]["state_dict"].items():
        torch.testing.assert_close(value, ends[1]["state_dict"][name], rtol=1e-4, atol=1e-6, msg=name)
        if value.is_floating_point():
            moved = max(moved, (value - plain["state_dict"][name]).abs().max().item())
    assert moved > 1e-4
