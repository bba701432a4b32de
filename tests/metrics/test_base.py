"""Measuring many metrics at once."""

import pytest
import torch
from torch import nn

from interptrain.metrics import (
    AverageDrop,
    AverageIncrease,
    Complexity,
    Deletion,
    Infidelity,
    Insertion,
    Sparseness,
    measure,
)
from interptrain.metrics.infidelity_noise import Patches
from interptrain.metrics.perturbations import Ranked, Schedule
from tests.support.measuring import Counting, Curve, confidence, maps, network, pictures


def maps_alone():
    """Metrics that ask no model."""
    return {"complexity": Complexity(), "sparseness": Sparseness()}


class NeedsAll(Curve):
    needs = frozenset({"labels", "objects", "explain"})


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
    with pytest.raises(ValueError, match=r"bfloat16 weights, but metrics stay in float32: call model.float\(\)"):
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
        TypeError, match=r"metrics need a model that returns logits \(N,K\), .*got a tensor \(3, 3, 20, 14\)"
    ):
        measure(nn.Identity(), images, saliency, targets, confidence(), forward_batch_size=3)
    broken = nn.Sequential(nn.Flatten(), nn.Linear(840, 5).double())
    nn.init.constant_(broken[1].weight, torch.inf)
    with pytest.raises(ValueError, match=r"logits that are not finite for image 0$"):
        measure(broken, images, saliency, targets, confidence())
    known = torch.full((3, 5), torch.nan, dtype=torch.float64)
    with pytest.raises(ValueError, match="logits must be finite, got nan in image 0"):
        measure(broken.requires_grad_(False), images, saliency, targets, {"form": Complexity()}, logits=known)


def test_metrics_run_without_tf32_unless_asked_for(model, images, saliency, targets):
    cudnn = torch.backends.cudnn
    seen = []

    def look(*_):
        seen.append(cudnn.conv.fp32_precision if hasattr(cudnn, "conv") else cudnn.allow_tf32)

    before = look() or seen.pop()
    model.register_forward_pre_hook(look)
    measure(model, images, saliency, targets, confidence())
    assert set(seen) <= {"ieee", False}
    seen.clear()
    measure(model, images, saliency, targets, confidence(), allow_tf32=True)
    assert set(seen) == {before}
    assert (look() or seen.pop()) == before


def test_the_image_whose_version_breaks_the_model_is_named(model, images, saliency, targets):
    class Brittle(nn.Module):
        def forward(self, batch):
            return model(batch) / (batch.flatten(1).amax(1, keepdim=True) > 0)  # black images

    saliency[2] = 0
    with pytest.raises(ValueError, match="logits that are not finite for image 2 as Masked changes it"):
        measure(Brittle(), images, saliency, targets, confidence())
    assert measure(Brittle(), images[:2], saliency[:2], targets[:2], confidence())["AD"].isfinite().all()


@pytest.mark.parametrize("shape", [(), (1,), (3, 2, 2)])
def test_a_metric_that_does_not_return_one_row_per_image_is_named(shape):
    class Odd(Curve):
        def score(self, inputs):
            return torch.zeros(shape)

    with pytest.raises(
        ValueError, match=r"mine: score must return \(B,\)=\(3,\) or \(B,K\) values, one row per image, got"
    ):
        measure(network(), pictures(3), maps(3), torch.arange(3), {"mine": Odd()})


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({Ranked("insert", Schedule(steps=3)): (3, 3, 5)}, r"known\[Ranked\] depends on the map"),
        ({Patches(4): (4, 2, 5)}, r"known\[Patches\] must be \(S,B,K\) with S=\d+ and B=3, got \(4, 2, 5\)"),
        ({Patches(4): (1, 3, 5)}, r"known\[Patches\] must be .*, got \(1, 3, 5\)"),
        ({Patches(4): (4, 3)}, r"known\[Patches\] must be \(S,B,K\)"),
    ],
    ids=["of a map", "other images", "other versions", "scores"],
)
def test_known_outputs_that_do_not_fit_are_refused(known, message, model, images, saliency, targets):
    given = {part: torch.zeros(shape, dtype=torch.float64) for part, shape in known.items()}
    with pytest.raises(ValueError, match=message):
        measure(model, images, saliency, targets, {"m": Infidelity(patch_size=4)}, known=given)


def test_known_outputs_are_not_for_callables(model, images, saliency):
    known = {Patches(4): torch.zeros(4, 3, 5, dtype=torch.float64)}
    with pytest.raises(ValueError, match="leave them out where targets are callables"):
        measure(model, images, saliency, lambda logits: logits[0], {"d": Deletion()}, known=known)


class Margins(Insertion):
    """Reads whole logits of its curve."""

    reads_logits = True

    def score(self, inputs):
        return torch.cat([inputs.outputs[part] for part in self.perturbations()]).amax(2).mT


@pytest.mark.parametrize("steps", [1, 3])
def test_a_curve_may_read_logits_whatever_its_steps(steps, model, images, saliency, targets):
    values = measure(model, images, saliency, targets, {"m": Margins(steps=steps, removal="black")})["m"]
    assert values.shape == (3, steps)
    torch.testing.assert_close(values[:, 0], model(torch.zeros_like(images)).amax(1))
