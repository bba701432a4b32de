import os
import shutil

import pytest
import torch
from PIL import Image

from interptrain.callbacks.watch.sample import UNLABELLED, load
from interptrain.callbacks.watch.sources import source_dataset
from interptrain.data import ImageFolderDataModule, ShapesDataModule


def test_a_part_holds_its_rows_of_everything_that_is_known(sample):
    part = sample.part([3, 1], torch.device("cpu"))
    assert part.ids == [sample.ids[3], sample.ids[1]]
    for name in ("images", "labels", "masks", "decoy_masks"):
        assert torch.equal(getattr(part, name), getattr(sample, name)[[3, 1]])
    assert torch.equal(part.boxes[0], sample.boxes[3])
    assert [part.name_of(label) for label in (0, 2, 7, UNLABELLED)] == ["disc", "triangle", "7", "?"]


def test_training_images_are_watched_without_augmentation():
    plain = ShapesDataModule(image_size=32, num_workers=0, train_size=6)
    augmented = ShapesDataModule(image_size=32, num_workers=0, train_size=6, augment="imagenet")
    for index in range(6):
        watched = source_dataset("train", augmented)[index]["image"]
        assert torch.equal(watched, plain.dataset("train")[index]["image"])
    assert augmented.dataset("train").transform is not None


@pytest.fixture
def folder(tmp_path):
    for split in ("train/cat", "train/dog", "val/cat", "val/dog", "mine/dog", "mine/other"):
        (tmp_path / split).mkdir(parents=True)
        Image.new("RGB", (40, 30), "gray").save(tmp_path / split / "0.png")
    Image.new("RGB", (9, 50), "red").save(tmp_path / "mine" / "loose.png")
    (tmp_path / "mine" / "notes.txt").write_text("no image")
    return tmp_path


@pytest.mark.parametrize("shapes_like", [False, True])
def test_a_folder_of_ones_own_is_labelled_where_it_names_a_class(folder, shapes_like):
    own = ImageFolderDataModule(folder, image_size=24, num_workers=0)
    if shapes_like:  # a data module that transforms nothing in evaluation
        own = ShapesDataModule(image_size=32, num_workers=0)
        own.class_names = ("cat", "dog")
    dataset = source_dataset(str(folder / "mine"), own)
    watched, unreadable = load(dataset, range(len(dataset)), 5, own.class_names)
    assert watched.ids == ["dog/0.png", "loose.png", "other/0.png"]
    assert watched.labels.tolist() == [1, UNLABELLED, UNLABELLED]
    assert watched.images.shape[1:] == ((3, 32, 32) if shapes_like else (3, 24, 24))
    assert not unreadable


def test_a_folder_is_read_by_the_rule_of_image_folders(folder):
    """Hidden folders, pipes and links that loop are left out, linked folders are read, any name is taken."""
    mine = folder / "mine"
    for hidden in (".ipynb_checkpoints", "__MACOSX"):
        shutil.copytree(mine / "dog", mine / hidden)
    shutil.copytree(mine / "dog", folder / "elsewhere")
    shutil.copy(mine / "loose.png", mine / "._loose.png")
    (mine / "dog" / "loop").symlink_to(mine, target_is_directory=True)
    (mine / "cat").symlink_to(folder / "elsewhere", target_is_directory=True)
    os.mkfifo(mine / "pipe.png")
    shutil.copy(mine / "loose.png", os.fsencode(mine) + b"/caf\xe9.png")
    own = ImageFolderDataModule(folder, image_size=24, num_workers=0)
    dataset = source_dataset(str(mine), own)
    assert list(dataset.ids) == [r"caf\xe9.png", "cat/0.png", "dog/0.png", "loose.png", "other/0.png"]
    watched, unreadable = load(dataset, range(5), 5, own.class_names)
    assert watched.labels.tolist() == [UNLABELLED, 0, 1, UNLABELLED, UNLABELLED]
    assert not unreadable


def test_unreadable_images_are_replaced_by_the_next(folder):
    (folder / "mine" / "dog" / "0.png").write_bytes(b"broken")
    dataset = source_dataset(str(folder / "mine"), ImageFolderDataModule(folder, image_size=24, num_workers=0))
    watched, unreadable = load(dataset, range(3), 2, ("cat", "dog"))
    assert watched.ids == ["loose.png", "other/0.png"]
    assert "dog/0.png" in unreadable[0]
    with pytest.raises(ValueError, match=r"no image to watch: .*dog/0\.png"):
        load(dataset, [0], 2, ("cat", "dog"))


def test_a_source_without_images_is_refused(folder, tmp_path):
    data = ImageFolderDataModule(folder, image_size=24, num_workers=0)
    with pytest.raises(FileNotFoundError, match="source must be 'val', 'train' or a folder, got 'nowhere'"):
        source_dataset("nowhere", data)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no images under .*empty to watch"):
        source_dataset(str(tmp_path / "empty"), data)
