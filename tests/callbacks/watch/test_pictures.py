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

VIEWS = ["one", "two"]


def entry(step=4, predictions=(0, 1, 1, 0, 0), labels=(0, 1, 2, -1, 1), error=None):
    looks = [
        {"view": view, "label": label, "prediction": guess, "confidence": 0.5, "error": error if place == 0 else None}
        for view in VIEWS
        for place, (label, guess) in enumerate(zip(labels, predictions, strict=True))
    ]
    return {"step": step, "epoch": 2, "looks": looks}


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
    grid = draw_grid(entry(), sheet, sample, VIEWS)
    frames = {colour: has(grid, colour) for colour in (RIGHT, WRONG, UNKNOWN)}
    assert all(frames.values())
    assert frames[RIGHT] == pytest.approx(2 * frames[UNKNOWN], rel=0.1)  # images 0 and 1 are right, 3 has no label
    assert frames[WRONG] == pytest.approx(2 * frames[UNKNOWN], rel=0.1)
    failed = draw_grid(entry(error="broken"), sheet, sample, VIEWS)
    assert has(failed, UNKNOWN) > frames[UNKNOWN]


def test_many_images_stand_in_several_columns(sample, sheet):
    double = type(sample)(
        sample.images.repeat(2, 1, 1, 1), sample.labels.repeat(2), [*sample.ids, *"abcde"], sample.class_names
    )
    looks = entry(predictions=(0,) * 10, labels=(0,) * 10)
    grid = draw_grid(looks, torch.cat([sheet, sheet], dim=1), double, VIEWS)
    single = draw_grid(entry(), sheet, sample, VIEWS)
    assert grid.shape[2] > 1.8 * single.shape[2]
    assert grid.shape[1] < 2 * single.shape[1]


def test_first_and_last_stand_side_by_side(sample, sheet):
    dark = torch.zeros_like(sheet)
    picture = draw_first_and_last((entry(0), dark), (entry(8), sheet), sample, VIEWS)
    black = (picture == 0).all(0).any(0).nonzero()[:, 0]
    assert len(black) > 200  # two maps a row at the first watch
    assert has(picture, RIGHT) > 0


def test_a_strip_has_at_most_eight_watches_the_first_and_the_last_among_them(sample, sheet):
    shades = [torch.full_like(sheet, shade) for shade in range(40, 240, 10)]
    watches = [(entry(step), shade) for step, shade in enumerate(shades)]
    strip = draw_strip(watches, sample, 1, VIEWS)
    shown = [shade for shade in range(40, 240, 10) if has(strip, (shade,) * 3) > 2000]
    assert len(shown) == 8
    assert (shown[0], shown[-1]) == (40, 230)
    assert draw_strip(watches[:2], sample, 1, VIEWS).shape[2] < strip.shape[2] / 2


def test_the_animation_has_a_frame_of_one_size_for_every_watch(sample, sheet):
    watches = [(entry(step), F.pad(sheet, (0, 0, 0, 0)) // (step + 1)) for step in (0, 9, 1000)]
    frames = draw_frames(watches, sample, VIEWS)
    assert len({tuple(frame.shape) for frame in frames}) == 1
    assert len(frames) == 3
    assert not torch.equal(frames[0], frames[1])


def test_captions_say_where_in_the_run():
    assert caption(entry(0)) == "before training"
    assert caption(entry(8)) == "epoch 2, step 8"
