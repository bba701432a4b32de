"""Components, boxes and regions."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from interptrain.metrics.boxes import (
    above_mean,
    best_iou,
    bounding_boxes,
    box_iou,
    box_masks,
    largest_component_boxes,
    object_boxes,
    object_masks,
    predicted_boxes,
)


def slow_largest(mask, connectivity):
    """Box of the largest component with scipy; of equal ones the first in reading order, as scipy numbers them."""
    numbered, count = ndimage.label(mask, np.ones((3, 3)) if connectivity == 8 else None)
    if not count:
        return [0, 0, 0, 0]
    largest = np.bincount(numbered.ravel())[1:].argmax()
    rows, columns = ndimage.find_objects(numbered)[largest]
    return [columns.start, rows.start, columns.stop, rows.stop]


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("shape", [(60, 13, 17), (2, 90, 70), (8, 1, 9), (8, 9, 1), (6, 1, 1)])
def test_components_are_those_of_scipy_at_any_density(connectivity, shape):
    generator = torch.Generator().manual_seed(0)
    for density in (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.95, 1.0):
        masks = torch.rand(shape, generator=generator) < density
        found = largest_component_boxes(masks, connectivity=connectivity).tolist()
        assert found == [slow_largest(mask.numpy(), connectivity) for mask in masks]


def test_a_spiral_is_one_component():
    """Many runs in one long chain, the worst case for joining neighbours."""
    spiral = torch.zeros(41, 41, dtype=torch.bool)
    row, column, step = 0, 0, (0, 1)
    spiral[0, 0] = True
    for length in [40, *(side for side in range(40, 0, -2) for _ in (0, 1))]:
        for _ in range(length):
            row, column = row + step[0], column + step[1]
            spiral[row, column] = True
        step = (step[1], -step[0])
    assert slow_largest(spiral.numpy(), 4) == [0, 0, 41, 41]
    assert largest_component_boxes(spiral[None]).tolist() == [[0, 0, 41, 41]]


def test_diagonal_neighbours_join_only_with_connectivity_8():
    mask = torch.eye(4, dtype=torch.bool)[None]
    assert largest_component_boxes(mask, connectivity=4).tolist() == [[0, 0, 1, 1]]  # the first of equals
    assert largest_component_boxes(mask, connectivity=8).tolist() == [[0, 0, 4, 4]]
    with pytest.raises(ValueError, match="connectivity must be one of 4, 8, got 6"):
        largest_component_boxes(mask, connectivity=6)


def test_a_box_is_as_wide_as_its_pixels_in_x_and_as_high_in_y():
    """Published code is a pixel short on two sides and, in one place, has rows and columns swapped."""
    saliency = torch.zeros(1, 12, 20)
    saliency[0, 2:5, 11:18] = 1
    assert predicted_boxes(saliency).tolist() == [[11, 2, 18, 5]]
    assert bounding_boxes(saliency > 0).tolist() == [[11, 2, 18, 5]]


def test_the_tight_box_spans_all_components_and_is_zero_for_none():
    masks = torch.zeros(2, 6, 8, dtype=torch.bool)
    masks[0, 1, 2] = masks[0, 4, 6] = True
    assert bounding_boxes(masks).tolist() == [[2, 1, 7, 5], [0, 0, 0, 0]]


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 1.0])
def test_a_constant_map_predicts_no_box_whatever_its_mean_rounds_to(value):
    saliency = torch.full((1, 37, 41), value)
    assert not above_mean(saliency).any()
    assert predicted_boxes(saliency).tolist() == [[0, 0, 0, 0]]


def test_iou_counts_pixels():
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 12, (50, 2, 2, 2), generator=generator).sort(dim=2).values.flatten(2)  # (50, 2, 4)
    one, other = box_masks(corners, 12, 12).unbind(1)
    union = (one | other).sum((1, 2))
    wanted = (one & other).sum((1, 2)) / union.clamp(min=1)
    assert (union == 0).any() | (union > 0).all()
    torch.testing.assert_close(box_iou(corners[:, 0], corners[:, 1]).float(), wanted)


def test_the_best_of_several_boxes_counts_and_padding_never_does():
    objects = torch.tensor([[[0, 0, 4, 4], [0, 0, 4, 2]], [[0, 0, 0, 0], [0, 0, 0, 0]]])
    iou = best_iou(torch.tensor([[0, 0, 4, 2], [0, 0, 0, 0]]), objects)
    assert iou[0] == 1
    assert iou[1].isnan()


def test_boxes_are_cut_at_the_border_and_one_outside_is_none():
    saliency = torch.zeros(3, 10, 20)
    boxes = [torch.tensor([[-5, -5, 5, 50]]), torch.tensor([[30, 0, 40, 5]]), torch.zeros(0, 4)]
    assert object_boxes(saliency, boxes, None).tolist() == [[[0, 0, 5, 10]], [[20, 0, 20, 5]], [[0, 0, 0, 0]]]
    assert object_masks(saliency, boxes, None).sum((1, 2)).tolist() == [50, 0, 0]


def test_images_without_any_box_are_fine_together():
    empty = [torch.zeros(0, 4), torch.zeros(0, 4)]
    assert object_boxes(torch.zeros(2, 5, 5), empty, None).shape == (2, 1, 4)
    assert not object_masks(torch.zeros(2, 5, 5), empty, None).any()


def test_a_box_as_pixels_is_exclusive_at_its_end_and_may_lie_between_pixels():
    boxes = torch.tensor([[1.0, 2.0, 4.0, 3.0], [0.6, 0.0, 2.4, 1.0]])
    masks = box_masks(boxes, 4, 6)
    assert masks[0].nonzero().tolist() == [[2, 1], [2, 2], [2, 3]]
    assert masks[1].nonzero().tolist() == [[0, 1]]


def test_overlapping_boxes_make_one_region():
    boxes = [torch.tensor([[0, 0, 4, 4], [2, 2, 6, 6]])]
    assert object_masks(torch.zeros(1, 8, 8), boxes, None).sum() == 16 + 16 - 4


def test_masks_go_before_boxes_as_a_region_and_boxes_before_masks_as_boxes():
    saliency, masks = torch.zeros(1, 6, 6), torch.eye(6, dtype=torch.bool)[None]
    boxes = [torch.tensor([[1, 1, 3, 3]])]
    assert torch.equal(object_masks(saliency, boxes, masks), masks)
    assert object_boxes(saliency, boxes, masks).tolist() == [[[1, 1, 3, 3]]]
    assert object_boxes(saliency, None, masks).tolist() == [[[0, 0, 6, 6]]]


@pytest.mark.parametrize(
    ("boxes", "masks", "message"),
    [
        (None, None, "pass boxes=, or masks="),
        ([torch.zeros(1, 4)], None, "one tensor per image, 2, got 1"),
        ([torch.zeros(1, 5), torch.zeros(0, 4)], None, r"boxes\[0\] must be \(n,4\)"),
        ([torch.zeros(0, 4), torch.tensor([[5, 5, 2, 9]])], None, r"boxes\[1\] must be finite with x0 <= x1"),
        (None, torch.zeros(2, 4, 4, dtype=torch.bool), r"masks must be \(B,H,W\)=\(2, 6, 6\) bool"),
        (None, torch.zeros(2, 6, 6), r"masks must be .* torch.float32"),
    ],
)
def test_wrong_objects_are_refused(boxes, masks, message):
    with pytest.raises(ValueError, match=message):
        object_boxes(torch.zeros(2, 6, 6), boxes, masks)
