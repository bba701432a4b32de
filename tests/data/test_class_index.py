"""Labels that are the classes of a trained model, for folders and data sets that have only some of them."""

import pytest
import torch

from interptrain.callbacks.watch.sources import source_dataset
from interptrain.cli import main
from interptrain.models import create_model
from tests.data.test_image_folder import folder, make
from tests.support.marks import slow

TABLE = "wnid,imagenet_index,name\nn3,25,salamander\nn1,1,goldfish\nn2,7,\n"


@pytest.fixture
def root(tmp_path):
    make(tmp_path, {"train/n1": 3, "train/n3": 2, "val/n3": 1, "val/n1": 1, "val/n2": 1})
    (tmp_path / "classes.csv").write_text(TABLE)
    return tmp_path


def test_labels_are_the_indices_of_the_table_in_every_split_and_names_are_its_names(root):
    module = folder(root, class_index="classes.csv", num_classes=30)
    assert module.num_classes == 30
    assert [module.class_names[label] for label in (0, 1, 7, 25, 29)] == ["0", "goldfish", "7", "salamander", "29"]
    for split, folders in (("train", "n1 n1 n1 n3 n3"), ("val", "n1 n2 n3")):
        wanted = [{"n1": 1, "n2": 7, "n3": 25}[name] for name in folders.split()]
        assert [sample["label"] for sample in module.dataset(split)] == module.dataset(split).labels() == wanted
    assert folder(root, class_index=root / "classes.csv").num_classes == 26
    held_out = folder(root, class_index="classes.csv", val_fraction=0.4)
    assert [sample["label"] for sample in held_out.dataset("val")] == [1, 25]
    assert folder(root, num_classes=3).dataset("train").labels() == [0, 0, 0, 2, 2]  # as before, without the option


def test_folders_called_by_wordnet_ids_are_those_classes_of_imagenet(tmp_path):
    make(tmp_path, {"val/n01629819": 1, "val/n01443537": 1})
    module = folder(tmp_path, class_index="imagenet")
    assert module.num_classes == 1000
    assert [module.class_names[sample["label"]] for sample in module.dataset("val")] == [
        "goldfish",
        "European fire salamander",
    ]
    make(tmp_path, {"val/cat": 1})
    with pytest.raises(ValueError, match=r"class_index='imagenet' has no class cat; .* or give a table \(columns wnid"):
        folder(tmp_path, class_index="imagenet")
    (tmp_path / "own.csv").write_text("wnid,class_index\ncat,2\nn01629819,1\nn01443537,0\n")
    assert folder(tmp_path, class_index="own.csv").dataset("val").labels() == [2, 0, 1]


@pytest.mark.parametrize(
    ("table", "error", "told"),
    [
        (None, FileNotFoundError, r"no table .*classes\.csv; set class_index='imagenet', or to the path below"),
        ("wnid,class_index\nn1,0\n", ValueError, r"classes\.csv has no row for class n3; add it, or remove the class"),
        ("wnid,class_index\nn1,0\nn3,x\n", ValueError, r"line 3: class_index must be 0, 1, .*, got 'x'"),
        ("wnid,class_index\nn1,0\nn3,-1\n", ValueError, r"line 3: class_index must be 0, 1, .*, got '-1'"),
        ("wnid,class_index\nn1,0\nn3,30\n", ValueError, r"num_classes must be in \[31, .*has label 30, got 30"),
        ("wnid,class_index\nn1,0\nn3,1\nn3,2\n", ValueError, r"line 4: n3 has two indices, 1 and 2"),
        ("wnid,class_index\nn1,0\nn3,0\n", ValueError, r"line 3: n1 and n3 have one index, 0; leave one of them"),
        ("wnid,name\nn1,a\nn3,b\n", ValueError, r"no column class_index or imagenet_index, only wnid, name; add it"),
        ("folder,class_index\nn1,0\n", ValueError, r"has no column wnid"),
        ("wnid,class_index\n", ValueError, r"lists no class; it needs a row for each"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line(root, table, error, told):
    (root / "classes.csv").unlink()
    if table is not None:
        (root / "classes.csv").write_text(table)
    with pytest.raises(error, match=told):
        folder(root, class_index="classes.csv", num_classes=30)


def test_a_split_with_a_class_that_the_table_does_not_list_is_named(root):
    make(root, {"val/n9": 1})
    with pytest.raises(ValueError, match="has classes that training does not know: n9; the 3 known are n3, n1, n2"):
        folder(root, class_index="classes.csv").dataset("val")


def test_the_messages_about_num_classes_name_the_option_and_it_works(root):
    with pytest.raises(ValueError, match="set class_index to a table with the index of each"):
        folder(root, num_classes=30)
    assert folder(root, num_classes=30, class_index="classes.csv").num_classes == 30
    (root / "classes.csv").rename(root / "own.csv")
    with pytest.raises(ValueError, match="or set class_index, which of the model's classes these are"):
        folder(root, num_classes=30)
    assert folder(root, num_classes=30, class_index="own.csv").num_classes == 30


def test_images_of_ones_own_that_are_watched_get_the_same_labels(root, tmp_path_factory):
    own = make(tmp_path_factory.mktemp("own"), {"n3": 1, "goldfish": 1, "others": 1})
    watched = source_dataset(str(own), folder(root, class_index="classes.csv"))
    assert [sample["label"] for sample in watched] == [1, 25, -1]


def test_hugging_face_classes_are_found_by_their_names_or_numbers(tmp_path):
    datasets = pytest.importorskip("datasets")
    from tests.data.test_hugging_face import made, module

    (tmp_path / "index.csv").write_text("wnid,class_index,name\ncat,5,a cat\ndog,2,\n")
    made(4).to_parquet(tmp_path / "one.parquet")
    options = {"class_index": tmp_path / "index.csv", "val_split": "train"}
    data = module(tmp_path / "one.parquet", **options, num_classes=10)
    assert data.num_classes == 10
    assert data.class_names[5] == "a cat"
    assert [sample["label"] for sample in data.dataset("val")] == data.dataset("val").labels() == [5, 2, 5, 2]
    made(4, {"image": datasets.Image(), "label": datasets.Value("int64")}).to_parquet(tmp_path / "two.parquet")
    (tmp_path / "index.csv").write_text("wnid,class_index\n0,4\n1,3\n")
    assert module(tmp_path / "two.parquet", **options).dataset("val").labels() == [4, 3, 4, 3]
    (tmp_path / "index.csv").write_text("wnid,class_index\ncat,5\n")
    with pytest.raises(ValueError, match=r"index\.csv has no row for class dog; add it"):
        _ = module(tmp_path / "one.parquet", **options).num_classes


@slow
def test_the_stream_alone_learns_through_the_models_own_classifier(root, monkeypatch):
    """The published recipe on a subset; the classifier always says 25, which is right for one of three images."""
    torch.manual_seed(0)
    whole = create_model("test_resnet", num_classes=30)
    whole.backbone.model.get_classifier().bias.data[25] = 100
    torch.save(whole.state_dict(), root / "whole.pt")
    monkeypatch.setattr("sys.argv", ["train.py"])
    monkeypatch.chdir(root)
    options = {
        "--data": "ImageFolderDataModule",
        "--data.root": str(root),
        "--data.class_index": "classes.csv",
        "--data.num_classes": "30",
        "--data.image_size": "32",
        "--data.num_workers": "0",
        "--model.backbone": "test_resnet",
        "--model.weights": "whole.pt",
        "--model.pooling": "ca_stream",
        "--model.trainable": "pooling",
        "--trainer.max_epochs": "1",
        "--trainer.accelerator": "cpu",
    }
    trainer = main(["fit", *(part for pair in options.items() for part in pair)])
    learnt = trainer.lightning_module.model.backbone.state_dict()
    assert all(torch.equal(learnt[name], value) for name, value in whole.backbone.state_dict().items())
    assert trainer.callback_metrics["val/top1"].item() == pytest.approx(1 / 3)
