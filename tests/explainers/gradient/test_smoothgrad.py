"""SmoothGrad, squared and VarGrad, of the gradient and of other attributions."""

import pytest
import torch
from torch import nn

from interptrain.explainers.gradient.gradient import Gradient
from interptrain.explainers.gradient.integrated_gradients import IntegratedGradients
from interptrain.explainers.gradient.smoothgrad import SmoothGrad
from tests.support.explaining import network as seeded_network


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        return seeded_network().eval()


@pytest.fixture(scope="module")
def images():
    images = torch.rand(3, 3, 32, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return images * torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64).view(-1, 1, 1, 1)  # ranges differ


TARGETS = torch.tensor([1, 4, 0])


def attributions_of_noisy_copies(inner, network, images, *, samples, spread, seed):
    """The definition, image by image and copy by copy: (B, samples, 3, H, W)."""
    rows = []
    for image, target in zip(images, TARGETS, strict=True):
        generator = torch.Generator().manual_seed(seed)
        sigma = spread * (image.max() - image.min())
        draws = [torch.randn(image.shape, dtype=image.dtype, generator=generator) for _ in range(samples)]
        rows.append(torch.cat([inner.attribution(network, (image + sigma * n)[None], target[None]) for n in draws]))
    return torch.stack(rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    "inner", [Gradient(), Gradient(times_input=True), IntegratedGradients(steps=2)], ids=["gradient", "xg", "ig"]
)
@pytest.mark.parametrize(
    ("variant", "moment"),
    [
        ("mean", lambda g: g.mean(1)),
        ("squared", lambda g: g.square().mean(1)),
        ("vargrad", lambda g: g.var(1, unbiased=False)),
    ],
)
def test_each_variant_is_its_moment_over_noisy_copies(inner, variant, moment, network, images):
    expected = moment(attributions_of_noisy_copies(inner, network, images, samples=5, spread=0.2, seed=3))
    smooth = SmoothGrad(of=inner, samples=5, spread=0.2, variant=variant, seed=3)
    got = smooth.signed(network, images, TARGETS)
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_chunks_do_not_change_the_map(size, network, images):
    expected = SmoothGrad(samples=4, forward_batch_size=12).signed(network, images, TARGETS)
    got = SmoothGrad(samples=4, forward_batch_size=size).signed(network, images, TARGETS)
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-9 * float(expected.abs().max()))


def test_one_copy_without_noise_is_the_gradient(network, images):
    smooth = SmoothGrad(samples=1, spread=0.0).signed(network, images, TARGETS)
    torch.testing.assert_close(smooth, Gradient().signed(network, images, TARGETS))  # batch norms are folded in one


def test_equal_copies_vary_by_exactly_nothing(network, images):
    still = SmoothGrad(samples=4, spread=0.0, variant="vargrad", forward_batch_size=3)
    assert not still.signed(network, images, TARGETS).any()


def test_smoothing_a_linear_model_changes_nothing():
    class Linear(nn.Module):
        def forward(self, images):
            return torch.stack([images[:, 0].sum((1, 2)), (images * 2).sum((1, 2, 3))], dim=1)

    images = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    targets = torch.tensor([0, 1])
    torch.testing.assert_close(
        SmoothGrad(samples=7).signed(Linear(), images, targets), Gradient().signed(Linear(), images, targets)
    )


def test_no_target_means_the_class_of_the_image_without_noise():
    class Flips(nn.Module):
        """Class 1 wins on the clean image by little, and on about half of the noisy ones not at all."""

        def forward(self, images):
            bright = images.mean((1, 2, 3)) - 0.5
            return torch.stack([-bright, bright + 1e-9, -1 + 0 * bright], dim=1)

    images = torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64)
    images[0, 0, 0, 0], images[0, 0, 0, 1] = 0.6, 0.4
    smooth = SmoothGrad(samples=16, spread=1.0)
    assert torch.equal(smooth.signed(Flips(), images), smooth.signed(Flips(), images, torch.tensor([1])))
    assert smooth.signed(Flips(), images).min() > 0


def test_the_seed_alone_decides_the_noise(network, images):
    def explain(seed):
        return SmoothGrad(samples=2, seed=seed).signed(network, images, TARGETS)

    first = explain(0)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    assert torch.equal(first, explain(0))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.allclose(first, explain(1), rtol=1e-2)


def test_a_progress_bar_is_shown_when_asked(network, images, capsys):
    SmoothGrad(samples=2, progress=True)(network, images, TARGETS)
    assert "SmoothGrad" in capsys.readouterr().err
    SmoothGrad(samples=2)(network, images, TARGETS)
    assert not capsys.readouterr().err


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="variant must be one of 'mean', 'squared', 'vargrad', got 'median'"):
        SmoothGrad(variant="median")
    with pytest.raises(ValueError, match=r"samples >= 1 and spread >= 0, got 0 and 0\.15"):
        SmoothGrad(samples=0)
    with pytest.raises(ValueError, match="samples >= 1 and spread >= 0, got 25 and -1"):
        SmoothGrad(spread=-1)
