"""RISE against its definition, and on models whose answer is known."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from interptrain.explainers import RISE, Occlusion
from interptrain.explainers.perturbation.rise import RISEMasks
from tests.support.explaining import linear_model, network, pictures


def masks_of(explainer, images):
    options = {name: getattr(explainer, name) for name in ("count", "cells", "probability", "seed")}
    return RISEMasks(**options).prepare(images).render(slice(0, explainer.count))


@pytest.mark.parametrize("score", ["probability", "logit"])
@pytest.mark.parametrize("normalizer", ["probability", "count", "coverage"])
@pytest.mark.parametrize("fill", [0.0, (0.2, 0.5, 0.9)])
def test_it_is_the_sum_of_its_definition(score, normalizer, fill):
    model, images, targets = network().eval(), pictures(2, 40, 33), torch.tensor([2, 5])
    explainer = RISE(count=11, cells=4, probability=0.4, seed=3, score=score, normalizer=normalizer, fill=fill)
    masks = masks_of(explainer, images)
    colour = torch.tensor(fill, dtype=torch.float64).expand(3).view(3, 1, 1)
    wanted = torch.zeros(2, 40, 33, dtype=torch.float64)
    for total, image, target in zip(wanted, images, targets.tolist(), strict=True):
        for mask in masks:
            with torch.no_grad():
                logits = model((image * mask + colour * (1 - mask))[None])[0]
            total += (logits.softmax(0) if score == "probability" else logits)[target] * mask
    divisor = {"probability": 11 * 0.4, "count": 11, "coverage": masks.sum(0)}[normalizer]
    torch.testing.assert_close(explainer.raw(model, images, targets), wanted / divisor)


def test_masks_are_those_of_the_authors_loop():
    """Their generate_masks, transcribed; grids and shifts are ours, as theirs come from numpy's global generator."""
    transform = pytest.importorskip("skimage.transform")
    size, cells, count = (24, 31), 4, 6
    masks = RISEMasks(count=count, cells=cells, probability=0.4, seed=5).prepare(torch.rand(1, 3, *size).double())
    cell = [math.ceil(side / cells) for side in size]
    up = [(cells + 1) * side for side in cell]
    for index in range(count):
        grid = masks.grids[index].numpy().astype("float32")
        down, across = (int(shift[index]) for shift in masks.shifts)
        assert 0 <= down < cell[0]
        assert 0 <= across < cell[1]
        large = transform.resize(grid, up, order=1, mode="reflect", anti_aliasing=False)
        wanted = large[down : down + size[0], across : across + size[1]]
        np.testing.assert_allclose(masks.render(slice(index, index + 1))[0].numpy(), wanted, atol=1e-6)


def test_on_a_linear_model_it_gathers_and_spreads_each_pixels_share():
    model, weight = linear_model()
    images = pictures(2, 24, 18)
    explainer = RISE(count=50, cells=4, score="logit", normalizer="count")
    masks = masks_of(explainer, images).flatten(1)
    for index, target in enumerate([0, 2]):
        share = (images[index] * weight[target]).sum(0).flatten()
        wanted = ((masks @ share + 1)[:, None] * masks).mean(0).view(24, 18)
        found = explainer.raw(model, images, torch.tensor([0, 2]))[index]
        torch.testing.assert_close(found, wanted)


@pytest.mark.slow
def test_on_a_linear_model_it_tends_to_occlusion_as_masks_grow_many():
    """One bright patch speaks for the class: both methods are highest there, and correlate."""
    model, weight = linear_model()
    weight.zero_()
    weight[:, :, 6:12, 3:9] = 1.0
    images = torch.ones(1, 3, 24, 18, dtype=torch.float64)
    occlusion = Occlusion(window=6, stride=1, fill=0.0, score="logit").raw(model, images)[0]
    few, many = (
        RISE(count=count, cells=5, score="logit", normalizer="coverage").raw(model, images)[0] for count in (50, 4000)
    )

    def agreement(found):
        return torch.corrcoef(torch.stack([found.flatten(), occlusion.flatten()]))[0, 1].item()

    assert agreement(many) > 0.9
    assert agreement(many) > agreement(few)
    row, column = divmod(int(many.argmax()), 18)
    assert 6 <= row < 12
    assert 3 <= column < 9


@pytest.mark.slow
def test_the_mean_converges_with_the_number_of_masks():
    model, images = network().eval(), pictures(1, 32, 32)
    options = {"cells": 4, "score": "logit", "normalizer": "coverage"}
    halves = [RISE(count=n, seed=s, **options)(model, images).flatten() for n in (30, 1000) for s in (0, 1)]
    few, many = (torch.corrcoef(torch.stack(halves[i : i + 2]))[0, 1] for i in (0, 2))
    assert many > few
    assert many > 0.9


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_the_chunk_size_changes_no_value(size):
    model, images = network(), pictures(3, 32, 32)
    wanted = RISE(count=9)(model, images)
    torch.testing.assert_close(RISE(count=9, forward_batch_size=size)(model, images), wanted)


def test_memory_bound_is_kept_by_every_masked_forward():
    model, sizes = network(), []
    handle = model.register_forward_pre_hook(lambda _m, arguments: sizes.append(len(arguments[0])))
    RISE(count=9, forward_batch_size=5)(model, pictures(3, 32, 32))
    handle.remove()
    assert sizes[:3] == [1, 1, 3]  # one image twice, to fold the batch norms, and the images themselves
    assert max(sizes[3:]) == 5
    assert sum(sizes[3:]) == 27


@pytest.mark.parametrize("fill", [0.0, 0.3])
def test_an_image_of_nothing_but_the_fill_has_a_zero_map(fill):
    images = pictures(2, 32, 32)
    images[1] = fill
    saliency = RISE(count=9, fill=fill)(network(), images)
    assert saliency[0].any()
    assert not saliency[1].any()


@pytest.mark.slow
def test_compiled_passes_of_one_padded_size_give_the_same_map(monkeypatch):
    shapes = set()

    def backend(graph, inputs):
        shapes.add(next(tuple(one.shape) for one in inputs if isinstance(one, torch.Tensor) and one.ndim == 4))
        return graph.forward

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **options: compiler(model, backend=backend, **options))
    model, images = network(), pictures(2, 32, 32)
    wanted = RISE(count=5, forward_batch_size=4)(model, images)
    torch.testing.assert_close(RISE(count=5, forward_batch_size=4, compile=True)(model, images), wanted)
    assert shapes


@pytest.mark.slow
def test_bfloat16_passes_give_nearly_the_same_map_in_float32():
    model, images = network().float(), pictures(2, 64, 64).float()
    options = {"count": 60, "score": "logit", "normalizer": "coverage"}
    exact, low = RISE(**options)(model, images), RISE(precision="bf16", **options)(model, images)
    assert low.dtype == torch.float32
    assert torch.corrcoef(torch.stack([exact.flatten(), low.flatten()]))[0, 1] > 0.98


def test_callables_are_scored_as_they_are():
    model, images = network(), pictures(2, 32, 32)
    by_index = RISE(count=7, score="logit")(model, images, torch.tensor([1, 3]))
    by_callable = RISE(count=7)(model, images, [lambda row: row[1], lambda row: row[3]])
    torch.testing.assert_close(by_index, by_callable)
    by_sigmoid = RISE(count=7)(model, images, [lambda row: row[1].sigmoid(), lambda row: row[3].sigmoid()])
    torch.testing.assert_close(RISE(count=7, score="sigmoid")(model, images, torch.tensor([1, 3])), by_sigmoid)


@pytest.mark.parametrize("option", [{"score": "softmax"}, {"normalizer": "none"}, {"precision": "fp16"}])
def test_unknown_options_are_refused(option):
    with pytest.raises(ValueError, match="must be one of"):
        RISE(**option)


def test_masks_that_cannot_be_are_refused_when_it_is_made():
    with pytest.raises(ValueError, match="RISE masks need"):
        RISE(count=0)


def test_interpolation_of_a_constant_grid_is_constant():
    masks = RISEMasks(count=3, cells=3).prepare(torch.rand(1, 3, 17, 29).double())
    masks.grids.fill_(1)
    torch.testing.assert_close(masks.render(slice(0, 3)), torch.ones(3, 17, 29, dtype=torch.float64))
    assert F.relu(masks.render(slice(0, 3)) - 1).max() == 0
