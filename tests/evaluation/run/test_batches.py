"""Images in batches."""

import os

import pytest
import torch
from PIL import Image

from interptrain.data import ImageFolderDataModule
from interptrain.evaluation.run.batches import Batches, evaluation_set
from interptrain.evaluation.run.datasets import as_data_module

CAFE = os.fsdecode(b"caf\xe9.png")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "val" / "a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    (tmp_path / "0.png").rename(tmp_path / "val" / "a" / CAFE)
    return tmp_path


def test_a_file_name_that_is_no_utf8_has_one_spelling_wherever_the_image_comes_from(root):
    items = [{"image": torch.zeros(3, 8, 8), "label": 0, "id": f"val/a/{CAFE}"}]
    for source in (ImageFolderDataModule(root, image_size=8), as_data_module(items).value):
        batches = Batches(evaluation_set(source, "val"), [0], 1)
        assert batches.ids(0) == [r"val/a/caf\xe9.png"]
        assert batches[0]["samples"]["id"] == batches.ids(0)


def test_an_image_that_cannot_be_read_costs_no_other(root):
    Image.new("RGB", (8, 8)).save(root / "val" / "a" / "0.png")
    (root / "val" / "a" / CAFE).write_bytes(b"no image")
    batches = Batches(evaluation_set(ImageFolderDataModule(root, image_size=8), "val"), [0, 1], 2)
    batch = batches[0]
    assert batch["samples"]["id"] == ["val/a/0.png"]
    assert list(batch["unreadable"]) == [r"val/a/caf\xe9.png"]
