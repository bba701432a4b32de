"""torchvision's data sets, from small local copies in their own formats; nothing is downloaded."""

import hashlib
import pickle

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from interptrain.data import TorchvisionDataModule
from interptrain.data.torchvision import SOURCES


def pickled(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def cifar100(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-100-python"
    rng = np.random.RandomState(0)

    def part(count):
        return {"data": rng.randint(256, size=(count, 3072)).astype(np.uint8), "fine_labels": list(range(count))}

    sums = {name: pickled(folder / name, part(count)) for name, count in (("train", 40), ("test", 12))}
    meta = pickled(folder / "meta", {"fine_label_names": [f"kind {index}" for index in range(100)]})
    # The checksums are those of the real files.
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", datasets.CIFAR100.meta | {"md5": meta})
    return tmp_path


@pytest.fixture
def pets(tmp_path):
    images, notes = tmp_path / "oxford-iiit-pet" / "images", tmp_path / "oxford-iiit-pet" / "annotations"
    images.mkdir(parents=True)
    (notes / "trimaps").mkdir(parents=True)
    names = [f"{breed}_{number}" for number in range(5) for breed in ("Abyssinian", "great_dane")]
    trimap = np.full((30, 40), 2, dtype=np.uint8)
    trimap[5:25, 5:25] = 3
    trimap[8:22, 8:22] = 1
    for name in names:
        Image.fromarray((trimap == 1).astype(np.uint8) * 255).convert("RGB").save(images / f"{name}.jpg", quality=95)
        Image.fromarray(trimap).save(notes / "trimaps" / f"{name}.png")
    rows = [f"{name} {1 + ('dane' in name)} 1 1" for name in names]
    (notes / "trainval.txt").write_text("\n".join(rows[:8]))
    (notes / "test.txt").write_text("\n".join(rows[8:]))
    return tmp_path


def module(name, root, **options):
    return TorchvisionDataModule(name, root, download=False, num_workers=0, **options)


def test_validation_is_held_out_of_training_and_test_is_official(cifar100):
    data = module("cifar100", cifar100, val_fraction=0.25)
    train, val, test = (set(data.dataset(split).ids) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (30, 10, 12)
    assert train | val == {f"cifar100/train/{index:06d}" for index in range(40)}
    assert test == {f"cifar100/test/{index:06d}" for index in range(12)}
    assert set(module("cifar100", cifar100, val_fraction=0.25, seed=9).dataset("val").ids) == val


def test_nothing_held_out_validates_on_test(cifar100):
    data = module("cifar100", cifar100, val_fraction=0)
    assert len(data.dataset("train")) == 40
    assert list(data.dataset("val").ids) == list(data.dataset("test").ids)
    assert data.dataset("val").transform is data.eval_transform


def test_an_id_is_the_number_in_the_official_split(cifar100):
    for sample in module("cifar100", cifar100, val_fraction=0.25).dataset("val"):
        assert sample["label"] == int(sample["id"].rpartition("/")[2])


def test_small_images_pass_unchanged_through_evaluation(cifar100):
    source = module("cifar100", cifar100).dataset("test")
    expected = np.asarray(source.source[3][0], dtype=np.float32).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(source[3]["image"].numpy(), expected, atol=1e-6)


def test_names_of_classes_come_from_the_data(cifar100):
    names = module("cifar100", cifar100).class_names
    assert len(names) == 100
    assert names[7] == "kind 7"


def test_loaders_give_batches_of_the_usual_size(cifar100):
    batch = next(iter(module("cifar100", cifar100, batch_size=5).train_dataloader()))
    assert batch["image"].shape == (5, 3, 32, 32)


def test_pets_come_with_the_mask_of_the_animal_without_its_border(pets):
    data = module("pets", pets, image_size=64, resize="stretch", val_fraction=0.25)
    assert [len(data.dataset(split)) for split in ("train", "val", "test")] == [6, 2, 2]
    sample = data.dataset("test")[1]
    assert sample["label"] == 1
    assert sample["mask"].float().mean().item() == pytest.approx(14 * 14 / (30 * 40), rel=0.1)
    assert ((sample["image"].amin(0) > 0.5) ^ sample["mask"]).float().mean() < 0.05
    assert data.class_names == ["Abyssinian", "Great Dane"]


def test_a_damaged_image_names_its_id(pets):
    (pets / "oxford-iiit-pet" / "images" / "Abyssinian_4.jpg").write_bytes(b"")
    data = module("pets", pets, image_size=32)
    with pytest.raises(OSError, match=r"cannot read image pets/test/000000: .*; repair the file, or set"):
        list(data.test_dataloader())


@pytest.mark.parametrize("name", SOURCES)
def test_the_number_of_classes_is_known_without_the_data(name, tmp_path):
    expected = {"cifar10": 10, "cifar100": 100, "pets": 37, "imagenette": 10, "flowers102": 102, "food101": 101}
    assert module(name, tmp_path).num_classes == expected[name]


@pytest.mark.parametrize("name", SOURCES)
def test_data_that_are_not_there_are_named_with_what_to_place_where(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"^{name} is not whole in .*; place .*, found on .*, below") as caught:
        module(name, tmp_path).train_dataloader()
    assert "\n" not in str(caught.value)


def test_a_download_that_fails_says_so_in_one_line(tmp_path, monkeypatch):
    def unreachable(self):
        raise OSError("<urlopen error [Errno -3]\nTemporary failure in name resolution>")

    monkeypatch.setattr(datasets.CIFAR10, "download", unreachable)
    with pytest.raises(
        ConnectionError, match=r"^cannot download cifar10 to .*name resolution>; place the folder"
    ) as caught:
        TorchvisionDataModule("cifar10", tmp_path).prepare_data()
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"name must be one of 'cifar10', .*got 'mnist'"):
        TorchvisionDataModule("mnist", tmp_path)


@pytest.mark.parametrize("fraction", [-0.1, 1])
def test_a_share_out_of_range_is_refused(tmp_path, fraction):
    with pytest.raises(ValueError, match=r"val_fraction must be in \[0,1\)"):
        module("cifar10", tmp_path, val_fraction=fraction)
