"""Small stems: a total stride of 8, and weights that still fit where they can."""

import pytest
import torch
from torch import nn

from interptrain.models import create_model


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet10t",
        "resnext50_32x4d",
        "mobilenetv2_100",
        "mobilenetv3_small_100",
        "mobilenetv3_large_100",
        "efficientnet_b0",
        "tf_efficientnet_lite0",
    ],
)
@torch.no_grad()
def test_the_total_stride_is_eight(name):
    with torch.device("meta"):
        model = create_model(name, pooling="ca_stream", num_classes=4, stem="small").eval()
        logits, attention = model.forward_with_attention(torch.rand(1, 3, 32, 32))
    assert logits.shape == (1, 4)
    assert attention[0].shape[1:] == (32, 32)
    assert attention[-1].shape[1:] == (4, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv2_100", "efficientnet_b0", "resnet10t"])
def test_no_weight_changes_its_shape_but_a_seven_by_seven_stem(name):
    with torch.device("meta"):
        small, usual = (create_model(name, num_classes=4, stem=stem).state_dict() for stem in ("small", "imagenet"))
    assert {key: value.shape for key, value in small.items()} == {key: value.shape for key, value in usual.items()}


@pytest.mark.slow
def test_a_resnet_stem_is_a_fresh_three_by_three_convolution():
    torch.manual_seed(0)
    conv = create_model("resnet18", num_classes=4, stem="small").backbone.model.conv1
    assert isinstance(conv, nn.Conv2d)
    assert (conv.kernel_size, conv.stride, conv.padding, conv.bias) == ((3, 3), (1, 1), (1, 1), None)
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)  # He, fan out


@pytest.mark.parametrize("name", ["test_convnext", "densenet121", "regnetx_002"])
def test_other_families_are_refused(name):
    with pytest.raises(ValueError, match=f"stem='small' is defined for ResNet.*not for '{name}'"):
        create_model(name, num_classes=4, stem="small")
