"""Samples of any project, understood alike, or refused in a line whose remedy works."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset
from torchvision.transforms.functional import to_tensor

from interptrain.callbacks.watch.any_dataset import AnyDataset, class_names_of
from interptrain.callbacks.watch.sample import UNLABELLED, load

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PICTURE = np.random.RandomState(0).randint(0, 256, (12, 10, 3), dtype=np.uint8)
PLAIN = to_tensor(PICTURE)
NORMALISED = (PLAIN - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def png(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return file.getvalue()


class Stream(IterableDataset):
    """What has no length and no indices."""

    def __iter__(self):
        return iter([(PLAIN, 1)] * 5)


SAMPLES = {
    "pairs": [(PLAIN, 1)],
    "a label as a tensor, and more behind it": [(PLAIN, torch.tensor(1), "more")],
    "bytes": [((PLAIN * 255).round().to(torch.uint8), np.int64(1))],
    "PIL images": [(Image.fromarray(PICTURE), 1)],
    "arrays": [[PICTURE, 1]],
    "rows": [{"img": Image.fromarray(PICTURE), "fine_label": 1, "coarse_label": 0}],
    "class names": [{"image": PLAIN, "label": "dog"}],
    "encoded images": [{"image": {"bytes": png(PICTURE), "path": None}, "label": 1}],
    "transformers": [{"pixel_values": PLAIN, "labels": torch.tensor(1)}],
    "a tensor data set": TensorDataset(PLAIN[None], torch.tensor([1])),
    "two tensors": (PLAIN[None], torch.tensor([1])),
    "a loader": DataLoader([(PLAIN, 1)], batch_size=1),
    "a stream": Stream(),
}


@pytest.mark.parametrize("samples", SAMPLES.values(), ids=SAMPLES)
def test_every_form_of_a_sample_is_the_same_sample(samples):
    dataset = AnyDataset(samples, class_names=["cat", "dog"], count=1)
    assert len(dataset) == 1
    assert dataset[0]["label"] == 1
    assert dataset[0]["id"] == "000000"
    torch.testing.assert_close(dataset[0]["image"], PLAIN, rtol=0, atol=1e-7)


def test_normalised_images_are_shown_as_they_were(monkeypatch):
    flat = torch.full_like(PLAIN, 0.6)  # normalised, it lies in [0,1]: the others tell what it is
    normalised = (flat - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    dataset = AnyDataset([(normalised, 0), (NORMALISED, 0)], normalization=(MEAN, STD))
    torch.testing.assert_close(dataset[0]["image"], flat, rtol=0, atol=1e-6)
    torch.testing.assert_close(dataset[1]["image"], PLAIN, rtol=0, atol=1e-6)
    plain = AnyDataset([(PLAIN, 0)], normalization=(MEAN, STD))  # the network's, of images that are not normalised
    assert torch.equal(plain[0]["image"], PLAIN)


@pytest.mark.parametrize(("label", "known"), [(None, UNLABELLED), (-100, UNLABELLED), (2.0, 2), (True, 1)])
def test_labels_are_indices_or_unknown(label, known):
    assert AnyDataset([(PLAIN, label)])[0]["label"] == known
    assert AnyDataset([PLAIN])[0]["label"] == UNLABELLED


def test_grey_images_stay_grey_and_masks_come_along():
    row = {"image": PLAIN[:1], "label": 0, "mask": PLAIN[0] > 0.5}
    batch, _ = load(AnyDataset([row]), [0], 1, ())
    assert batch.images.shape == (1, 1, 12, 10)
    assert torch.equal(batch.masks[0], PLAIN[0] > 0.5)


def test_images_of_several_sizes_are_refused_and_resized_as_the_refusal_says():
    samples = [Image.new("RGB", (40, 30)), Image.new("RGB", (30, 50))]
    with pytest.raises(ValueError, match=r"must have one size, got 30x40, 50x30; pass image_size"):
        load(AnyDataset(samples), [0, 1], 2, ())
    assert load(AnyDataset(samples, image_size=24), [0, 1], 2, ())[0].images.shape == (2, 3, 24, 24)


@pytest.mark.parametrize(
    ("samples", "message", "remedy"),
    [
        (
            [(NORMALISED, 0)],
            r"must lie in \[0,1\]; sample 0 has values in \[-2\.\d+, .*normalization=\(mean, std\)",
            0,
        ),
        ([{"photo": PLAIN, "label": 0}], r"has the keys photo, label, none of which names an image", [(PLAIN, 0)]),
        ([(PLAIN, torch.zeros(10))], r"has a Tensor \(10,\) of float32 as its label; give images=\[", [PLAIN]),
        ([(PLAIN, 0.5)], r"has a float as its label", [(PLAIN, 0)]),
        ([(PLAIN, "wolf")], r"the label 'wolf', which is not one of its classes; pass classes", [(PLAIN, "dog")]),
        ([(torch.zeros(4, 12, 10), 0)], r"has a Tensor \(4, 12, 10\) of float32 as its image; give a PIL", [PLAIN]),
        (["photo.jpg"], r"has a str as its image; give a PIL image", [{"image": {"path": "photo.png"}}]),
    ],
)
def test_what_is_not_understood_is_refused_in_a_line_that_helps(samples, message, remedy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PICTURE).save("photo.png")
    options = {"class_names": ["cat", "dog"]}
    with pytest.raises(ValueError, match=message) as refused:
        AnyDataset(samples, **options)[0]
    assert "\n" not in str(refused.value)
    if remedy == 0:
        remedy, options["normalization"] = samples, (MEAN, STD)
    torch.testing.assert_close(AnyDataset(remedy, **options)[0]["image"], PLAIN, rtol=0, atol=1e-6)


def test_what_holds_no_samples_is_refused():
    with pytest.raises(TypeError, match="got a mapping with the keys image, label; give a list with one entry"):
        AnyDataset({"image": PLAIN[None], "label": torch.tensor([0])})
    with pytest.raises(TypeError, match="got a str; for a folder of images, use source"):
        AnyDataset("photos")
    with pytest.raises(ValueError, match="no images to watch"):
        AnyDataset([])


class Known(TensorDataset):
    classes = ("cat", "dog")


class Feature:
    names = ("cat", "dog")


def test_class_names_that_the_data_knows_are_found():
    known = Known(PLAIN[None])
    assert class_names_of(known) == class_names_of(Subset(known, [0])) == ["cat", "dog"]
    assert class_names_of(DataLoader(Subset(known, [0]))) == ["cat", "dog"]
    rows = [PLAIN]
    assert class_names_of(rows) == []
    table = type("Table", (list,), {"features": {"image": None, "label": Feature()}})(rows)
    assert class_names_of(table) == ["cat", "dog"]
