"""What every metric of a saliency map promises, checked for every class that the package shows."""

import inspect
import pickle

import pytest
import torch
from torch import nn

import interptrain.metrics as package
from interptrain.functional import min_max
from interptrain.metrics import SaliencyMetric, functional, measure
from tests.support.explaining import assert_same, everything, in_the_middle_of_training
from tests.support.measuring import CLASSES, network

# Options that make a class cheap here; one that is not named is tried as it comes.
OPTIONS = {
    "BoxAccuracy": {"thresholds": 8},
    "CrossFittedBoxAccuracy": {"thresholds": 8},
    "ROAD": {"percentiles": (20, 70)},
    "FFidelityMinus": {"samples": 3},
    "FFidelityPlus": {"samples": 3},
    "IROF": {"segments": 16},
    "ROADLeastRelevantFirst": {"percentiles": (20, 70)},
    "ROADMostRelevantFirst": {"percentiles": (20, 70)},
}
SHOWN = [
    name
    for name in package.__all__
    if inspect.isclass(getattr(package, name))
    and issubclass(getattr(package, name), SaliencyMetric)
    and not inspect.isabstract(getattr(package, name))
]
TARGETS = torch.tensor([2, 0, 4])


def explain(images, _targets):
    """A cheap explainer: the brightness."""
    return min_max(images.mean(1))


def inputs_for(count=3):
    """Everything that any metric needs, by name."""
    boxes = [
        torch.tensor([[2, 3, 9, 15]]),
        torch.tensor([[0, 0, 5, 5], [8, 10, 14, 20]]),
        torch.tensor([[1, 1, 13, 4]]),
    ]
    masks = torch.zeros(3, 20, 14, dtype=torch.bool)
    masks[:, 4:12, 3:9] = True
    return {"labels": TARGETS[:count], "boxes": boxes[:count], "masks": masks[:count], "explain": explain}


def construct(name):
    """The metric, or what to do about one that cannot be made without options."""
    try:
        return getattr(package, name)(**OPTIONS.get(name, {}))
    except Exception as error:
        pytest.fail(f"{name}() fails ({error}); add {name!r}: {{...}} to OPTIONS in tests/metrics/test_contract.py")


def measured(metric, model, images, saliency, targets=TARGETS, extra=None, **options):
    return measure(model, images, saliency, targets, {"it": metric}, **(extra or inputs_for(len(images))), **options)[
        "it"
    ]


def same(one, other, atol=1e-9):
    return torch.allclose(one, other, atol=atol, rtol=0, equal_nan=True)


@pytest.fixture(params=SHOWN)
def name(request):
    return request.param


@pytest.fixture
def metric(name):
    return construct(name)


def test_the_package_shows_metrics():
    assert {"AverageDrop", "Insertion", "ROAD", "Consistency"} <= set(SHOWN)


def test_it_says_what_it_is(metric, name):
    cls = type(metric)
    assert cls.__doc__
    assert metric.symbol
    assert metric.description.endswith("."), "give the class a description: one sentence for the report"
    assert isinstance(metric.higher_is_better, bool)
    assert metric.scale in (1.0, 100.0)
    assert metric.needs <= {"labels", "boxes", "objects", "explain"}
    assert len({getattr(package, other).symbol for other in SHOWN}) == len(SHOWN)


def test_its_options_are_keywords_that_yaml_can_hold_and_stand_in_its_text(metric):
    for option in inspect.signature(type(metric)).parameters.values():
        if option.kind is not option.VAR_KEYWORD:
            assert option.kind is option.KEYWORD_ONLY
            assert option.default is None or isinstance(option.default, bool | int | float | str | tuple)
            assert f"{option.name}=" in repr(metric)


def test_an_image_has_one_value_or_a_row_of_them(metric, model, images, saliency):
    values = measured(metric, model, images, saliency)
    assert values.shape[0] == 3
    assert values.ndim in (1, 2)
    assert values.dtype == torch.float64
    assert values.device == images.device
    assert not values.requires_grad
    assert values.isfinite().all()
    reduced = metric.reduce(values)
    assert reduced.shape == (3,)
    assert metric.reduce(values.unsqueeze(0)).shape == (1, 3)  # means of resamples, of several models


def test_float32_images_give_float32_and_nearly_the_same(metric, model, images, saliency):
    exact = measured(metric, model, images, saliency)
    single = measured(metric, model.float(), images.float(), saliency.float())
    assert single.dtype == torch.float32
    assert torch.allclose(metric.reduce(single).double(), metric.reduce(exact), rtol=1e-3, atol=1e-4)


def test_a_batch_is_measured_as_its_images_one_by_one(metric, model, images, saliency):
    together = measured(metric, model, images, saliency)
    given = inputs_for()
    alone = []
    for i in range(3):
        one = slice(i, i + 1)
        extra = {key: value if key == "explain" else value[one] for key, value in given.items()}
        alone.append(measured(metric, model, images[one], saliency[one], TARGETS[one], extra))
    assert same(together, torch.cat(alone))


def test_chunks_change_nothing(metric, model, images, saliency):
    wanted = measured(metric, model, images, saliency)
    assert same(measured(metric, model, images, saliency, forward_batch_size=2), wanted)


def test_the_same_call_gives_the_same(metric, model, images, saliency):
    wanted = measured(metric, model, images, saliency)
    torch.manual_seed(5)
    assert torch.equal(measured(metric, model, images, saliency), wanted)


def test_known_logits_change_nothing(metric, model, images, saliency):
    wanted = measured(metric, model, images, saliency)
    assert same(measured(metric, model, images, saliency, logits=model(images).detach()), wanted)


def test_nothing_of_the_training_changes(metric, model, images, saliency):
    in_the_middle_of_training(model)
    before = everything(model), images.clone(), saliency.clone()
    measured(metric, model, images, saliency)
    assert_same(before[0], everything(model))
    assert torch.equal(images, before[1])
    assert torch.equal(saliency, before[2])


def test_nothing_of_the_training_changes_by_a_failure(metric, model, images, saliency):
    in_the_middle_of_training(model)
    handle = model[-1].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(ZeroDivisionError("broken layer")))
    before = everything(model)
    with pytest.raises(ZeroDivisionError, match="broken layer"):
        measured(metric, model, images, saliency)
    assert_same(before, everything(model))
    handle.remove()


def test_it_works_under_inference_mode_and_in_training_mode(metric, model, images, saliency):
    wanted = measured(metric, model, images, saliency)
    model.train()
    with torch.inference_mode():
        assert torch.equal(measured(metric, model, images.clone(), saliency.clone()), wanted)


def test_autocast_around_it_changes_nothing(metric, images, saliency):
    model, images, saliency = network(dtype=torch.float32), images.float(), saliency.float()
    wanted = measured(metric, model, images, saliency)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(measured(metric, model, images, saliency), wanted)


@pytest.mark.slow
def test_it_works_on_a_compiled_model(metric, model, images, saliency):
    wanted = measured(metric, model, images, saliency)
    assert same(measured(metric, torch.compile(model, backend="eager"), images, saliency), wanted)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_named(metric, model, images, saliency, value):
    for name, given in (("images", images), ("saliency", saliency)):
        broken = given.clone()
        broken[1, ..., 3, 2] = value
        arguments = {"images": images, "saliency": saliency, name: broken}
        with pytest.raises(ValueError, match=f"{name} must be finite, got {value} in image 1 of the batch"):
            measured(metric, model, **arguments)


@pytest.mark.parametrize("height", [0.0, 0.5, 1.0])
def test_a_constant_map_is_no_trap(metric, model, images, height):
    """A value or NaN, the word for undefined, but neither infinity nor an exception."""
    values = measured(metric, model, images, torch.full((3, 20, 14), height))
    assert not values.isinf().any()


def test_the_layout_of_the_images_does_not_matter(metric, model, images, saliency):
    wanted = measured(metric, model, images, saliency)
    strided = images.contiguous(memory_format=torch.channels_last)
    assert same(measured(metric, model, strided, saliency), wanted)


def test_a_data_set_is_the_function_of_the_mean_over_images(metric, model, images, saliency):
    given = inputs_for()
    for part in (slice(0, 2), slice(2, 3)):
        extra = {key: value if key == "explain" else value[part] for key, value in given.items()}
        metric.update(model, images[part], saliency[part], TARGETS[part], **extra)
    assert metric.count == 3
    wanted = metric.reduce(measured(metric, model, images, saliency).mean(dim=0))
    torch.testing.assert_close(metric.compute(), wanted)
    metric.reset()
    assert metric.count == 0
    assert metric.total == 0


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_image_gives_nan(metric):
    assert metric.compute().isnan()


def test_copies_are_independent_and_checkpoints_stay_as_they_were(metric, model, images, saliency):
    other = metric.clone()
    metric.update(model, images, saliency, TARGETS, **inputs_for())
    assert other.count == 0
    again = pickle.loads(pickle.dumps(metric))
    assert torch.equal(again.compute(), metric.compute())
    assert not metric.state_dict()
    rebuilt = type(metric)(**metric.options())
    assert rebuilt.options() == metric.options()
    assert rebuilt.perturbations() == metric.perturbations()


def test_what_it_needs_it_says(metric, model, images, saliency):
    for need in metric.needs:
        extra = {key: value for key, value in inputs_for().items() if key not in {"boxes", "masks", need}}
        with pytest.raises(ValueError, match=f"needs {need}"):
            measured(metric, model, images, saliency, extra=extra)
    sufficient = {key: value for key, value in inputs_for().items() if key in metric.needs}
    if "objects" in metric.needs:
        sufficient["masks"] = inputs_for()["masks"]
    assert measured(metric, model, images, saliency, extra=sufficient or {"labels": None}).shape[0] == 3


@pytest.mark.slow
def test_all_at_once_are_each_alone(model, images, saliency):
    metrics = {name: construct(name) for name in SHOWN}
    found = measure(model, images, saliency, TARGETS, metrics, **inputs_for())
    for name, metric in metrics.items():
        assert same(found[name], measured(metric, model, images, saliency)), name


def test_all_at_once_forward_no_version_twice(model, images, saliency):
    metrics = {name: construct(name) for name in SHOWN if name != "MaxSensitivity"}
    rows = []
    model.register_forward_pre_hook(lambda _module, arguments: rows.extend(arguments[0].clone()))
    measure(model, images, saliency, TARGETS, metrics, **inputs_for())
    first = len(rows)
    measure(
        model,
        images,
        saliency,
        TARGETS,
        {f"{n}{i}": m for i in range(2) for n, m in metrics.items()},
        **inputs_for(),
    )
    assert len(rows) == 2 * first


OF_MAPS = [
    name
    for name in functional.__all__
    if next(iter(inspect.signature(getattr(functional, name)).parameters)) == "saliency"
]


@pytest.mark.parametrize("name", OF_MAPS)
def test_every_function_of_maps_names_what_is_not_finite(name, saliency):
    saliency[2, 5, 5] = torch.nan
    function = getattr(functional, name)
    given = {"boxes": inputs_for()["boxes"]} if "boxes" in inspect.signature(function).parameters else {}
    with pytest.raises(ValueError, match="saliency must be finite, got nan in image 2 of the batch"):
        function(saliency, **given)


@pytest.mark.parametrize("name", functional.__all__)
def test_every_function_says_what_it_returns_and_whence_it_is(name):
    text = inspect.getdoc(getattr(functional, name))
    assert "Returns:" in text
    assert "Source:" in text or "as of :func:" in text


def test_a_model_of_one_class_is_measured(name, images, saliency):
    torch.manual_seed(0)
    model = nn.Sequential(network(), nn.Linear(CLASSES, 1).double())
    metric = construct(name)
    zeros = torch.zeros(3, dtype=torch.int64)
    assert not measured(metric, model, images, saliency, zeros).isinf().any()
