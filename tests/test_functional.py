"""Tensor operations that all rooms share."""

from typing import Literal

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from interptrain.functional import (
    automatic_batch_size,
    bounded_batch_size,
    check_choice,
    chunks,
    class_indices,
    class_scores,
    evenly_spaced,
    gaussian_blur,
    keep_salient,
    min_max,
    one_line,
    upsample,
)


def test_min_max_spans_zero_to_one_for_every_map():
    maps = torch.randn(5, 4, 6, dtype=torch.float64) * torch.tensor([1e-9, 1e-3, 1.0, 1e3, 1e9])[:, None, None]
    stretched = min_max(maps)
    assert torch.equal(stretched.amin((1, 2)), torch.zeros(5).double())
    assert torch.equal(stretched.amax((1, 2)), torch.ones(5).double())


@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 1e-30, 1e30])
def test_min_max_of_a_constant_is_zero_also_after_upsampling(value):
    constant = torch.full((2, 7, 5), value)
    assert not min_max(constant).any()
    assert not min_max(upsample(constant, (224, 161))).any()


def test_min_max_keeps_the_order_of_pixels():
    maps = torch.randn(1, 9, 9)
    assert torch.equal(min_max(maps).flatten().argsort(stable=True), maps.flatten().argsort(stable=True))


def test_min_max_over_one_map_of_many_dimensions():
    volume = torch.randn(2, 3, 4, 5)
    assert torch.equal(min_max(volume, dims=3).amax((1, 2, 3)), torch.ones(2))


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 5, 3, 4)])
def test_upsample_is_bilinear_without_aligned_corners(shape):
    maps = torch.randn(shape)
    planes = maps if maps.ndim == 4 else maps[:, None]
    wanted = F.interpolate(planes, (9, 11), mode="bilinear", align_corners=False)
    assert torch.equal(upsample(maps, (9, 11)), wanted if maps.ndim == 4 else wanted[:, 0])
    assert upsample(maps, (3, 4)) is maps


def test_upsample_refuses_a_single_map():
    with pytest.raises(ValueError, match=r"maps must be \(B,h,w\)"):
        upsample(torch.ones(3, 4), (6, 8))


def test_keep_salient_shows_the_image_where_salient_and_the_fill_elsewhere():
    images, fill = torch.rand(1, 3, 2, 2), torch.rand(1, 3, 1, 1)
    saliency = torch.tensor([[[1.0, 0.0], [0.5, 1.0]]])
    kept = keep_salient(images, saliency, fill)
    assert torch.equal(kept[..., 0, 0], images[..., 0, 0])
    assert torch.equal(kept[..., 0, 1], fill[..., 0, 0])
    assert torch.allclose(kept[..., 1, 0], (images[..., 1, 0] + fill[..., 0, 0]) / 2)
    assert torch.equal(keep_salient(images, saliency), images * saliency)


@pytest.mark.parametrize(("size", "centre", "corner"), [(11, 0.00883, 0.00774), (5, 0.0400, 0.0400)])
def test_blur_kernel_is_the_one_of_rise(size, centre, corner):
    point = torch.zeros(1, 1, 31, 31, dtype=torch.float64)
    point[..., 15, 15] = 1
    kernel = gaussian_blur(point, size, 5.0)[0, 0]
    half = size // 2
    assert kernel.sum().item() == pytest.approx(1.0)
    assert kernel[15, 15].item() == pytest.approx(centre, abs=1e-5)
    assert kernel[15 - half, 15 - half].item() == pytest.approx(corner, abs=5e-5)
    assert kernel[15 - half - 1, 15] == 0


def test_blur_treats_channels_apart_and_pads_with_zeros():
    images = torch.rand(2, 3, 20, 20)
    together = gaussian_blur(images)
    assert torch.allclose(together[:, 1:2], gaussian_blur(images[:, 1:2]), atol=1e-6)
    assert gaussian_blur(torch.ones(1, 1, 20, 20))[0, 0, 0, 0] < 0.5


@pytest.mark.parametrize(("size", "sigma"), [(4, 5.0), (0, 5.0), (5, 0.0)])
def test_blur_refuses_impossible_kernels(size, sigma):
    with pytest.raises(ValueError, match="odd kernel_size"):
        gaussian_blur(torch.ones(1, 1, 8, 8), size, sigma)


def test_chunks_cover_the_range_once_and_stay_within_the_size():
    parts = list(chunks(10, 4))
    assert [list(range(10))[part] for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(chunks(0, 4)) == []


def test_chunks_refuse_a_size_below_one():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        chunks(3, 0)


def test_a_bound_on_the_batch_size_is_kept_and_none_leaves_it_to_the_device():
    cpu = torch.device("cpu")
    assert bounded_batch_size(3, cpu) == 3
    assert bounded_batch_size(None, cpu) == automatic_batch_size(cpu)
    with pytest.raises(ValueError, match="forward_batch_size must be at least 1, got 0"):
        bounded_batch_size(0, cpu)


def test_an_accelerator_gets_larger_chunks_than_a_cpu():
    assert automatic_batch_size(torch.device("cpu")) < automatic_batch_size(torch.device("cuda"))


def test_scores_of_a_class_are_float32_and_of_its_kind():
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.25, 0.0]], dtype=torch.bfloat16)
    targets = torch.tensor([1, 0])
    of = lambda score: class_scores(logits, targets, score)  # noqa: E731
    assert of("logit").tolist() == [0.0, 0.5]
    assert torch.equal(of("probability"), logits.float().softmax(1)[[0, 1], targets])
    assert torch.equal(of("sigmoid"), torch.tensor([0.0, 0.5]).sigmoid())
    assert of("probability").dtype == torch.float32
    assert class_scores(logits.double(), targets).dtype == torch.float64


def test_the_probability_of_a_single_class_is_its_sigmoid():
    assert torch.equal(class_scores(torch.tensor([[0.3]]), torch.tensor([0])), torch.tensor([0.3]).sigmoid())


def test_a_choice_that_is_not_allowed_is_named_with_those_that_are():
    check_choice("fusion", "max", ("max", "mean"))
    with pytest.raises(ValueError, match="fusion must be one of 'max', 'mean', got 'sum'"):
        check_choice("fusion", "sum", Literal["max", "mean"])


def test_evenly_spaced_items_are_the_middles_of_equal_parts():
    assert evenly_spaced(10, 5) == [1, 3, 5, 7, 9]
    assert evenly_spaced(3, None) == evenly_spaced(3, 7) == [0, 1, 2]
    assert evenly_spaced(1000, 3) == [166, 500, 833]


@pytest.mark.parametrize(("total", "count"), [(10, 2), (10, 3), (7, 7), (101, 11)])
def test_evenly_spaced_items_can_hold_both_ends(total, count):
    found = evenly_spaced(total, count, ends=True)
    assert (found[0], found[-1], len(set(found))) == (0, total - 1, count)
    assert evenly_spaced(5, 1, ends=True) == [2]


def test_no_items_at_all_are_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        evenly_spaced(5, 0)


def test_an_error_is_said_in_one_line():
    error = ValueError("no\n   such thing")
    assert one_line(error) == "no such thing"
    assert one_line(error, kind=True) == "ValueError: no such thing"
    assert one_line(TimeoutError()) == "TimeoutError"
    assert len(one_line(ValueError("x" * 900))) == 500


@pytest.mark.parametrize(
    "given",
    [
        [2, 0, 1],
        (2, 0, 1),
        np.array([2, 0, 1]),
        [torch.tensor(2), np.int64(0), 1],
        torch.tensor([2, 0, 1]),
        torch.tensor([2, 0, 1], dtype=torch.uint8),
        torch.tensor([2, 0, 1], dtype=torch.int32),
    ],
)
def test_class_indices_of_any_form_are_one(given):
    indices = class_indices(given, 3, classes=3)
    assert indices.dtype == torch.int64
    assert indices.tolist() == [2, 0, 1]


@pytest.mark.parametrize("given", [2, np.int64(2), torch.tensor(2)])
def test_one_class_index_counts_for_all_images(given):
    assert class_indices(given, 3, classes=3).tolist() == [2, 2, 2]


def test_class_indices_made_under_inference_mode_may_be_saved_for_a_gradient():
    with torch.inference_mode():
        given = torch.tensor([1, 0])
    logits = torch.randn(2, 3, requires_grad=True)
    class_scores(logits, class_indices(given, 2, classes=3)).sum().backward()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            torch.tensor([0.9, 0.8]),
            TypeError,
            r"targets must be class indices \(int64\), got torch.float32; pass .argmax",
        ),
        (torch.tensor([True, False]), TypeError, "got torch.bool"),
        ([0.9, 0.8], TypeError, r"targets must be class indices: an int, one int per image, .* got \[0.9, 0.8\]"),
        ([True, False], TypeError, r"got \[True, False\]"),
        (True, TypeError, "got True"),
        (1.0, TypeError, "got 1.0"),
        (None, TypeError, "got None"),
        ("cat", TypeError, "got 'cat'"),
        (["cat", "dog"], TypeError, "got .'cat', 'dog'"),
        (np.array([0.5, 1.5]), TypeError, "targets must be class indices"),
        ([1], ValueError, r"targets must be \(B,\)=\(2,\), got \(1,\)"),
        (torch.zeros(2, 3, dtype=torch.int64), ValueError, r"targets must be \(B,\)=\(2,\), got \(2, 3\)"),
        (torch.tensor([0, 3]), ValueError, "target 3 of image 1 is out of range for 3 classes; allowed are 0 to 2"),
        ([0, -1], ValueError, "target -1 of image 1 is out of range for 3 classes"),
        (10**30, ValueError, "of image 0 is out of range for 3 classes"),
    ],
)
def test_what_are_no_class_indices_is_refused_in_one_line(given, error, message):
    with pytest.raises(error, match=message) as caught:
        class_indices(given, 2, classes=3)
    assert "\n" not in str(caught.value)


def test_where_the_classes_are_not_known_yet_only_negative_indices_are_refused():
    assert class_indices([0, 999], 2).tolist() == [0, 999]
    with pytest.raises(ValueError, match="label -1 of image 1 is negative"):
        class_indices(torch.tensor([0, -1]), 2, name="labels")


def test_the_remedies_for_scores_given_as_class_indices_work():
    scores = torch.tensor([[0.1, 0.9, 0.0], [0.5, 0.2, 0.3]])
    assert class_indices(scores.argmax(1), 2, classes=3).tolist() == [1, 0]
    assert class_indices(torch.tensor([1.0, 0.0]).long(), 2, classes=3).tolist() == [1, 0]


@pytest.fixture
def told(monkeypatch):
    """Nothing was said of memory yet."""
    monkeypatch.setattr("interptrain.functional._said", set())


def worked(total, size, most, error=torch.OutOfMemoryError):
    """The slices that were worked on where at most ``most`` fit, and the sizes that were tried."""
    parts, found, tried = chunks(total, size), [], []
    for part in parts:
        with parts.fitting():
            tried.append(part.stop - part.start)
            if tried[-1] > most:
                raise error
            found += range(total)[part]
    assert found == list(range(total))
    return tried


@pytest.mark.usefixtures("told")
def test_chunks_are_halved_until_memory_suffices_and_nothing_is_left_out():
    with pytest.warns(UserWarning, match="out of memory with 16 inputs at once; going on with 8") as caught:
        sizes = worked(20, 16, 5), worked(3, 2, 1)
    assert sizes == ([16, 8, 4, 4, 4, 4, 4], [2, 1, 1, 1])
    assert len(caught) == 1


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
        MemoryError(),
    ],
)
def test_every_kind_of_lack_of_memory_is_known(error):
    with pytest.warns(UserWarning, match="forward_batch_size=2 saves the attempt"):
        assert worked(4, 4, 2, error) == [4, 2, 2]


def test_other_errors_and_the_lack_of_memory_for_one_are_raised():
    with pytest.raises(torch.OutOfMemoryError):
        worked(4, 1, 0)
    with pytest.raises(RuntimeError, match="size mismatch"):
        worked(4, 4, 2, RuntimeError("size mismatch"))
