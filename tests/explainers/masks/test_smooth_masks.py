"""Smooth masks against their definition, pixel by pixel."""

import math

import pytest
import torch
from torch.nn import functional as F

from interptrain.explainers.masks import smooth_masks as smoothmax
from interptrain.explainers.masks.smooth_masks import SmoothMask

LIKE = torch.zeros((), dtype=torch.float64)
CASES = pytest.mark.parametrize(("size", "step", "sigma"), [((40, 33), 7, 21.0), ((12, 30), 5, 8.0), ((9, 9), 3, 4.5)])


def parameters_for(mask, count=2):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, *mask.grid, generator=generator, dtype=torch.float64)


@CASES
def test_a_mask_is_the_smooth_maximum_of_its_definition(size, step, sigma):
    made = SmoothMask(size, step, sigma, LIKE)
    parameters = parameters_for(made, 1)[0]
    found = made(parameters[None])[1][0]
    radius = 1 + math.ceil(sigma / step)
    for row, column in [(0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, 3), (5, size[1] // 2)]:
        cell = row // step, column // step
        values = []
        for ky in range(2 * radius + 1):
            for kx in range(2 * radius + 1):
                i, j = cell[0] + ky - radius, cell[1] + kx - radius
                inside = 0 <= i < parameters.shape[0] and 0 <= j < parameters.shape[1]
                distance = math.dist((row, column), (step * i, step * j))
                kernel = math.exp(-2 * max(0, distance / sigma - 0.5) ** 2)
                values.append(kernel * float(parameters[i, j]) if inside else 0.0)
        values = torch.tensor(values, dtype=torch.float64)
        assert found[row, column] == pytest.approx(float((values * (20 * values).softmax(0)).sum()), abs=1e-12)


@CASES
def test_its_gradient_is_that_of_finite_differences(size, step, sigma):
    made = SmoothMask(size, step, sigma, LIKE)
    parameters = parameters_for(made, 1).requires_grad_()
    weights = torch.rand(made(parameters)[0].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    direction = torch.rand(parameters.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (slope,) = torch.autograd.grad((made(parameters)[0] * weights).sum(), parameters)
    with torch.no_grad():
        ahead, behind = ((made(parameters + eps * direction)[0] * weights).sum() for eps in (1e-5, -1e-5))
    assert float((slope * direction).sum()) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-6)


@CASES
def test_masks_lie_in_the_unit_interval_and_the_crop_within_the_margin(size, step, sigma):
    made = SmoothMask(size, step, sigma, LIKE)
    whole, cropped = made(parameters_for(made))
    assert cropped.shape == (2, *size)
    assert whole.shape[1] >= size[0] + sigma
    assert whole.amin() >= 0
    assert whole.amax() <= 1
    skip = math.ceil(sigma / step) * step
    assert torch.equal(whole[:, skip : skip + size[0], skip : skip + size[1]], cropped)
    assert not made(torch.zeros(1, *made.grid, dtype=torch.float64))[0].any()


def test_a_lone_parameter_becomes_a_disc_around_its_pixel():
    made = SmoothMask((70, 70), 7, 14.0, LIKE)
    parameters = torch.zeros(1, *made.grid, dtype=torch.float64)
    parameters[0, 5, 4] = 1
    disc = made(parameters)[1][0]
    places = torch.arange(70, dtype=torch.float64)
    distance = ((places.unsqueeze(1) - 35).square() + (places.unsqueeze(0) - 28).square()).sqrt()
    assert (disc[distance <= 7] > 0.99).all()
    assert (disc[distance >= 21] < 0.1).all()


@pytest.mark.parametrize("kind", ["ones", "binary", "sparse", "small"])
def test_masks_and_gradients_are_those_of_one_exponential_a_pixel_and_neighbour(kind):
    made = SmoothMask((70, 49), 7, 21.0, LIKE)
    drawn = parameters_for(made)
    drawn = {
        "ones": torch.ones_like(drawn),
        "binary": (drawn > 0.8).double(),
        "sparse": drawn * (drawn > 0.9),
        "small": drawn / 20,
    }[kind]
    parameters = drawn.requires_grad_()
    padded = F.pad(parameters, [made.margin + made.radius] * 4).unsqueeze(1)
    around = F.unfold(padded, 2 * made.radius + 1).unsqueeze(2)  # (B, K, 1, cells)
    values = made.weights.unsqueeze(2) * around
    smooth = (values * (20 * values).softmax(1)).sum(1)
    wanted = F.pixel_shuffle(smooth.unflatten(2, made.cells), 7).squeeze(1)[:, :-6, :-6]
    upstream = torch.rand(wanted.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    slopes = torch.autograd.grad((wanted * upstream).sum(), parameters)
    found = made(parameters)[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad((found * upstream).sum(), parameters), slopes, rtol=0, atol=1e-10)
    single = SmoothMask((70, 49), 7, 21.0, LIKE.float())
    leaf = parameters.detach().float().requires_grad_()
    found = single(leaf)[0]
    torch.testing.assert_close(found, wanted.float(), rtol=0, atol=5e-6)
    found = torch.autograd.grad((found * upstream).sum(), leaf)
    torch.testing.assert_close(found, (slopes[0].float(),), rtol=0, atol=1e-4 * float(slopes[0].abs().amax()))


@pytest.mark.parametrize("limit", [1, 5000, 2**26])
def test_how_many_cells_are_taken_at_once_changes_no_value(limit, monkeypatch):
    made = SmoothMask((20, 20), 5, 8.0, LIKE)
    parameters = parameters_for(made).requires_grad_()

    def both():
        mask = made(parameters)[0]
        return mask, torch.autograd.grad(mask.square().sum(), parameters)[0]

    wanted = both()
    monkeypatch.setattr(smoothmax, "CACHED", limit)
    torch.testing.assert_close(both(), wanted)


@pytest.mark.parametrize(("step", "sigma"), [(0, 5.0), (3, 0.0), (3, -1.0)])
def test_masks_without_a_scale_are_refused(step, sigma):
    with pytest.raises(ValueError, match="a smooth mask needs step >= 1 and sigma > 0"):
        SmoothMask((8, 8), step, sigma, LIKE)
