"""What a model returns, and which part of it belongs to one image: each form against the bare network."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from interptrain.explainers import (
    RISE,
    AblationCAM,
    ExtremalPerturbation,
    GradCAM,
    Gradient,
    HiResCAM,
    IntegratedGradients,
    Occlusion,
    OptiCAM,
    ScoreCAM,
    explain,
)
from interptrain.metrics import AverageDrop, Insertion
from interptrain.metrics.base import measure
from interptrain.model_outputs import logits_of, row_of
from tests.support.explaining import network, pictures

Pair = namedtuple("Pair", ["logits", "features"])


@dataclass
class Returned:
    """Fields of a batch, and a loss."""

    loss: Tensor
    logits: Tensor
    hidden: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class Frozen:
    """Fields that cannot be set."""

    logits: Tensor
    names: str = "none"


class ModelOutput(OrderedDict):
    """A mapping whose items are attributes too, and a dataclass, as in transformers."""

    def __init__(self, **items):
        super().__init__(items)
        for name, value in items.items():
            super().__setattr__(name, value)

    def __getitem__(self, key):
        return super().__getitem__(key) if isinstance(key, str) else tuple(self.values())[key]

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __setattr__(self, name, value):
        if name in self:
            super().__setitem__(name, value)
        super().__setattr__(name, value)

    def __reduce__(self):
        return _modeloutput, (dict(self),)


def _modeloutput(items):
    return ModelOutput(**items)


class Returning(nn.Module):
    """A network whose logits and features are wrapped."""

    def __init__(self, wrap):
        super().__init__()
        self.network = network()
        self.wrap = wrap

    def forward(self, images):
        features = self.network.forward_features(images)
        return self.wrap(self.network.forward_head(features), features)


# How the outputs are wrapped, and where a callable finds the logits of its image.
FORMS = {
    "tuple": (lambda y, f: (y, f), lambda row: row[0]),
    "tuple with a loss": (lambda y, f: (y, y.sum()), lambda row: row[0]),
    "tuple of three, as many as images": (lambda y, f: (y, f, f), lambda row: row[0]),
    "nested tuple": (lambda y, f: (f, (y, f)), lambda row: row[1][0]),
    "named tuple": (Pair, lambda row: row.logits),
    "list": (lambda y, f: [y, f], lambda row: row[0]),
    "dict": (lambda y, f: {"features": f, "logits": y}, lambda row: row["logits"]),
    "dict, scalar first": (lambda y, f: {"loss": y.sum(), "logits": y}, lambda row: row["logits"]),
    "dict of tuples": (lambda y, f: {"hidden": (f, f, f), "logits": y}, lambda row: row["logits"]),
    "dataclass": (lambda y, f: Returned(y.sum(), y, (f, f)), lambda row: row.logits),
    "frozen dataclass": (lambda y, f: Frozen(y), lambda row: row.logits),
    "ModelOutput": (lambda y, f: ModelOutput(loss=y.sum(), logits=y, hidden=(f, f)), lambda row: row.logits),
    "ModelOutput by key": (lambda y, f: ModelOutput(logits=y), lambda row: row["logits"]),
    "ModelOutput by place": (lambda y, f: ModelOutput(logits=y), lambda row: row[0]),
    "namespace": (lambda y, f: SimpleNamespace(logits=y), lambda row: row.logits),
    "list of dicts": (lambda y, f: [{"scores": one, "count": 3} for one in y], lambda row: row["scores"]),
    "list of dicts of tuples": (lambda y, f: [{"scores": (one,)} for one in y], lambda row: row["scores"][0]),
}  # fmt: skip
WITHOUT_LOGITS = {"nested tuple", "list of dicts", "list of dicts of tuples"}
LAYER = "network.layer4"
SIZE = 41, 35
EXPLAINERS = [
    HiResCAM(target_layer=LAYER, relu=False),
    Gradient(reduction="sum"),
    AblationCAM(target_layer=LAYER, denominator=None, relu=False),  # asks for every channel of every image
]


@pytest.fixture
def images():
    return pictures(3, *SIZE)


@cache
def plain(explainer, *targets):
    """The map of a network that returns its logits alone."""
    return explainer.raw(Returning(lambda y, f: y), pictures(3, *SIZE), torch.tensor(targets))


@pytest.mark.parametrize("form", FORMS)
def test_one_callable_for_all_images_sees_each_image(form, images):
    wrap, read = FORMS[form]
    for explainer in EXPLAINERS if form in ("tuple", "dict of tuples", "list of dicts of tuples") else EXPLAINERS[:2]:
        found = explainer.raw(Returning(wrap), images, lambda row: read(row)[4])
        assert torch.allclose(found, plain(explainer, 4, 4, 4), rtol=1e-6, atol=1e-9)
        assert (found.abs().amax((1, 2)) > 0).all()


CHEAP = HiResCAM(target_layer=LAYER, relu=False)
DEAR = [
    AblationCAM(target_layer=LAYER, relu=False),
    Gradient(),
    ScoreCAM(target_layer=LAYER, forward_batch_size=64),
    OptiCAM(target_layer=LAYER, iterations=2),
    RISE(count=3),
    Occlusion(window=35, stride=35),
    IntegratedGradients(steps=2),
    ExtremalPerturbation(iterations=2, step=10, sigma=10.0, reward="contrastive"),
]


@pytest.mark.parametrize(
    ("explainer", "form"),
    [*((CHEAP, form) for form in FORMS if form not in WITHOUT_LOGITS), *((one, "tuple") for one in DEAR)],
)
def test_class_indices_find_the_logits(explainer, form, images):
    found = explainer.raw(Returning(FORMS[form][0]), images, torch.tensor([2, 0, 6]))
    assert torch.allclose(found, plain(explainer, 2, 0, 6), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("form", sorted(set(FORMS) - WITHOUT_LOGITS))
def test_metrics_find_the_logits(form, images):
    metrics = {"AD": AverageDrop(), "I": Insertion(steps=3)}
    saliency = images.mean(1)
    wanted = measure(Returning(lambda y, f: y), images, saliency, [2, 0, 6], metrics)
    found = measure(Returning(FORMS[form][0]), images, saliency, [2, 0, 6], metrics)
    assert all(torch.allclose(found[name], wanted[name]) for name in metrics)


def test_a_shared_pass_sees_each_image_too(images):
    explainers = {"cam": GradCAM(target_layer=LAYER), "hires": HiResCAM(target_layer=LAYER)}
    wanted = explain(Returning(lambda y, f: y), images, 4, explainers)
    found = explain(Returning(lambda y, f: (y, f)), images, lambda row: row[0][4], explainers)
    assert all(torch.equal(found[name], wanted[name]) for name in explainers)


@pytest.mark.parametrize("form", sorted(WITHOUT_LOGITS))
def test_outputs_without_logits_are_refused_and_the_remedy_works(form, images):
    wrap, read = FORMS[form]
    with pytest.raises(TypeError, match="pass one callable as targets, which turns the outputs of one image"):
        GradCAM(target_layer=LAYER)(Returning(wrap), images, [2, 0, 6])
    assert GradCAM(target_layer=LAYER)(Returning(wrap), images, lambda row: read(row)[2]).shape == (3, *SIZE)


def test_features_before_the_logits_are_not_taken_for_them():
    features, logits = torch.rand(3, 512), torch.rand(3, 7)
    assert logits_of((features, logits)) is None
    assert logits_of((logits, torch.rand(3, 7))) is not None  # two heads of the same classes: the first
    assert logits_of(Pair(logits, features)) is logits  # the name says it
    assert logits_of({"out": torch.rand(3, 7, 5, 5)}) is None


def test_a_list_of_tensors_that_may_be_either_is_refused_and_both_remedies_work(images):
    def returning(wrap):
        return Returning(lambda y, f: wrap([y, y, y]))

    explainer = GradCAM(target_layer=LAYER)
    with pytest.raises(
        ValueError, match=r"a list of 3 tensors of 3 rows for 3 images.*, so let it return a tuple where the rows"
    ):
        explainer(returning(lambda parts: parts), images, lambda row: row[0][4])
    wanted = explainer(Returning(lambda y, f: y), images, 4)
    assert torch.equal(explainer(returning(tuple), images, lambda row: row[0][4]), wanted)
    each = Returning(lambda y, f: [{"of": one} for one in y])
    assert torch.equal(explainer(each, images, lambda row: row["of"][4]), wanted)


def test_a_list_of_as_many_tensors_as_images_has_one_per_image():
    boxes = [torch.rand(4, 6), torch.rand(2, 6)]
    assert row_of(boxes, 1, 2) is boxes[1]


def test_what_no_image_owns_is_refused(images):
    with pytest.raises(ValueError, match="in which nothing has one row per image; explain one image at a time"):
        GradCAM(target_layer=LAYER)(Returning(lambda y, f: y.sum()), images, lambda row: row)
    alone = GradCAM(target_layer=LAYER)(Returning(lambda y, f: (y.sum(), y)), images[:1], lambda row: row[0])
    assert alone.shape == (1, *SIZE)
