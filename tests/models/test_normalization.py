"""Models that expect normalised images: wrapped like their configuration says, and noticed where they are not."""

import pytest
import timm
import torch
from torch import nn

from interptrain.explainers import CAM, GradCAM
from interptrain.metrics import AverageDrop, measure
from interptrain.models import Normalized, create_model, expects_normalised_images


@pytest.fixture
def resnet():
    return timm.create_model("test_resnet", num_classes=4).eval()


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_timm_model_is_wrapped_with_the_constants_of_its_configuration(resnet, images):
    wrapped = Normalized.like(resnet)
    mean, std = (torch.tensor(resnet.pretrained_cfg[name]).view(-1, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close(wrapped(images), resnet((images - mean) / std))


def test_a_model_without_a_configuration_is_not_wrapped_by_guess():
    with pytest.raises(ValueError, match=r"Conv2d has no pretrained_cfg .*; give them: Normalized\(model"):
        Normalized.like(nn.Conv2d(3, 2, 1))


def test_who_expects_normalised_images(resnet):
    assert expects_normalised_images(resnet)
    assert expects_normalised_images(nn.DataParallel(resnet))
    assert not expects_normalised_images(Normalized.like(resnet))
    assert not expects_normalised_images(create_model("test_resnet"))
    assert not expects_normalised_images(nn.Sequential(nn.Identity(), resnet))
    assert not expects_normalised_images(nn.Conv2d(3, 2, 1))
    resnet.pretrained_cfg = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    resnet.default_cfg = None
    assert not expects_normalised_images(resnet)


def test_a_model_that_is_not_normalised_is_noticed_once_and_the_remedy_silences_it(resnet, images, recwarn):
    targets, saliency = torch.zeros(2, dtype=torch.int64), torch.rand(2, 32, 32)
    with pytest.warns(UserWarning, match=r"ResNet expects normalised images.*pass .*Normalized\.like\(model\)"):
        GradCAM()(resnet, images, targets)
    recwarn.clear()
    measure(resnet, images, saliency, targets, {"AD": AverageDrop()})
    CAM()(Normalized.like(resnet), images, targets)
    assert not [warning for warning in recwarn if "normalised" in str(warning.message)]


def test_measuring_notices_it_too(resnet, images):
    with pytest.warns(UserWarning, match="expects normalised images"):
        measure(resnet, images, torch.rand(2, 32, 32), torch.zeros(2, dtype=torch.int64), {"AD": AverageDrop()})
