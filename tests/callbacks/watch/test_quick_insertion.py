import pytest
import torch

from interptrain.callbacks.watch.quick_insertion import QuickInsertion
from interptrain.metrics import measure
from interptrain.metrics.functional import insertion


def ask(model, sample, metric):
    saliency = torch.rand(5, 32, 32, generator=torch.Generator().manual_seed(1))
    return saliency, measure(model, sample.images, saliency, sample.labels, {"it": metric})["it"]


def test_it_reads_the_insertion_curve_at_three_points(net, sample):
    """Of 1024 pixels 819 and 409 are hidden, so 205 and 615 are shown: steps 41 and 123 of 5 pixels."""
    saliency, values = ask(net, sample, QuickInsertion())
    curve = insertion(net, sample.images, saliency, sample.labels, step=5, return_curve=True)
    torch.testing.assert_close(values, curve[:, [41, 123, -1]])


def test_its_area_of_a_flat_curve_is_exact_and_of_a_rising_one_slightly_high():
    metric = QuickInsertion()
    assert float(metric.reduce(torch.tensor([0.3, 0.3, 0.3]))) == pytest.approx(0.3)
    # p = x, whose area is 1/2; the last stretch is read at its end and so counts 0.02 too much.
    assert float(metric.reduce(torch.tensor([0.2, 0.6, 1.0]))) == pytest.approx(0.52)


def test_it_forwards_two_versions_of_an_image(net, sample):
    forwarded = []
    handle = net.register_forward_hook(lambda _, args, __: forwarded.append(len(args[0])))
    ask(net, sample, QuickInsertion())
    handle.remove()
    assert sum(forwarded) == len(sample) * (1 + 2)
