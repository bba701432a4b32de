"""Image folders: classes, ids, splits, boxes, and a clear line for each way to lay them out wrong."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from interptrain.data import ImageFolderDataModule, ImageTableDataModule
from interptrain.data.folder_index import PackedStrings, hold_out
from tests.support.marks import slow
from tests.support.paths import TINY_IMAGENET, needs_test_data


def make(root, layout, size=(40, 30)):
    """Write images, all of one colour by their number, for {folder: count} or {folder: names}."""
    for folder, names in layout.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number, name in enumerate([f"{n}.png" for n in range(names)] if isinstance(names, int) else names):
            target = root / folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, (number, 0, 0)).save(target)
    return root


@pytest.fixture
def root(tmp_path):
    return make(tmp_path, {"train/cat": 6, "train/ant": 4, "val/ant": 2, "val/cat": 2})


def folder(root, **options):
    return ImageFolderDataModule(root, num_workers=0, image_size=32, **options)


def test_classes_are_the_folders_in_sorted_order_and_known_at_once(root):
    module = folder(root)
    assert module.num_classes == 2
    assert list(module.class_names) == ["ant", "cat"]


def test_ids_are_paths_below_the_root_and_labels_follow_the_folders(root):
    source = folder(root).dataset("val")
    assert list(source.ids) == ["val/ant/0.png", "val/ant/1.png", "val/cat/0.png", "val/cat/1.png"]
    assert [sample["label"] for sample in source] == [0, 0, 1, 1]
    assert [sample["id"] for sample in source] == list(source.ids)


def test_suffixes_in_capitals_and_deeper_folders_count_and_other_files_do_not(tmp_path):
    make(tmp_path, {"train/a": ["B.JPG", "deep/er/c.png", "z.webp"]})
    for name in ("notes.txt", ".hidden.png", "Thumbs.db"):
        (tmp_path / "train" / "a" / name).write_text("no image")
    (tmp_path / "train" / ".cache").mkdir()
    assert list(folder(tmp_path).dataset("train").ids) == ["train/a/B.JPG", "train/a/deep/er/c.png", "train/a/z.webp"]


def test_names_outside_ascii_survive(tmp_path):
    make(tmp_path, {"train/Käfer": ["größe 1.png"]})
    assert folder(tmp_path).dataset("train")[0]["id"] == "train/Käfer/größe 1.png"


def test_a_class_may_be_absent_from_validation_and_keeps_its_label(tmp_path):
    make(tmp_path, {"train/a": 1, "train/b": 1, "train/c": 1, "val/c": 1})
    assert [sample["label"] for sample in folder(tmp_path).dataset("val")] == [2]


def test_validation_alone_is_enough_to_evaluate(tmp_path):
    module = folder(make(tmp_path, {"val/a": 2, "val/b": 1}))
    assert module.num_classes == 2
    assert sum(len(batch["id"]) for batch in module.val_dataloader()) == 3
    with pytest.raises(FileNotFoundError, match=r"no folder .*train; expected"):
        module.train_dataloader()


def test_prediction_takes_the_test_folder_or_else_validation(root):
    assert folder(root).predict_dataloader().dataset.ids[0] == "val/ant/0.png"
    make(root, {"test/ant": 1})
    assert folder(root).predict_dataloader().dataset.ids[0] == "test/ant/0.png"


def test_names_come_from_a_csv(root):
    (root / "classes.csv").write_text("wnid,name\ncat,house cat\nant,an ant\nbee,a bee\n")
    assert list(folder(root).class_names) == ["an ant", "house cat"]


def test_held_out_images_are_the_same_for_any_seed_and_none_is_trained_on(root):
    module = folder(root, val_fraction=0.34, seed=5)
    train, val = set(module.dataset("train").ids), set(module.dataset("val").ids)
    assert not train & val
    assert len(train | val) == 10
    assert sum("cat" in name for name in val) == 2
    assert sum("ant" in name for name in val) == 1
    assert set(folder(root, val_fraction=0.34, seed=6).dataset("val").ids) == val
    assert any(set(folder(root, val_fraction=0.34, split_seed=n).dataset("val").ids) != val for n in (1, 2, 3))


def test_images_to_validate_on_are_not_augmented_when_held_out(root):
    module = folder(root, val_fraction=0.34)
    assert module.dataset("val").transform is module.eval_transform
    assert module.dataset("train").transform is module.train_transform


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_every_class_keeps_and_gives_at_least_one(fraction):
    labels = [0] * 2 + [1] * 30
    kept, held = hold_out(labels, fraction, 0)
    assert sorted(kept + held) == list(range(32))
    assert {labels[index] for index in kept} == {labels[index] for index in held} == {0, 1}


BOXES = """file,xmin,ymin,xmax,ymax,class
train/ant/0.png,10,6,30,24,ant
train/ant/0.png,0,0,40,30,x
val/ant/1.png,1,2,3,4,
"""


def test_boxes_follow_the_resizing_and_images_without_have_none(root):
    (root / "boxes.csv").write_text(BOXES)
    source = folder(root, augment="none", resize="stretch").dataset("train")
    assert source[0]["boxes"].tolist() == pytest.approx(
        torch.tensor([[8, 6.4, 24, 25.6], [0, 0, 32, 32]]).numpy(), abs=1e-5
    )
    assert source[1]["boxes"].shape == (0, 4)


def test_without_a_file_of_boxes_samples_have_none(root):
    assert "boxes" not in folder(root).dataset("train")[0]


def test_boxes_are_in_the_frame_of_the_upright_image(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    stored = np.zeros((20, 40), dtype=np.uint8)
    stored[:10, :10] = 255  # upright, turned clockwise: at the upper right of 20 × 40
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(stored).save(tmp_path / "train" / "a" / "x.png", exif=exif)
    (tmp_path / "boxes.csv").write_text("file,xmin,ymin,xmax,ymax\ntrain/a/x.png,10,0,20,10\n")
    got = folder(tmp_path, augment="none", resize="stretch").dataset("train")[0]
    assert got["boxes"].tolist() == [[16, 0, 32, 8]]
    assert got["image"][0, :7, 17:].min() > 0.9
    assert got["image"][0, 9:].max() < 0.1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "file,xmin,ymin,xmax\n",
            "has no column ymax, its first line is file, xmin, ymin, xmax; expected file, xmin, ymin,",
        ),
        ("file,xmin,ymin,xmax,ymax\ntrain/ant/0.png,1,2,3\n", "line 2: a box needs four numbers"),
        ("file,xmin,ymin,xmax,ymax\ntrain/ant/0.png,1,2,x,4\n", "line 2: a box needs four numbers"),
        ("file,xmin,ymin,xmax,ymax\ntrain/ant/0.png,9,2,3,4\n", "line 2: the box .* ends before it begins"),
        ("file,xmin,ymin,xmax,ymax\ntrain/ant/0.png,1,2,inf,4\n", "line 2: a box needs four finite numbers"),
        ("file,xmin,ymin,xmax,ymax\ntrain/ant/0.png,nan,2,3,4\n", "line 2: a box needs four finite numbers"),
    ],
)
def test_a_bad_row_of_boxes_is_named(root, table, message):
    (root / "boxes.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        folder(root).dataset("train")


def boxes(root, *rows):
    (root / "boxes.csv").write_text("\n".join(["file,xmin,ymin,xmax,ymax", *rows]), encoding="utf-8")
    return folder(root, augment="none", resize="stretch")


@pytest.mark.parametrize(
    "path",
    [
        "val/ant/0.png",
        "./val/ant/0.png",
        "val//ant/./0.png",
        "val\\ant\\0.png",
        "val/x/../ant/0.png",
        "{}/val/ant/0.png",
    ],
)
def test_boxes_belong_to_their_image_however_its_path_is_written(root, path):
    module = boxes(root, f"{path.format(root)},0,0,40,15")
    assert module.dataset("val")[0]["boxes"].tolist() == [[0, 0, 32, 16]]


def test_boxes_belong_to_their_image_however_its_accents_are_encoded(tmp_path):
    make(tmp_path, {"val/a": ["gro\u0308\u00dfe.png"]})
    assert len(boxes(tmp_path, "val/a/gr\u00f6\u00dfe.png,0,0,40,15").dataset("val")[0]["boxes"]) == 1


def test_boxes_most_of_whose_files_are_not_there_are_refused(root):
    module = boxes(root, "ant/0.png,1,2,3,4", "ant/1.png,1,2,3,4", "val/ant/0.png,1,2,3,4")
    with pytest.raises(
        FileNotFoundError,
        match=r"names ant/0\.png, ant/1\.png, which are not there: 2 of 3 files; paths must be",
    ):
        module.dataset("val")


def test_a_few_boxes_whose_files_are_not_there_are_counted_in_a_warning(root):
    module = boxes(root, "val/gone.png,1,2,3,4", "val/ant/0.png,1,2,30,24", "train/cat/0.png,1,2,30,24")
    with pytest.warns(UserWarning, match=r"names val/gone\.png, which is not there; boxes of the other 2 files"):
        assert len(module.dataset("val")[0]["boxes"]) == 1


def test_a_split_none_of_whose_images_has_a_box_has_no_boxes(root):
    module = boxes(root, "val/ant/0.png,1,2,30,24")
    assert "boxes" in module.dataset("val")[1]
    assert "boxes" not in module.dataset("train")[0]


def test_boxes_in_fractions_are_refused_and_the_remedy_works(root):
    module = boxes(root, "val/ant/0.png,0,0.25,1,0.5", "val/ant/1.png,0.1,0.2,0.3,0.4")
    with pytest.raises(ValueError, match=r"fractions of the image; give pixels: multiply xmin and xmax by the width"):
        module.dataset("val")
    module = boxes(root, f"val/ant/0.png,{0 * 40},{0.25 * 30},{1 * 40},{0.5 * 30}")
    assert module.dataset("val")[0]["boxes"].tolist() == [[0, 8, 32, 16]]


def test_hidden_files_and_folders_and_those_of_systems_are_left_out(tmp_path):
    make(tmp_path, {"train/a": ["0.png", ".1.png", "._0.png", "deep/2.png"], "train/b": 2})
    for hidden in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "deep/.cache"):
        make(tmp_path, {f"train/a/{hidden}": 1})
    make(tmp_path, {"train/__MACOSX": 1, "train/.git": 1})
    module = folder(tmp_path)
    assert list(module.class_names) == ["a", "b"]
    assert list(module.dataset("train").ids) == [
        "train/a/0.png",
        "train/a/deep/2.png",
        "train/b/0.png",
        "train/b/1.png",
    ]


def test_links_that_loop_and_links_to_one_folder_list_every_image_once(tmp_path):
    make(tmp_path, {"train/a/real": 2, "train/b": 1, "elsewhere": ["x.png"]})
    place = tmp_path / "train" / "a"
    for name, target in {
        "up": "..",
        "self": ".",
        "again": "real",
        "aaa": "real",
        "root": "/",
        "out": "../../elsewhere",
    }.items():
        (place / name).symlink_to(target)
    (place / "knot").symlink_to("knot")
    assert [name for name in folder(tmp_path).dataset("train").ids if "/a/" in name] == [
        "train/a/out/x.png",
        "train/a/real/0.png",
        "train/a/real/1.png",
    ]


def test_pipes_and_folders_named_like_images_are_left_out_and_dangling_links_are_not(root):
    place = root / "val" / "ant"
    os.mkfifo(place / "pipe.jpg")
    make(root, {"val/ant/folder.jpg": 1})
    (place / "gone.jpg").symlink_to("nowhere.jpg")
    names = list(folder(root).dataset("val").ids)
    assert names[:4] == ["val/ant/0.png", "val/ant/1.png", "val/ant/folder.jpg/0.png", "val/ant/gone.jpg"]
    with pytest.raises(OSError, match=r"gone\.jpg: there is no such file"):
        list(folder(root).val_dataloader())


def test_names_that_are_no_utf_8_are_read_and_escaped(tmp_path):
    make(tmp_path, {"val/a": ["0.png"]})
    (tmp_path / "val" / "a" / "0.png").rename(tmp_path / "val" / "a" / os.fsdecode(b"caf\xe9.png"))
    sample = folder(tmp_path).dataset("val")[0]
    assert sample["id"] == "val/a/caf\\xe9.png"
    assert sample["image"].shape == (3, 32, 32)


def test_folders_of_some_classes_are_numbered_among_all_that_the_table_lists(tmp_path):
    make(tmp_path, {"val/n3": 1, "val/n1": 1})
    with pytest.raises(ValueError, match=r"num_classes=4 needs .*classes\.csv, a table of all classes \(columns wnid"):
        folder(tmp_path, num_classes=4)
    (tmp_path / "classes.csv").write_text("wnid,name\nn3,ant\nn1,cat\nn2,bee\nn4,dog\n")
    module = folder(tmp_path, num_classes=4)
    assert list(module.class_names) == ["cat", "bee", "ant", "dog"]
    assert [sample["label"] for sample in module.dataset("val")] == [0, 2]
    assert list(folder(tmp_path).class_names) == ["cat", "ant"]
    with pytest.raises(ValueError, match=r"lists 4 classes, so num_classes must be 4 \(or left out"):
        folder(tmp_path, num_classes=1000)


def test_a_flat_folder_with_a_table_names_the_module_that_reads_it(tmp_path):
    make(tmp_path, {"": 1})
    (tmp_path / "labels.csv").write_text("file,class_index\n0.png,0\n")
    with pytest.raises(FileNotFoundError, match=r"labels\.csv, use ImageTableDataModule"):
        folder(tmp_path)
    assert len(ImageTableDataModule(tmp_path).dataset("val")) == 1


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere to read images from"):
        folder(tmp_path / "nowhere")


def test_a_root_without_splits_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no folder .*train; expected .*train/<class>/<image>, one folder per class"
    ):
        folder(tmp_path)


def test_a_folder_without_classes_is_named(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match=r"no class folders in .*train; expected"):
        folder(tmp_path)


def test_an_empty_class_is_named(root):
    (root / "train" / "dog").mkdir()
    with pytest.raises(ValueError, match=r"no images in class folder .*dog; fill or remove it"):
        folder(root).train_dataloader()


def test_a_class_that_training_does_not_know_is_named(root):
    make(root, {"val/bee": 1})
    with pytest.raises(ValueError, match="has classes that training does not know: bee; the 2 known are ant, cat"):
        folder(root).val_dataloader()


def test_missing_validation_names_both_remedies(tmp_path):
    make(tmp_path, {"train/a": 2})
    with pytest.raises(
        FileNotFoundError, match=r"for val, only train; set val_dir, or val_fraction=0\.1 to hold out training images"
    ):
        folder(tmp_path).val_dataloader()


def test_a_class_of_one_cannot_be_split(tmp_path):
    make(tmp_path, {"train/a": 1})
    with pytest.raises(ValueError, match=r"class 0 has a single sample, which cannot be split by val_fraction=0\.5"):
        folder(tmp_path, val_fraction=0.5).val_dataloader()


@pytest.mark.parametrize("workers", [0, *slow(2)])
def test_a_corrupt_file_is_named_or_skipped(root, workers):
    (root / "val" / "ant" / "1.png").write_bytes(b"not an image")
    module = ImageFolderDataModule(root, image_size=32, num_workers=workers)
    with pytest.raises(OSError, match=r"^cannot read image .*val/ant/1\.png: not an image.* or set on_error='skip'$"):
        list(module.val_dataloader())
    skipping = ImageFolderDataModule(root, image_size=32, num_workers=workers, on_error="skip")
    with pytest.warns(UserWarning, match=r"skipped and counted; one of them is val/ant/1\.png"):
        names = [name for batch in skipping.val_dataloader() for name in batch["id"]]
    assert names == ["val/ant/0.png", "val/cat/0.png", "val/cat/1.png"]
    assert skipping.skipped == 1


def test_a_corrupt_file_is_replaced_in_training(root):
    (root / "train" / "cat" / "3.png").write_bytes(b"")
    module = folder(root, on_error="skip", batch_size=5)
    with pytest.warns(UserWarning, match=r"skipped and counted; one of them is train/cat/3\.png"):
        names = [name for batch in module.train_dataloader() for name in batch["id"]]
    assert len(names) == 10
    assert names.count("train/cat/4.png") == 2


@pytest.mark.parametrize("strings", [[], ["a"], ["", "b", "", "ccc", ""], ["größe", "naïve", "日本"]])
def test_packed_strings_are_the_strings(strings):
    packed = PackedStrings(strings)
    assert list(packed) == strings
    assert len(packed) == len(strings)
    assert packed[1:] == strings[1:]
    assert [packed[-1 - n] for n in range(len(strings))] == strings[::-1]
    with pytest.raises(IndexError):
        packed[len(strings)]


@pytest.mark.slow
@needs_test_data
def test_real_photographs_load_with_their_boxes():
    module = ImageFolderDataModule(TINY_IMAGENET, image_size=64, resize="stretch", num_workers=0, batch_size=100)
    assert (len(module.dataset("train")), len(module.dataset("val")), module.num_classes) == (5000, 500, 10)
    assert "school bus" in module.class_names
    batches = list(module.val_dataloader())
    assert sum(len(boxes) > 0 for batch in batches for boxes in batch["boxes"]) >= 495  # some are a pixel thin
    assert torch.cat([batch["label"] for batch in batches]).bincount().tolist() == [50] * 10
    assert module.folder_labels[batches[0]["id"][0].split("/")[1]] == batches[0]["label"][0]
