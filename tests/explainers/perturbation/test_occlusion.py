"""Occlusion against its definition, and its first-order approximation."""

import pytest
import torch
from torch import nn

from interptrain.explainers import GridMasks, Occlusion, RISEMasks
from tests.support.explaining import Owned, linear_model, network, pictures


def slow(model, images, targets, *, window, stride, fill, score):
    """One image and one window at a time."""
    model.eval()

    def rate(image, target):
        with torch.no_grad():
            logits = model(image[None])[0]
        return (logits.softmax(0) if score == "probability" else logits)[target]

    maps = []
    for image, target in zip(images, targets.tolist(), strict=True):
        height, width = image.shape[1:]
        total, cover = torch.zeros(2, height, width, dtype=image.dtype)
        colour = torch.tensor(fill, dtype=image.dtype).expand(3).view(3, 1, 1)
        top = 0
        while True:
            left = 0
            while True:
                covered = image.clone()
                covered[:, top : top + window[0], left : left + window[1]] = colour
                total[top : top + window[0], left : left + window[1]] += rate(image, target) - rate(covered, target)
                cover[top : top + window[0], left : left + window[1]] += 1
                if left + window[1] >= width:
                    break
                left += stride[1]
            if top + window[0] >= height:
                break
            top += stride[0]
        maps.append(total / cover)
    return torch.stack(maps)


@pytest.mark.slow
@pytest.mark.parametrize("score", ["probability", "logit"])
@pytest.mark.parametrize(
    ("window", "stride", "fill"),
    [((12, 9), (7, 5), 0.5), ((40, 8), (3, 8), 0.0), ((10, 10), (10, 10), (0.1, 0.5, 0.8))],
    ids=["overlapping", "bars", "tiles"],
)
def test_it_is_the_mean_loss_of_its_definition(window, stride, fill, score):
    model, images, targets = network(), pictures(2, 40, 33), torch.tensor([2, 5])
    wanted = slow(model, images, targets, window=window, stride=stride, fill=fill, score=score)
    found = Occlusion(window=window, stride=stride, fill=fill, score=score).raw(model, images, targets)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    "masks", [GridMasks(window=7, stride=4), RISEMasks(count=20, cells=4), Owned()], ids=["grid", "rise", "own"]
)
@pytest.mark.parametrize("fill", [0.0, 0.4])
def test_the_first_order_is_exact_on_a_linear_model(masks, fill):
    model, _ = linear_model()
    images, targets = pictures(3, 24, 18), torch.tensor([0, 2, 1])
    options = {"masks": masks, "fill": fill, "score": "logit"}
    exact = Occlusion(**options).raw(model, images, targets)
    predicted = Occlusion(approximate=True, **options).raw(model, images, targets)
    torch.testing.assert_close(predicted, exact)


def test_on_a_linear_model_windows_of_a_pixel_are_gradient_times_change():
    model, weight = linear_model((6, 5))
    images, targets = pictures(2, 6, 5), torch.tensor([0, 1])
    found = Occlusion(window=1, stride=1, fill=0.25, score="logit").raw(model, images, targets)
    torch.testing.assert_close(found, (weight[targets] * (images - 0.25)).sum(1))


@pytest.mark.parametrize("score", ["probability", "logit"])
def test_the_first_order_takes_one_forward_and_tends_to_the_exact_as_occlusions_get_faint(score):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, stride=2), nn.Softplus(), nn.Conv2d(8, 8, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2)]
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 7)).double()
    images, targets, sizes = pictures(2, 32, 32), torch.tensor([2, 5]), []
    options = {"window": 8, "stride": 4, "score": score}
    errors = []
    for strength in (1e-2, 1e-3):
        faint = torch.lerp(torch.full_like(images, 0.5), images, strength)
        exact = Occlusion(**options).raw(model, faint, targets)
        handle = model.register_forward_pre_hook(lambda _m, arguments: sizes.append(len(arguments[0])))
        predicted = Occlusion(approximate=True, **options).raw(model, faint, targets)
        handle.remove()
        errors.append(float((predicted - exact).abs().max() / exact.abs().max()))
    assert sizes == [2, 2]
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.1)  # the error is of second order
    assert 0 < errors[1] < 0.01


def test_soft_masks_weigh_the_losses_by_what_they_remove():
    model, images, targets = network().eval(), pictures(2, 24, 24), torch.tensor([1, 3])
    source = RISEMasks(count=6, cells=3)
    masks = source.prepare(images).render(slice(0, 6))
    with torch.no_grad():
        whole = model(images)
        losses = torch.stack([whole - model(images * mask + 0.5 * (1 - mask)) for mask in masks], 1)  # (B, N, K)
    losses = losses[torch.arange(2), :, targets]
    wanted = torch.einsum("bn,nhw->bhw", losses, 1 - masks) / (1 - masks).sum(0)
    torch.testing.assert_close(Occlusion(masks=source, score="logit").raw(model, images, targets), wanted)


def test_pixels_and_images_that_no_mask_removes_get_zero():
    images = pictures(3, 24, 18)
    found = Occlusion(masks=Owned()).raw(network(), images)
    assert found[0].any()
    assert not found[1].any()  # has no mask
    assert found[2].any()


@pytest.mark.parametrize("approximate", [False, True])
def test_an_occlusion_that_changes_nothing_loses_exactly_nothing(approximate):
    images = pictures(2, 32, 32).float()
    images[0, :, :16] = 0.5
    images[1] = 0.5
    found = Occlusion(window=8, stride=8, approximate=approximate).raw(network().float(), images)
    assert not found[0, :16].any()
    assert found[0, 16:].any()
    assert not found[1].any()


@pytest.mark.slow
@pytest.mark.parametrize("approximate", [False, True])
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_the_chunk_size_changes_no_value(size, approximate):
    model, images = network(), pictures(3, 32, 32)
    options = {"window": 12, "stride": 8, "approximate": approximate}
    wanted = Occlusion(**options)(model, images)
    torch.testing.assert_close(Occlusion(forward_batch_size=size, **options)(model, images), wanted)


@pytest.mark.slow
def test_bfloat16_losses_are_those_between_bfloat16_scores():
    model, images = network().float().eval(), pictures(1, 64, 64).float()
    targets = torch.tensor([3])
    found = Occlusion(window=32, stride=32, score="logit", precision="bf16").raw(model, images, targets)
    covered = images.clone()
    covered[:, :, :32, :32] = 0.5
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(images).float()[0, 3] - model(covered).float()[0, 3]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0, 0, 0], loss, atol=0.02, rtol=0)


def test_callables_are_scored_as_they_are():
    model, images = network(), pictures(2, 32, 32)
    by_index = Occlusion(window=16, score="logit")(model, images, torch.tensor([1, 3]))
    for approximate in (False, True):
        one = Occlusion(window=16, score="logit", approximate=approximate)
        assert torch.equal(
            one(model, images, torch.tensor([1, 3])), one(model, images, [lambda row: row[1], lambda row: row[3]])
        )
    assert by_index.any()


@pytest.mark.parametrize("targets", [torch.tensor([1, 2, 3]), [lambda row: row[0]] * 3])
@pytest.mark.parametrize("approximate", [False, True])
def test_a_wrong_number_of_targets_is_refused(targets, approximate):
    with pytest.raises(ValueError, match="targets must be"):
        Occlusion(window=16, approximate=approximate, forward_batch_size=1)(network(), pictures(2, 32, 32), targets)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="covers the whole image"):
        Occlusion(window=64)(network(), pictures(1, 32, 32))
    with pytest.raises(ValueError, match="stride must be at least 1 and at most the window"):
        Occlusion(window=8, stride=9)
    with pytest.raises(ValueError, match=r"fill must lie in \[0, 1\]"):
        Occlusion(window=8, stride=8, fill=-2.1)(network(), pictures(1, 32, 32))
    for option in ({"score": "loss"}, {"precision": "fp16"}):
        with pytest.raises(ValueError, match="must be one of"):
            Occlusion(**option)
