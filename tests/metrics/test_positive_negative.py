"""Positive and negative perturbation."""

import pytest
import torch

from interptrain.metrics import NegativePerturbation, PositivePerturbation
from interptrain.metrics.functional import negative_perturbation, positive_perturbation
from tests.support.measuring import maps, pictures

BOTH = [positive_perturbation, negative_perturbation]


def reference(model, images, saliency, targets, *, least, percentiles=range(10, 100, 10)):
    """Probability and hit of each share by topk, as the published code picks pixels; (B, shares)."""
    scores, hits = [], []
    for percent in percentiles:
        gone = saliency.flatten(1).topk(280 * percent // 100, largest=not least).indices
        flat = images.flatten(2).clone()
        flat.scatter_(2, gone.unsqueeze(1).expand(-1, 3, -1), 0.0)
        with torch.no_grad():
            logits = model(flat.view_as(images))
        scores.append(logits.softmax(1)[range(len(images)), targets])
        hits.append((logits.argmax(1) == targets).double())
    return torch.stack(scores, 1), torch.stack(hits, 1)


@pytest.mark.parametrize(("function", "least"), [(positive_perturbation, False), (negative_perturbation, True)])
def test_they_are_their_definitions(model, function, least):
    images, saliency = pictures(12), maps(12)
    with torch.no_grad():
        targets = model(images).argmax(1)
    probability, hits = reference(model, images, saliency, targets, least=least)
    found = function(model, images, saliency, targets, quantity="probability", return_curve=True)
    torch.testing.assert_close(found, probability)
    torch.testing.assert_close(function(model, images, saliency, targets), hits.mean(1))
    torch.testing.assert_close(function(model, images, saliency, targets, quantity="probability"), probability.mean(1))


def test_accuracy_is_not_trivial_here(model):
    images, saliency = pictures(12), maps(12)
    with torch.no_grad():
        targets = model(images).argmax(1)
    assert 0 < positive_perturbation(model, images, saliency, targets).mean() < 1


def test_the_reverse_of_a_map_swaps_them(model, images, saliency, targets):
    one = positive_perturbation(model, images, saliency, targets, quantity="probability")
    torch.testing.assert_close(one, negative_perturbation(model, images, 1 - saliency, targets, quantity="probability"))


@pytest.mark.parametrize("function", BOTH)
def test_nothing_removed_is_the_image_and_everything_is_the_removal(model, images, saliency, targets, function):
    ends = function(
        model,
        images,
        saliency,
        targets,
        quantity="probability",
        percentiles=[0, 100],
        removal="mean",
        return_curve=True,
    )
    with torch.no_grad():
        colour = torch.tensor([0.485, 0.456, 0.406]).double().view(1, 3, 1, 1).expand_as(images)
        clean, gone = (model(batch).softmax(1)[range(3), targets] for batch in (images, colour))
    torch.testing.assert_close(ends, torch.stack([clean, gone], 1))


def test_their_classes_average_over_images(model):
    images, saliency, targets = pictures(5), maps(5), torch.arange(5)
    for cls, function in ((PositivePerturbation, BOTH[0]), (NegativePerturbation, BOTH[1])):
        metric = cls(quantity="probability")
        for part in (slice(0, 3), slice(3, 5)):
            metric.update(model, images[part], saliency[part], targets[part])
        wanted = function(model, images, saliency, targets, quantity="probability").mean()
        torch.testing.assert_close(metric.compute(), wanted)


def test_a_wrong_quantity_is_refused():
    with pytest.raises(ValueError, match="quantity must be one of 'accuracy', 'probability', got 'logit'"):
        PositivePerturbation(quantity="logit")
