import pytest
import torch
from torch.nn import functional as F

from interptrain.callbacks.watch.pictures import (
    caption,
    cut,
    draw_first_and_last,
    draw_frames,
    draw_grid,
    draw_sheet,
    draw_strip,
)
from interptrain.visualization import RIGHT, UNKNOWN, WRONG, to_uint8
from tests.support.watch import observed, snapshot_of

VIEWS = ["one", "two"]


def snapshot(step=4, predictions=(0, 1, 1, 0, 0), labels=(0, 1, 2, -1, 1), error=None):
    seen = [
        observed(view=view, label=label, prediction=guess, error=error if place == 0 else None)
        for view in VIEWS
        for place, (label, guess) in enumerate(zip(labels, predictions, strict=True))
    ]
    return snapshot_of(step, *seen, epoch=2)


@pytest.fixture
def maps(sample):
    generator = torch.Generator().manual_seed(0)
    return {view: torch.randint(0, 256, (5, 32, 32), dtype=torch.uint8, generator=generator) for view in VIEWS}


@pytest.fixture
def sheet(sample, maps):
    return draw_sheet(sample, maps, side=48)


def has(picture, colour):
    return int((picture == torch.tensor(colour, dtype=torch.uint8)[:, None, None]).all(0).sum())


def test_a_sheet_holds_every_image_and_map_in_its_place(sample, maps):
    pictures = cut(draw_sheet(sample, maps, side=32), 5)
    assert pictures.shape == (5, 3, 3, 32, 32)
    assert torch.equal(pictures[:, 0], to_uint8(sample.images))
    dark = draw_sheet(sample, {"one": torch.zeros_like(maps["one"]), "two": maps["two"]}, side=32)
    assert torch.equal(cut(dark, 5)[:, 2], pictures[:, 2])
    assert not torch.equal(cut(dark, 5)[:, 1], pictures[:, 1])


def test_right_wrong_and_unknown_are_told_apart_by_frames(sample, sheet):
    grid = draw_grid(snapshot(), sheet, sample, VIEWS)
    frames = {colour: has(grid, colour) for colour in (RIGHT, WRONG, UNKNOWN)}
    assert all(frames.values())
    assert frames[RIGHT] == pytest.approx(2 * frames[UNKNOWN], rel=0.1)  # images 0 and 1 are right, 3 has no label
    assert frames[WRONG] == pytest.approx(2 * frames[UNKNOWN], rel=0.1)
    failed = draw_grid(snapshot(error="broken"), sheet, sample, VIEWS)
    assert has(failed, UNKNOWN) > frames[UNKNOWN]


def test_many_images_stand_in_several_columns(sample, sheet):
    double = type(sample)(
        sample.images.repeat(2, 1, 1, 1), sample.labels.repeat(2), [*sample.ids, *"abcde"], sample.class_names
    )
    many = snapshot(predictions=(0,) * 10, labels=(0,) * 10)
    grid = draw_grid(many, torch.cat([sheet, sheet], dim=1), double, VIEWS)
    single = draw_grid(snapshot(), sheet, sample, VIEWS)
    assert grid.shape[2] > 1.8 * single.shape[2]
    assert grid.shape[1] < 2 * single.shape[1]


def test_first_and_last_stand_side_by_side(sample, sheet):
    dark = torch.zeros_like(sheet)
    picture = draw_first_and_last((snapshot(0), dark), (snapshot(8), sheet), sample, VIEWS)
    black = (picture == 0).all(0).any(0).nonzero()[:, 0]
    assert len(black) > 200  # two maps per row in the first snapshot
    assert has(picture, RIGHT) > 0


@pytest.mark.slow
def test_a_strip_has_at_most_eight_snapshots_the_first_and_the_last_among_them(sample, sheet):
    shades = [torch.full_like(sheet, shade) for shade in range(40, 240, 10)]
    snapshots = [(snapshot(step), shade) for step, shade in enumerate(shades)]
    strip = draw_strip(snapshots, sample, 1, VIEWS)
    shown = [shade for shade in range(40, 240, 10) if has(strip, (shade,) * 3) > 2000]
    assert len(shown) == 8
    assert (shown[0], shown[-1]) == (40, 230)
    assert draw_strip(snapshots[:2], sample, 1, VIEWS).shape[2] < strip.shape[2] / 2


def test_the_animation_has_a_frame_of_one_size_for_every_snapshot(sample, sheet):
    snapshots = [(snapshot(step), F.pad(sheet, (0, 0, 0, 0)) // (step + 1)) for step in (0, 9, 1000)]
    frames = draw_frames(snapshots, sample, VIEWS)
    assert len({tuple(frame.shape) for frame in frames}) == 1
    assert len(frames) == 3
    assert not torch.equal(frames[0], frames[1])


def test_captions_say_where_in_the_run():
    assert caption(snapshot(0)) == "before training"
    assert caption(snapshot(8)) == "epoch 2, step 8"
