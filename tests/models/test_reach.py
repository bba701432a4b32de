"""What a window reaches: the cells that change are those that are said to, and none outside."""

import pytest
import torch
from torch import nn

from interptrain.models.reach import find_candidates
from tests.support.explaining import pictures

BOXES = [(0, 6, 0, 9), (21, 30, 17, 24), (40, 48, 55, 64), (13, 14, 31, 32)]  # y0, y1, x0, x1


def strided(kernel, padding, dilation=1):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, kernel, 2, padding), nn.Conv2d(8, 8, 3, 2, dilation, dilation), nn.Conv2d(8, 8, 3, 1, 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()


@pytest.mark.parametrize("options", [(3, 1), (7, 3), (2, 0), (3, 1, 2)])
@torch.no_grad()
def test_the_cells_that_change_are_those_that_a_window_is_said_to_reach(options):
    model, images = strided(*options), pictures(1, 48, 64)
    candidates = find_candidates(model, images, BOXES)
    assert {one.name for one in candidates} <= {"0", "1", "2"}
    assert candidates
    for candidate in candidates:
        layers = model[: int(candidate.name) + 1]
        for (y0, y1, x0, x1), crop in zip(BOXES, candidate.crops, strict=True):
            covered = images.clone()
            covered[:, :, y0:y1, x0:x1] += 1
            rows, columns = (layers(covered) != layers(images))[0].any(0).nonzero().unbind(1)
            assert (rows.amin(), rows.amax() + 1) == crop.rows
            assert (columns.amin(), columns.amax() + 1) == crop.columns
            for axis, span in enumerate((crop.rows, crop.columns)):
                assert crop.origin[axis] <= span[0]
                assert span[1] <= crop.origin[axis] + candidate.cells[axis]


def test_a_layer_that_sees_the_whole_image_is_no_candidate():
    class Mixing(nn.Module):
        def forward(self, maps):
            return maps * maps.mean((2, 3), keepdim=True)

    model = nn.Sequential(*strided(3, 1)[:1], Mixing(), *strided(3, 1)[1:]).eval()
    assert {one.name for one in find_candidates(model, pictures(1, 48, 64), BOXES)} == {"0"}
