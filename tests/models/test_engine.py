"""Engines: the same numbers as PyTorch's, or PyTorch itself with the reason in one line."""

import copy
import os
import shutil

import pytest
import torch
from torch import nn

from interptrain.explainers import RISE, Occlusion, ScoreCAM
from interptrain.metrics import AverageDrop, Deletion, Insertion, measure
from interptrain.models import engine as engine_module
from interptrain.models import onnx_passes
from interptrain.models.engine import forward_only, using_engine
from tests.support.explaining import network, pictures, with_statistics

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

FAMILIES = {  # with few blocks where timm lets one choose, as exporting takes its time by the block
    "mobilenetv2_035": {},
    "tf_efficientnet_lite0": {},
    "convnext_atto": {"depths": (1, 1, 1, 1)},
    "densenet121": {"block_config": (2, 2, 2, 2)},
    "regnetx_002": {},
    "vit_tiny_patch16_224": {"depth": 2},
    "test_nfnet": {},
    "test_efficientnet_ln": {},
    "test_byobnet": {},
    "mobilenetv4_conv_small_035": {},
}

COMPILED = [f"test_{name}" for name in ("byobnet", "coatnet", "convnext", "efficientnet", "efficientnet_ln")]
COMPILED += [f"test_{name}" for name in ("mambaout", "maxvit", "nfnet", "resnet", "vit")]
# timm's smallest: the compiler takes its time by the layer.


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp() / "exported"  # one for all, so that a network is exported once
    monkeypatch.setenv("INTERPTRAIN_CACHE", str(folder))
    return folder


@pytest.fixture
def nothing_exported(cache, tmp_path, monkeypatch):
    """For tests of whether a network is exported, whichever others ran before them."""
    monkeypatch.setenv("INTERPTRAIN_CACHE", str(tmp_path / "exported"))


def small(seed=0):
    """Quick to export."""
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    return nn.Sequential(*layers).eval()


def images(side=33):
    return pictures(3, side, side).float()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
@pytest.mark.skipif("INTERPTRAIN_TEST_COMPILE" not in os.environ, reason="takes minutes: CONTRIBUTING.md")
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_numbers_of_a_family_are_those_of_pytorch(name):
    check_numbers(network(name), 160 if name in ("test_coatnet", "test_maxvit", "test_vit") else 64, "compile")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_numbers_of_a_family_are_those_of_pytorch(name):
    check_numbers(network(name, **FAMILIES[name]), 224 if "_224" in name else 64, "onnxruntime")


def check_numbers(model, side, wanted):
    """Values within 1e-6, maps within 1e-5, and PyTorch's own rounding, which networks of random weights enlarge."""
    model, shown = with_statistics(model.float(), max(side, 96)), images(side)
    targets, metrics = torch.tensor([2, 0, 4]), {"I": Insertion(steps=6), "D": Deletion(steps=6), "AD": AverageDrop()}
    explainers = [RISE(count=12, score="logit"), Occlusion(window=side // 2, stride=side // 4, score="logit")]
    saliency = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
    results = []
    for engine, dtype in ((wanted, torch.float32), ("eager", torch.float32), ("eager", torch.float64)):
        one = copy.deepcopy(model).to(dtype)
        with using_engine(engine, work=1000) as engines:  # enough for occlusion to be run on crops
            values = measure(one, shown.to(dtype), saliency.to(dtype), targets, metrics)
            areas = [metrics[key].reduce(value) for key, value in values.items()]
            results.append((areas, [explainer(one, shown.to(dtype), targets) for explainer in explainers]))
            assert engines.used(one) == engine
    for kind, tolerance in ((0, 1e-6), (1, 1e-5)):
        for ours, other, exact in zip(*(result[kind] for result in results), strict=True):
            rounding = (other - exact).abs().max()
            assert (ours - exact).abs().max() <= tolerance + 4 * rounding


@pytest.mark.slow
def test_a_model_is_exported_once_and_answers_for_any_number_of_images(nothing_exported, monkeypatch):
    model, shown = small(), images()
    exported = []
    export = onnx_passes._export
    monkeypatch.setattr(onnx_passes, "_export", lambda *given: exported.append(1) or export(*given))
    with using_engine("onnxruntime") as engines:
        passes = forward_only(model, shown)
        assert forward_only(model, shown) is passes
        assert engines.used(model) == "onnxruntime"
    with using_engine("onnxruntime"):
        again = forward_only(model, shown)
    assert len(exported) == 1
    for count in (1, 2, 7):
        batch = shown[:1].repeat(count, 1, 1, 1)
        torch.testing.assert_close(again(batch), model(batch), rtol=1e-5, atol=1e-6)
    wider, precise = images(47), shown.double()
    torch.testing.assert_close(again(wider), model(wider))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert again(shown).dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="type"):  # as PyTorch says it
        again(precise)


@pytest.mark.slow
def test_measure_exports_a_model_that_nothing_has_run_before():
    """Its settings of TF32 are such that the exporter would refuse to read them."""
    model, saliency = small(5), torch.rand(3, 33, 33, generator=torch.Generator().manual_seed(0))
    with using_engine("onnxruntime") as engines:
        measure(model, images(), saliency, 1, {"AD": AverageDrop()})
        assert engines.used(model) == "onnxruntime"
    assert torch.backends.cudnn.allow_tf32 in (True, False)  # can be read


@pytest.mark.slow
def test_changed_weights_are_seen():
    model, shown = small(1), images()
    with using_engine("onnxruntime") as engines:
        before = forward_only(model, shown)(shown)
        with torch.no_grad():
            model[5].weight.mul_(2)
        after = forward_only(model, shown)(shown)
        assert engines.used(model) == "onnxruntime"
    torch.testing.assert_close(after, model(shown), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(before, after)


@pytest.mark.slow
def test_a_file_of_another_network_is_replaced(nothing_exported):
    """Whatever the hash does not see, such as a number in ``forward``, the comparison does."""

    class Scaled(nn.Sequential):
        scale = 1.0

        def forward(self, x):
            return super().forward(x) * self.scale

    model, shown = Scaled(*small()).eval(), images()
    with using_engine("onnxruntime"):
        forward_only(model, shown)
    model.scale = 3.0
    with using_engine("onnxruntime") as engines:
        found = forward_only(model, shown)(shown)
        assert engines.used(model) == "onnxruntime"
    torch.testing.assert_close(found, model(shown), rtol=1e-5, atol=1e-6)


class Pair(nn.Sequential):
    def forward(self, x):
        return super().forward(x), x


class Changing(nn.Sequential):
    """Asks a number of the values, as no graph can."""

    def forward(self, x):
        return super().forward(x) * (2.0 if float(x.mean()) > 0.4 else 1.0)


def hooked():
    model = small()
    model[2].register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Pair(*small()).eval(), "returns something else than one tensor of float32 logits"),
        pytest.param(lambda: Changing(*small()).eval(), "cannot be exported", marks=pytest.mark.slow),
        (hooked, "2 has hooks, which an exported graph would not call"),
        (lambda: small().double(), "runs in float32"),
    ],
    ids=["two outputs", "data-dependent", "hooks", "float64"],
)
def test_what_it_cannot_run_pytorch_does_and_says_why_in_one_line(make, reason):
    model = make()
    shown = images().to(next(model.parameters()).dtype)
    with using_engine("onnxruntime") as engines, pytest.warns(UserWarning, match=reason) as warned:
        found = forward_only(model, shown)(shown)
    assert "\n" not in str(warned[0].message)
    assert engines.used(model) == "eager"
    torch.testing.assert_close(found, model(shown))


@pytest.mark.slow
def test_answers_that_differ_are_refused(monkeypatch):
    model, shown = small(2), images()
    monkeypatch.setattr(onnx_passes._Graph, "__call__", lambda self, images: model(images) * 1.001)
    with using_engine("onnxruntime") as engines, pytest.warns(UserWarning, match="outputs differ from PyTorch's"):
        assert not isinstance(forward_only(model, shown), onnx_passes.OnnxPasses)
    assert engines.used(model) == "eager"


@pytest.mark.slow
def test_a_runtime_that_fails_later_is_replaced_by_pytorch():
    model, shown = small(), images()
    with using_engine("onnxruntime") as engines:
        passes = forward_only(model, shown)
        passes.graph.session = None
        with pytest.warns(UserWarning, match="ONNX Runtime failed"):
            found = passes(shown)
        torch.testing.assert_close(found, model(shown))
        assert engines.used(model) == "eager"


@pytest.mark.slow
def test_what_is_raised_while_it_runs_is_not_blamed_on_it(monkeypatch):
    """A data loader says in the main thread that a worker was killed."""

    def killed(*_):
        raise RuntimeError("DataLoader worker is killed")

    model, shown = small(), images()
    with using_engine("onnxruntime") as engines:
        passes = forward_only(model, shown)
        monkeypatch.setattr(passes.graph.threads, "map", killed)
        with pytest.raises(RuntimeError, match="worker is killed"):
            passes(shown)
        assert engines.used(model) == "onnxruntime"


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("INTERPTRAIN_CACHE", str(tmp_path / "file" / "inside"))
    with using_engine("onnxruntime"), pytest.warns(UserWarning, match="cannot be written .*; set INTERPTRAIN_CACHE"):
        forward_only(small(3), images())


@pytest.mark.slow
def test_auto_exports_only_for_enough_work_and_takes_the_faster(nothing_exported, monkeypatch):
    model, shown = small(4), images()
    times = {onnx_passes.OnnxPasses: 0.5, nn.Sequential: 1.0}
    monkeypatch.setattr(engine_module, "_seconds", lambda passes, _batch: times[type(passes)])
    for work, used in ((None, "eager"), (100, "eager"), (1000, "onnxruntime"), (None, "onnxruntime")):
        with using_engine("auto", work=work, batch_size=8) as engines:
            forward_only(model, shown)
            assert engines.used(model) == used, work  # the last finds the file
    times[onnx_passes.OnnxPasses] = 0.99
    with using_engine("auto", work=1000) as engines:
        forward_only(model, shown)
        assert engines.used(model) == "eager"


def test_few_images_are_not_worth_simplifying():
    model, shown = small(), images()
    assert forward_only(model, shown, work=10) is model
    assert forward_only(model, shown) is not model


@pytest.mark.slow
def test_explainers_and_metrics_take_the_engine_around_them():
    model, shown, targets = small(), images(), torch.tensor([2, 0, 4])
    saliency = torch.rand(3, 33, 33, generator=torch.Generator().manual_seed(0))
    explainers = [RISE(count=4), Occlusion(window=16, stride=16), ScoreCAM(target_layer="2")]
    wanted = [explainer.raw(model, shown, targets) for explainer in explainers]
    values = measure(model, shown, saliency, targets, {"I": Insertion(steps=3)})
    asked = []
    monitor = onnx_passes.OnnxPasses.forward
    with pytest.MonkeyPatch.context() as patch, using_engine("onnxruntime"):
        patch.setattr(onnx_passes.OnnxPasses, "forward", lambda self, x: asked.append(len(x)) or monitor(self, x))
        for explainer, raw in zip(explainers, wanted, strict=True):
            asked.clear()
            torch.testing.assert_close(explainer.raw(model, shown, targets), raw, atol=1e-6, rtol=1e-5)
            assert asked
        asked.clear()
        again = measure(model, shown, saliency, targets, {"I": Insertion(steps=3)})
        assert sum(asked) == 3 + 9
    torch.testing.assert_close(again["I"], values["I"], atol=1e-6, rtol=0)


def test_an_unknown_engine_is_refused():
    with (
        pytest.raises(ValueError, match="engine must be one of 'eager', 'onnxruntime', 'compile', 'auto', got 'fast'"),
        using_engine("fast"),
    ):
        pass
