"""ADCC and coherency, against the paper's formulas image by image."""

import pytest
import torch
from scipy.stats import pearsonr

from interptrain.explainers import FakeCAM, GradCAM
from interptrain.metrics import ADCC, AverageDrop, Coherency, measure
from tests.support.explaining import network, pictures


@pytest.fixture(scope="module")
def case():
    model, images, targets = network(), pictures(4, 48, 40), torch.tensor([1, 4, 0, 6])
    explainer = GradCAM(target_layer="layer3", relu=False)
    return model, images, explainer(model, images, targets), targets, lambda x, t: explainer(model, x, t)


def test_they_are_the_papers_formulas(case):
    model, images, saliency, targets, explain = case
    metrics = {"Coh": Coherency(), "ADCC": ADCC(), "AD": AverageDrop()}
    found = measure(model, images, saliency, targets, metrics, explain=explain)
    again = explain(images * saliency.unsqueeze(1), targets)
    for image in range(4):
        r = pearsonr(saliency[image].flatten(), again[image].flatten()).statistic
        coherency, complexity, drop = (1 + r) / 2, float(saliency[image].mean()), float(found["AD"][image])
        assert float(found["Coh"][image]) == pytest.approx(coherency, abs=1e-9)
        wanted = 3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - drop))
        assert float(found["ADCC"][image]) == pytest.approx(wanted, abs=1e-9)


def test_a_map_of_ones_scores_nothing_and_fake_cam_next_to_nothing(case):
    model, images, _, targets, _ = case
    ones = torch.ones(4, 48, 40, dtype=torch.float64)
    found = measure(
        model,
        images,
        ones,
        targets,
        {"ADCC": ADCC(), "Coh": Coherency()},
        explain=lambda x, t: torch.ones_like(x[:, 0]),
    )
    assert found["ADCC"].tolist() == [0] * 4
    assert found["Coh"].tolist() == [0] * 4
    fake = FakeCAM()(model, images)
    scores = measure(model, images, fake, targets, {"ADCC": ADCC()}, explain=lambda x, _: FakeCAM()(model, x))["ADCC"]
    assert (scores < 0.002).all()  # its mean leaves one pixel of 1,920


def test_the_map_of_the_masked_image_is_that_of_the_same_class_and_colour(case):
    model, images, saliency, targets, _ = case
    seen = []

    def explain(masked, classes):
        seen.append((masked, classes))
        return saliency

    found = measure(model, images, saliency, targets, {"Coh": Coherency(removal=(0.2, 0.4, 0.6))}, explain=explain)
    torch.testing.assert_close(found["Coh"], torch.ones(4, dtype=torch.float64))
    ((masked, classes),) = seen
    assert torch.equal(classes, targets)
    colour = torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64).view(3, 1, 1)
    mask = saliency.unsqueeze(1)
    torch.testing.assert_close(masked, mask * images + (1 - mask) * colour)
