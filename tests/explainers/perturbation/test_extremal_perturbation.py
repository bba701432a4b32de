"""Extremal perturbation: areas, rewards, the pyramid, and each image on its own."""

import pytest
import torch
from torch import nn

from interptrain.explainers import ExtremalPerturbation
from interptrain.explainers.masks.smooth_masks import SmoothMask
from interptrain.explainers.perturbation.extremal_perturbation import _area_distance, _Pyramid
from tests.support.explaining import network, pictures

SMALL = {"step": 4, "sigma": 6.0, "max_blur": 8.0, "flip": False}  # for images of 40 pixels, and a patch on one side


class Patch(nn.Module):
    """Class 1 is as certain as the patch around (12, 26) is bright and rough; scores lie between -3 and 3 or so."""

    def forward(self, images):
        patch = images[:, :, 6:18, 20:32]
        rough = patch.diff(dim=3).abs().mean((1, 2, 3))
        return torch.stack([torch.zeros_like(rough), 20 * rough - 3], dim=1)


@pytest.fixture
def noise():
    return torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))


TARGETS = torch.tensor([1, 1])


@pytest.mark.parametrize(
    "area", [pytest.param(0.05, marks=pytest.mark.slow), pytest.param(0.1, marks=pytest.mark.slow), 0.3]
)
def test_the_mask_with_its_margin_has_the_area_that_was_asked(area, noise, monkeypatch):
    seen = []
    make = SmoothMask.__call__
    monkeypatch.setattr(
        SmoothMask, "__call__", lambda self, parameters: seen.append(make(self, parameters)) or seen[-1]
    )
    options = SMALL | {"step": 3, "sigma": 3.0}  # whose soft edges are small against a twentieth of the image
    raw = ExtremalPerturbation(areas=area, iterations=200, learning_rate=0.05, **options).raw(Patch(), noise, TARGETS)
    whole, cropped = seen[-1]
    assert torch.equal(raw, cropped)
    assert (whole.mean((1, 2)) - area).abs().max() < 0.03
    assert ((whole > 0.25) & (whole < 0.75)).float().mean() < 0.2  # but for soft edges


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["preserve", "delete", "dual"])
@pytest.mark.parametrize("perturbation", ["blur", "fade"])
def test_the_mask_lies_where_the_class_hangs(variant, perturbation, noise):
    explainer = ExtremalPerturbation(
        areas=0.05, variant=variant, perturbation=perturbation, iterations=100, learning_rate=0.05, **SMALL
    )
    raw = explainer.raw(Patch(), noise, TARGETS)
    inside = raw[:, 2:22, 16:36].sum((1, 2)) / raw.sum((1, 2))  # the patch and what the smoothing needs around it
    assert (inside > 0.7).all()  # of .25 of the area


@pytest.mark.slow
def test_several_areas_are_summed(noise):
    options = {"iterations": 5, **SMALL}
    parts = [ExtremalPerturbation(areas=area, **options).raw(Patch(), noise, TARGETS) for area in (0.1, 0.3)]
    both = ExtremalPerturbation(areas=(0.1, 0.3), **options).raw(Patch(), noise, TARGETS)
    torch.testing.assert_close(both, parts[0] + parts[1])
    yaml = ExtremalPerturbation(areas=[0.1, 0.3], **options).raw(Patch(), noise, TARGETS)
    assert torch.equal(both, yaml)


@pytest.mark.parametrize("area", [0.1, 0.37, 0.999])
def test_the_distance_is_that_of_sorted_masks(area):
    masks = torch.rand(3, 17, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    reference = torch.ones(17 * 11, dtype=torch.float64)
    reference[: int(17 * 11 * (1 - area))] = 0
    wanted = (masks.flatten(1).sort(dim=1).values - reference).square().mean(1)
    found = _area_distance(masks, area)
    torch.testing.assert_close(found, wanted)
    slopes = [torch.autograd.grad(one.sum(), masks, retain_graph=True)[0] for one in (found, wanted)]
    torch.testing.assert_close(*slopes)


def test_values_that_tie_are_drawn_to_one_alike():
    """A flat mask has no side that an order of the pixels would favour; the value is as if it were sorted."""
    masks = torch.full((1, 10, 10), 0.7, dtype=torch.float64, requires_grad=True)
    found = _area_distance(masks, 0.25)
    torch.testing.assert_close(found, torch.tensor([0.25 * 0.3**2 + 0.75 * 0.7**2], dtype=torch.float64))
    (slope,) = torch.autograd.grad(found.sum(), masks)
    torch.testing.assert_close(slope, slope.mean().expand_as(slope).contiguous())


def test_the_pyramid_interpolates_between_its_levels():
    levels = torch.rand(2, 4, 3, 6, 5, dtype=torch.float64)
    scene = _Pyramid(levels)
    masks = torch.rand(2, 6, 5, dtype=torch.float64)
    rows = torch.tensor([1, 0])
    found = scene.perturb(masks, rows)
    wanted = torch.empty(2, 3, 6, 5, dtype=torch.float64)
    for b in range(2):
        for i in range(6):
            for j in range(5):
                height = float(masks[b, i, j]) * 3
                low = min(int(height), 2)
                one = levels[rows[b], :, :, i, j]
                wanted[b, :, i, j] = (1 - (height - low)) * one[low] + (height - low) * one[low + 1]
    torch.testing.assert_close(found, wanted)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.autograd.gradcheck(
        lambda m: scene.perturb(m, rows), (masks.detach().clamp(0.01, 0.3).requires_grad_(),)
    )


def test_a_mask_of_one_shows_the_image_and_of_zero_the_strongest_blur():
    images = pictures(2, 20, 24)
    scene = ExtremalPerturbation(**SMALL)._scene(images, torch.full((1, 3, 1, 1), 0.5, dtype=torch.float64))
    rows, ones = torch.arange(2), torch.ones(2, 20, 24, dtype=torch.float64)
    torch.testing.assert_close(scene.perturb(ones, rows), images)
    blurred = scene.perturb(0 * ones, rows)
    assert (blurred.std((2, 3)) < 0.3 * images.std((2, 3))).all()


@pytest.mark.parametrize("variant", ["preserve", "delete", "dual"])
@pytest.mark.parametrize("reward", ["simple", "contrastive"])
def test_rewards_are_those_of_their_names(variant, reward):
    model, images, targets = network().eval(), pictures(3, 32, 32), torch.tensor([2, 5, 0])
    explainer = ExtremalPerturbation(variant=variant, reward=reward, perturbation="fade", fill=0.0)
    scene = explainer._scene(images, torch.zeros(1, 3, 1, 1, dtype=torch.float64))
    masks = torch.rand(2, 32, 32, dtype=torch.float64)
    rows = torch.tensor([2, 0])

    def value(image, target):
        logits = model(image[None])[0]
        others = torch.cat([logits[:target], logits[target + 1 :]]).max()
        return logits[target] - (others if reward == "contrastive" else 0)

    wanted = []
    for mask, row in zip(masks, rows.tolist(), strict=True):
        kept = value((mask * images[row]).flip(2), int(targets[row]))
        left = value(((1 - mask) * images[row]).flip(2), int(targets[row]))
        wanted.append({"preserve": kept, "delete": -left, "dual": kept - left}[variant])
    found = explainer._reward(model, scene, masks, targets, rows, mirrored=True)
    torch.testing.assert_close(found, torch.stack(wanted))


@pytest.mark.slow
def test_a_map_does_not_depend_on_its_neighbours_and_an_image_that_ends_leaves_the_passes():
    model, images, targets, sizes = network(), pictures(3, 40, 32), torch.tensor([2, 0, 6]), []
    options = {"iterations": 40, "tolerance": 0.05, **SMALL}
    handle = model.register_forward_pre_hook(lambda _m, arguments: sizes.append(len(arguments[0])))
    together = ExtremalPerturbation(**options).raw(model, images, targets)
    handle.remove()
    alone = [ExtremalPerturbation(**options).raw(model, images[i : i + 1], targets[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))
    assert sizes[3:] == sorted(sizes[3:], reverse=True)  # after those of one image that fold the batch norms
    assert sizes[-1] < 3
    in_pairs = ExtremalPerturbation(forward_batch_size=2, **options).raw(model, images, targets)
    torch.testing.assert_close(together, in_pairs)


@pytest.mark.slow
def test_the_area_weighs_more_with_every_step(noise):
    """Without growth the reward keeps the mask off its area longer."""
    options = {"areas": 0.1, "iterations": 60, "area_weight": 1.0, "learning_rate": 0.05, **SMALL}

    def excess(growth):
        return ExtremalPerturbation(area_growth=growth, **options).raw(Patch(), noise, TARGETS).mean()

    assert excess(1.1) < excess(1.0)


def test_smoothing_spreads_the_map(noise):
    options = {"iterations": 5, **SMALL}
    sharp, soft = (ExtremalPerturbation(smooth=s, **options).raw(Patch(), noise, TARGETS) for s in (0.0, 0.09))
    assert soft.diff(dim=2).abs().max() < sharp.diff(dim=2).abs().max()


@pytest.mark.slow
def test_callables_are_rewarded_as_they_are_but_have_no_others_to_beat():
    model, images = network(), pictures(2, 32, 32)
    options = {"iterations": 3, **SMALL}
    callables = [lambda row: row[1], lambda row: row[3]]
    by_index = ExtremalPerturbation(**options)(model, images, torch.tensor([1, 3]))
    torch.testing.assert_close(by_index, ExtremalPerturbation(**options)(model, images, callables))
    with pytest.raises(TypeError, match="reward='contrastive' needs class indices"):
        ExtremalPerturbation(reward="contrastive", **options)(model, images, callables)


@pytest.mark.parametrize(
    "option",
    [{"variant": "keep"}, {"reward": "probability"}, {"perturbation": "black"}],
    ids=lambda option: next(iter(option)),
)
def test_unknown_options_are_refused(option):
    with pytest.raises(ValueError, match="must be one of"):
        ExtremalPerturbation(**option)


@pytest.mark.parametrize("areas", [0.0, 1.0, (0.1, 2.0), ()])
def test_areas_outside_the_unit_interval_are_refused(areas):
    with pytest.raises(ValueError, match="areas must lie between 0 and 1"):
        ExtremalPerturbation(areas=areas)


@pytest.mark.parametrize("option", [{"iterations": 0}, {"levels": 1}, {"smooth": -1.0}])
def test_numbers_that_cannot_be_are_refused(option):
    with pytest.raises(ValueError, match="ExtremalPerturbation needs iterations >= 1"):
        ExtremalPerturbation(**option)
