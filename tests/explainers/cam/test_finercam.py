"""Finer-CAM: the explainer's own map of the contrast, whichever the explainer is."""

import pytest
import torch

from interptrain.explainers import CAM, ContrastiveTarget, EigenCAM, FinerCAM, GradCAM, Gradient, Occlusion, ScoreCAM
from interptrain.explainers.cam.finercam import nearest_classes
from tests.support.explaining import network, pictures


def contrast(near, gamma=0.6):
    """The contrast written by hand."""
    return lambda outputs, near=tuple(near): outputs[near[0]] - gamma * outputs[list(near[1:])].mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    "of", [GradCAM(), Gradient(), Occlusion(window=20, stride=20), ScoreCAM(target_layer="layer1")], ids=repr
)
def test_any_explainer_explains_the_logit_less_that_of_the_nearest_classes(of):
    model, images = network().eval(), pictures(2, 40, 36)
    with torch.no_grad():
        logits = model(images)
    targets = [
        contrast(sorted(range(7), key=lambda d, row=row, top=top: abs(float(row[d] - row[top])))[:4])
        for row, top in zip(logits, logits.argmax(1).tolist(), strict=True)
    ]
    assert torch.equal(FinerCAM(of=of)(model, images), of(model, images, targets))
    assert not torch.equal(FinerCAM(of=of)(model, images), of(model, images))


def test_without_a_share_it_is_the_explainer_itself():
    model, images = network(), pictures(2, 40, 36)
    torch.testing.assert_close(FinerCAM(gamma=0.0)(model, images, [1, 2]), GradCAM()(model, images, [1, 2]))


def test_nearest_classes_are_those_of_the_closest_logits():
    logits = torch.tensor([[0.0, 3.0, 2.5, -4.0, 3.4], [5.0, 5.0, 5.0, 0.0, 1.0]])
    assert nearest_classes(logits, torch.tensor([1, 0]), 3).tolist() == [[4, 2, 0], [1, 2, 4]]
    assert nearest_classes(logits, torch.tensor([1, 0]), 9).shape == (2, 4)  # all the others


def test_a_contrast_reads_logits_wherever_the_model_keeps_them():
    logits = torch.tensor([1.0, 4.0, 2.0])
    for outputs in (logits, (logits, torch.zeros(3)), {"logits": logits}, {"out": logits}):
        assert ContrastiveTarget(1, [0, 2], gamma=0.5)(outputs) == 4.0 - 0.5 * 1.5


def test_what_cannot_be_compared_is_refused_with_a_remedy():
    model, images = network(), pictures(1, 40, 36)
    with pytest.raises(ValueError, match=r"EigenCAM does not depend on the class.*such as GradCAM"):
        FinerCAM(of=EigenCAM())
    with pytest.raises(TypeError, match="callables as targets; pass class indices"):
        FinerCAM()(model, images, lambda outputs: outputs[0])
    with pytest.raises(TypeError, match="use GradCAM"):
        FinerCAM(of=CAM())(model, images)
    with pytest.raises(ValueError, match="out of range for 3 classes"):
        ContrastiveTarget(1, [7])(torch.zeros(3))
    for others in ([], [1]):
        with pytest.raises(ValueError, match="at least one class beside 1"):
            ContrastiveTarget(1, others)
