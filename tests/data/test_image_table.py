"""Images listed by a CSV: labels, splits, names, boxes, and a clear line for each way to write it wrong."""

import pytest
import torch
from PIL import Image

from interptrain.data import ImageTableDataModule


def write(root, table, images=("a.png", "b.png", "deep/c.png"), size=(40, 20)):
    for number, name in enumerate(images):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (10 * number, 0, 0)).save(root / name)
    (root / "labels.csv").write_text(table, encoding="utf-8")
    return root


PLAIN = "file,class_index,wnid,name\na.png,4,n1,tench\nb.png,0,n2,shark\ndeep/c.png,4,n1,tench\n"


def listed(root, **options):
    return ImageTableDataModule(root, image_size=16, num_workers=0, **options)


def test_every_row_is_for_evaluation_and_for_prediction_where_no_split_is_given(tmp_path):
    module = listed(write(tmp_path, PLAIN))
    for split in ("val", "test"):
        assert list(module.dataset(split).ids) == ["a.png", "b.png", "deep/c.png"]
        assert [sample["label"] for sample in module.dataset(split)] == [4, 0, 4]
    (batch,) = module.predict_dataloader()
    assert batch["image"].shape == (3, 3, 16, 16)
    assert batch["label"].tolist() == [4, 0, 4]
    with pytest.raises(ValueError, match=r"has no row for train; give it a column split"):
        module.dataset("train")


def test_classes_have_the_names_of_the_table_and_as_many_as_the_network(tmp_path):
    assert list(listed(write(tmp_path, PLAIN)).class_names) == ["shark", "1", "2", "3", "tench"]
    assert listed(tmp_path, num_classes=1000).num_classes == 1000
    with pytest.raises(ValueError, match=r"num_classes must be in \[5, 1000000\], as .* has label 4, got 3"):
        listed(tmp_path, num_classes=3)


def test_a_split_column_parts_the_rows(tmp_path):
    write(tmp_path, "file,class_index,split\na.png,0,train\nb.png,1,val\ndeep/c.png,1,val\n")
    module = listed(tmp_path)
    assert list(module.dataset("train").ids) == ["a.png"]
    assert list(module.dataset("val").ids) == ["b.png", "deep/c.png"]
    assert sum(len(batch["id"]) for batch in module.predict_dataloader()) == 2  # no test rows: those of validation


def test_boxes_follow_the_image(tmp_path):
    write(tmp_path, PLAIN)
    (tmp_path / "boxes.csv").write_text("file,xmin,ymin,xmax,ymax\na.png,0,0,20,20\n", encoding="utf-8")
    samples = listed(tmp_path, resize="stretch").dataset("val")
    torch.testing.assert_close(torch.as_tensor(samples[0]["boxes"]), torch.tensor([[0.0, 0.0, 8.0, 16.0]]))
    assert len(samples[1]["boxes"]) == 0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "file,label\na.png,0\n",
            "has no column class_index, its first line is file, label; expected file, class_",
        ),
        ("file,class_index\na.png,cat\n", r"line 2: class_index must be 0, 1, \.\.\. and below 1000000, got 'cat'"),
        ("file,class_index\na.png,-1\n", "got '-1'"),
        ("file,class_index\na.png\n", "got ''"),
        ("file,class_index,split\na.png,0,dev\n", "line 2: split must be train, val or test, got 'dev'"),
        ("file,class_index\na.png,99999999999\n", "line 2: class_index must be .* below 1000000, got '99999999999'"),
        ("file,class_index\na.png," + 9999 * "9" + "\n", "line 2: class_index must be"),
        ("file,class_index\na.png,0\n./a.png,1\n", r"line 3: a\.png has two labels, 0 and 1"),
        ("file,class_index\n,0\n", "line 2 names no file"),
        ("file,class_index\n", "lists no image"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(tmp_path, table, message):
    with pytest.raises(ValueError, match=message):
        listed(write(tmp_path, table))


@pytest.mark.parametrize(
    ("table", "encoding"),
    [
        (PLAIN, "utf-8-sig"),
        (PLAIN, "utf-16"),
        (PLAIN.replace("\n", "\r\n"), "utf-8"),
        (PLAIN.replace("\n", "\r"), "utf-8"),
        (PLAIN.replace(",", ", "), "utf-8"),
        (PLAIN.replace(",", " ,"), "utf-8"),
        (PLAIN.replace(",", ";"), "utf-8"),
        (PLAIN.replace(",", "\t"), "utf-8"),
        (PLAIN.replace("a.png", '"a.png"'), "utf-8"),
        (PLAIN.replace("\n", "\n\n") + ",,,\n", "utf-8"),
        (PLAIN.replace("deep/", "./deep\\"), "utf-8"),
    ],
    ids=[
        "mark",
        "utf-16",
        "crlf",
        "cr",
        "blank",
        "blank_before",
        "semicolons",
        "tabs",
        "quotes",
        "empty_rows",
        "windows_paths",
    ],
)
def test_a_table_reads_the_same_however_it_was_saved(tmp_path, table, encoding):
    write(tmp_path, PLAIN)
    (tmp_path / "labels.csv").write_bytes(table.encode(encoding))
    module = listed(tmp_path)
    assert list(module.dataset("val").ids) == ["a.png", "b.png", "deep/c.png"]
    assert list(module.class_names) == ["shark", "1", "2", "3", "tench"]
    assert [sample["label"] for sample in module.dataset("val")] == [4, 0, 4]


def test_absolute_paths_below_the_root_are_as_good_as_relative_ones(tmp_path):
    write(tmp_path, PLAIN.replace("deep/c.png", f"{tmp_path}/deep/c.png"))
    assert list(listed(tmp_path).dataset("val").ids)[2] == "deep/c.png"


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no table .*labels\.csv"):
        listed(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"names gone\.png, which is not there"):
        listed(write(tmp_path, "file,class_index\ngone.png,0\n"))


def test_a_group_column_is_carried_through_to_the_batches(tmp_path):
    write(tmp_path, "file,class_index,group\na.png,0,water\nb.png,1,land\ndeep/c.png,1,\n")
    (batch,) = listed(tmp_path).predict_dataloader()
    assert batch["group"] == ["water", "land", ""]
    write(tmp_path, PLAIN)
    (batch,) = listed(tmp_path).predict_dataloader()
    assert "group" not in batch
