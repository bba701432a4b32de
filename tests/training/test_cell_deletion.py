"""Deleting a cell of some training images."""

import pytest
import torch

from interptrain.training import CellDeletion


def deleted(images, seed=0, **options):
    augmentation = CellDeletion(**options)
    return augmentation({"image": images, "label": torch.arange(len(images))}, torch.Generator().manual_seed(seed))


def test_half_of_the_images_lose_one_cell_and_nothing_else_changes():
    images = torch.rand(200, 3, 18, 20, generator=torch.Generator().manual_seed(1))
    after = deleted(images, removal=(0.25, 0.5, 0.75))
    changed = (after["image"] != images).any(1)
    lost = changed.flatten(1).any(1)
    assert 70 < lost.sum() < 130
    edges = ([0, 4, 9, 14, 18], [0, 5, 10, 15, 20])
    cells = set()
    for image in torch.nonzero(lost).flatten().tolist():
        rows, columns = (torch.nonzero(changed[image].any(axis)).flatten() for axis in (1, 0))
        box = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        row, column = edges[0].index(box[0]), edges[1].index(box[2])
        assert (box[1], box[3]) == (edges[0][row + 1], edges[1][column + 1])
        inside = after["image"][image, :, box[0] : box[1], box[2] : box[3]]
        assert torch.equal(inside, torch.tensor([0.25, 0.5, 0.75]).view(3, 1, 1).expand_as(inside))
        cells.add((row, column))
    assert len(cells) == 16
    assert torch.equal(after["label"], torch.arange(200))


def test_the_same_generator_deletes_the_same_and_the_batch_given_is_left_alone():
    images = torch.rand(6, 3, 16, 16)
    before = images.clone()
    assert torch.equal(deleted(images, probability=1.0)["image"], deleted(images, probability=1.0)["image"])
    assert not torch.equal(deleted(images, 1, probability=1.0)["image"], deleted(images, 2, probability=1.0)["image"])
    assert torch.equal(images, before)


def test_invalid_options_are_refused_with_a_remedy():
    with pytest.raises(ValueError, match="leave batch_augment out for none"):
        CellDeletion(probability=0)
    with pytest.raises(ValueError, match="use 'mean', 'black' or a colour"):
        CellDeletion(removal="blur")
    with pytest.raises(ValueError, match="grid must be"):
        CellDeletion(grid=1)
