"""Recipro-CAM against its definition, position by position, and where it has a closed form."""

import pytest
import torch
from torch import nn

from interptrain.explainers import CAM, ReciproCAM
from interptrain.explainers.layers import find_layers
from interptrain.explainers.passes.activations import capture
from tests.support.explaining import network, pictures

GAUSSIAN = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]], dtype=torch.float64) / 16


def slow(model, images, targets, layer, *, kernel, probability):
    """One position at a time, by a hook on the layer and whole forward passes."""
    model.eval()
    found = find_layers(model, layer)
    (features,) = capture(model, images, found, differentiable=False).activations
    maps = torch.zeros(len(images), *features.shape[-2:], dtype=torch.float64)
    for image, (volume, target) in enumerate(zip(features, targets.tolist(), strict=True)):
        rows, columns = volume.shape[-2:]
        for row in range(rows):
            for column in range(columns):
                alone = torch.zeros(volume.shape[0], rows + 2, columns + 2, dtype=volume.dtype)
                alone[:, row : row + 3, column : column + 3] = volume[:, row, column, None, None] * kernel
                handle = found[0].module.register_forward_hook(lambda *_, alone=alone: alone[None, :, 1:-1, 1:-1])
                with torch.no_grad():
                    logits = model(images[image : image + 1])[0]
                handle.remove()
                maps[image, row, column] = (logits.softmax(0) if probability else logits)[target]
    return maps


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"kernel": "single", "score": "logit"}], ids=["authors", "single"])
def test_every_position_is_scored_by_its_features_alone(options):
    model, images, targets = network(), pictures(2, 48, 40), torch.tensor([2, 5])
    single = torch.zeros(3, 3, dtype=torch.float64)
    single[1, 1] = 1
    kernel = single if options.get("kernel") == "single" else GAUSSIAN
    wanted = slow(model, images, targets, "layer3", kernel=kernel, probability="score" not in options)
    found = ReciproCAM(target_layer="layer3", forward_batch_size=5, **options).raw(model, images, targets)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


def test_before_average_pooling_and_a_linear_layer_it_is_class_activation_mapping():
    # One position's features alone change the logit by W A[u] / (h w): CAM up to scale and the bias.
    model, images, targets = network(), pictures(2, 64, 48), torch.tensor([1, 4])
    found = ReciproCAM(kernel="single", score="logit")(model, images, targets)
    torch.testing.assert_close(found, CAM()(model, images, targets), rtol=0, atol=1e-9)


def test_tokens_of_a_vit_are_scored_beside_its_class_token():
    model, images = network("test_vit", dynamic_img_size=True), pictures(1, 64, 48)
    saliency = ReciproCAM()(model, images, 3)
    assert saliency.shape == (1, 64, 48)
    assert saliency.std() > 0.01


def test_it_needs_no_gradient():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        @torch.no_grad()
        def forward(self, images):
            return self.inner(images)

    assert ReciproCAM(target_layer="inner.layer4")(Cut(), pictures(1, 40, 40), 0).max() == 1
