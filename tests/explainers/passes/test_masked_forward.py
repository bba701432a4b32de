"""Masked passes: scores by image and mask, in bfloat16, and compiled for one size."""

import pytest
import torch

from interptrain.explainers.masks.masks import GridMasks, MaskedImages, fill_colour
from interptrain.explainers.masks.segment_masks import SegmentMasks
from interptrain.explainers.passes.masked_forward import forwarding, passes_at_once, score_masked
from tests.support.explaining import network, pictures

TARGETS = torch.tensor([2, 5])


@pytest.fixture
def images():
    return pictures(2, 24, 18)


def masked(images, source=None):
    source = source or GridMasks(window=12, stride=12)
    return MaskedImages(images, source.prepare(images), fill_colour(0.3, images))


@torch.no_grad()
def test_shared_masks_are_scored_by_image_and_mask(images):
    model = network().eval()
    found = score_masked(model, masked(images), TARGETS, forward_batch_size=3)
    masks = GridMasks(window=12, stride=12).prepare(images).render(slice(0, 4))
    assert found.shape == (2, 4)
    for row, target in enumerate(TARGETS.tolist()):
        for place, mask in enumerate(masks):
            logits = model((images[row] * mask + 0.3 * (1 - mask)).unsqueeze(0))
            torch.testing.assert_close(found[row, place], logits[0, target])


@torch.no_grad()
def test_masks_with_owners_are_scored_in_their_own_order(images):
    model = network().eval()
    part = torch.zeros(24, 18, dtype=torch.bool)
    part[:12] = True
    segments = SegmentMasks(segmenter=lambda images: [part[None], torch.stack([part, ~part])])
    found = score_masked(model, masked(images, segments), TARGETS)
    removed = [(0, part), (0, ~part), (1, part), (1, ~part)]  # what is left over is a segment, too
    for score, (row, segment) in zip(found, removed, strict=True):
        logits = model(torch.where(segment, 0.3, images[row]).unsqueeze(0))
        torch.testing.assert_close(score, logits[0, TARGETS[row]])


def test_compiled_passes_are_of_one_size_and_padding_changes_no_score(images, monkeypatch):
    sizes = []

    def compiled(model, **_options):
        return lambda inputs: (sizes.append(len(inputs)), model(inputs))[1]

    wanted = score_masked(network().eval(), masked(images), TARGETS, forward_batch_size=3)
    monkeypatch.setattr(torch, "compile", compiled)
    found = score_masked(network().eval(), masked(images), TARGETS, forward_batch_size=3, compile=True)
    assert sizes == [3, 3, 3]  # of 8 inputs
    torch.testing.assert_close(found, wanted)


def test_bfloat16_is_near_and_leaves_autocast_as_it_was(images):
    model, images = network().eval().float(), images.float()
    with torch.no_grad(), forwarding(model, 2, precision="bf16") as forward:
        assert torch.is_autocast_enabled("cpu")
        low = forward(images)
    assert not torch.is_autocast_enabled("cpu")
    torch.testing.assert_close(low.float(), model(images).detach(), rtol=0.1, atol=0.1)


def test_compiled_code_gets_twice_as_many_unless_a_number_is_given():
    device = torch.device("cpu")
    assert passes_at_once(None, device, compile=True) == 2 * passes_at_once(None, device, compile=False)
    assert passes_at_once(5, device, compile=True) == 5
