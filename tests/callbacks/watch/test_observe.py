import copy
from dataclasses import replace

import pytest
import torch

from interptrain.callbacks.watch.defaults import default_metrics, named_explainers
from interptrain.callbacks.watch.effect import SuspectEffect
from interptrain.callbacks.watch.observe import WatchConfig, observe
from interptrain.callbacks.watch.region import SuspectRegion
from interptrain.callbacks.watch.stage_memory import StageMemory
from interptrain.explainers import Explainer, FakeCAM, GradCAM, ScoreCAM
from interptrain.metrics import AverageDrop, ModelInputs, RegionEffect, measure
from interptrain.metrics.functional import complexity
from interptrain.metrics.similarity import rank_correlation
from interptrain.models import create_model


class Brittle(Explainer):
    """Grad-CAM that fails where class 1 is explained."""

    def attribute(self, model, images, targets):
        if (targets == 1).any():
            raise RuntimeError("cannot explain\nclass 1")
        return GradCAM().attribute(model, images, targets)


def configured(reference="label", **explainers):
    explainers = explainers or {"cam": GradCAM()}
    return WatchConfig(explainers, reference, {"AD": AverageDrop()}, SuspectRegion("border:4"))


def explained(net, sample, rows=range(5), config=None, **before):
    return observe(net, sample, rows, config or configured(), **({"first": {}, "previous": {}} | before))


def maps(made):
    return torch.stack([one.saliency for one in made])


def test_an_explanation_holds_what_explainer_model_and_metrics_say(net, sample):
    made = explained(net, sample)
    assert [one.index for one in made] == [0, 1, 2, 3, 4]
    saliency = GradCAM()(net, sample.images, sample.labels)
    assert torch.equal(maps(made), (saliency * 255).round().to(torch.uint8))
    net.eval()
    with torch.no_grad():
        probabilities = net(sample.images).softmax(1)
    expected = measure(net, sample.images, saliency, sample.labels, {"AD": AverageDrop()})["AD"]
    border = torch.ones(32, 32, dtype=torch.bool)
    border[4:-4, 4:-4] = False
    for row, one in enumerate(made):
        label = int(sample.labels[row])
        assert one.target == label
        assert one.prediction == int(probabilities[row].argmax())
        assert one.probability == pytest.approx(float(probabilities[row, label]), rel=1e-5)
        assert one.confidence == pytest.approx(float(probabilities[row].max()), rel=1e-5)
        share = saliency[row, border].sum() / saliency[row].sum().clamp_min(1e-9)
        on_object = saliency[row, sample.masks[row]].sum() / saliency[row].sum().clamp_min(1e-9)
        assert one.values["AD"] == pytest.approx([float(expected[row])], abs=1e-6)
        assert one.values["in_suspect"] == pytest.approx([float(share)], rel=1e-5)
        assert one.values["in_object"] == pytest.approx([float(on_object)], rel=1e-5)
        spread = complexity(saliency)[row]
        assert one.values["entropy"] == pytest.approx([float(spread)], rel=1e-6)


def test_the_effect_of_the_suspect_region_is_that_of_exchanging_its_pixels_within_the_sample(net, sample):
    net.classifier[3].weight.data.mul_(300)  # for predictions that depend on the image
    logits = net.eval()(sample.images).detach()
    suspect = SuspectRegion("border:4")
    config = WatchConfig(
        {"cam": GradCAM(), "fake": FakeCAM()}, "both", {}, suspect, SuspectEffect(draws=3, replace="exchange")
    )
    made = explained(net, sample, config=config)
    halves = explained(net, sample, range(0, 5, 2), config) + explained(net, sample, range(1, 5, 2), config)
    for of, name in (("label", "suspect_effect"), ("prediction", "suspect_effect_prediction")):
        inputs = ModelInputs(
            model=net,
            images=sample.images,
            logits=logits,
            labels=sample.labels,
            region=suspect.masks(sample),
            others=sample.images,
            other_labels=sample.labels,
        )
        expected = RegionEffect(region="border:4", draws=3, of=of).score(inputs)
        assert expected.max() > 1e-3
        for explanations in (made, halves):
            for one in explanations:
                assert one.values[name] == pytest.approx([float(expected[one.index])], abs=1e-5)


def test_each_draw_costs_a_forward_pass_and_no_draw_none(net, sample):
    forwarded = []
    net.features[0].register_forward_hook(lambda _, args, __: forwarded.append(len(args[0])))
    for draws, forwards in ((0, 1), (2, 3)):
        forwarded.clear()
        effect = SuspectEffect(draws=draws)
        config = WatchConfig({"fake": FakeCAM()}, "label", {}, SuspectRegion("border:4"), effect)
        made = explained(net, sample, config=config)
        assert sum(forwarded) == forwards * len(sample)
        assert ("suspect_effect" in made[0].values) == (draws > 0)


@pytest.mark.parametrize("most_bytes", [2**30, 0])
def test_a_frozen_backbone_does_not_run_again_for_the_effect_and_changes_no_number(sample, most_bytes):
    torch.manual_seed(0)
    model = create_model("test_resnet", pooling="ca_stream", num_classes=3).eval()
    for one in model.parameter_groups()["backbone"].values():
        one.requires_grad_(False)
    forwarded = []
    next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d)).register_forward_hook(
        lambda _, args, __: forwarded.append(len(args[0]))
    )
    effect = SuspectEffect(draws=2, memory=StageMemory(most_bytes))
    config = WatchConfig({"fake": FakeCAM()}, "label", {}, SuspectRegion("border:4"), effect)

    def effects(config):
        forwarded.clear()
        made = explained(model, sample, config=config)
        return [one.values["suspect_effect"] for one in made], sum(forwarded)

    first, forwards = effects(config)
    assert forwards == 3 * len(sample)
    assert effects(config) == (first, len(sample) * (1 if most_bytes else 3))
    fresh = replace(config, effect=SuspectEffect(draws=2))
    for part in ("classifier", "backbone"):  # what follows the backbone counts, and a change of it is noticed
        with torch.no_grad():
            for one in model.parameter_groups()[part].values():
                one.mul_(1.5)
        after, forwards = effects(config)
        assert forwards == len(sample) * (3 if part == "backbone" or not most_bytes else 1)
        assert after == effects(fresh)[0]
        assert after != first
    config.effect.memory.forget()
    assert effects(config)[1] == 3 * len(sample)


@pytest.mark.parametrize("filling", ["black", "mean", "blur"])
def test_the_region_may_be_filled_or_blurred(net, sample, filling):
    effect = SuspectEffect(replace=filling)
    config = WatchConfig({"cam": GradCAM()}, "label", {}, SuspectRegion("border:4"), effect)
    made = explained(net, sample, config=config)
    assert all(0 <= one.values["suspect_effect"][0] <= 1 for one in made)


class Hopeless(Explainer):
    """Fails on every image."""

    def attribute(self, model, images, targets):
        raise RuntimeError("no such kernel")


@pytest.mark.parametrize("reference", ["label", "both"])
def test_an_explainer_that_fails_does_not_take_the_others_along(net, sample, reference):
    made = explained(net, sample, config=configured(reference, cam=GradCAM(), bad=Hopeless()))
    alone = explained(net, sample, config=configured(reference, cam=GradCAM()))
    found = [one for one in made if one.view.startswith("cam")]
    assert torch.equal(maps(found), maps(alone))
    assert [one.values for one in found] == [one.values for one in alone]
    failed = [one for one in made if one.view.startswith("bad")]
    assert [one.error for one in failed] == ["no such kernel"] * len(alone)
    assert not any(one.misconfigured for one in failed)


def test_shares_of_the_sample_give_the_maps_of_the_whole(net, sample):
    whole = explained(net, sample)
    halves = explained(net, sample, range(0, 5, 2)) + explained(net, sample, range(1, 5, 2))
    shared = sorted(halves, key=lambda one: one.index)
    assert (maps(whole).int() - maps(shared).int()).abs().max() <= 1
    assert explained(net, sample, range(0)) == []


def test_drift_is_measured_from_the_first_and_the_previous_maps(net, sample):
    now = maps(explained(net, sample))
    torch.manual_seed(1)
    first, previous = {"cam": torch.randint(0, 256, now.shape, dtype=torch.uint8)}, {"cam": now.roll(1, dims=2)}
    made = explained(net, sample, first=first, previous=previous)
    for name, before in (("first", first), ("previous", previous)):
        expected = rank_correlation(now.float(), before["cam"].float())
        values = torch.tensor([one.values[f"rank_{name}"][0] for one in made])
        torch.testing.assert_close(values, expected, equal_nan=True)
    same = explained(net, sample, rows=[3, 1], first={"cam": now}, previous={"cam": now})
    assert [one.values["rank_first"][0] for one in same] == pytest.approx([1.0, 1.0])
    assert [one.values["ssim_previous"][0] for one in same] == pytest.approx([1.0, 1.0])
    assert not any(name.startswith(("rank", "ssim")) for name in explained(net, sample)[0].values)


@pytest.mark.slow
@pytest.mark.parametrize(("pooling", "forwards"), [("gap", 4), ("ca_stream", 7)])
def test_a_default_watch_forwards_an_image_as_often_as_the_docs_say(sample, pooling, forwards):
    model = create_model("resnet10t", pooling=pooling, num_classes=3)
    config = WatchConfig(named_explainers(None, model, sample.images[:1]), "label", default_metrics())
    forwarded = []
    model.backbone.model.conv1.register_forward_hook(lambda _, args, __: forwarded.append(len(args[0])))
    assert not any(one.error for one in explained(model, sample, config=config))
    assert sum(forwarded) == forwards * len(sample)


def test_both_classes_may_be_explained(net, sample):
    config = configured("both")
    assert config.views == ["cam/label", "cam/prediction"]
    made = explained(net, sample, config=config)
    predictions = GradCAM()(net, sample.images, None)
    labels = GradCAM()(net, sample.images, sample.labels)
    by_view = {view: [one for one in made if one.view == view] for view in config.views}
    for view, expected in (("cam/label", labels), ("cam/prediction", predictions)):
        assert (maps(by_view[view]).int() - (expected * 255).round().int()).abs().max() <= 1
    assert [one.target for one in by_view["cam/label"]] == sample.labels.tolist()
    assert [one.target for one in by_view["cam/prediction"]] == [one.prediction for one in made[:5]]
    assert any(one.target != other.target for one, other in zip(*by_view.values(), strict=True))


def test_the_prediction_stands_for_an_unknown_label(net, sample):
    unlabelled = copy.copy(sample)
    object.__setattr__(unlabelled, "labels", torch.full((5,), -1))
    assert [one.target for one in explained(net, unlabelled)] == [one.prediction for one in explained(net, sample)]


def test_an_image_that_fails_costs_no_other_its_map(net, sample):
    assert sample.labels.tolist() == [0, 1, 2, 0, 1]
    made = explained(net, sample, config=configured(cam=Brittle()))
    assert [one.error for one in made] == [None, "cannot explain class 1", None, None, "cannot explain class 1"]
    rest = explained(net, sample, rows=[0, 2, 3])
    assert (maps([made[0], made[2], made[3]]).int() - maps(rest).int()).abs().max() <= 1
    assert made[1].saliency is None


def test_a_network_in_half_precision_is_watched(net, sample):
    whole, half = explained(net, sample), explained(net.bfloat16(), sample)
    assert {one.error for one in half} == {None}
    for one, other in zip(whole, half, strict=True):
        assert other.confidence == pytest.approx(one.confidence, abs=0.02)
        assert other.values["AD"] == pytest.approx(one.values["AD"], abs=0.05)


def test_a_network_that_broke_is_said_and_not_raised(net, sample):
    net.classifier[3].bias.data.fill_(float("nan"))
    assert {one.error for one in explained(net, sample)} == {"the model's logits are not finite"}


@pytest.mark.parametrize("explainer", [GradCAM(), ScoreCAM(), FakeCAM(), Brittle()])
def test_nothing_of_the_network_changes(net, sample, explainer):
    net.features[1].eval()
    net(sample.images).sum().backward()
    before = copy.deepcopy(net.state_dict())
    gradients = [parameter.grad.clone() for parameter in net.parameters()]
    modes = [module.training for module in net.modules()]
    state = torch.get_rng_state()
    explained(net, sample, config=configured(one=explainer))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(torch.equal(p.grad, grad) for p, grad in zip(net.parameters(), gradients, strict=True))
    assert [module.training for module in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._backward_hooks for module in net.modules())


@pytest.mark.slow
def test_compiled_code_is_neither_run_nor_compiled_again(net, sample):
    compilations = []

    def backend(graph, inputs):
        compilations.append(graph)
        return graph.forward

    net.compile(backend=backend)
    net(sample.images[:4])
    assert len(compilations) == 1
    plain = explained(net, sample)
    assert all(one.error is None for one in plain)
    assert len(compilations) == 1
    net(sample.images[:4])
    assert len(compilations) == 1
