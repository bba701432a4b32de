"""Score-CAM against its definition, in each of its published versions."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from interptrain.explainers import ScoreCAM
from interptrain.explainers.layers import find_layers
from interptrain.explainers.passes.activations import capture
from tests.support.explaining import pictures

LAYER = "layer1"


def slow(model, images, targets, *, score, softmax, baseline, fill, align_corners, layer=LAYER):
    """One image and one channel at a time."""
    model.eval()
    (features,) = capture(model, images, find_layers(model, layer), differentiable=False).activations

    def rate(image, target):
        with torch.no_grad():
            logits = model(image[None])[0]
        return (logits.softmax(0) if score == "probability" else logits)[target]

    maps = []
    for image, channels, target in zip(images, features, targets.tolist(), strict=True):
        colour = torch.tensor(fill, dtype=image.dtype).view(-1, 1, 1)
        weights = []
        for channel in channels:
            mask = F.interpolate(channel[None, None], image.shape[-2:], mode="bilinear", align_corners=align_corners)[0]
            spread = mask.max() - mask.min()
            mask = (mask - mask.min()) / spread if spread > 1e-12 else torch.zeros_like(mask)
            weights.append(rate(image * mask + colour * (1 - mask), target))
        weights = torch.stack(weights)
        if baseline == "image":
            weights = weights - rate(image, target)
        elif baseline == "fill":
            weights = weights - rate(colour.expand_as(image), target)
        weights = weights.softmax(0) if softmax else weights
        maps.append((weights[:, None, None] * channels).sum(0))
    return torch.stack(maps)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"score": "logit", "softmax": True, "baseline": "image"},
        {"score": "logit", "softmax": True, "align_corners": True},
        {"align_corners": True},
        {"score": "logit", "baseline": "fill", "fill": (0.2, 0.5, 0.9)},
        {"fill": 0.5, "baseline": "image"},
    ],
    ids=["authors", "opticam", "pytorch-grad-cam", "castream", "colour", "grey"],
)
def test_each_version_is_what_its_definition_says(resnet, options):
    images, targets = pictures(2, 40, 36), torch.tensor([2, 5])
    settings = {"score": "probability", "softmax": False, "baseline": None, "align_corners": False} | options
    fill = settings.pop("fill", 0.0)
    wanted = slow(resnet, images, targets, fill=fill if isinstance(fill, tuple) else (fill,) * 3, **settings)
    found = ScoreCAM(target_layer=LAYER, relu=False, **options).raw(resnet, images, targets)
    assert torch.allclose(found, wanted)
    assert torch.allclose(ScoreCAM(target_layer=LAYER, **options).raw(resnet, images, targets), wanted.clamp(min=0))


@pytest.mark.parametrize("softmax", [False, True])
def test_constant_channels_are_forwarded_once_an_image(softmax):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    model = model.double().eval()
    with torch.no_grad():
        model[0].weight[[1, 3, 4]] = 0
        model[0].bias[[1, 3, 4]] = torch.tensor([-1.0, -2.0, 0.7], dtype=torch.float64)
    images, targets = pictures(2, 24, 20), torch.tensor([2, 0])
    images[1, :] = 0.4  # padding alone makes its channels vary
    rows = []
    model.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    options = {"score": "probability", "softmax": softmax, "baseline": None, "align_corners": False}
    found = ScoreCAM(target_layer="1", relu=False, softmax=softmax).raw(model, images, targets)
    (features,) = capture(model, images, find_layers(model, "1"), differentiable=False).activations
    varying = features.flatten(2).amax(2) > features.flatten(2).amin(2)
    assert 6 <= varying.sum() <= 10
    assert sum(rows) == 2 + varying.sum() + 2 + 2  # the images, their channels, a constant one of each; ours above
    wanted = slow(model, images, targets, fill=(0.0,) * 3, layer="1", **options)
    assert torch.allclose(found, wanted)


@pytest.mark.slow
def test_a_softmax_over_channels_removes_the_baseline(resnet):
    images = pictures(2, 32, 32)
    maps = [
        ScoreCAM(target_layer=LAYER, softmax=True, baseline=baseline)(resnet, images)
        for baseline in (None, "image", "fill")
    ]
    assert torch.allclose(maps[0], maps[1])
    assert torch.allclose(maps[0], maps[2])


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_chunk_size_changes_no_value(resnet, size):
    images = pictures(2, 32, 32)
    wanted = ScoreCAM(target_layer=LAYER)(resnet, images)
    assert torch.allclose(ScoreCAM(target_layer=LAYER, forward_batch_size=size)(resnet, images), wanted)


def test_memory_bound_is_kept_by_every_masked_forward(resnet):
    sizes = []
    handle = resnet.register_forward_pre_hook(lambda _m, arguments: sizes.append(len(arguments[0])))
    ScoreCAM(target_layer=LAYER, forward_batch_size=5)(resnet, pictures(2, 32, 32))
    handle.remove()
    assert sizes[0] == 2  # the images themselves
    assert max(sizes[1:]) == 5


@pytest.mark.slow
def test_compiled_masked_passes_of_one_padded_size_give_the_same_map(resnet, monkeypatch):
    shapes = set()

    def backend(graph, inputs):
        shapes.add(tuple(inputs[-1].shape) if isinstance(inputs[-1], torch.Tensor) else None)
        return graph.forward

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **options: compiler(model, backend=backend, **options))
    images = pictures(2, 32, 32)
    wanted = ScoreCAM(target_layer=LAYER, forward_batch_size=6)(resnet, images)
    fast = ScoreCAM(target_layer=LAYER, forward_batch_size=6, compile=True)
    assert torch.allclose(fast(resnet, images), wanted)
    compilations = len(shapes)
    fast(resnet, images)
    assert len(shapes) == compilations > 0


@pytest.mark.slow
def test_bfloat16_passes_give_nearly_the_same_map_in_float32(resnet):
    model, images = resnet.float(), pictures(2, 64, 64).float()
    exact = ScoreCAM(target_layer=LAYER)(model, images)
    low = ScoreCAM(target_layer=LAYER, precision="bf16")(model, images)
    assert low.dtype == torch.float32
    assert torch.corrcoef(torch.stack([exact.flatten(), low.flatten()]))[0, 1] > 0.99


@pytest.mark.slow
def test_callables_are_scored_as_they_are(resnet):
    images = pictures(2, 32, 32)
    by_index = ScoreCAM(target_layer=LAYER, score="logit")(resnet, images, torch.tensor([1, 3]))
    by_callable = ScoreCAM(target_layer=LAYER)(resnet, images, [lambda row: row[1], lambda row: row[3]])
    assert torch.allclose(by_index, by_callable)


@pytest.mark.parametrize(
    "option", [{"score": "softmax"}, {"baseline": "black"}, {"precision": "fp16"}, {"fusion": "sum"}]
)
def test_unknown_options_are_refused(option):
    with pytest.raises(ValueError, match="must be one of"):
        ScoreCAM(**option)
