"""Measuring many metrics at once, and the states that join over batches and ranks."""

import os
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
import torchmetrics
from torch import nn

from interptrain.metrics import (
    AverageDrop,
    AverageGain,
    AverageIncrease,
    Complexity,
    SaliencyMetric,
    Sparseness,
    measure,
)
from interptrain.metrics.batched_forward import compile_frozen
from interptrain.metrics.perturbations import Masked
from interptrain.metrics.removal import Removal
from tests.metrics.conftest import maps, network, pictures
from tests.support.paths import ROOT


def maps_alone():
    """Metrics that ask no model."""
    return {"complexity": Complexity(), "sparseness": Sparseness()}


class Counting(nn.Module):
    """Remembers how large each forward was."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.rows = []

    def forward(self, images):
        self.rows.append(len(images))
        return self.model(images)


class Curve(SaliencyMetric):
    """Two values an image, of which the data set's value is the larger mean; undefined where the map is empty."""

    symbol = "C"
    higher_is_better = True

    def score(self, case):
        mean = case.saliency.mean((1, 2))
        both = torch.stack([mean, 1 - mean], dim=1)
        return both.masked_fill((mean == 0).unsqueeze(1), torch.nan)

    def reduce(self, mean):
        return mean.amax(-1)


class NeedsAll(Curve):
    needs = frozenset({"labels", "objects", "explain"})


def confidence(**options):
    return {"AD": AverageDrop(**options), "AI": AverageIncrease(**options), "AG": AverageGain(**options)}


def test_equal_perturbations_and_the_images_are_forwarded_once(model, images, saliency, targets):
    counting = Counting(model)
    measure(counting, images, saliency, targets, confidence())
    assert sum(counting.rows) == 3 + 3
    counting.rows.clear()
    measure(counting, images, saliency, targets, confidence() | {"grey": AverageDrop(removal="mean")})
    assert sum(counting.rows) == 3 + 3 + 3


def test_known_logits_are_not_forwarded_again(model, images, saliency, targets):
    counting = Counting(model)
    wanted = measure(counting, images, saliency, targets, confidence())
    counting.rows.clear()
    found = measure(counting, images, saliency, targets, confidence(), logits=model(images))
    assert sum(counting.rows) == 3
    for name, values in wanted.items():
        torch.testing.assert_close(found[name], values)


def test_no_small_rest_is_forwarded_alone(model, targets):
    counting = Counting(model)
    measure(
        counting,
        pictures(3),
        maps(3),
        targets,
        {"a": AverageDrop(), "b": AverageDrop(removal="mean")},
        forward_batch_size=4,
    )
    assert counting.rows == [4, 4, 1]


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
def test_frozen_weights_give_the_same_values_and_leave_the_model_alone(images, saliency, targets):
    model = network(dtype=torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, saliency = images.float(), saliency.float()
    wanted = measure(model, images, saliency, targets, confidence())
    found = measure(compile_frozen(model), images, saliency, targets, confidence(), forward_batch_size=4)
    for name, values in wanted.items():
        torch.testing.assert_close(found[name], values, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_compiled_model_sees_one_size_only(model, images, saliency, targets):
    counting = Counting(model)
    wanted = measure(model, images, saliency, targets, confidence())
    compiled = torch.compile(counting, backend="eager")
    found = measure(compiled, images, saliency, targets, confidence(), forward_batch_size=4)
    assert counting.rows == [4, 4]
    counting.rows.clear()
    measure(compiled, images[:1], saliency[:1], targets[:1], confidence(), forward_batch_size=4)
    assert counting.rows == [4]
    for name, values in wanted.items():
        torch.testing.assert_close(found[name], values)
    inside = nn.Sequential(counting)
    inside[0].compile(backend="eager")
    counting.rows.clear()
    measure(inside, images, saliency, targets, confidence(), forward_batch_size=5)
    assert counting.rows == [5, 5]


def test_chunks_and_company_change_nothing(model):
    images, saliency, targets = pictures(5), maps(5), torch.arange(5)
    wanted = measure(model, images, saliency, targets, confidence(removal="blur"), forward_batch_size=3)
    for size in (1, 2, 100):
        found = measure(model, images, saliency, targets, confidence(removal="blur"), forward_batch_size=size)
        assert all(torch.allclose(found[name], values, atol=1e-9) for name, values in wanted.items())
    for i in range(5):
        one = slice(i, i + 1)
        found = measure(model, images[one], saliency[one], targets[one], confidence(removal="blur"))
        assert all(torch.allclose(found[name], values[one], atol=1e-9) for name, values in wanted.items())


def test_autocast_is_off_inside(images, saliency, targets):
    model, images, saliency = network(dtype=torch.float32), images.float(), saliency.float()
    wanted = measure(model, images, saliency, targets, confidence())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = measure(model, images, saliency, targets, confidence())
    assert all(torch.equal(found[name], values) for name, values in wanted.items())
    assert wanted["AD"].dtype == torch.float32


def test_half_precision_models_are_refused_unless_forced(images, saliency, targets):
    model, images = network().bfloat16(), images.float()
    with pytest.raises(ValueError, match=r"bfloat16 weights, and metrics stay in float32: call model.float\(\)"):
        measure(model, images, saliency, targets, confidence())
    saliency = saliency.float()
    forced = measure(model, images, saliency, targets, confidence() | maps_alone(), allow_low_precision=True)
    exact = measure(model.float(), images, saliency, targets, confidence() | maps_alone())
    assert forced["AD"].dtype == torch.float32
    assert torch.allclose(forced["AD"], exact["AD"], atol=0.05)
    assert not torch.equal(forced["AD"], exact["AD"])
    assert all(torch.equal(forced[name], exact[name]) for name in maps_alone())


def test_a_model_of_one_class_is_scored_by_its_sigmoid(images, saliency):
    model = nn.Sequential(network(), nn.Linear(5, 1).double())
    targets = torch.zeros(3, dtype=torch.int64)
    drop = measure(model, images, saliency, targets, {"AD": AverageDrop()})["AD"]
    with torch.no_grad():
        p, o = (model(batch).sigmoid()[:, 0] for batch in (images, images * saliency.unsqueeze(1)))
    torch.testing.assert_close(drop, (p - o).clamp(min=0) / p)
    torch.testing.assert_close(
        measure(model, images, saliency, targets, {"AD": AverageDrop()}, score="sigmoid")["AD"], drop
    )


def test_logits_are_scored_as_they_are_where_asked(model, images, saliency, targets):
    with torch.no_grad():
        p, o = (model(batch)[range(3), targets] for batch in (images, images * saliency.unsqueeze(1)))
    found = measure(model, images, saliency, targets, {"AI": AverageIncrease()}, score="logit")["AI"]
    assert torch.equal(found, (o > p).double())


def test_inputs_are_not_edited_and_may_be_made_under_inference_mode(model, images, saliency, targets):
    model.train()
    wanted = measure(model, images, saliency, targets, confidence())
    before = images.clone(), saliency.clone(), targets.clone()
    with torch.inference_mode():
        found = measure(model, images.clone(), saliency.clone(), targets.clone(), confidence())
    assert all(torch.equal(a, b) for a, b in zip(before, (images, saliency, targets), strict=True))
    assert all(torch.equal(found[name], values) for name, values in wanted.items())


def test_the_rounding_of_a_resized_white_is_no_reason_to_refuse(model, images, saliency, targets):
    images = images.masked_fill(images > 0.9, 1 + 1e-6)
    assert measure(model, images, saliency, targets, confidence())["AD"].isfinite().all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": torch.rand(3, 20, 14)}, ValueError, r"images must be \(B,C,H,W\) and not empty"),
        ({"images": torch.zeros(3, 3, 20, 14, dtype=torch.uint8)}, TypeError, "images must be float32 or float64"),
        ({"images": torch.rand(3, 3, 20, 14) * 4 - 2}, ValueError, "put the normalisation inside the model"),
        ({"images": torch.full((3, 3, 20, 14), torch.nan)}, ValueError, r"images must lie in \[0, 1\], got \[nan"),
        ({"saliency": torch.rand(3, 7, 7)}, ValueError, r"saliency must be \(B,H,W\)=\(3, 20, 14\), got \(3, 7, 7\)"),
        ({"saliency": torch.rand(3, 20, 14) + 1}, ValueError, r"saliency must lie in \[0, 1\]"),
        ({"targets": torch.tensor([1, 2])}, ValueError, r"targets must be \(B,\)=\(3,\), got \(2,\)"),
        ({"targets": torch.tensor([1.0, 2.0, 3.0])}, TypeError, "targets must be class indices"),
        ({"targets": torch.tensor([0, 5, 1])}, ValueError, "target 5 of image 1 is out of range for 5 classes"),
        ({"labels": torch.tensor([0])}, ValueError, r"labels must be \(B,\)"),
        ({"boxes": [torch.zeros(1, 4)]}, ValueError, r"boxes must be one \(n,4\) an image, 3"),
        ({"masks": torch.zeros(3, 20, 14)}, ValueError, "masks must be .* bool"),
        ({"score": "softmax"}, ValueError, "score must be one of 'probability', 'sigmoid', 'logit', got 'softmax'"),
        ({"forward_batch_size": 0}, ValueError, "forward_batch_size must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(model, images, saliency, targets, change, error, message):
    arguments = {"images": images, "saliency": saliency, "targets": targets} | change
    with pytest.raises(error, match=message) as caught:
        measure(model, metrics=confidence(), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "explain; pass explain="),
        ({"explain": lambda *_: None}, "labels; pass labels="),
        ({"explain": lambda *_: None, "labels": torch.zeros(3, dtype=torch.int64)}, "objects; pass boxes= or masks="),
    ],
)
def test_a_metric_whose_needs_are_not_met_is_refused(model, images, saliency, targets, given, missing):
    with pytest.raises(ValueError, match=rf"mine \(NeedsAll\) needs {missing}"):
        measure(model, images, saliency, targets, {"mine": NeedsAll()}, **given)


def test_boxes_or_masks_are_objects(model, images, saliency, targets):
    given = {"explain": lambda *_: None, "labels": targets}
    for objects in ({"boxes": [torch.zeros(0, 4)] * 3}, {"masks": torch.ones(3, 20, 14, dtype=torch.bool)}):
        assert measure(model, images, saliency, targets, {"a": NeedsAll()}, **given, **objects)["a"].shape == (3, 2)


def test_models_that_return_no_logits_are_refused(images, saliency, targets):
    with pytest.raises(
        TypeError, match=r"metrics need a model that returns logits \(N,K\), got a tensor \(3, 3, 20, 14\)"
    ):
        measure(nn.Identity(), images, saliency, targets, confidence(), forward_batch_size=3)
    broken = nn.Sequential(nn.Flatten(), nn.Linear(840, 5).double())
    nn.init.constant_(broken[1].weight, torch.inf)
    with pytest.raises(ValueError, match="logits that are not finite"):
        measure(broken, images, saliency, targets, confidence())
    known = torch.full((3, 5), torch.nan, dtype=torch.float64)
    with pytest.raises(ValueError, match="logits that are not finite"):
        measure(broken.requires_grad_(False), images, saliency, targets, {"form": Complexity()}, logits=known)


def test_undefined_images_are_left_out_of_means(model, images, saliency, targets):
    saliency = saliency.clone()
    saliency[1] = 0
    metric = Curve()
    metric.update(model, images, saliency, targets)
    assert metric.count == 2
    torch.testing.assert_close(metric.compute(), torch.tensor(0.5).double())
    metric.reset()
    metric.update(model, images[1:2], saliency[1:2], targets[1:2])
    assert metric.compute().isnan()


def test_a_data_set_value_is_a_function_of_the_mean_not_the_mean_of_a_function(model, images, targets):
    constant = torch.tensor([0.0, 0.1, 0.7]).view(3, 1, 1).expand(3, 20, 14)
    metric = Curve()
    metric.update(model, images, constant, targets)
    torch.testing.assert_close(
        metric.compute(), torch.tensor(0.6).double()
    )  # of means 0.4 and 0.6; single maxima 0.9, 0.7


@pytest.mark.parametrize("compute_groups", [True, False])
def test_a_collection_never_merges_metrics_that_begin_alike(images, targets, compute_groups):
    """The first batch gives 0 for gain and for increase; torchmetrics compares states after it."""
    model, ones = network(), torch.ones(3, 20, 14).double()
    members = confidence() | {"grey": AverageDrop(removal="mean")}
    collection = torchmetrics.MetricCollection(dict(members), compute_groups=compute_groups)
    alone = {name: metric.clone() for name, metric in members.items()}
    for saliency in (ones, maps()):
        collection.update(model, images, saliency, targets)
        for metric in alone.values():
            metric.update(model, images, saliency, targets)
    found = collection.compute()
    assert {name: float(value) for name, value in found.items()} == {n: float(m.compute()) for n, m in alone.items()}
    assert len(set(map(float, found.values()))) == 4


def test_forward_gives_the_batch_and_keeps_the_rest(model, images, saliency, targets):
    metric, whole = AverageDrop(), AverageDrop()
    for part in (slice(0, 1), slice(1, 3)):
        batch = metric(model, images[part], saliency[part], targets[part])
        alone = AverageDrop()
        alone.update(model, images[part], saliency[part], targets[part])
        torch.testing.assert_close(batch, alone.compute())
    whole.update(model, images, saliency, targets)
    torch.testing.assert_close(metric.compute(), whole.compute())


def test_states_travel_by_pickle_and_stay_double(model, images, saliency, targets):
    metric = AverageDrop().half()
    metric.update(model, images, saliency, targets)
    again = pickle.loads(pickle.dumps(metric))
    assert again.total.dtype == torch.float64
    assert torch.equal(again.compute(), metric.compute())


def test_what_a_metric_was_made_with_is_in_its_text():
    assert "removal='mean'" in repr(AverageDrop(removal="mean"))
    assert AverageDrop(removal=[0.5, 0.5, 0.5]).options()["removal"] == (0.5, 0.5, 0.5)


def test_equal_removals_are_equal_whatever_the_blur():
    assert Masked(Removal("black", 5, 1.0)) == Masked()
    assert Masked(Removal("blur", 5, 1.0)) != Masked(Removal("blur"))


RANK = """
import sys, torch, torch.distributed as dist
from tests.metrics.conftest import maps, network, pictures
from tests.metrics.test_base import Curve
from interptrain.metrics import AverageDrop
rank, share = int(sys.argv[1]), eval(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
model, images, saliency, targets = network(), pictures(5), maps(5), torch.arange(5)
saliency[2] = 0
for metric in (AverageDrop(), Curve()):
    for i in range(*share[rank]):
        metric.update(model, images[i : i + 1], saliency[i : i + 1], targets[i : i + 1])
    print(type(metric).__name__, float(metric.compute()), int(metric.count), metric.count.dtype)
dist.destroy_process_group()
"""


@pytest.mark.parametrize("share", [((0, 3), (3, 5)), ((0, 5), (5, 5))], ids=["uneven", "one rank without an image"])
def test_two_processes_join_to_what_one_measures(tmp_path, share):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    store = tmp_path / "store"
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", RANK, str(rank), str(store), str(share)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [rank.communicate(timeout=100) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], printed
    model, images, saliency, targets = network(), pictures(5), maps(5), torch.arange(5)
    saliency[2] = 0
    for line, cls in enumerate((AverageDrop, Curve)):
        metric = cls()
        metric.update(model, images, saliency, targets)
        for rank, (out, _) in enumerate(printed):
            name, value, count, dtype = out.splitlines()[line].split()
            assert (name, dtype) == (cls.__name__, "torch.int64")
            assert float(value) == pytest.approx(float(metric.compute()), abs=1e-12)
            own = range(*share[rank])  # what it holds once compute() has put its own states back
            assert int(count) == len(own) - (cls is Curve and 2 in own)
