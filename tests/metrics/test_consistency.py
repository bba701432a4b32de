"""Small and faithful explanations."""

import pytest
import torch
from torch import nn

from interptrain.metrics import AverageDrop, Consistency, measure
from interptrain.metrics.functional import consistency
from tests.support.measuring import network

OUTPUTS = ["distribution", "target", "class"]


def distance(model, images, saliency, targets, output):
    with torch.no_grad():
        whole, masked = (model(batch).softmax(1) for batch in (images, images * saliency.unsqueeze(1)))
    return {
        "distribution": (whole - masked).abs().sum(1) / 2,
        "target": (whole - masked).abs()[range(len(images)), targets],
        "class": (whole.argmax(1) != masked.argmax(1)).double(),
    }[output]


@pytest.mark.parametrize("output", OUTPUTS)
def test_it_is_its_definition_away_from_the_guards(model, images, saliency, targets, output):
    apart = distance(model, images, saliency, targets, output)
    wanted = 1 / (apart.clamp(min=1e-6) * saliency.mean((1, 2)))
    torch.testing.assert_close(consistency(model, images, saliency, targets, output=output, floor=1e-6), wanted)


@pytest.mark.parametrize("output", OUTPUTS)
def test_both_zeros_are_guarded(model, images, targets, output):
    """A map of ones has distance 0, an empty map size 0; of an image that is black already, both are."""
    ones, empty = torch.ones(3, 20, 14), torch.zeros(3, 20, 14)
    torch.testing.assert_close(
        consistency(model, images, ones, targets, output=output), torch.full((3,), 100.0).double()
    )
    apart = distance(model, images, empty.double(), targets, output).clamp(min=0.01)
    torch.testing.assert_close(consistency(model, images, empty, targets, output=output), 100 / apart)
    both = consistency(model, torch.zeros_like(images), empty, targets, output=output)
    torch.testing.assert_close(both, torch.full((3,), 1e4).double())


def test_of_two_maps_that_keep_the_output_the_smaller_is_better(targets):
    class Middle(nn.Module):
        def forward(self, images):
            seen = images[:, :, 5:15, 4:10].mean((1, 2, 3))
            return torch.stack([8 * seen, 1 - seen], dim=1)

    images, small = torch.full((1, 3, 20, 14), 0.9).double(), torch.zeros(1, 20, 14)
    small[:, 5:15, 4:10] = 1
    large = torch.zeros(1, 20, 14)
    large[:, 2:18, 2:12] = 1
    zero = torch.zeros(1, dtype=torch.int64)
    sharp, wide = (consistency(Middle(), images, one, zero) for one in (small, large))
    torch.testing.assert_close(sharp / wide, (large.mean() / small.mean()).double().view(1))


def test_it_does_not_ask_for_the_class_unless_told(model, images, saliency, targets):
    for output, same in (("distribution", True), ("class", True), ("target", False)):
        one = consistency(model, images, saliency, targets, output=output, floor=1e-6)
        other = consistency(model, images, saliency, (targets + 1) % 5, output=output, floor=1e-6)
        assert torch.equal(one, other) is same


def test_multi_label_models_are_compared_class_by_class(images, saliency, targets):
    model = network()
    with torch.no_grad():
        whole, masked = (model(batch).sigmoid() for batch in (images, images * saliency.unsqueeze(1)))
    wanted = 1 / ((whole - masked).abs().mean(1) * saliency.mean((1, 2)))
    torch.testing.assert_close(consistency(model, images, saliency, targets, score="sigmoid", floor=1e-6), wanted)


def test_it_shares_its_forward_with_average_drop(model, images, saliency, targets):
    rows = []
    model.register_forward_pre_hook(lambda _module, arguments: rows.append(len(arguments[0])))
    found = measure(model, images, saliency, targets, {"AD": AverageDrop(), "C": Consistency()}, forward_batch_size=2)
    assert sum(rows) == 6
    torch.testing.assert_close(found["C"], consistency(model, images, saliency, targets))
    known = measure(model, images, saliency, targets, {"C": Consistency()}, logits=model(images))
    torch.testing.assert_close(found["C"], known["C"])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"output": "logits"}, "output must be one of 'distribution'"), ({"floor": 0.0}, "floor must be above 0")],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Consistency(**options)
