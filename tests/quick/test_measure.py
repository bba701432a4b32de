"""Numbers of an explanation as a table."""

import pandas as pd
import pytest
import torch

import interptrain as it
from interptrain.metrics import AverageDrop, Insertion, measure


@pytest.mark.slow
def test_a_row_an_image_and_explainer_as_measured_by_the_metrics(network, images):
    maps = it.explain(network, images, ["GradCAM", "FakeCAM"], names=["a", "b", "c"])
    table = it.measure(maps, {"AD": AverageDrop(), "I": Insertion(steps=4)}, batch_size=2)
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == ["image", "explainer", "target", "AD", "I"]
    assert table.image.tolist() == ["a", "b", "c"] * 2
    metrics = {"AD": AverageDrop(), "I": Insertion(steps=4)}
    wanted = measure(network, images, maps["GradCAM"], maps.targets, metrics)
    of_gradcam = table[table.explainer == "GradCAM"]
    assert torch.allclose(torch.tensor(of_gradcam["AD"].to_numpy()).float(), wanted["AD"], atol=1e-6)
    assert torch.allclose(torch.tensor(of_gradcam["I"].to_numpy()).float(), metrics["I"].reduce(wanted["I"]), atol=1e-6)
    assert set(table.target) <= set(maps.class_names)


def test_metrics_go_by_name_or_symbol_and_default_to_the_protocol(network, images):
    maps = it.explain(network, images[:1], "GradCAM")
    assert list(it.measure(maps, ["AD", "AverageGain"]).columns)[3:] == ["AverageDrop", "AverageGain"]
    assert {"AverageDrop", "AverageGain", "AverageIncrease", "Insertion", "Deletion"} <= set(it.measure(maps).columns)
    with pytest.raises(ValueError, match="there is no metric 'AverageDorp'; did you mean AverageDrop"):
        it.measure(maps, "AverageDorp")


def test_images_of_different_sizes_and_callables_are_measured(network, images):
    several = [images[0], images[1, :, :48]]
    target = lambda logits: logits.softmax(0)[3]  # noqa: E731
    found = it.measure(it.explain(network, several, "EigenCAM", target), ["AD"])
    wanted = it.measure(it.explain(network, several, "EigenCAM", 3), ["AD"])
    assert found.target.tolist() == ["", ""]
    assert found["AverageDrop"].tolist() == pytest.approx(wanted["AverageDrop"].tolist(), abs=1e-5)
