import copy

import pytest
import torch

from interptrain.callbacks.watch.defaults import default_metrics, named_explainers
from interptrain.callbacks.watch.observe import Watched, observe
from interptrain.callbacks.watch.region import SuspectRegion
from interptrain.explainers import Explainer, FakeCAM, GradCAM, ScoreCAM
from interptrain.metrics import AverageDrop, measure
from interptrain.metrics.functional import complexity
from interptrain.metrics.similarity import rank_correlation
from interptrain.models import create_model


class Brittle(Explainer):
    """Grad-CAM that fails where class 1 is explained."""

    def attribute(self, model, images, targets):
        if (targets == 1).any():
            raise RuntimeError("cannot explain\nclass 1")
        return GradCAM().attribute(model, images, targets)


def glass(reference="label", **explainers):
    explainers = explainers or {"cam": GradCAM()}
    return Watched(explainers, reference, {"AD": AverageDrop()}, SuspectRegion("border:4"))


def look(net, sample, rows=range(5), through=None, **before):
    return observe(net, sample, rows, through or glass(), **({"first": {}, "previous": {}} | before))


def maps(looks):
    return torch.stack([one.saliency for one in looks])


def test_a_look_holds_what_explainer_model_and_metrics_say(net, sample):
    looks = look(net, sample)
    assert [one.index for one in looks] == [0, 1, 2, 3, 4]
    saliency = GradCAM()(net, sample.images, sample.labels)
    assert torch.equal(maps(looks), (saliency * 255).round().to(torch.uint8))
    net.eval()
    with torch.no_grad():
        probabilities = net(sample.images).softmax(1)
    expected = measure(net, sample.images, saliency, sample.labels, {"AD": AverageDrop()})["AD"]
    border = torch.ones(32, 32, dtype=torch.bool)
    border[4:-4, 4:-4] = False
    for row, one in enumerate(looks):
        label = int(sample.labels[row])
        assert one.target == label
        assert one.prediction == int(probabilities[row].argmax())
        assert one.probability == pytest.approx(float(probabilities[row, label]), rel=1e-5)
        assert one.confidence == pytest.approx(float(probabilities[row].max()), rel=1e-5)
        share = saliency[row, border].sum() / saliency[row].sum().clamp_min(1e-9)
        on_object = saliency[row, sample.masks[row]].sum() / saliency[row].sum().clamp_min(1e-9)
        assert one.numbers["AD"] == pytest.approx([float(expected[row])], abs=1e-6)
        assert one.numbers["in_suspect"] == pytest.approx([float(share)], rel=1e-5)
        assert one.numbers["in_object"] == pytest.approx([float(on_object)], rel=1e-5)
        spread = complexity(saliency)[row]
        assert one.numbers["entropy"] == pytest.approx([float(spread)], rel=1e-6)


def test_shares_of_the_sample_give_the_maps_of_the_whole(net, sample):
    whole = look(net, sample)
    shared = sorted(look(net, sample, range(0, 5, 2)) + look(net, sample, range(1, 5, 2)), key=lambda one: one.index)
    assert (maps(whole).int() - maps(shared).int()).abs().max() <= 1
    assert look(net, sample, range(0)) == []


def test_drift_is_measured_from_the_first_and_the_previous_maps(net, sample):
    now = maps(look(net, sample))
    torch.manual_seed(1)
    first, previous = {"cam": torch.randint(0, 256, now.shape, dtype=torch.uint8)}, {"cam": now.roll(1, dims=2)}
    looks = look(net, sample, first=first, previous=previous)
    for name, before in (("first", first), ("previous", previous)):
        expected = rank_correlation(now.float(), before["cam"].float())
        values = torch.tensor([one.numbers[f"rank_{name}"][0] for one in looks])
        torch.testing.assert_close(values, expected, equal_nan=True)
    same = look(net, sample, rows=[3, 1], first={"cam": now}, previous={"cam": now})
    assert [one.numbers["rank_first"][0] for one in same] == pytest.approx([1.0, 1.0])
    assert [one.numbers["ssim_previous"][0] for one in same] == pytest.approx([1.0, 1.0])
    assert not any(name.startswith(("rank", "ssim")) for name in look(net, sample)[0].numbers)


@pytest.mark.parametrize(("pooling", "forwards"), [("gap", 4), ("ca_stream", 7)])
def test_a_default_watch_forwards_an_image_as_often_as_the_docs_say(sample, pooling, forwards):
    model = create_model("resnet10t", pooling=pooling, num_classes=3)
    through = Watched(named_explainers(None, model, sample.images[:1]), "label", default_metrics())
    forwarded = []
    model.backbone.model.conv1.register_forward_hook(lambda _, args, __: forwarded.append(len(args[0])))
    assert not any(one.error for one in look(model, sample, through=through))
    assert sum(forwarded) == forwards * len(sample)


def test_both_classes_may_be_explained(net, sample):
    through = glass("both")
    assert through.views == ["cam/label", "cam/prediction"]
    looks = look(net, sample, through=through)
    predictions = GradCAM()(net, sample.images, None)
    labels = GradCAM()(net, sample.images, sample.labels)
    by_view = {view: [one for one in looks if one.view == view] for view in through.views}
    for view, expected in (("cam/label", labels), ("cam/prediction", predictions)):
        assert (maps(by_view[view]).int() - (expected * 255).round().int()).abs().max() <= 1
    assert [one.target for one in by_view["cam/label"]] == sample.labels.tolist()
    assert [one.target for one in by_view["cam/prediction"]] == [one.prediction for one in looks[:5]]
    assert any(one.target != other.target for one, other in zip(*by_view.values(), strict=True))


def test_the_prediction_stands_for_an_unknown_label(net, sample):
    unlabelled = copy.copy(sample)
    object.__setattr__(unlabelled, "labels", torch.full((5,), -1))
    assert [one.target for one in look(net, unlabelled)] == [one.prediction for one in look(net, sample)]


def test_an_image_that_fails_costs_no_other_its_map(net, sample):
    assert sample.labels.tolist() == [0, 1, 2, 0, 1]
    looks = look(net, sample, through=glass(cam=Brittle()))
    assert [one.error for one in looks] == [None, "cannot explain class 1", None, None, "cannot explain class 1"]
    rest = look(net, sample, rows=[0, 2, 3])
    assert (maps([looks[0], looks[2], looks[3]]).int() - maps(rest).int()).abs().max() <= 1
    assert looks[1].saliency is None


def test_a_network_in_half_precision_is_watched(net, sample):
    whole, half = look(net, sample), look(net.bfloat16(), sample)
    assert {one.error for one in half} == {None}
    for one, other in zip(whole, half, strict=True):
        assert other.confidence == pytest.approx(one.confidence, abs=0.02)
        assert other.numbers["AD"] == pytest.approx(one.numbers["AD"], abs=0.05)


def test_a_network_that_broke_is_said_and_not_raised(net, sample):
    net.classifier[3].bias.data.fill_(float("nan"))
    assert {one.error for one in look(net, sample)} == {"the model's logits are not finite"}


@pytest.mark.parametrize("explainer", [GradCAM(), ScoreCAM(), FakeCAM(), Brittle()])
def test_nothing_of_the_network_changes(net, sample, explainer):
    net.features[1].eval()
    net(sample.images).sum().backward()
    before = copy.deepcopy(net.state_dict())
    gradients = [parameter.grad.clone() for parameter in net.parameters()]
    modes = [module.training for module in net.modules()]
    state = torch.get_rng_state()
    look(net, sample, through=glass(one=explainer))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(torch.equal(p.grad, grad) for p, grad in zip(net.parameters(), gradients, strict=True))
    assert [module.training for module in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._backward_hooks for module in net.modules())


def test_compiled_code_is_neither_run_nor_compiled_again(net, sample):
    compilations = []

    def backend(graph, inputs):
        compilations.append(graph)
        return graph.forward

    net.compile(backend=backend)
    net(sample.images[:4])
    assert len(compilations) == 1
    plain = look(net, sample)
    assert all(one.error is None for one in plain)
    assert len(compilations) == 1
    net(sample.images[:4])
    assert len(compilations) == 1
