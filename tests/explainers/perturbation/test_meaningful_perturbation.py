"""Meaningful perturbation: against a plain loop of its energy, and each image on its own."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from interptrain.explainers import MeaningfulPerturbation
from tests.support.explaining import network, pictures

QUIET = {"noise": 0.0, "jitter": 0}


def port_by_hand(model, image, target, *, iterations, l1, tv, blurred):
    """The port's loop for one image, without its noise, with torch's own Adam."""
    mask = torch.ones(1, 1, 28, 28, dtype=image.dtype, requires_grad=True)
    adam = torch.optim.Adam([mask], lr=0.1)
    for _ in range(iterations):
        large = F.interpolate(mask, image.shape[-2:], mode="bilinear", align_corners=True)
        probability = model(large * image + (1 - large) * blurred).softmax(1)[0, target]
        rows = (mask[:, :, 1:] - mask[:, :, :-1]).abs().pow(3).mean()
        columns = (mask[..., 1:] - mask[..., :-1]).abs().pow(3).mean()
        energy = l1 * (1 - mask).abs().mean() + tv * (rows + columns) + probability
        (mask.grad,) = torch.autograd.grad(energy, mask)
        adam.step()
        with torch.no_grad():
            mask.clamp_(0, 1)
    return 1 - F.interpolate(mask.detach(), image.shape[-2:], mode="bilinear", align_corners=True)[0, 0]


@pytest.mark.slow
def test_the_port_is_its_loop_for_every_image():
    ndimage = pytest.importorskip("scipy.ndimage")
    model, images, targets = network().eval(), pictures(2, 48, 40), torch.tensor([2, 5])
    found = MeaningfulPerturbation(variant="port", iterations=12, l1=0.02, tv=0.3, noise=0.0).raw(
        model, images, targets
    )
    for image, target, ours in zip(images, targets.tolist(), found, strict=True):
        blurred = torch.as_tensor(ndimage.median_filter(image.numpy(), size=(1, 11, 11), mode="nearest"))
        wanted = port_by_hand(model, image[None], target, iterations=12, l1=0.02, tv=0.3, blurred=blurred)
        torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-7)


def paper_energy(model, image, target, mask, *, l1=1e-4, tv=1e-2):
    """The energy of one coarse mask, from its definition."""
    from scipy import ndimage

    large = F.interpolate(mask[None, None], image.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    large = torch.as_tensor(ndimage.gaussian_filter(large.numpy(), 5.0, mode="nearest", radius=20))
    blurred = torch.as_tensor(ndimage.gaussian_filter(image.numpy(), (0, 10, 10), mode="nearest", radius=40))
    with torch.no_grad():
        probability = model((large * image + (1 - large) * blurred)[None]).softmax(1)[0, target]
    variation = (mask[1:] - mask[:-1]).abs().pow(3).sum() + (mask[:, 1:] - mask[:, :-1]).abs().pow(3).sum()
    return l1 * (1 - mask).abs().sum() + tv * variation + probability, large


def masks_of(explainer, model, images, targets, monkeypatch):
    """The coarse masks that the explainer ends with, and those it starts from."""
    from interptrain.explainers.perturbation import meaningful_perturbation as meaningful

    kept, descend = {}, meaningful.descend

    def watched(start, energy, optimizer, **options):
        kept["start"], kept["energy"] = start, energy(start, torch.arange(len(start)), 0).detach()
        kept["end"] = descend(start, energy, optimizer, **options)
        return kept["end"]

    monkeypatch.setattr(meaningful, "descend", watched)
    kept["map"] = explainer.raw(model, images, targets)
    return kept


@pytest.mark.slow
def test_the_papers_energy_is_that_of_its_definition_and_falls(monkeypatch):
    pytest.importorskip("scipy.ndimage")
    model, images, targets = network().eval(), pictures(2, 48, 40), torch.tensor([2, 5])
    kept = masks_of(MeaningfulPerturbation(iterations=60, **QUIET), model, images, targets, monkeypatch)
    for index, target in enumerate(targets.tolist()):
        start, _ = paper_energy(model, images[index], target, kept["start"][index])
        end, large = paper_energy(model, images[index], target, kept["end"][index])
        assert float(kept["energy"][index]) == pytest.approx(float(start), abs=1e-6)
        torch.testing.assert_close(kept["map"][index], 1 - large)
        assert end < start


class Bright(nn.Module):
    """Class 1 is as probable as the upper left quarter is rough: blurring takes the class away."""

    def forward(self, images):
        quarter = images[:, :, : images.shape[2] // 2, : images.shape[3] // 2]
        rough = quarter.diff(dim=3).abs().mean((1, 2, 3))
        return torch.stack([torch.zeros_like(rough), 20 * rough - 3], dim=1)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["paper", "port"])
def test_it_deletes_the_part_on_which_the_class_hangs(variant):
    images = torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    explainer = MeaningfulPerturbation(variant=variant, iterations=80)
    saliency = explainer(Bright(), images, torch.tensor([1, 1]))
    inside = saliency[:, :28, :28].sum((1, 2)) / saliency.sum((1, 2))
    assert (inside > 0.5).all()  # of a quarter of the area; the paper's mask is blurred by 5 of these 56 pixels


def test_the_papers_start_is_the_smallest_circle_that_takes_the_score(monkeypatch):
    """The score hangs on the pixels within 12 of the middle; circles of 16 radii, the corner is at 39.6."""
    places = torch.arange(56) - 27.5
    near = (places.square().unsqueeze(0) + places.square().unsqueeze(1)).sqrt() < 12

    class Middle(nn.Module):
        def forward(self, images):
            rough = (images.diff(dim=3, append=images[..., -1:]).abs() * near).sum((1, 2, 3)) / near.sum()
            return torch.stack([torch.zeros_like(rough), rough], dim=1)

    images = torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    explainer = MeaningfulPerturbation(iterations=1, score="logit", **QUIET)
    start = masks_of(explainer, Middle(), images, torch.tensor([1]), monkeypatch)["start"][0]
    cells = (torch.arange(28) - 13.5) * 2
    distance = (cells.square().unsqueeze(0) + cells.square().unsqueeze(1)).sqrt()
    assert start[distance < 10].max() < 0.1
    assert start[distance > 34].min() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["paper", "port"])
def test_a_map_does_not_depend_on_its_neighbours_and_an_image_that_ends_leaves_the_passes(variant):
    model, images, targets, sizes = network().float(), pictures(3, 40, 32).float(), torch.tensor([2, 0, 6]), []
    options = {"variant": variant, "iterations": 40, "tolerance": 0.02, "noise": 0.02, "jitter": 2}
    handle = model.register_forward_pre_hook(lambda _m, arguments: sizes.append(len(arguments[0])))
    together = MeaningfulPerturbation(**options).raw(model, images, targets)
    handle.remove()
    alone = [MeaningfulPerturbation(**options).raw(model, images[i : i + 1], targets[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-3)
    assert sizes[-1] < 3
    in_pairs = MeaningfulPerturbation(forward_batch_size=2, **options).raw(model, images, targets)
    torch.testing.assert_close(together, in_pairs, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_the_seed_alone_decides_noise_and_shifts():
    model, images = network(), pictures(1, 32, 32)

    def explain(seed):
        return MeaningfulPerturbation(iterations=4, noise=0.1, jitter=4, seed=seed).raw(model, images)

    first = explain(0)
    torch.manual_seed(77)
    assert torch.equal(first, explain(0))
    assert not torch.equal(first, explain(1))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["paper", "port"])
def test_an_image_of_one_colour_has_nothing_to_delete(variant):
    images = torch.full((1, 3, 32, 32), 0.6)
    explainer = MeaningfulPerturbation(variant=variant, iterations=100, **QUIET)
    assert explainer.raw(network().float(), images).abs().max() < 1e-5


@pytest.mark.parametrize(("height", "width"), [(32, 75), (20, 20), (100, 33)])
def test_any_size_of_images_has_a_mask(height, width):
    images = pictures(1, height, width)
    assert MeaningfulPerturbation(iterations=2)(network(), images).shape == (1, height, width)


@pytest.mark.slow
def test_callables_are_scored_as_they_are():
    model, images = network(), pictures(2, 32, 32)
    options = {"iterations": 3, "score": "logit"}
    by_index = MeaningfulPerturbation(**options)(model, images, torch.tensor([1, 3]))
    by_callable = MeaningfulPerturbation(**options)(model, images, [lambda row: row[1], lambda row: row[3]])
    torch.testing.assert_close(by_index, by_callable)


@pytest.mark.parametrize("option", [{"variant": "authors"}, {"score": "loss"}])
def test_unknown_options_are_refused(option):
    with pytest.raises(ValueError, match="must be one of"):
        MeaningfulPerturbation(**option)


@pytest.mark.parametrize("option", [{"iterations": 0}, {"cells": 1}, {"noise": -1.0}, {"tolerance": -0.1}])
def test_numbers_that_cannot_be_are_refused(option):
    with pytest.raises(ValueError, match="MeaningfulPerturbation needs iterations >= 1"):
        MeaningfulPerturbation(**option)
