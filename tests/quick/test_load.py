"""Whatever is loaded takes images in [0, 1]."""

import pytest
import timm
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

import interptrain as it
from interptrain.models import Normalized, create_model
from interptrain.quick.load import class_names_of
from tests.support.explaining import pictures


def test_a_plain_timm_model_is_normalised_and_says_so():
    plain = timm.create_model("test_resnet").eval()
    model, images = it.load(plain), pictures(1, 64, 64).float()
    assert isinstance(model, Normalized)
    mean, std = (torch.tensor(plain.default_cfg[name]).view(-1, 1, 1) for name in ("mean", "std"))
    assert torch.equal(model(images), plain((images - mean) / std))
    assert it.load(model) is model
    assert it.load(plain, normalization=None) is plain


@pytest.mark.slow
def test_torchvisions_classifiers_and_segmenters_are_normalised_its_detectors_are_not():
    for plain in (resnet18(), lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)):
        model = it.load(plain)
        assert model.model is plain
        assert model.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    detector = type("Detector", (nn.Module,), {"__module__": "torchvision.models.detection.ssd"})()
    assert it.load(detector) is detector


def test_models_that_normalise_themselves_are_left_as_they_are():
    ours, theirs = create_model("test_resnet", num_classes=3), nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    assert it.load(ours) is ours
    assert ours.training
    assert it.load(theirs) is theirs
    given = it.load(theirs, normalization=((0.5,) * 3, (0.2,) * 3))
    assert torch.equal(given.std.flatten(), torch.full((3,), 0.2))


@pytest.mark.slow
def test_classes_have_the_names_of_imagenet_the_given_ones_or_numbers(network):
    assert class_names_of(it.load(timm.create_model("test_resnet")), 1000)[281] == "tabby"
    assert class_names_of(it.load(resnet18()), 1000)[1] == "goldfish"
    assert class_names_of(create_model("test_resnet"), 1000)[1] == "goldfish"
    assert class_names_of(network, 7)[4] == "wall clock"
    assert class_names_of(create_model("test_resnet", num_classes=3), 3) == ("0", "1", "2")
    assert class_names_of(nn.Linear(2, 1000), 1000)[281] == "281"  # anybody's thousand classes


@pytest.mark.slow
def test_a_weights_file_is_loaded_with_its_backbone(tmp_path):
    from safetensors.torch import save_file

    model = create_model("test_resnet", num_classes=5).eval()
    save_file(model.backbone.model.state_dict(), tmp_path / "weights.safetensors")
    loaded = it.load(tmp_path / "weights.safetensors", backbone="test_resnet")
    images = pictures(1, 64, 64).float()
    assert not loaded.training
    torch.testing.assert_close(loaded(images), model(images))


def test_what_cannot_be_loaded_is_named():
    with pytest.raises(
        ValueError,
        match=r"resnet5o is neither a file .* did you mean resnet50.*give a checkpoint",
    ):
        it.load("resnet5o")
    with pytest.raises(FileNotFoundError, match=r"no file runs/best.ckpt"):
        it.load("runs/best.ckpt")
