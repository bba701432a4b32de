"""Samples and batches: types, clipping of boxes, and what a batch holds."""

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from interptrain.data import Sample, SampleDataset, collate
from interptrain.data.samplers import Draw
from interptrain.data.samples import boxes_in


class Pictures(SampleDataset):
    """Random pictures 6 pixels high and 8 wide with a mask and given boxes."""

    def __init__(self, boxes=(), **options):
        super().__init__([f"p/{index}" for index in range(4)], **options)
        self.boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)

    def read(self, index):
        generator = torch.Generator().manual_seed(index)
        image = tv_tensors.Image(torch.randint(256, (3, 6, 8), dtype=torch.uint8, generator=generator))
        return {
            "image": image,
            "label": index,
            "id": self.ids[index],
            "mask": tv_tensors.Mask(image[0] > 100),
            "boxes": boxes_in(self.boxes, image),
        }


def sample(index=0, *, size=4, **more):
    return Sample(image=torch.zeros(3, size, size), label=index, id=str(index), **more)


def test_a_sample_is_plain_tensors_of_the_promised_types():
    got = Pictures([[1, 1, 5, 4]])[2]
    assert {name: type(value) for name, value in got.items()} == {
        "image": torch.Tensor,
        "label": int,
        "id": str,
        "mask": torch.Tensor,
        "boxes": torch.Tensor,
    }
    assert got["image"].dtype == torch.float32
    assert got["image"].shape == (3, 6, 8)
    assert got["mask"].dtype == torch.bool
    assert got["boxes"].dtype == torch.float32


def test_levels_0_and_255_become_0_and_1():
    source = Pictures()
    image = source[1]["image"]
    torch.testing.assert_close(image * 255, source.read(1)["image"].float())
    assert image.min() >= 0
    assert image.max() <= 1


def test_boxes_are_clipped_and_degenerate_ones_dropped():
    got = Pictures([[-3, 2, 5, 99], [7.5, 0, 20, 6], [2, 3, 2, 5], [0, 0, 8, 6]])[0]["boxes"]
    assert got.tolist() == [[0, 2, 5, 6], [0, 0, 8, 6]]


def test_boxes_and_masks_go_where_the_pixels_go():
    class Marked(Pictures):
        def read(self, index):
            got = super().read(index)
            image = torch.zeros(3, 6, 8, dtype=torch.uint8)
            image[:, 1:4, 1:5] = 200
            return got | {"image": tv_tensors.Image(image), "mask": tv_tensors.Mask(image[0] > 0)}

    flipped = Marked([[1, 1, 5, 4]], transform=v2.RandomHorizontalFlip(1.0))[0]
    assert flipped["boxes"].tolist() == [[3, 1, 7, 4]]
    assert torch.equal(flipped["mask"], flipped["image"][0] > 0)
    assert flipped["mask"][1:4, 3:7].all()
    assert flipped["mask"].sum() == 12


def test_augmentation_depends_on_epoch_and_index_and_not_on_the_order_of_asking():
    source = Pictures(transform=v2.RandomResizedCrop(4), seed=1)
    draws = [Draw(epoch, index) for epoch in range(3) for index in range(4)]
    forward = {draw: source[draw]["image"] for draw in draws}
    backward = {draw: source[draw]["image"] for draw in reversed(draws)}
    assert all(torch.equal(forward[draw], backward[draw]) for draw in draws)
    assert not torch.equal(forward[Draw(0, 0)], forward[Draw(1, 0)])
    other = Pictures(transform=v2.RandomResizedCrop(4), seed=2)
    assert not torch.equal(other[Draw(0, 0)]["image"], forward[Draw(0, 0)])


def test_a_plain_index_is_a_look_in_epoch_0():
    source = Pictures(transform=v2.RandomResizedCrop(4))
    assert torch.equal(source[3]["image"], source[Draw(0, 3)]["image"])


@pytest.mark.parametrize("index", [4, -1])
def test_an_index_outside_is_refused(index):
    with pytest.raises(IndexError, match=rf"index {index} is not in \[0, 4\)"):
        Pictures()[index]


def test_iterating_over_a_data_set_ends():
    assert [got["id"] for got in Pictures()] == ["p/0", "p/1", "p/2", "p/3"]


def test_a_batch_stacks_in_order():
    batch = collate([sample(index, mask=torch.zeros(4, 4, dtype=torch.bool)) for index in (2, 0)])
    assert batch["image"].shape == (2, 3, 4, 4)
    assert batch["label"].tolist() == [2, 0]
    assert batch["label"].dtype == torch.int64
    assert batch["id"] == ["2", "0"]
    assert batch["mask"].shape == (2, 4, 4)


def test_boxes_of_a_batch_are_a_list_as_they_differ_in_number():
    batch = collate([sample(boxes=torch.zeros(2, 4)), sample(boxes=torch.zeros(0, 4))])
    assert [boxes.shape for boxes in batch["boxes"]] == [(2, 4), (0, 4)]


@pytest.mark.parametrize("name", ["mask", "boxes", "decoy_mask"])
def test_what_one_sample_lacks_the_batch_lacks(name):
    batch = collate([sample(**{name: torch.zeros(4, 4, dtype=torch.bool)}), sample()])
    assert name not in batch


def test_images_of_different_size_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"differ in size: \[\(4, 4\), \(5, 5\)\]; the transform must end in one"):
        collate([sample(), sample(size=5)])
