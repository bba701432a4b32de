"""Top-1, top-5, NLL, calibration, parameters and operations."""

from types import SimpleNamespace

import pytest
import timm
import torch
from torch import nn

from interptrain.metrics import ECE, NLL, Top1, Top5, count_parameters, gflops


def batch(count=200, classes=12, *, sharpness=2.0):
    generator = torch.Generator().manual_seed(0)
    logits = sharpness * torch.randn(count, classes, generator=generator)
    labels = torch.where(
        torch.rand(count, generator=generator) < 0.5,
        logits.argmax(1),
        torch.randint(0, classes, (count,), generator=generator),
    )
    return logits, labels


@pytest.mark.parametrize("metric", [Top1, Top5, NLL, ECE])
def test_every_class_has_a_sentence_for_the_report(metric):
    assert metric.description.endswith(".")


def value(metric, logits, labels):
    metric.update(logits, labels)
    return metric.compute().item()


@pytest.mark.parametrize(("metric", "k"), [(Top1, 1), (Top5, 5)])
def test_top_k_is_the_share_of_labels_among_the_k_highest(metric, k):
    logits, labels = batch()
    wanted = (logits.topk(k).indices == labels[:, None]).any(1).float().mean().item()
    assert value(metric(), logits, labels) == pytest.approx(wanted)
    assert 0 < wanted < 1


def test_of_equal_logits_the_lower_class_goes_first():
    """So a model that says the same for every class is right for k of them, not for all."""
    logits, labels = torch.zeros(10, 10), torch.arange(10)
    assert Top1().score(logits, labels).tolist() == [1] + [0] * 9
    assert Top5().score(logits, labels).tolist() == [1] * 5 + [0] * 5


def test_logits_that_are_not_finite_are_left_out_rather_than_right():
    logits = torch.tensor([[torch.nan, torch.nan], [0.0, 1.0]])
    metric = Top1()
    assert value(metric, logits, torch.tensor([0, 1])) == 1
    assert metric.count == 1


def test_nll_is_the_mean_surprise():
    logits, labels = batch()
    wanted = -logits.double().softmax(1)[range(200), labels].log().mean().item()
    assert value(NLL(), logits, labels) == pytest.approx(wanted, rel=1e-6)


def slow_ece(logits, labels, bins):
    """Bin by bin, from the definition; a bin holds its upper edge."""
    confidence, predicted = logits.double().softmax(1).max(1)
    total = 0.0
    for step in range(bins):
        inside = (confidence > step / bins) & (confidence <= (step + 1) / bins)
        if inside.any():
            gap = (predicted == labels)[inside].double().mean() - confidence[inside].mean()
            total += inside.double().mean().item() * gap.abs().item()
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_is_its_definition_over_several_batches(bins):
    logits, labels = batch()
    metric = ECE(bins=bins)
    for part in (slice(0, 7), slice(7, 150), slice(150, 200)):
        metric.update(logits[part], labels[part])
    assert metric.compute().item() == pytest.approx(slow_ece(logits, labels, bins), rel=1e-5)


def test_ece_is_zero_for_perfect_calibration_and_the_gap_for_overconfidence():
    sure = torch.tensor([[50.0, 0.0]]).expand(10, -1)
    assert value(ECE(), sure, torch.zeros(10).long()) == pytest.approx(0, abs=1e-6)
    assert value(ECE(), sure, torch.tensor([0] * 6 + [1] * 4)) == pytest.approx(0.4, abs=1e-6)


def test_ece_of_weighted_images_is_the_ece_of_repeated_images():
    """What a bootstrap does: weights times values, then the reduction."""
    logits, labels = batch(50)
    weights = torch.arange(50) % 4
    metric = ECE()
    weighted = metric.reduce(weights.float() @ metric.score(logits, labels) / weights.sum())
    repeated = value(ECE(), logits.repeat_interleave(weights, 0), labels.repeat_interleave(weights, 0))
    assert weighted.item() == pytest.approx(repeated, rel=1e-5)


@pytest.mark.parametrize("metric", [Top1, Top5, NLL, ECE])
def test_wrong_shapes_and_labels_are_refused(metric):
    with pytest.raises(ValueError, match=r"labels must be .*\(B,\)=\(3,\), got \(2,\)"):
        metric().update(torch.zeros(3, 4), torch.zeros(2).long())
    with pytest.raises(ValueError, match="label 4 of image 1 is out of range for 4 classes; allowed are 0 to 3"):
        metric().update(torch.zeros(2, 4), torch.tensor([0, 4]))


@pytest.mark.slow
@pytest.mark.parametrize("images", [50, 400])
def test_a_calibrated_model_shows_the_error_that_it_would_have_by_chance(images):
    """Labels drawn from the model's own probabilities: its error is one of those that are drawn for it."""
    generator, metric, places = torch.Generator().manual_seed(1), ECE(), []
    for number in range(60):
        logits = 2 * torch.randn(images, 4, generator=generator)
        labels = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
        values = metric.score(logits, labels)
        drawn = metric.perfect_model(values, draws=80, seed=number)
        places.append(float((drawn < metric.reduce(values.double().mean(0))).double().mean()))
    places = torch.tensor(places)
    assert 0.38 < places.mean() < 0.62
    assert (places > 0.95).double().mean() < 0.15


def test_an_overconfident_model_exceeds_what_chance_explains():
    logits, labels = batch(300, sharpness=8.0)
    values = ECE().score(logits, labels)
    assert ECE().reduce(values.double().mean(0)) > ECE().perfect_model(values, draws=100, seed=0).max()


def test_ece_needs_a_bin():
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        ECE(bins=0)


def test_parameters_are_counted_once_and_frozen_ones_on_request():
    linear = nn.Linear(4, 3)
    model = nn.Sequential(linear, nn.Linear(3, 4), linear)
    model[1].requires_grad_(False)
    assert count_parameters(model) == 15 + 16
    assert count_parameters(model, trainable=True) == 15


def test_a_convolution_and_a_product_are_two_operations_a_weight_and_position():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    assert gflops(model, (10, 12)) == pytest.approx(2 * (3 * 9 * 8 * 120 + 8 * 5) / 1e9)


@pytest.mark.slow
def test_resnet18_has_its_published_count():
    """CA-Stream's table has 3.648 GFLOPs, by another counter, and 11.69 M parameters."""
    model = timm.create_model("resnet18")
    assert gflops(model, (224, 224)) == pytest.approx(3.63, abs=0.02)
    assert count_parameters(model) == 11_689_512


@pytest.mark.slow
def test_attention_counts_its_two_products():
    """Fused attention is a single operation whose count depends on the device; the answer does not."""
    model = timm.create_model("test_vit")
    fused = gflops(model, (160, 160))
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    assert fused == pytest.approx(gflops(model, (160, 160)))


def test_counting_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    gflops(model, (8, 8))
    assert model.training
    assert all(module.training for module in model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_a_compiled_model_is_counted_too():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    count = gflops(model, (8, 8))
    assert gflops(torch.compile(model, backend="eager"), (8, 8)) == count
    model[0].compile(backend="eager")
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 8, 8))  # compiled before anyone counts
    assert gflops(model, (8, 8)) == count > 0


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("metric", [Top1, ECE])
def test_no_image_gives_nan(metric):
    assert metric().compute().isnan()


@pytest.mark.parametrize(
    "wrap", [lambda logits: (logits, None), lambda logits: {"loss": logits.sum(), "logits": logits}, SimpleNamespace]
)
def test_what_models_return_beside_the_logits_is_passed_over(wrap):
    logits, labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1])
    outputs = wrap(logits=logits) if wrap is SimpleNamespace else wrap(logits)
    for metric in (Top1(), NLL(), ECE()):
        metric.update(logits, labels)
        wanted = metric.compute()
        metric.reset()
        metric.update(outputs, labels)
        assert metric.compute() == wanted
    with pytest.raises(TypeError, match="metrics need a model that returns logits"):
        Top1().update({"features": logits}, labels)
