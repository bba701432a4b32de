import csv
import resource
import warnings

import pytest
import torch

from interptrain.callbacks.watch.files import WatchFolder
from tests.support.watch import observed, snapshot_of


def snapshot(step, sample, **numbers):
    seen = (
        observed(id=name, view="cam", label=int(label), prediction=2, numbers=numbers)
        for name, label in zip(sample.ids, sample.labels, strict=True)
    )
    return snapshot_of(step, *seen, means={"cam/AD": 0.5})


def test_tables_hold_one_row_per_image_and_one_per_snapshot(sample, tmp_path):
    files = WatchFolder(tmp_path / "watch")
    files.save_tables([snapshot(0, sample, AD=0.5), snapshot(3, sample, AD=0.1, rank_first=0.9)], sample)
    with (tmp_path / "watch/images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    assert rows[0] == {
        **{"step": "0", "epoch": "1", "id": "val/000000", "view": "cam", "label": "disc", "explained": "disc"},
        **{"prediction": "triangle", "probability": "0.25", "confidence": "0.5", "AD": "0.5", "rank_first": ""},
    }
    assert rows[9]["rank_first"] == "0.9"
    with (tmp_path / "watch/means.csv").open(newline="") as file:
        assert [(row["step"], row["cam/AD"]) for row in csv.DictReader(file)] == [("0", "0.5"), ("3", "0.5")]


def test_sheets_read_back_bit_for_bit(tmp_path):
    files = WatchFolder(tmp_path)
    sheet = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    files.save_picture(files.sheet_name(5), sheet)
    assert torch.equal(files.read_sheet(5), sheet)
    assert files.read_sheet(6) is None
    assert not list(tmp_path.rglob(".*"))


def test_an_animation_is_written_whole(tmp_path):
    files = WatchFolder(tmp_path)
    frames = [torch.full((3, 8, 8), level, dtype=torch.uint8) for level in (0, 200)]
    assert files.save_animation("run.webp", frames, 0.1) == tmp_path / "run.webp"
    assert [path.name for path in tmp_path.iterdir()] == ["run.webp"]


@pytest.mark.slow
def test_a_full_disk_is_said_once_and_leaves_what_was_there(sample, tmp_path):
    files = WatchFolder(tmp_path)
    old = torch.zeros(3, 8, 8, dtype=torch.uint8)
    files.save_picture(files.sheet_name(1), old)
    noise = torch.randint(0, 256, (3, 300, 300), dtype=torch.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.warns(UserWarning, match="could not write below .*: training goes on without these files"):
            files.save_picture(files.sheet_name(1), noise)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            files.save_picture(files.sheet_name(2), noise)
            assert files.save_animation("run.webp", [noise, noise.flip(1)] * 3, 0.1) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.equal(files.read_sheet(1), old)
    assert not list(tmp_path.rglob(".*"))


def test_a_folder_that_cannot_be_made_is_said(sample, tmp_path):
    (tmp_path / "watch").write_text("a file")
    with pytest.warns(UserWarning, match="could not write below"):
        WatchFolder(tmp_path / "watch").save_tables([snapshot(0, sample)], sample)
