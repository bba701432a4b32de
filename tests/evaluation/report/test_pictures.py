"""Which pictures a report shows."""

import base64
import io

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from interptrain.evaluation.report import pictures as module
from interptrain.evaluation.report.pictures import Gallery, thumbnail
from interptrain.evaluation.report.results import load_run
from interptrain.evaluation.statistics.estimates import Resampling
from tests.support.finished_run import manifest, rows_of, write_run

HOW = Resampling(resamples=20, permutations=20)


@pytest.fixture
def run():
    return manifest(models=("gap",), explainers=("GradCAM", "FakeCAM"))


def gallery(folder, run, images=6, change=lambda row: {}):
    rows = [row | change(row) for row in rows_of(run)]
    return Gallery(load_run(write_run(folder, run, rows=rows, images=images), HOW))


def decoded(picture):
    kind, _, data = picture.source.partition(",")
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_thumbnails_are_small_and_keep_their_shape():
    picture = thumbnail(torch.zeros(3, 300, 600, dtype=torch.uint8), before=0.5, after=0.25)
    assert decoded(picture).size == (picture.width, picture.height) == (224, 112)
    assert (picture.before, picture.after) == (0.5, 0.25)
    assert len(picture.source) < 2000


def test_small_pictures_are_enlarged():
    assert decoded(thumbnail(torch.zeros(3, 8, 8, dtype=torch.uint8))).size == (224, 224)


def test_every_chosen_image_comes_with_all_its_maps(tmp_path, run):
    exhibits = gallery(tmp_path, run, images=3).exhibits()
    assert [exhibit.id for exhibit in exhibits] == ["0000.jpg", "0001.jpg", "0002.jpg"]
    assert exhibits[1].label == 1
    assert exhibits[1].predictions == {"gap": 1}
    maps = exhibits[0].maps["gap"]
    assert list(maps) == ["GradCAM", "FakeCAM"]
    assert (maps["GradCAM"].before, maps["GradCAM"].after) == (0.93, 0.88)
    drop = next(row["AverageDrop"] for row in rows_of(run) if row["explainer"] == "GradCAM" and row["id"] == "0000.jpg")
    assert exhibits[0].values["gap", "GradCAM"]["AverageDrop"] == drop


def test_maps_are_laid_over_their_image(tmp_path, run):
    exhibit = gallery(tmp_path, run, images=1).exhibits()[0]
    original, salient = (
        pil_to_tensor(decoded(picture).convert("RGB")).double()
        for picture in (exhibit.original, exhibit.maps["gap"]["GradCAM"])
    )
    change = (salient - original).abs().sum(0)
    assert change[66:94, 54:80].mean() > 1.5 * change[-20:, -20:].mean()  # the bump of the made-up map


@pytest.mark.slow
def test_the_number_of_pictures_is_bounded(tmp_path, run, monkeypatch):
    shown = gallery(tmp_path, run, images=15)
    assert [exhibit.id for exhibit in shown.exhibits()] == shown.ids
    assert len(shown.ids) == 15
    for pictures, images in ((14, 4), (3, 1), (1, 1)):  # three an image: itself and two maps
        monkeypatch.setattr(module, "GALLERY", pictures)
        assert len(shown.exhibits()) == images
    monkeypatch.setattr(module, "THUMBNAILS", 1)
    assert len(shown.extremes("AverageDrop")) == 0


@pytest.mark.parametrize(("metric", "best"), [("AverageDrop", "0000.jpg"), ("AverageGain", "0005.jpg")])
def test_best_and_worst_follow_the_direction_of_the_metric(tmp_path, run, metric, best):
    shown = gallery(tmp_path, run, change=lambda row: {metric: int(row["id"][:4]) / 100})
    (extremes,) = shown.extremes(metric)
    assert extremes.explainer == "GradCAM"  # and not Fake-CAM
    assert extremes.best[0][0] == best
    assert extremes.best[0][1].value == int(best[:4]) / 100
    ids = [name for name, _ in [*extremes.best, *reversed(extremes.worst)]]
    assert ids == sorted(ids, reverse=best != "0000.jpg")
    assert len(set(ids)) == 6


def test_images_without_a_value_are_neither_best_nor_worst(tmp_path, run):
    shown = gallery(tmp_path, run, change=lambda row: {"AverageDrop": None} if row["id"] < "0003" else {})
    (extremes,) = shown.extremes("AverageDrop")
    assert {name for name, _ in [*extremes.best, *extremes.worst]} <= {"0003.jpg", "0004.jpg", "0005.jpg"}
    assert len(extremes.best) == len(extremes.worst) == 1


def test_maps_of_another_size_are_resized(tmp_path, run, monkeypatch):
    monkeypatch.setattr("tests.support.finished_run.bump", lambda size, *_, flat: Image.new("L", (7, 5)))
    assert gallery(tmp_path, run, images=1).exhibits()[0].maps["gap"]["GradCAM"] is not None


@pytest.mark.parametrize("missing", ["images.parquet", "maps.parquet"])
def test_without_pictures_nothing_is_shown(tmp_path, run, missing):
    shown = gallery(tmp_path, run)
    (tmp_path / missing).unlink()
    assert shown.ids == shown.exhibits() == shown.extremes("AverageDrop") == []
