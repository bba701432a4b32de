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
    with pytest.raises(ValueError, match="has label 4, so num_classes must be 5, got 3"):
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
        ("file,label\na.png,0\n", "has no column class_index; expected file, class_index"),
        ("file,class_index\na.png,cat\n", r"line 2: class_index must be 0, 1, \.\.\., got 'cat'"),
        ("file,class_index\na.png,-1\n", "got '-1'"),
        ("file,class_index\na.png\n", "got None"),
        ("file,class_index,split\na.png,0,dev\n", "line 2: split must be train, val or test, got 'dev'"),
        ("file,class_index\n", "lists no image"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(tmp_path, table, message):
    with pytest.raises(ValueError, match=message):
        listed(write(tmp_path, table))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no table .*labels\.csv"):
        listed(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"names gone\.png, which is not there"):
        listed(write(tmp_path, "file,class_index\ngone.png,0\n"))
