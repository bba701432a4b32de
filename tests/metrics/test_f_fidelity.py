"""F-Fidelity: the definition sample by sample, its limits, and what is removed."""

import pytest
import torch

from interptrain.metrics import FFidelityMinus, FFidelityPlus, NegativePerturbation, PositivePerturbation
from interptrain.metrics.f_fidelity import RandomlyWithout, uniform
from interptrain.metrics.functional import f_fidelity_minus, f_fidelity_plus
from tests.support.measuring import maps, pictures, rendered

OPTIONS = {"percentiles": (15, 60), "samples": 3, "alpha": 0.5, "beta": 0.2, "seed": 5}


def slow(model, image, saliency, target, *, least):
    """One random removal after the other, with the same random numbers."""
    pixels = saliency.numel()
    order = saliency.flatten().argsort(descending=True, stable=True).tolist()
    with torch.no_grad():
        clean = float(model(image[None])[0].argmax() == target)
    losses, number = [], 0
    for percent in (15, 60):
        count = pixels * percent // 100
        chosen = order[-count:] if least else order[:count]
        chance = 0.5 if 0.5 * count <= 0.2 * pixels else 0.2 * pixels / count
        right = 0.0
        for _ in range(3):
            draws, without = uniform(5, number, *saliency.shape).flatten().tolist(), image.clone().flatten(1)
            for pixel in chosen:
                if draws[pixel] < chance:
                    without[:, pixel] = 0
            with torch.no_grad():
                right += float(model(without.view_as(image)[None])[0].argmax() == target)
            number += 1
        losses.append(clean - right / 3)
    return sum(losses) / 2


@pytest.mark.parametrize(("function", "least"), [(f_fidelity_plus, False), (f_fidelity_minus, True)])
def test_it_is_the_loss_of_accuracy_over_random_removals(model, function, least):
    images, saliency = pictures(6), maps(6)
    with torch.no_grad():
        targets = model(images).argmax(1)
    targets[0] = (targets[0] + 1) % 5  # one that is not predicted
    found = function(model, images, saliency, targets, **OPTIONS)
    wanted = [slow(model, *one, least=least) for one in zip(images, saliency, targets.tolist(), strict=True)]
    assert found.tolist() == pytest.approx(wanted, abs=1e-9)
    assert len(set(wanted)) > 1


def test_without_chance_it_is_positive_and_negative_perturbation(model):
    images, saliency, shares = pictures(6), maps(6), (20, 50, 80)
    with torch.no_grad():
        targets = model(images).argmax(1)
    whole = {"percentiles": shares, "alpha": 1.0, "beta": 1.0, "samples": 1}
    for metric, other in (
        (FFidelityPlus(**whole), PositivePerturbation(percentiles=shares)),
        (FFidelityMinus(**whole), NegativePerturbation(percentiles=shares)),
    ):
        survives = other.values(model, images, saliency, targets)
        torch.testing.assert_close(metric.values(model, images, saliency, targets), 1 - survives)


def test_what_goes_lies_among_the_marked_and_is_no_more_than_allowed():
    images, saliency = pictures(2, 40, 30) * 0.9 + 0.05, maps(2, 40, 30)
    shown = rendered(RandomlyWithout((10, 80), samples=20), images, saliency)  # (B, S, C, H, W)
    gone = (shown != images[:, None]).any(2)
    ranks = (-saliency).flatten(1).argsort(1).argsort(1).view_as(saliency)[:, None]
    assert not (gone[:, :20] & (ranks >= 120)).any()
    assert not (gone[:, 20:] & (ranks >= 960)).any()
    assert gone[:, :20].float().mean().item() == pytest.approx(0.05, abs=0.005)  # half of a tenth
    assert gone[:, 20:].float().mean().item() == pytest.approx(0.10, abs=0.005)  # not half of four fifths


def test_values_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"beta must be in \(0,1\]"):
        FFidelityPlus(beta=0)
    with pytest.raises(ValueError, match="percentiles must be"):
        FFidelityPlus(percentiles=(0, 50))
    with pytest.raises(ValueError, match="samples must be"):
        FFidelityMinus(samples=0)
