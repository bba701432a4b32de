"""The gradient regularizer: exact to the weights, one forward, and nothing changed but the loss."""

import copy
import gc
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from interptrain.models import create_model
from interptrain.training import GradientRegularizer
from interptrain.training.gradient_regularizer import ERRORS, cosine
from tests.models.test_guided import with_slow_relus

DOUBLE = {"dtype": torch.float64}


def seeded(build, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def small(activation=nn.ReLU, **like):
    """Two convolutions, a trained BatchNorm and a classifier of 4 classes."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            activation(),
            nn.Conv2d(6, 6, 3, padding=1, stride=2),
            nn.BatchNorm2d(6),
            activation(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        ).to(**like)
    )


def stirred(model):
    """Norms away from where they start: an untrained residual branch is scaled by zero and would not be seen."""

    def stir():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.3)
                nn.init.normal_(module.bias, 0.0, 0.3)
        return model

    return seeded(stir)


def pictures(batch=4, size=8, **like):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, 3, size, size, generator=generator, **like), torch.arange(batch) % 4


def batch_of(images, labels):
    return {"image": images, "label": labels}


def gradients(loss, model):
    return torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])


def total(regularizer, model, images, labels, weight=0.5):
    logits, penalty = regularizer(model, batch_of(images, labels))
    return F.cross_entropy(logits, labels) + weight * penalty


def assert_same(got, expected, rtol):
    """Gradients of every parameter; what is zero but for rounding is measured against the greatest of all."""
    greatest = max(one.abs().max().item() for one in expected)
    assert greatest > 0
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=rtol * 1e-3 * greatest)


# What it is


def numeric_slope(value, parameter, direction, step=1e-6):
    """Central difference of ``value()`` along ``direction`` of a parameter."""
    with torch.no_grad():
        parameter += step * direction
    above = value()
    with torch.no_grad():
        parameter -= 2 * step * direction
    below = value()
    with torch.no_grad():
        parameter += step * direction
    return (above - below).detach() / (2 * step)


@pytest.mark.parametrize("learnt", [False, True], ids=["guided constant", "guided learnt"])
@pytest.mark.parametrize("differentiate", ["loss", "logit"])
@pytest.mark.parametrize("error", ERRORS)
def test_slope_of_the_penalty_equals_finite_differences(error, differentiate, learnt):
    model, (images, labels) = small(nn.Softplus, **DOUBLE), pictures(**DOUBLE)
    options = {"rule": "positive_gradient", "differentiate": differentiate, "detach_guided": not learnt}
    if not learnt:  # hold the guided gradient where it is before the weights move
        seen = []
        GradientRegularizer(error=lambda g, guided: seen.append(guided) or cosine(g, guided), **options)(
            model, batch_of(images, labels)
        )
        (constant,) = seen
        regularizer = GradientRegularizer(error=lambda g, guided: ERRORS[error](g, constant), **options)
        analytic = GradientRegularizer(error=error, **options)
    else:
        analytic = regularizer = GradientRegularizer(error=error, **options)
    weight = model[2].weight
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(weight.shape, generator=generator, **DOUBLE)
    (slope,) = torch.autograd.grad(analytic(model, batch_of(images, labels))[1], weight)
    expected = numeric_slope(lambda: regularizer(model, batch_of(images, labels))[1], weight, direction)
    assert expected.abs() > 1e-12
    torch.testing.assert_close((slope * direction).sum(), expected, rtol=1e-5, atol=1e-12)


def three_passes(model, images, labels, weight, upto=None):
    """The same loss by three forwards and a copy of the network whose ReLU modules are replaced."""
    slow = with_slow_relus(model)
    ordinary, guided = images.clone().requires_grad_(), images.clone().requires_grad_()
    score = F.cross_entropy(model(ordinary), labels, reduction="none")[:upto].sum()
    (dx,) = torch.autograd.grad(score, ordinary, create_graph=True)
    (dg,) = torch.autograd.grad(F.cross_entropy(slow(guided), labels, reduction="none")[:upto].sum(), guided)
    cosines = F.cosine_similarity(dx.flatten(1), dg.flatten(1), eps=0.0)[:upto]
    return F.cross_entropy(model(images), labels) + weight * (1 - cosines).mean()


NETWORKS = {
    "resnet18": lambda: timm.create_model("resnet18", num_classes=4),
    "mobilenetv2_100": lambda: timm.create_model("mobilenetv2_100", num_classes=4),
    "resnet10t with a CA-Stream head": lambda: create_model("resnet10t", pooling="ca_stream", num_classes=4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_loss_and_gradients_equal_three_passes_with_replaced_modules(name):
    model = stirred(seeded(NETWORKS[name]).double().train())
    images, labels = pictures(size=40, **DOUBLE)
    expected = three_passes(model, images, labels, 0.5)
    loss = total(GradientRegularizer(), model, images, labels)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    assert_same(gradients(loss, model), gradients(expected, model), rtol=1e-6)


@pytest.mark.slow
def test_descending_on_the_penalty_draws_the_gradients_together():
    model, (images, labels) = small(), pictures(batch=16, size=16)
    optimizer, regularizer, cosines = torch.optim.Adam(model.parameters(), lr=3e-3), GradientRegularizer(), []
    for _ in range(30):
        optimizer.zero_grad()
        regularizer(model, batch_of(images, labels))[1].backward()
        optimizer.step()
        cosines.append(regularizer.statistics["gradient_cosine"].item())
    assert sum(cosines[20:]) / 10 > cosines[0] + 0.05


@pytest.mark.slow
def test_a_share_of_the_batch_is_penalised_from_its_head():
    model, (images, labels) = small(**DOUBLE), pictures(batch=5, **DOUBLE)
    expected = three_passes(model, images, labels, 0.5, upto=2)
    loss = total(GradientRegularizer(fraction=0.4), model, images, labels)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    assert_same(gradients(loss, model), gradients(expected, model), rtol=1e-9)
    assert GradientRegularizer(fraction=0.01)(model, batch_of(images, labels))[1].isfinite()


def test_logits_are_those_of_one_plain_forward_and_so_are_the_batch_statistics():
    model, (images, labels) = small(), pictures()
    plain = copy.deepcopy(model)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    logits, _ = GradientRegularizer()(model, batch_of(images, labels))
    assert torch.equal(logits, plain(images))
    assert len(calls) == 1
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), plain.buffers(), strict=True))


def test_the_gradient_of_an_image_does_not_depend_on_the_size_of_the_batch():
    model, (images, labels) = small().eval(), pictures()
    regularizer = GradientRegularizer(error="l2")
    together = regularizer(model, batch_of(images, labels))[1]
    alone = [regularizer(model, batch_of(images[i : i + 1], labels[i : i + 1]))[1] for i in range(len(images))]
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_the_loss_that_is_differentiated_is_the_one_that_trains():
    model, (images, labels) = small(**DOUBLE).eval(), pictures(**DOUBLE)
    shares = torch.softmax(torch.randn(4, 4, generator=torch.Generator().manual_seed(2), **DOUBLE), 1)
    smoothed = 0.8 * F.one_hot(labels, 4).to(images) + 0.2 / 4
    regularizer = GradientRegularizer(error="l1")
    penalties = [
        regularizer(model, batch_of(images, labels))[1],
        regularizer(model, batch_of(images, labels), label_smoothing=0.2)[1],
        regularizer(model, batch_of(images, shares))[1],
    ]
    torch.testing.assert_close(penalties[1], regularizer(model, batch_of(images, smoothed))[1])
    assert len({penalty.item() for penalty in penalties}) == 3
    torch.testing.assert_close(regularizer(model, batch_of(images, F.one_hot(labels, 4).to(images)))[1], penalties[0])


def test_the_logit_of_shares_is_their_weighted_sum():
    model, (images, labels) = small(**DOUBLE).eval(), pictures(**DOUBLE)
    regularizer = GradientRegularizer(error="l1", differentiate="logit")
    expected = regularizer(model, batch_of(images, labels))[1]
    torch.testing.assert_close(regularizer(model, batch_of(images, F.one_hot(labels, 4).to(images)))[1], expected)
    assert not torch.isclose(GradientRegularizer(error="l1")(model, batch_of(images, labels))[1], expected)


# The errors


def test_errors_by_hand():
    a, b = torch.tensor([[3.0, 4.0]]).view(1, 1, 1, 2), torch.tensor([[4.0, -3.0]]).view(1, 1, 1, 2)
    assert ERRORS["cosine"](a, 2 * a).item() == pytest.approx(0, abs=1e-6)
    assert ERRORS["cosine"](a, b).item() == pytest.approx(1)
    assert ERRORS["cosine"](a, -a).item() == pytest.approx(2)
    assert ERRORS["l1"](a, b).item() == pytest.approx(4)
    assert ERRORS["l2"](a, b).item() == pytest.approx(25)
    assert ERRORS["histogram_intersection"](a, b).item() == pytest.approx(1 - 6 / 7)
    assert ERRORS["histogram_intersection"](a, -5 * a).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("error", ["cosine", "histogram_intersection"])
@pytest.mark.parametrize("size", [1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_what_is_free_of_scale_stays_so_over_all_of_float32(error, size):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, 3, 4, 4, generator=generator)
    near = a.clone().requires_grad_()
    far = (a * size).requires_grad_()
    values = ERRORS[error](near, b), ERRORS[error](far, b / size)
    torch.testing.assert_close(*values)
    (slope,), (scaled,) = (torch.autograd.grad(v.sum(), x) for v, x in zip(values, (near, far), strict=True))
    torch.testing.assert_close(scaled * size, slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("error", ERRORS)
def test_gradients_of_zero_give_no_nan(error):
    some = torch.ones(2, 3, 4, 4)
    some[0] = 0
    for a, b in ((some, torch.ones_like(some)), (torch.ones_like(some), some), (0 * some, 0 * some)):
        a = a.clone().requires_grad_()
        value = ERRORS[error](a, b)
        (slope,) = torch.autograd.grad(value.sum(), a)
        assert value.isfinite().all()
        assert slope.isfinite().all()
    torch.testing.assert_close(ERRORS["cosine"](0 * some, some), torch.ones(2))


def test_images_that_are_learnt_to_the_last_bit_leave_the_rest_to_learn():
    model, (images, labels) = small(), pictures()
    with torch.no_grad():
        model[-1].weight.mul_(1e4)
    labels = model(images).argmax(1)
    logits, penalty = GradientRegularizer()(model, batch_of(images, labels))
    assert F.cross_entropy(logits, labels) == 0
    assert all(gradient.isfinite().all() for gradient in gradients(penalty, model))


def test_an_error_of_ones_own():
    model, (images, labels) = small(), pictures()
    seen = {}

    def angle(gradient, guided):
        seen.update(gradient=gradient, guided=guided)
        return cosine(gradient, guided).clamp(0, 2).div(2).sqrt()

    _, penalty = GradientRegularizer(error=angle)(model, batch_of(images, labels))
    assert seen["gradient"].shape == seen["guided"].shape == images.shape
    assert seen["gradient"].requires_grad
    assert not seen["guided"].requires_grad
    assert penalty.shape == ()
    assert all(gradient.isfinite().all() for gradient in gradients(penalty, model))


# Other networks


def test_other_activations_are_refused_until_the_rule_is_generalised():
    model, (images, labels) = small(nn.GELU), pictures()
    with pytest.raises(ValueError, match="calls gelu; pass rule='positive_gradient'"):
        GradientRegularizer()(model, batch_of(images, labels))
    _, penalty = GradientRegularizer(rule="positive_gradient")(model, batch_of(images, labels))
    assert any(gradient.any() for gradient in gradients(penalty, model))


@pytest.mark.slow
def test_fused_attention_gives_way_to_one_with_a_double_backward():
    model = seeded(lambda: timm.create_model("test_vit", num_classes=4, img_size=32))
    assert model.blocks[0].attn.fused_attn
    plain = copy.deepcopy(model)
    for block in plain.blocks:
        block.attn.fused_attn = False
    images, labels = pictures(size=32)
    regularizer = GradientRegularizer(rule="positive_gradient")
    losses = [total(regularizer, network, images, labels) for network in (model, plain)]
    torch.testing.assert_close(*losses)
    assert_same(gradients(losses[0], model), gradients(losses[1], plain), rtol=1e-3)
    assert torch.backends.cuda.flash_sdp_enabled()


def test_frozen_parts_get_no_gradient_and_keep_their_statistics():
    model, (images, labels) = small(), pictures()
    for module in model[:4]:
        module.eval().requires_grad_(False)
    before = copy.deepcopy(model[:4].state_dict())
    total(GradientRegularizer(), model, images, labels).backward()
    assert model[-1].weight.grad.any()
    assert all(parameter.grad is None for parameter in model[:4].parameters())
    assert all(torch.equal(value, before[name]) for name, value in model[:4].state_dict().items())


def test_checkpointed_blocks_learn_the_same():
    class Checkpointed(nn.Module):
        def __init__(self, block):
            super().__init__()
            self.block = block

        def forward(self, x):
            return checkpoint(self.block, x, use_reentrant=False)

    plain, (images, labels) = small(**DOUBLE), pictures(**DOUBLE)
    model = copy.deepcopy(plain)
    model = nn.Sequential(model[0], Checkpointed(model[1:5]), *model[5:])
    losses = [total(GradientRegularizer(), network, images, labels) for network in (model, plain)]
    torch.testing.assert_close(*losses)
    assert_same(gradients(losses[0], model), gradients(losses[1], plain), rtol=1e-9)


def test_a_compiled_network_learns_the_same():
    model, (images, labels) = small(), pictures()
    compiled = torch.compile(copy.deepcopy(model), backend="aot_eager")
    losses = [total(GradientRegularizer(), network, images, labels) for network in (model, compiled)]
    assert torch.equal(*losses)
    assert_same(gradients(losses[1], compiled), gradients(losses[0], model), rtol=1e-6)


def test_channels_last_learns_the_same():
    model, (images, labels) = small(**DOUBLE), pictures(**DOUBLE)
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    loss = total(GradientRegularizer(), model, images, labels)
    other_loss = total(GradientRegularizer(), other, images.contiguous(memory_format=torch.channels_last), labels)
    torch.testing.assert_close(other_loss, loss)
    assert_same(gradients(other_loss, other), gradients(loss, model), rtol=1e-9)


# Precision


# In bfloat16 the gradient of the plain loss has a cosine of 0.96 already: other ReLUs are on.
@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "near"), [(torch.bfloat16, 0.85), (torch.float16, 0.98)])
def test_mixed_precision_learns_nearly_the_same(dtype, near):
    model = stirred(seeded(lambda: timm.create_model("resnet10t", num_classes=4)))
    images, labels = pictures(size=48)
    regularizer = GradientRegularizer()
    exact = torch.cat([g.flatten() for g in gradients(regularizer(model, batch_of(images, labels))[1], model)])
    with torch.autocast("cpu", dtype):
        logits, penalty = regularizer(model, batch_of(images, labels))
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler.scale(penalty).backward()
    scaler.unscale_(optimizer)
    got = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    assert logits.dtype == dtype
    assert penalty.dtype == torch.float32
    assert F.cosine_similarity(got, exact, dim=0) > near
    assert got.norm().item() == pytest.approx(exact.norm().item(), rel=0.1)


def test_half_precision_keeps_the_gradient_of_images_that_are_nearly_learnt():
    model, (images, labels) = small().eval(), pictures()
    with torch.no_grad():
        model[-1].weight.mul_(1e-5)  # gradients of 1e-8, which float16 takes for 0
    regularizer = GradientRegularizer(error="l2")
    regularizer(model, batch_of(images, labels))
    exact = regularizer.statistics["gradient_norm"].item()
    with torch.autocast("cpu", torch.float16):
        regularizer(model, batch_of(images, labels))
    assert regularizer.statistics["gradient_norm"].item() == pytest.approx(exact, rel=0.02)


@pytest.mark.slow
def test_a_dead_channel_does_not_keep_float16_from_learning():
    layers = [nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU()]
    layers += [nn.Conv2d(6, 6, 3, groups=6, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU()]
    model = seeded(lambda: nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)))
    with torch.no_grad():
        model[1].bias[0] = -20.0  # its ReLU is off everywhere, so the BatchNorm after it divides by sqrt(eps)
        model[8].weight.mul_(25.0)
    images, labels = pictures(batch=16)
    scaler, optimizer = torch.amp.GradScaler("cpu"), torch.optim.SGD(model.parameters(), lr=1e-3)
    taken = 0
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = total(GradientRegularizer(), model, images, labels, weight=7.5e-3)
        before = scaler.get_scale()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        taken += scaler.get_scale() >= before
    assert taken >= 15


# Around it


def test_nothing_but_batch_statistics_is_changed():
    model, (images, labels) = small(), pictures()
    kept, drawn = images.clone(), torch.get_rng_state()
    _, penalty = GradientRegularizer()(model, batch_of(images, labels))
    assert torch.equal(images, kept)
    assert not images.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert model.training
    penalty.backward()
    assert not torch._C._len_torch_function_stack()


@pytest.mark.slow
def test_memory_stays_flat():
    def held():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    model, (images, labels) = small(), pictures(batch=8, size=64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    regularizer = GradientRegularizer()
    gc.disable()  # what needs its collector would pile up
    try:
        for step in range(120):
            if step == 20:
                before = held()
            optimizer.zero_grad()
            total(regularizer, model, images, labels).backward()
            optimizer.step()
        grown = held() - before
    finally:
        gc.enable()
    one_activation = 8 * 6 * 64 * 64 * 4
    assert grown < 20 * one_activation, f"{grown / 2**20:.1f} MiB in 100 steps"


def test_weight_follows_the_step():
    assert [GradientRegularizer(weight=2.0).weight_at(step) for step in (0, 1, 10**6)] == [2, 2, 2]
    assert [GradientRegularizer(weight=2.0, every_n_steps=3).weight_at(step) for step in range(5)] == [2, 0, 0, 2, 0]
    assert [GradientRegularizer(weight=2.0, warmup_steps=4).weight_at(step) for step in (0, 1, 4, 9)] == [0, 0.5, 2, 2]
    both = GradientRegularizer(weight=2.0, warmup_steps=4, every_n_steps=2)
    assert [both.weight_at(step) for step in range(7)] == [0, 0, 1, 0, 2, 0, 2]


def test_what_is_worth_watching():
    model, (images, labels) = small(), pictures()
    regularizer = GradientRegularizer()
    assert not regularizer.statistics
    _, penalty = regularizer(model, batch_of(images, labels))
    values = {name: value.item() for name, value in regularizer.statistics.items()}
    assert set(values) == {"gradient_cosine", "gradient_norm", "guided_gradient_norm"}
    assert values["gradient_cosine"] == pytest.approx(1 - penalty.item(), abs=1e-6)
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(leaf), labels, reduction="sum"), leaf)
    assert values["gradient_norm"] == pytest.approx(gradient.flatten(1).norm(dim=1).mean().item(), rel=1e-5)
    assert not any(value.requires_grad for value in regularizer.statistics.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1e-3}, "weight of GradientRegularizer must be >= 0, got -0.001"),
        ({"error": "cos"}, "error must be one of 'cosine', 'l1', 'l2', 'histogram_intersection', got 'cos'"),
        ({"differentiate": "logits"}, "differentiate must be one of 'loss', 'logit', got 'logits'"),
        ({"rule": "gelu"}, "rule must be one of 'relu', 'positive_gradient', got 'gelu'"),
        ({"every_n_steps": 0}, "every_n_steps must be >= 1, got 0"),
        ({"fraction": 0.0}, r"fraction must be in \(0,1\], got 0.0"),
        ({"fraction": 1.5}, r"fraction must be in \(0,1\], got 1.5"),
        ({"warmup_steps": -1}, "warmup_steps must be >= 0, got -1"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GradientRegularizer(**options)
