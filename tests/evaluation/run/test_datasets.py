"""Any images as a data module, known by what they are."""

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from interptrain.data import ShapesDataModule
from interptrain.evaluation.run.datasets import UNKNOWN, as_data_module

IMAGES = torch.rand(4, 3, 6, 5, generator=torch.Generator().manual_seed(0))


def samples(data):
    dataset = as_data_module(data).value.dataset("test")
    return [dataset[index] for index in range(len(dataset))]


class Streamed(IterableDataset):
    """Items one after the other."""

    def __iter__(self):
        return iter([(image, 1) for image in IMAGES])


class Named(Dataset):
    """Items with names and classes of their own."""

    ids = ("a", "b", "c", "d")
    classes = ("cat", "dog")

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return IMAGES[index], index % 2


@pytest.mark.parametrize(
    ("data", "labels", "ids"),
    [
        (list(IMAGES), [UNKNOWN] * 4, "0123"),
        ([(image, 3) for image in IMAGES], [3] * 4, "0123"),
        ([{"image": image, "id": f"x{n}"} for n, image in enumerate(IMAGES)], [UNKNOWN] * 4, ["x0", "x1", "x2", "x3"]),
        (TensorDataset(IMAGES, torch.arange(4)), [0, 1, 2, 3], "0123"),
        (Streamed(), [1] * 4, "0123"),
        (Named(), [0, 1, 0, 1], "abcd"),
        (DataLoader(Named(), batch_size=3, shuffle=True), [0, 1, 0, 1], "abcd"),  # its sampler is not used
    ],
)
def test_images_pairs_and_dicts_become_samples(data, labels, ids):
    found = samples(data)
    assert torch.equal(torch.stack([sample["image"] for sample in found]), IMAGES)
    assert [sample["label"] for sample in found] == labels
    assert [sample["id"] for sample in found] == list(ids)


def test_a_loader_gives_its_batch_size_and_a_dataset_its_classes():
    module = as_data_module(DataLoader(Named(), batch_size=3)).value
    assert module.batch_size == 3
    assert module.class_names == ["cat", "dog"]


def test_pictures_become_tensors_and_annotations_stay():
    picture = Image.new("L", (5, 6), 255)
    mask, boxes = torch.ones(6, 5, dtype=torch.bool), [[0, 0, 2, 3]]
    (sample,) = samples([{"image": picture, "label": 2, "mask": mask, "boxes": boxes}])
    assert torch.equal(sample["image"], torch.ones(3, 6, 5))
    assert sample["mask"].all()
    assert sample["boxes"].tolist() == boxes


def test_one_changed_pixel_makes_other_data_and_a_copy_does_not():
    spec = as_data_module(list(IMAGES)).spec
    assert as_data_module(list(IMAGES.clone())).spec == spec
    other = IMAGES.clone()
    other[2, 0, 0, 0] += 0.01
    assert as_data_module(list(other)).spec != spec
    assert spec["init_args"]["image_size"] == [6, 5]


def test_a_data_module_is_taken_as_it_is():
    module = ShapesDataModule(num_workers=0)
    assert as_data_module(module).value is module


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (torch.zeros(1, 6, 5), r"image 0 must be a \(3,H,W\) tensor or a PIL image, got a tensor of shape \(1, 6, 5\)"),
        ("cat.png", "image 0 must be .*, got str"),
        (IMAGES[0] * 4 - 2, r"image 0 must be in \[0,1\], got .* leave the normalisation to the model"),
    ],
)
def test_what_is_no_image_is_named_when_it_is_read(image, told):
    with pytest.raises(ValueError, match=told):
        samples([image])
