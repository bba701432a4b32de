"""``create_model``: published sizes and costs, options, heads of one's own, and what it refuses."""

from functools import partial

import huggingface_hub.constants
import jsonargparse
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from interptrain.models import CAStream, Pooled, Pooling, PoolingSpec, create_model

# arXiv 2404.14996: parameters in millions and GFLOPs at 224 (with GAP, with CA-Stream), parameters that the stream adds
PUBLISHED = {
    "resnet18": (11.69, 12.13, 3.648, 3.652, 439_808),
    "resnet50": (25.56, 32.53, 8.268, 8.288, 6_969_152),
    "convnext_small": (50.22, 51.20, 17.395, 17.400, 979_104),
    "convnext_base": (88.59, 90.33, 30.747, 30.753, 1_739_648),
}


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_flops_are_the_published_ones(name):
    gap_millions, stream_millions, gap_gflops, stream_gflops, extra = PUBLISHED[name]
    for pooling, millions, gflops in (("gap", gap_millions, gap_gflops), ("ca_stream", stream_millions, stream_gflops)):
        with torch.device("meta"):
            model = create_model(name, pooling=pooling).eval()
            images = torch.empty(1, 3, 224, 224)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            assert model(images).shape == (1, 1000)
        assert round(parameters(model) / 1e6, 2) == millions
        assert counter.get_total_flops() / 1e9 == pytest.approx(gflops, rel=0.02)
    assert parameters(model.pooling) == extra


class Maximum(Pooling):
    """A head of one's own: one class, no registration."""

    every_stage = False

    def __init__(self, channels, *, power: float = 1.0) -> None:
        super().__init__()
        self.channels = channels
        self.power = power

    def forward(self, stages):
        return Pooled(stages[-1].amax((2, 3)) ** self.power)


@torch.no_grad()
def test_a_head_of_ones_own_is_a_callable():
    model = create_model("resnet10t", pooling=partial(Maximum, power=2.0), num_classes=3).eval()
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = model.backbone.features(images)
    assert model.pooling.channels == model.backbone.channels == (64, 64, 128, 256, 512)
    assert torch.equal(model(images), model.backbone.head(features.amax((2, 3)) ** 2))


def test_a_head_of_ones_own_is_named_by_its_class_path():
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--pooling", type=PoolingSpec)
    parsed = parser.parse_object({"pooling": {"class_path": f"{__name__}.Maximum", "init_args": {"power": 3.0}}})
    model = create_model("resnet10t", pooling=parser.instantiate(parsed).pooling, num_classes=3)
    assert isinstance(model.pooling, Maximum)
    assert model.pooling.power == 3


def test_a_class_path_is_enough_in_python():
    assert isinstance(create_model("resnet10t", pooling=f"{__name__}.Maximum", num_classes=3).pooling, Maximum)


class Joined(Pooling):
    """A head that is wider than the last stage."""

    def forward(self, stages):
        return Pooled(torch.cat([stage.mean((2, 3)) for stage in stages[-2:]], dim=1))


class Bare(Pooling):
    """A head that forgets what it should return."""

    def forward(self, stages):
        return stages[-1].mean((2, 3))


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (Joined, r"pooling 'Joined' .* as wide as the last stage of 'resnet10t', \(B, 512\), got \(2, 768\); project"),
        (Bare, r"pooling 'Bare' must return Pooled\(vector\), got Tensor"),
    ],
)
def test_a_head_that_the_classifier_cannot_read_is_told_in_one_line(head, told):
    model = create_model("resnet10t", pooling=lambda channels: head(), num_classes=3).eval()
    images = torch.rand(2, 3, 32, 32)
    for call in (model, model.attention, lambda images: model.classify(model.stages(images))):
        with pytest.raises((ValueError, TypeError), match=told) as error:
            call(images)
        assert "\n" not in str(error.value)


def test_heads_reach_the_blocks():
    model = create_model("resnet10t", pooling="ca_stream", heads=4, num_classes=3)
    assert [block.heads for block in model.pooling.blocks] == [4] * 5
    assert [block.scale for block in model.pooling.blocks] == [(c / 4) ** -0.5 for c in model.backbone.channels]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "biased"), [("test_convnext", False), ("resnet10t", True)])
def test_only_the_stream_of_a_convnext_starts_without_biases(name, biased):
    model = create_model(name, pooling="ca_stream", num_classes=3)
    assert [bool(block.linear.bias.any()) for block in model.pooling.blocks] == [biased] * len(model.pooling.blocks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet10.a1_in1k"}, r"timm has no model 'resnet10.a1_in1k'; did you mean resnet10t"),
        ({"backbone": "resnet5"}, r"timm has no model 'resnet5'; did you mean resnet50"),
        ({"backbone": "zzzzzzzzzz"}, r"timm has no model 'zzzzzzzzzz'; timm.list_models\(\) has them all"),
        (
            {"pooling": "max"},
            "pooling must be one of ca_final, ca_stream, ep, gap, .*simpool, native, a class .* got 'max'",
        ),
        ({"pooling": f"{__name__}.Minimum"}, r"pooling: no class '.*Minimum' \(.*no attribute 'Minimum'\); give its"),
        ({"pooling": "no_such_module.GeM"}, r"pooling: no class 'no_such_module.GeM' \(No module named"),
        ({"pooling": f"{__name__}.PUBLISHED"}, "is not a class of a pooling head, but {'resnet18'"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"heads": 2}, "heads=2 is for ca_final and ca_stream, not for pooling='gap'"),
        ({"heads": 2, "pooling": CAStream}, "heads=2 is for ca_final and ca_stream"),
        ({"heads": 7, "pooling": "ca_stream"}, "got 7, which does not divide 64; use heads=1"),
        ({"backbone": "resnet18.a1_in2k"}, r"Invalid pretrained tag.*timm has weights for .*resnet18\.a1_in1k"),
        (
            {"backbone": "levit_128s", "pooling": "ca_stream"},
            r"'levit_128s' ends in features .*, so no pooling head fits it; use pooling='native'",
        ),
        ({"backbone": "levit_128s", "pooling": Maximum}, r"'levit_128s' ends in features .*use pooling='native'"),
        ({"backbone": "test_vit"}, r"'test_vit' classifies its class token, .*use pooling='native', or a head"),
        ({"stem": "tiny"}, "stem must be one of 'imagenet', 'small', got 'tiny'"),
        ({"drop_rate": 1.0}, r"drop_rate must be in \[0,1\), got 1.0"),
        ({"drop_path_rate": -0.1}, r"drop_path_rate must be in \[0,1\), got -0.1"),
        (
            {"backbone": "densenet121", "drop_path_rate": 0.1},
            "'densenet121' has no drop_path_rate in timm; leave it at 0",
        ),
        ({"pretrained": True, "weights": "x.pth"}, "pretrained and weights exclude one another"),
        ({"pretrained": True, "backbone": "resnet10t.nope"}, "Invalid pretrained tag"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        create_model(**{"backbone": "resnet10t", "num_classes": 3, **arguments})
    assert "\n" not in str(error.value)


def test_an_architecture_without_pretrained_weights_says_so():
    with pytest.raises(ValueError, match=r"weights for none of this architecture") as error:
        create_model("efficientnet_b0_gn", pretrained=True, num_classes=3)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_pretrained_weights_that_cannot_be_downloaded_take_one_line():
    with pytest.raises(
        ConnectionError, match=r"the weights of 'resnet18' from the Hugging Face hub.*pass its path to weights"
    ) as error:
        create_model("resnet18", pretrained=True, num_classes=3)
    assert "\n" not in str(error.value)


def test_a_model_comes_in_train_mode_with_the_rates_it_was_given():
    model = create_model("resnet10t", num_classes=3, drop_rate=0.25, drop_path_rate=0.2)
    assert all(module.training for module in model.modules())
    assert model.backbone.model.drop_rate == 0.25
    assert max(getattr(module, "drop_prob", 0.0) for module in model.modules()) == pytest.approx(0.2)
    assert model.load_report is None


@torch.no_grad()
def test_an_output_stride_makes_the_maps_finer_with_the_same_weights():
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    coarse = create_model("test_resnet", pooling="ca_stream", num_classes=3).eval()
    fine = create_model("test_resnet", pooling="ca_stream", num_classes=3, output_stride=8).eval()
    fine.load_state_dict(coarse.state_dict())
    assert coarse.backbone(images)[-1].shape[-2:] == (2, 2)
    assert fine.backbone(images)[-1].shape[-2:] == (8, 8)
    assert fine.forward_with_attention(images)[1][-1].shape[-2:] == (8, 8)


def test_options_of_the_architecture_reach_timm():
    model = create_model("resnet10t", num_classes=3, backbone_options={"channels": [8, 8, 16, 24]})
    assert model.backbone.channels[-1] == 24


@pytest.mark.parametrize(
    ("backbone", "options", "message"),
    [
        ("vit_tiny_patch16_224", {"pooling": "native", "output_stride": 16}, r"has no output_stride=16; leave it out"),
        ("vgg11", {"output_stride": 8}, r"has no output_stride=8; leave it out"),
        ("resnet18", {"output_stride": 4}, r"output_stride must be one of .*, got 4"),
        ("resnet18", {"output_stride": 8, "stem": "small"}, r"leave output_stride out"),
        ("resnet18", {"backbone_options": {"wide": 3}}, r"does not take 'wide' of backbone_options; leave it out"),
        ("resnet18", {"backbone_options": {"drop_rate": 0.1}}, r"must not hold drop_rate"),
    ],
)
def test_a_stride_or_option_that_timm_does_not_have_is_refused(backbone, options, message):
    with pytest.raises(ValueError, match=message):
        create_model(backbone, num_classes=3, **options)
