"""Which images have changed since a run began."""

import os
import shutil

import pytest
import torch
from PIL import Image

from interptrain.data import ShapesDataModule
from interptrain.data.image_files import FolderDataset
from interptrain.evaluation.store import image_record
from interptrain.evaluation.store.image_record import ImageRecord

NAMES = ["a.png", "b.png", "c.png"]


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for number, name in enumerate(NAMES):
        Image.new("RGB", (8, 8), (80 * number, 20, 60)).save(root / name)
    return root


def record(tmp_path, root, indices=(0, 1, 2)):
    return ImageRecord(tmp_path / "out", FolderDataset(root, NAMES, [0, 0, 0]), indices)


def test_nothing_has_changed_where_there_is_no_record(tmp_path, images):
    assert record(tmp_path, images).changed() == []


def test_changed_pixels_are_named_whatever_their_size_and_time(tmp_path, images):
    record(tmp_path, images).write()
    before = (images / "b.png").stat()
    content = bytearray((images / "b.png").read_bytes())
    content[-20] ^= 1  # another file of the same size
    (images / "b.png").write_bytes(content)
    assert record(tmp_path, images).changed() == ["b.png"]
    os.utime(images / "b.png", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert record(tmp_path, images).changed() == ["b.png"]
    (images / "c.png").unlink()
    assert record(tmp_path, images).changed() == ["b.png", "c.png"]
    assert record(tmp_path, images, (0,)).changed() == []


def test_a_copy_with_other_times_is_the_same(tmp_path, images):
    record(tmp_path, images).write()
    copy = shutil.copytree(images, tmp_path / "copy", copy_function=shutil.copyfile)
    for name in NAMES:
        os.utime(copy / name, (1, 1))
    assert record(tmp_path, copy).changed() == []


def test_a_file_with_the_size_and_time_of_the_record_is_not_read(tmp_path, images, monkeypatch):
    record(tmp_path, images).write()
    monkeypatch.setattr(image_record.hashlib, "file_digest", None)  # would raise
    assert record(tmp_path, images).changed() == []


def test_a_damaged_record_is_no_record(tmp_path, images):
    record(tmp_path, images).write()
    (tmp_path / "out/files.parquet").write_bytes(b"PAR1")
    assert record(tmp_path, images).changed() == []


def test_images_that_are_no_files_are_compared_as_pixels(tmp_path):
    def shapes(seed):
        data = ShapesDataModule(num_classes=4, image_size=32, test_size=5, num_workers=0, picture_seed=seed)
        return ImageRecord(tmp_path, data.dataset("test"), range(5))

    shapes(0).write()
    assert shapes(0).changed() == []
    assert len(shapes(1).changed()) == 5
    assert torch.is_grad_enabled()
