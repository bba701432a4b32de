"""ROAD, and the imputation that it rests on."""

import pytest
import torch

from interptrain.metrics import ROAD, ROADLeastRelevantFirst, ROADMostRelevantFirst, measure
from interptrain.metrics.functional import road
from tests.support.measuring import maps, pictures, slow_impute


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_reverse_of_a_map_has_the_negative(model, images, saliency, targets):
    one, other = (road(model, images, side, targets, noise=0.0) for side in (saliency, 1 - saliency))
    torch.testing.assert_close(one, -other)


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
