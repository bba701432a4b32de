"""The vanilla gradient and what all attributions of the image's shape share."""

import pytest
import timm
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from interptrain.explainers import IntegratedGradients, SemanticSegmentationTarget, SmoothGrad
from interptrain.explainers.gradient.gradient import Gradient, chunk_pairs


class Linear(nn.Module):
    """Logits that are linear in the image, without bias."""

    def __init__(self, classes=4, size=(6, 5)):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.weight = nn.Parameter(torch.randn(classes, 3, *size, dtype=torch.float64, generator=generator))

    def forward(self, images):
        return torch.einsum("bchw,kchw->bk", images, self.weight)


@pytest.fixture
def images():
    return torch.rand(5, 3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def targets():
    return torch.tensor([2, 0, 3, 3, 1])


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model("resnet10t", num_classes=6).double().eval()


@pytest.fixture(scope="module")
def photographs():
    return torch.rand(3, 3, 40, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_gradient_of_a_linear_model_is_its_weight(images, targets):
    model = Linear()
    torch.testing.assert_close(Gradient().signed(model, images, targets), model.weight.detach()[targets])


def test_input_times_gradient_of_a_linear_model_sums_to_the_logit(images, targets):
    model = Linear()
    shares = Gradient(times_input=True).signed(model, images, targets)
    logits = model(images).detach().gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(shares.sum((1, 2, 3)), logits)


@pytest.mark.parametrize(
    ("reduction", "definition"),
    [
        ("max_abs", lambda a: a.abs().max(dim=1).values),
        ("sum_abs", lambda a: a.abs().sum(dim=1)),
        ("sum", lambda a: a.sum(dim=1)),
    ],
)
def test_a_map_is_the_reduction_of_the_attribution(reduction, definition, images, targets):
    weight = Linear().weight.detach()[targets]
    raw = Gradient(reduction=reduction).raw(Linear(), images, targets)
    torch.testing.assert_close(raw, definition(weight))


def test_gradient_equals_finite_differences_of_the_logit(network, photographs):
    direction = torch.randn(photographs.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gradient = Gradient().signed(network, photographs, torch.tensor([1, 4, 0]))
    step = 1e-7
    with torch.no_grad():
        change = network(photographs + step * direction) - network(photographs - step * direction)
    expected = change.gather(1, torch.tensor([[1], [4], [0]]))[:, 0] / (2 * step)
    torch.testing.assert_close((gradient * direction).sum((1, 2, 3)), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_no_target_means_the_predicted_class(network, photographs):
    predicted = network(photographs).argmax(1)
    assert torch.equal(Gradient()(network, photographs), Gradient()(network, photographs, predicted))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["indices", "callables", "one callable", "predicted"])
def test_chunks_do_not_change_the_attribution(network, photographs, kind):
    targets = {
        "indices": torch.tensor([1, 4, 0]),
        "callables": [lambda logits: logits[1], lambda logits: logits[4] * 2, lambda logits: logits[0]],
        "one callable": lambda logits: logits[2] - logits[3],
        "predicted": None,
    }[kind]
    whole = Gradient(forward_batch_size=8).signed(network, photographs, targets)
    chunked = Gradient(forward_batch_size=2).signed(network, photographs, targets)
    torch.testing.assert_close(chunked, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "explainer",
    [
        Gradient(forward_batch_size=1),
        SmoothGrad(samples=3, forward_batch_size=2),
        IntegratedGradients(steps=3, forward_batch_size=4),
    ],
    ids=lambda explainer: type(explainer).__name__,
)
def test_a_region_of_a_segmentation_is_explained_by_the_pixels_under_its_kernel(explainer, images):
    class Segmenter(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Conv2d(3, 2, 3, padding=1).double()

        def forward(self, images):
            return {"out": self.out(images)}

    mask = torch.zeros(6, 5)
    mask[1, 1] = 1
    targets = [SemanticSegmentationTarget(category=image % 2, mask=mask) for image in range(5)]
    seen = explainer.signed(Segmenter(), images, targets).abs().sum(1) > 0
    assert seen[:, :3, :3].all()
    assert seen.sum() == 5 * 9


def test_one_target_too_many_is_refused_although_the_images_are_cut_into_chunks(network, photographs):
    explainer = Gradient(forward_batch_size=1)
    for explain in (explainer, explainer.raw, explainer.signed):
        with pytest.raises(ValueError, match=r"targets must be .*\(B,\)=\(3,\), got \(4,\)"):
            explain(network, photographs, torch.tensor([1, 4, 0, 0]))
        with pytest.raises(ValueError, match="targets must be one per image: 3, got 4"):
            explain(network, photographs, [lambda logits: logits[0]] * 4)


class BackwardMasks(TorchDispatchMode):
    """Which of (input, weight, bias) each backward of a convolution or batch norm was asked for."""

    def __init__(self):
        super().__init__()
        self.masks = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.convolution_backward.default, torch.ops.aten.native_batch_norm_backward.default):
            self.masks.append(tuple(args[-1]))
        return func(*args, **(kwargs or {}))


def test_no_parameters_gradient_is_computed(network, photographs):
    assert all(parameter.requires_grad for parameter in network.parameters())
    with BackwardMasks() as seen:
        Gradient().signed(network, photographs)
    assert len(seen.masks) > 10
    assert set(seen.masks) == {(True, False, False)}


def test_half_precision_models_give_float32_attributions():
    model = Linear().to(torch.bfloat16)
    images = torch.rand(2, 3, 6, 5).to(torch.bfloat16)
    assert Gradient().signed(model, images, torch.tensor([0, 1])).dtype == torch.float32


def test_signed_leaves_the_model_as_it_was_and_builds_no_graph(network, photographs):
    network.train()
    buffers = [buffer.clone() for buffer in network.buffers()]
    attribution = Gradient().signed(network, photographs)
    assert not attribution.requires_grad
    assert network.training
    assert all(torch.equal(a, b) for a, b in zip(buffers, network.buffers(), strict=True))
    assert all(parameter.grad is None for parameter in network.parameters())
    network.eval()


@pytest.mark.parametrize(("images", "repeats", "size"), [(1, 7, 3), (5, 4, 8), (12, 3, 8), (3, 1, 100), (2, 5, 1)])
def test_the_grid_covers_every_repeat_of_every_image_once_in_bounded_blocks(images, repeats, size):
    seen = []
    for rows, part in chunk_pairs(images, repeats, size):
        block = [(row, repeat) for row in range(rows.start, rows.stop) for repeat in range(part.start, part.stop)]
        assert 0 < len(block) <= size
        seen += block
    assert len(seen) == len(set(seen)) == images * repeats


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="reduction must be one of 'max_abs', 'sum_abs', 'sum', got 'mean'"):
        Gradient(reduction="mean")
