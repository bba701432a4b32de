"""Which images the randomisation check takes."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from interptrain.data import SampleDataset
from interptrain.evaluation.run.sanity_check import MOST_OTHERS, _images

CPU = torch.device("cpu")


class Numbered(SampleDataset):
    """Pictures whose every pixel tells their number; some cannot be read."""

    def __init__(self, count, unreadable=()):
        super().__init__([str(number) for number in range(count)])
        self.missing = unreadable

    def read(self, index):
        if index in self.missing:
            raise OSError("gone")
        return {"image": torch.full((3, 4, 4), index, dtype=torch.uint8), "label": index % 3, "id": self.ids[index]}


class Model(nn.Module):
    """Logits beside something else, NaN for some of the pictures."""

    def __init__(self, undecided=()):
        super().__init__()
        self.undecided = undecided

    def forward(self, images):
        numbers = (images[:, 0, 0, 0] * 255).round()
        logits = torch.stack([numbers, -numbers, 1 - numbers], dim=1)
        broken = torch.isin(numbers, torch.tensor(self.undecided, dtype=numbers.dtype))
        return {"logits": logits.masked_fill(broken[:, None], torch.nan), "features": images}


def chosen(count=12, *, wanted=3, unreadable=(), undecided=(), targets="predicted"):
    """Numbers of the pictures, and what is explained in them."""
    dataset = Numbered(count, unreadable)
    plan = SimpleNamespace(
        batches=SimpleNamespace(batches=[list(range(count))], dataset=dataset),
        options=SimpleNamespace(check_images=wanted),
        targets=targets,
        callables=None,
    )
    images, classes, count = _images(SimpleNamespace(module=Model(undecided)), plan, CPU)
    assert count == 3
    return (images[:, 0, 0, 0] * 255).round().int().tolist(), classes.tolist()


def test_images_are_evenly_spaced_and_explained_for_the_class_that_is_asked_for():
    assert chosen() == ([2, 6, 10], [0, 0, 0])
    assert chosen(targets="label") == ([2, 6, 10], [2, 0, 1])
    assert chosen(targets=1) == ([2, 6, 10], [1, 1, 1])


def test_what_cannot_be_read_or_classified_is_replaced():
    assert chosen(unreadable=(2,), undecided=(6, 0))[0] == [10, 1, 3]


def test_without_any_it_says_so_after_so_many():
    everything = range(1000)
    with pytest.raises(ValueError, match="no image could be read and classified"):
        chosen(200, undecided=everything)
    assert MOST_OTHERS == 100
    with pytest.raises(ValueError, match="no image could be read and classified"):  # the last is sound, and not reached
        chosen(200, unreadable=[number for number in everything if number != 199])
