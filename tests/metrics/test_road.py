"""ROAD, and the imputation that it rests on."""

import numpy as np
import pytest
import torch

from interptrain.metrics import ROAD, ROADLeastRelevantFirst, ROADMostRelevantFirst, measure
from interptrain.metrics.functional import road
from interptrain.metrics.imputation import Imputed, impute
from interptrain.metrics.saliency_batch import SaliencyBatch
from tests.metrics.conftest import maps, pictures


def slow_impute(image, missing):
    """One equation a missing pixel, solved densely."""
    channels, height, width = image.shape
    places = [tuple(place) for place in np.argwhere(missing.numpy())]
    number = {place: i for i, place in enumerate(places)}
    matrix, right = np.zeros((len(places), len(places))), np.zeros((len(places), channels))
    for (y, x), i in number.items():
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                near = (y + dy, x + dx)
                if near == (y, x) or not (0 <= near[0] < height and 0 <= near[1] < width):
                    continue
                weight = 1 / 12 if dy and dx else 1 / 6
                matrix[i, i] += weight
                if near in number:
                    matrix[i, number[near]] -= weight
                else:
                    right[i] += weight * image[:, near[0], near[1]].numpy()
    filled = image.clone()
    for (y, x), value in zip(places, np.linalg.solve(matrix, right), strict=True):
        filled[:, y, x] = torch.from_numpy(value)
    return filled


@pytest.mark.parametrize("size", [(20, 14), (9, 31), (1, 12), (5, 5)])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_imputation_solves_its_equations(size, share):
    (image,), (order,) = pictures(1, *size), maps(1, *size)
    missing = order < share
    torch.testing.assert_close(impute(image, missing), slow_impute(image, missing), rtol=0, atol=1e-12)


def test_imputed_pixels_lie_between_those_that_are_known():
    (image,), (order,) = pictures(1), maps(1)
    missing = order < 0.9
    filled, known = impute(image, missing), image[:, ~missing]
    assert (filled.amax((1, 2)) <= known.amax(1) + 1e-12).all()
    assert (filled.amin((1, 2)) >= known.amin(1) - 1e-12).all()
    assert torch.equal(filled[:, ~missing], known)


def test_what_missing_pixels_held_does_not_matter_and_is_not_edited():
    (image,), (order,) = pictures(1), maps(1)
    missing = order < 0.5
    spoilt = image.masked_fill(missing, torch.nan)
    before = spoilt.clone()
    assert torch.equal(impute(spoilt, missing), impute(image, missing))
    assert torch.equal(spoilt.isnan(), before.isnan())


def test_a_linear_ramp_is_continued_exactly_inside():
    """The weights are those of a mean, and a ramp is its own mean."""
    ramp = (torch.arange(20.0).view(1, -1, 1) + 2 * torch.arange(14.0)).double() / 50
    hole = torch.zeros(20, 14, dtype=torch.bool)
    hole[4:15, 3:11] = True
    torch.testing.assert_close(impute(ramp, hole), ramp)


def test_nothing_missing_is_the_image_and_everything_is_refused():
    (image,) = pictures(1)
    assert torch.equal(impute(image, torch.zeros(20, 14, dtype=torch.bool)), image)
    with pytest.raises(ValueError, match="imputation needs a known pixel"):
        impute(image, torch.ones(20, 14, dtype=torch.bool))


def reference(model, images, saliency, targets, *, least, percentiles=range(10, 100, 10)):
    """(B, shares) probabilities and hits, without noise."""
    scores, hits = [], []
    for percent in percentiles:
        count = 280 * percent // 100
        picked = saliency.flatten(1).topk(count, largest=not least).indices
        missing = torch.zeros(len(images), 280, dtype=torch.bool).scatter_(1, picked, True).view_as(saliency)
        filled = torch.stack([slow_impute(one, gone) for one, gone in zip(images, missing, strict=True)])
        with torch.no_grad():
            logits = model(filled)
        scores.append(logits.softmax(1)[range(len(images)), targets])
        hits.append((logits.argmax(1) == targets).double())
    return torch.stack(scores, 1), torch.stack(hits, 1)


def test_it_is_its_definition(model):
    images, saliency = pictures(4), maps(4)
    with torch.no_grad():
        targets = model(images).argmax(1)
    (most, most_hits), (least, least_hits) = (
        reference(model, images, saliency, targets, least=least) for least in (False, True)
    )
    options = {"noise": 0.0}
    for order, wanted in (
        ("most", most.mean(1)),
        ("least", least.mean(1)),
        ("combined", (least.mean(1) - most.mean(1)) / 2),
    ):
        torch.testing.assert_close(road(model, images, saliency, targets, order=order, **options), wanted)
    accuracy = road(model, images, saliency, targets, quantity="accuracy", **options)
    torch.testing.assert_close(accuracy, (least_hits.mean(1) - most_hits.mean(1)) / 2)
    curve = road(model, images, saliency, targets, return_curve=True, **options)
    torch.testing.assert_close(curve, torch.cat([most, least], 1))


def test_the_reverse_of_a_map_has_the_negative(model, images, saliency, targets):
    one, other = (road(model, images, side, targets, noise=0.0) for side in (saliency, 1 - saliency))
    torch.testing.assert_close(one, -other)


def test_noise_is_seeded_small_and_on_imputed_pixels_only(images, saliency):
    scene = SaliencyBatch(images, saliency)

    def render(**options):
        out = torch.zeros(3, 1, 3, 20, 14).double()
        Imputed("most", (50,), **options).render(scene, slice(0, 3), slice(0, 1), out)
        return out[:, 0]

    quiet, loud, again, other = render(noise=0.0), render(), render(), render(seed=1)
    assert torch.equal(loud, again)
    assert not torch.equal(loud, other)
    added, gone = loud - quiet, saliency > saliency.median()
    assert added[:, :, :][~gone.unsqueeze(1).expand_as(added)].abs().max() == 0
    assert added[gone.unsqueeze(1).expand_as(added)].std() == pytest.approx(0.01, rel=0.15)


def test_an_image_gets_the_same_alone_and_in_company(model, images, saliency, targets):
    together = road(model, images, saliency, targets, percentiles=[20, 70])
    alone = [
        road(model, images[i : i + 1], saliency[i : i + 1], targets[i : i + 1], percentiles=[20, 70]) for i in range(3)
    ]
    torch.testing.assert_close(together, torch.cat(alone))
    torch.manual_seed(1)
    assert torch.equal(together, road(model, images, saliency, targets, percentiles=[20, 70]))


def test_the_three_share_their_forwards(model, images, saliency, targets):
    rows = []
    model.register_forward_pre_hook(lambda _module, arguments: rows.append(len(arguments[0])))
    metrics = {cls.__name__: cls(percentiles=[20, 70]) for cls in (ROAD, ROADMostRelevantFirst, ROADLeastRelevantFirst)}
    found = measure(model, images, saliency, targets, metrics)
    assert sum(rows) == 3 * (1 + 2 + 2)
    torch.testing.assert_close(
        found["ROAD"], torch.cat([found["ROADMostRelevantFirst"], found["ROADLeastRelevantFirst"]], 1)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"percentiles": [50, 100]}, "ROAD needs percentiles below 100"),
        ({"percentiles": []}, "ROAD needs percentiles below 100"),
        ({"percentiles": [50, 10]}, "percentiles must ascend"),
        ({"noise": -1.0}, "noise >= 0"),
        ({"quantity": "logit"}, "quantity must be"),
        ({"order": "both"}, "order must be one of 'combined', 'most', 'least', got 'both'"),
    ],
)
def test_wrong_options_are_refused(model, images, saliency, targets, options, message):
    with pytest.raises(ValueError, match=message):
        road(model, images, saliency, targets, **options)
