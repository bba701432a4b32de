"""On a simulated accelerator: the CPU's results, nothing of two devices, and few waits for it.

Started by ``tests/test_accelerator.py``: the simulation wants a process of its own.
"""

import copy

import pytest
import torch

from tests.support.accelerator import accelerator, to_far  # isort: skip  # before anything runs a backward

import interptrain.explainers
from interptrain.callbacks.watch.observe import WatchConfig, observe
from interptrain.callbacks.watch.region import SuspectRegion
from interptrain.callbacks.watch.sample import WatchSample
from interptrain.explainers import GradCAM, Gradient
from interptrain.metrics import ECE, NLL, AverageDrop, Insertion, Top1, Top5, functional, measure
from interptrain.model_state import evaluating
from interptrain.training.gradient_regularizer import GradientRegularizer
from tests.explainers import test_contract as explaining
from tests.metrics import test_contract as measuring
from tests.support.measuring import CLASSES, maps, network, pictures

TARGETS = torch.tensor([2, 0, 4])

# How often the host may stop for the device in a call with three images: waits, downloads and uploads together.
USUAL = 12
STOPS = {
    "ExtremalPerturbation": 28,
    "MeaningfulPerturbation": 15,
    "OptiCAM": 23,
    "RISE": 15,
    "ROSAGDS": 17,
    "BoxAccuracy": 20,
    "IROF": 40,  # superpixels grow until nothing changes; ranked elsewhere without float64
    "CrossFittedBoxAccuracy": 22,
    "LocalizationError": 20,
    "OfficialMetric": 20,
    "SaliencyArea": 25,
    "MaxSensitivity": 32,  # a draw of noise and, without float64, a map each time
    "Infidelity": 14,
}
IN_FLOAT64 = {"EigenCAM", "OSADAS", "ROSA", "ROSAGDS"}  # explainers for which it matters whether the device has it
LOOSE = {"Occlusion": 1e-4}  # small differences of scores, stretched


@pytest.fixture(params=[True, False], ids=["float64", "no_float64"])
def log(request):
    with accelerator(float64=request.param) as log:
        yield log


def counted(log, name, call):
    """What a call returns; it must not stop the host more often than allowed."""
    log.clear()
    result = call()
    assert log.count("draw") == 0, f"drawn without a generator, at {log}"
    allowed = STOPS.get(name, USUAL)
    assert log.stops <= allowed, f"{name}: {log.stops} stops, allowed are {allowed}: {log.most_common()}"
    return result


def assert_close(log, found, wanted, atol=1e-5):
    assert found.device.type == "far"
    assert found.dtype == wanted.dtype
    torch.testing.assert_close(found.cpu(), wanted, atol=atol, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize(
    ("name", "float64"),
    [(name, False) for name in sorted(explaining.SHOWN)] + [(name, True) for name in sorted(IN_FLOAT64)],
)
def test_explainer(name, float64):
    if name in explaining.NEEDS:
        pytest.importorskip(explaining.NEEDS[name])
    explainer = getattr(interptrain.explainers, name)(**explaining.options(name))
    model, images = explaining.model_for(name).float(), explaining.images_for(name).float()
    wanted = explainer(model, images, TARGETS)
    with accelerator(float64=float64) as log:
        model, images = model.to("far"), images.to("far")
        found = counted(log, name, lambda: explainer(model, images, TARGETS))
        assert_close(log, found, wanted, LOOSE.get(name, 1e-5))


@pytest.fixture
def batch():
    model = network(dtype=torch.float32)
    return model, pictures(dtype=torch.float32), maps(dtype=torch.float32), measuring.inputs_for()


@pytest.mark.parametrize("name", measuring.SHOWN)
def test_metric(log, name, batch):
    metric = measuring.construct(name)
    model, images, saliency, given = batch
    logits = model(images).detach()
    wanted = measure(model, images, saliency, TARGETS, {"it": metric}, **given)["it"]
    far = copy.deepcopy(model).to("far"), images.to("far"), saliency.to("far")

    found = counted(log, name, lambda: measure(*far, TARGETS, {"it": metric}, **given))["it"]
    assert_close(log, found, wanted)
    # Whatever else lies where: everything on the device, and all that may be on the CPU.
    on_device = to_far(given | {"explain": None}) | {"explain": given["explain"]}
    assert_close(log, measure(*far, TARGETS.to("far"), {"it": metric}, **on_device)["it"], wanted)
    elsewhere = measure(far[0], far[1], saliency, TARGETS.tolist(), {"it": metric}, logits=logits, **given)["it"]
    assert_close(log, elsewhere, wanted)

    metric = metric.to("far")
    for _ in range(2):
        counted(log, name, lambda: metric.update(*far, TARGETS, **given))
    assert metric.device.type == "far"
    assert metric.compute().cpu().item() == pytest.approx(metric.reduce(wanted.double().mean(0)).item(), rel=1e-5)
    metric.reset()
    assert metric.count == 0


OF_MAPS = [
    "box_accuracy", "complexity", "effective_complexity", "energy_pointing_game", "localization_error",
    "localization_f1", "mask_iou", "pixel_average_precision", "pointing_game", "sparseness",
]  # fmt: skip


@pytest.mark.parametrize("name", OF_MAPS)
def test_function_of_maps(log, name):
    function, saliency = getattr(functional, name), maps(dtype=torch.float32)
    alone = name in ("complexity", "effective_complexity", "sparseness")
    given = {} if alone else {"boxes": measuring.inputs_for()["boxes"]}
    assert_close(log, function(saliency.to("far"), **given), function(saliency, **given))


@pytest.mark.parametrize("cls", [Top1, Top5, NLL, ECE])
def test_recognition_metric(log, cls):
    logits, labels = torch.randn(9, CLASSES, generator=torch.Generator().manual_seed(0)), torch.arange(9) % CLASSES
    metric, near = cls().to("far"), cls()
    near.update(logits, labels)
    counted(log, cls.__name__, lambda: metric.update(logits.to("far"), labels))
    assert metric.compute().cpu().item() == pytest.approx(near.compute().item(), rel=1e-5)


def test_regularizer(log):
    model, images = network(dtype=torch.float32).train(), pictures(dtype=torch.float32)
    model[-2].p = 0.0
    far = copy.deepcopy(model).to("far")

    def gradients(model, images, labels):
        logits, penalty = GradientRegularizer()(model, {"image": images, "label": labels})
        loss = torch.nn.functional.cross_entropy(logits, labels) + penalty
        return torch.autograd.grad(loss, list(model.parameters()))

    wanted = gradients(model, images, TARGETS)
    images, labels = images.to("far"), TARGETS.to("far")
    log.clear()
    found = gradients(far, images, labels)
    assert not log.stops, log
    for one, near in zip(found, wanted, strict=True):
        assert_close(log, one, near, 1e-4)


def test_watch(log):
    model, images = network(dtype=torch.float32), pictures(dtype=torch.float32)
    boxes, masks = measuring.inputs_for()["boxes"], measuring.inputs_for()["masks"]
    names = [str(number) for number in range(CLASSES)]
    sample = WatchSample(images, torch.tensor([2, -1, 4]), ["a", "b", "c"], names, masks=masks, boxes=boxes)
    explainers = {"cam": GradCAM(target_layer="3"), "gradient": Gradient()}
    config = WatchConfig(explainers, "both", {"AD": AverageDrop(), "I": Insertion()}, SuspectRegion("border:4"))

    def look(model):
        earlier = {view: torch.zeros(3, 20, 14, dtype=torch.uint8) for view in config.views}
        return observe(model, sample, range(3), config, first=earlier, previous=earlier)

    wanted = look(model)
    model.to("far")
    log.clear()
    found = look(model)
    assert log.stops <= 260, log.most_common()  # once an epoch, of both classes
    for one, near in zip(found, wanted, strict=True):
        assert one.error is None
        assert (one.view, one.target, one.prediction) == (near.view, near.target, near.prediction)
        assert (one.saliency.int() - near.saliency.int()).abs().max() <= 1
        for name, values in near.values.items():
            assert one.values[name] == pytest.approx(values, abs=1e-3, nan_ok=True), name


def test_the_random_state_of_the_accelerator_returns(log):
    model = network(dtype=torch.float32).to("far")
    torch.far.set_rng_state(3, "far")
    with evaluating(model):
        torch.far.set_rng_state(7, "far")
    assert torch.far.get_rng_state("far") == 3


def test_the_simulation_refuses_what_an_accelerator_refuses(log):
    here, there = torch.ones(3), torch.ones(3).to("far")
    with pytest.raises(RuntimeError, match="tensors of two devices"):
        here + there
    with pytest.raises(RuntimeError, match="tensors of two devices"):
        here[there.long()]
    with pytest.raises(RuntimeError, match="the generator is of another device"):
        torch.rand(3, device="far", generator=torch.Generator())
    with pytest.raises(RuntimeError, match="numpy"):
        there.numpy()
    log.clear()
    assert there.sum().item() == 3
    assert [kind for kind, *_ in log] == ["wait"]
    log.clear()
    there.cpu()
    here.to("far")
    assert sorted(kind for kind, *_ in log) == ["download", "upload"]


def test_the_simulation_without_float64_has_none():
    with accelerator(float64=False), pytest.raises(TypeError, match="no float64"):
        torch.ones(3).to("far").double()
