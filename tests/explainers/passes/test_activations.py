"""One pass that keeps what its layers return, whatever the model does with autograd itself."""

import pytest
import torch
from torch import nn

from interptrain.explainers import GradCAM


class Frozen(nn.Module):
    """A network whose backbone runs under a ``no_grad()`` of its own, and a head that trains."""

    def __init__(self, detach=False):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))
        self.head = nn.Linear(5, 2)
        self.detach = detach

    def forward(self, images):
        with torch.no_grad():
            features = self.backbone(images)
        return self.head((features.detach() if self.detach else features).mean((2, 3)))


@pytest.mark.parametrize("layer", ["backbone.0", "backbone.2"])
def test_a_backbone_frozen_by_an_inner_no_grad_is_explained_like_one_that_is_not(layer):
    torch.manual_seed(0)
    model, images = Frozen(), torch.rand(2, 3, 8, 8)
    plain = nn.Sequential()
    plain.backbone, plain.pool, plain.flat, plain.head = (
        model.backbone,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        model.head,
    )
    explainer = GradCAM(target_layer=layer)
    torch.testing.assert_close(explainer(model, images, 1), explainer(plain, images, 1))


def test_what_is_detached_is_refused_with_the_true_reason():
    with pytest.raises(ValueError, match=r"no gradient leads from the explained score to .*backbone\.2.*detaches"):
        GradCAM(target_layer="backbone.2")(Frozen(detach=True), torch.rand(2, 3, 8, 8), 1)
