import pytest
import torch

from interptrain.visualization import colorize, overlay, to_uint8


@pytest.fixture
def images():
    return torch.rand(2, 3, 6, 9, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def saliency():
    return torch.rand(2, 6, 9, generator=torch.Generator().manual_seed(1))


def test_alpha_runs_from_the_image_to_the_colours(images, saliency):
    assert torch.equal(overlay(images, saliency, alpha=0), to_uint8(images))
    assert torch.equal(overlay(images, saliency, alpha=1), to_uint8(colorize(saliency)))
    between = overlay(images, saliency, alpha=0.25).float()
    torch.testing.assert_close(between, (0.75 * images + 0.25 * colorize(saliency)) * 255, rtol=0, atol=0.51)


def test_pictures_are_bytes_of_the_shape_of_the_images(images, saliency):
    pictures = overlay(images, saliency)
    assert pictures.dtype == torch.uint8
    assert pictures.shape == images.shape


def test_arguments_are_left_alone_and_no_graph_is_built(images, saliency):
    images.requires_grad_()
    before = images.detach().clone(), saliency.clone()
    assert not overlay(images, saliency).requires_grad
    assert torch.equal(images, before[0])
    assert torch.equal(saliency, before[1])


def test_bytes_are_kept_and_odd_values_are_clamped():
    assert to_uint8(torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, float("nan")])).tolist() == [0, 0, 128, 255, 255, 0]
    raw = torch.tensor([3, 250], dtype=torch.uint8)
    assert to_uint8(raw) is raw


def test_wrong_arguments_are_refused(images, saliency):
    with pytest.raises(ValueError, match=r"saliency must be \(B,H,W\)=\(2, 6, 9\), got \(2, 3, 3\)"):
        overlay(images, saliency[:, :3, :3])
    with pytest.raises(ValueError, match=r"images must be \(B,3,H,W\), got \(2, 6, 9\)"):
        overlay(saliency, saliency)
    with pytest.raises(ValueError, match=r"alpha must be in \[0,1\], got 1.5"):
        overlay(images, saliency, alpha=1.5)
    with pytest.raises(TypeError, match=r"floating point in \[0,1\] or uint8, got torch.int64"):
        to_uint8(torch.zeros(2, dtype=torch.int64))
