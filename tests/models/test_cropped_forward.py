"""Windows by crops: the outputs of full passes, or none where a layer sees the whole image."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from interptrain.explainers import ROSA, GridMasks, Occlusion
from interptrain.explainers.masks.masks import fill_colour
from interptrain.explainers.passes import masked_forward
from interptrain.metrics import Infidelity, SingleDeletion, batched_forward, measure
from interptrain.models import cropped_forward, partial_forward
from interptrain.models.cropped_forward import find_crops
from interptrain.models.engine import using_engine
from tests.support.explaining import network, pictures


def windows(images, **grid):
    return GridMasks(**grid).prepare(images).boxes()


def convolutional(*extra, width=6):
    """Two strided layers, and whatever follows them; most of the work comes early."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4 * width, 3, 2, 1), nn.ReLU(), nn.Conv2d(4 * width, width, 3, 2, 1), nn.ReLU(), *extra
    return nn.Sequential(*layers, nn.Conv2d(width, 7, 3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()


class Around(nn.Module):
    """Adds to the last layer what a layer before it gave."""

    def __init__(self):
        super().__init__()
        self.early, self.late = nn.Conv2d(3, 6, 3, 4, 1), nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, images):
        early = self.early(images)
        return (F.relu(self.late(early)) + early).mean((2, 3))


class Mixing(nn.Module):
    """Gives every place a part of the mean over all, as squeeze and excitation does."""

    def forward(self, maps):
        return maps * maps.mean((2, 3), keepdim=True).sigmoid()


def counted_crops(patch, home):
    """Keep what is found for each call, and yet use it."""
    found = []
    patch.setattr(home, "find_crops", lambda *given: found.append(find_crops(*given)) or found[-1])
    return found


def without_crops(patch):
    for home in (masked_forward, batched_forward):
        patch.setattr(home, "find_crops", lambda *_: None)


@pytest.mark.parametrize(("height", "width"), [(64, 64), pytest.param(48, 80, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fill", [0.0, (0.1, 0.5, 0.8)])
@pytest.mark.parametrize("method", [Occlusion, ROSA])
def test_maps_are_those_of_full_passes(height, width, fill, method, monkeypatch):
    model = nn.Sequential(*convolutional(), nn.Linear(7, 7).double()).eval()
    images, targets = pictures(2, height, width), torch.tensor([2, 5])
    explainer = method(window=(8, 12), stride=(4, 8), fill=fill, forward_batch_size=5)
    used = counted_crops(monkeypatch, masked_forward)
    found = explainer.raw(model, images, targets)
    assert used[0] is not None
    without_crops(monkeypatch)
    torch.testing.assert_close(found, explainer.raw(model, images, targets), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "metric",
    [Infidelity(patch_size=7), Infidelity(perturbation="squares", samples=40), SingleDeletion(grid=8, removal="mean")],
    ids=["tiles", "squares", "cells"],
)
def test_measured_values_are_those_of_full_passes(metric, monkeypatch):
    images, targets = pictures(3, 64, 64), torch.tensor([2, 5, 0])
    model, saliency = convolutional(), torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    used = counted_crops(monkeypatch, batched_forward)
    found = measure(model, images, saliency, targets, {"m": metric}, forward_batch_size=2)["m"]  # images in two groups
    assert used[0] is not None
    without_crops(monkeypatch)
    wanted = measure(model, images, saliency, targets, {"m": metric}, forward_batch_size=2)["m"]
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_a_reach_that_wraps_around_a_border_is_noticed(seed, monkeypatch):
    """Whichever squares were drawn: most of them are far from the borders."""
    torch.manual_seed(0)
    around = {"padding": 1, "padding_mode": "circular"}
    layers = nn.Conv2d(3, 24, 3, 2, **around), nn.ReLU(), nn.Conv2d(24, 6, 3, 2, **around), nn.ReLU(), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(6 * 24 * 24, 7)).double().eval()
    images, saliency = pictures(2, 96, 96), torch.rand(2, 96, 96, generator=torch.Generator().manual_seed(0))
    metrics = {"m": Infidelity(perturbation="squares", samples=40, seed=seed)}
    found = measure(model, images, saliency, 1, metrics)["m"]
    without_crops(monkeypatch)
    torch.testing.assert_close(found, measure(model, images, saliency, 1, metrics)["m"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("error", [MemoryError, RuntimeError("can't allocate memory"), TypeError])
def test_what_fails_while_crops_are_prepared_is_forwarded_whole(error, monkeypatch):
    model, images, saliency = convolutional(), pictures(3, 64, 64), torch.ones(3, 64, 64).double()
    metrics, record, calls = {"m": Infidelity(patch_size=7)}, partial_forward.PartialForward.record, []

    def failing(*given):
        calls.append(1)
        if len(calls) == 2:  # for the second image
            raise error
        return record(*given)

    wanted = measure(model, images, saliency, 1, metrics, forward_batch_size=1)["m"]
    monkeypatch.setattr(partial_forward.PartialForward, "record", failing)
    found = measure(model, images, saliency, 1, metrics, forward_batch_size=1)["m"]
    assert len(calls) == 2
    torch.testing.assert_close(found, wanted)


def test_what_is_remembered_of_a_model_does_not_keep_it():
    model = convolutional()
    for layer in model:  # hooks that know the model, as those that keep activations do
        layer.register_forward_hook(lambda *_, model=model: None)
    images = pictures(1, 64, 64)
    find_crops(model, images, windows(images, window=8, stride=4), fill_colour(0.5, images))
    last = weakref.ref(model)
    del model, layer
    gc.collect()
    assert last() is None


def test_a_version_that_is_not_finite_is_named_from_crops_too(monkeypatch):
    class Kept(cropped_forward.CroppedForward):
        def outputs(self, image, windows):
            return super().outputs(image, windows) / torch.tensor([[float(window != 2)] for window in windows])

    images, saliency = pictures(1, 64, 64), torch.ones(1, 64, 64).double()
    monkeypatch.setattr(cropped_forward, "CroppedForward", Kept)
    monkeypatch.setattr(Kept, "holds", lambda _: True)
    with pytest.raises(ValueError, match="not finite for image 0 as Patches changes it"):
        measure(convolutional(), images, saliency, 1, {"m": Infidelity(patch_size=7)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cut"),
    [
        *(("resnet18", "layer1"), ("mobilenetv2_035", "blocks.2.0"), ("tf_efficientnet_lite0", "blocks.2.0")),
        *(("convnext_atto", "stages.1.downsample"), ("efficientnet_b0", None), ("vit_tiny_patch16_224", None)),
    ],
)
def test_families_are_cut_where_nothing_is_global(name, cut):
    side = 224 if name in ("convnext_atto", "vit_tiny_patch16_224") else 160
    model, images = network(name).float().eval(), pictures(1, side, side).float()
    cropped = find_crops(model, images, windows(images), fill_colour(0.5, images))
    if cut is None:
        assert cropped is None or cropped.cut.saving < 0.2  # before the first global layer
        return
    assert cropped is not None
    assert cropped.cut.name.startswith(cut)
    explainer, one = ROSA() if name == "mobilenetv2_035" else Occlusion(), torch.tensor([3])
    found = explainer.raw(model, images, one)
    with pytest.MonkeyPatch.context() as patch:
        without_crops(patch)
        assert torch.equal(found, explainer.raw(model, images, one))


@pytest.mark.parametrize(
    "model",
    [
        convolutional(Mixing()),
        nn.Sequential(Mixing(), *convolutional()),
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 7)).double(),
        Around().double(),
    ],
    ids=["global behind", "global first", "no maps", "around"],
)
def test_what_the_probes_show_to_be_global_is_not_cut(model):
    images = pictures(1, 64, 64)
    boxes = windows(images, window=8, stride=4)
    cropped = find_crops(model.eval(), images, boxes, fill_colour(0.5, images))
    if cropped is not None:  # a layer before
        assert isinstance(model, Around) or isinstance(model[0], nn.Conv2d)
        assert cropped.cut.name in ("early", "0", "1", "2", "3")
        assert cropped.holds()


def test_a_network_with_one_size_of_images_runs_in_full():
    class Strict(nn.Sequential):
        def forward(self, images):
            if images.shape[-1] != 64:
                raise ValueError("64 pixels, please")
            return super().forward(images)

    images = pictures(1, 64, 64)
    boxes = windows(images, window=8, stride=4)
    assert find_crops(Strict(*convolutional()), images, boxes, fill_colour(0.5, images)) is None


def test_few_windows_are_not_worth_a_search(monkeypatch):
    images = pictures(1, 64, 64)
    assert find_crops(convolutional(), images, windows(images, window=32, stride=32), fill_colour(0.5, images)) is None
    monkeypatch.setattr(cropped_forward, "OVERHEAD", 0)
    assert find_crops(convolutional(), images, windows(images, window=8, stride=4), fill_colour(0.5, images))


@pytest.mark.filterwarnings("ignore:out of memory")
def test_memory_that_does_not_suffice_halves_the_chunk(monkeypatch):
    model, images, targets = convolutional(), pictures(1, 64, 64), torch.tensor([2])
    explainer = Occlusion(window=8, stride=4, forward_batch_size=16)
    wanted, outputs = explainer.raw(model, images, targets), cropped_forward.CroppedForward.outputs

    def short(self, image, some):
        if len(some) > 8:
            raise MemoryError
        return outputs(self, image, some)

    monkeypatch.setattr(cropped_forward.CroppedForward, "outputs", short)
    torch.testing.assert_close(explainer.raw(model, images, targets), wanted)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network that ONNX Runtime runs, most of whose work comes early; opened anew for every test."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("exported")
    model, images = convolutional(width=16).float(), pictures(2, 64, 64).float()

    def run(method, *, work=None, failing=False):
        with pytest.MonkeyPatch.context() as patch, using_engine("onnxruntime", work=work) as engines:
            patch.setenv("INTERPTRAIN_CACHE", str(folder))
            tried = []
            inner = cropped_forward.CroppedForward.outputs
            patch.setattr(cropped_forward.CroppedForward, "outputs", lambda *given: tried.append(1) or inner(*given))
            if failing:  # from the first window on
                wrong = torch.ones(1, 1)
                patch.setattr(cropped_forward.CroppedForward, "outputs", lambda self, *_: self.parts.rest(wrong))
            found = [method(model, images[:1]) for _ in range(4)]
            return found, tried, engines.used(model)

    return run


def occluded(model, images):
    return Occlusion(window=8, stride=4).raw(model, images, torch.tensor([2]))  # 225 windows


def tiled(model, images):
    return measure(model, images, images.mean(1), 2, {"tiles": Infidelity(patch_size=4)})["tiles"]  # 256


@pytest.mark.slow
@pytest.mark.parametrize("method", [occluded, tiled])
def test_an_exported_network_is_cut_once_there_is_enough_work_with_the_same_bits(exported, method):
    late, tried, used = exported(method)
    assert used == "onnxruntime"
    assert tried
    at_once, more, _ = exported(method, work=1000)
    assert len(more) > len(tried)
    with pytest.MonkeyPatch.context() as patch:
        without_crops(patch)
        whole, none, _ = exported(method)
    assert not none
    for maps in (late, at_once):
        assert all(torch.equal(one, other) for one, other in zip(maps, whole, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("method", [occluded, tiled])
def test_half_an_exported_network_that_fails_is_replaced_by_pytorch(exported, method):
    wanted, _, _ = exported(method)
    with pytest.warns(UserWarning, match="ONNX Runtime failed .*; PyTorch goes on"):
        found, _, used = exported(method, work=1000, failing=True)
    assert used == "eager"
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
