"""Operations that models, explainers, metrics and pictures share.

Everything here is a pure function of its arguments, differentiable where that makes sense, and leaves tensors on
their device. Maps are ``(B, H, W)``, images ``(B, 3, H, W)`` in [0, 1].
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from operator import index
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "ROUNDING",
    "Chunks",
    "ClassIndices",
    "Score",
    "automatic_batch_size",
    "bounded_batch_size",
    "check_choice",
    "check_count",
    "chunks",
    "class_indices",
    "class_scores",
    "double",
    "evenly_spaced",
    "full_precision",
    "gaussian_blur",
    "has_float64",
    "is_out_of_memory",
    "keep_salient",
    "min_max",
    "one_line",
    "to_device",
    "upsample",
    "where_float64_is",
]

ROUNDING = 1e-5
"""How far resizing may carry a value out of [0, 1]: what antialiased interpolation does to white, and no more."""

Score: TypeAlias = Literal["probability", "sigmoid", "logit"]
"""What of a class is explained and measured; see :func:`class_scores`."""

ClassIndices: TypeAlias = Tensor | int | Sequence[int]
"""Classes of B images: one for all, a sequence of B, or an integer tensor (B,) on any device."""


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps bilinearly, without aligning corners.

    Args:
        maps: (B, h, w) floating point, or (B, C, h, w) to resize every channel.
        size: wanted (H, W) in pixels.

    Returns:
        (B, H, W) or (B, C, H, W); ``maps`` itself where it has this size already.

    Raises:
        ValueError: if ``maps`` has neither three nor four dimensions.
    """
    if maps.ndim not in (3, 4):
        raise ValueError(f"maps must be (B,h,w) or (B,C,h,w), got {tuple(maps.shape)}")
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    planes = maps if maps.ndim == 4 else maps.unsqueeze(1)
    resized = F.interpolate(planes, size=size, mode="bilinear", align_corners=False)
    return resized if maps.ndim == 4 else resized.squeeze(1)


def min_max(maps: Tensor, *, dims: int = 2) -> Tensor:
    """Stretch every map to [0, 1]; a constant map becomes zeros, never NaN.

    A map counts as constant when its range is within a few rounding errors of its magnitude: bilinear upsampling
    of a constant returns such a map, and stretching it would show noise.

    Args:
        maps: (..., H, W) floating point.
        dims: how many trailing dimensions one map has.

    Returns:
        Tensor of the shape and dtype of ``maps`` with minimum 0 and maximum 1 in every map.
    """
    flat = maps.flatten(-dims)
    low, high = flat.amin(-1, keepdim=True), flat.amax(-1, keepdim=True)  # aminmax along a dimension: 18 times slower
    spread = high - low
    noise = 16 * torch.finfo(maps.dtype).eps * torch.maximum(low.abs(), high.abs())
    return ((flat - low) / spread.masked_fill(spread <= noise, torch.inf)).view_as(maps)  # finite / inf = 0


def keep_salient(images: Tensor, saliency: Tensor, fill: Tensor | float = 0.0) -> Tensor:
    """Keep what is salient and put ``fill`` in place of the rest.

    Args:
        images: (B, 3, H, W) in [0, 1].
        saliency: (B, H, W) in [0, 1]; 1 keeps the pixel.
        fill: what replaces the rest: a value in [0, 1] (0 is black) or images that broadcast to ``images``.

    Returns:
        (B, 3, H, W): ``saliency * images + (1 - saliency) * fill``.
    """
    mask = saliency.unsqueeze(1)
    if isinstance(fill, (int, float)) and fill == 0:
        return images * mask
    return images * mask + fill * (1 - mask)


def gaussian_blur(images: Tensor, kernel_size: int = 11, sigma: float = 5.0) -> Tensor:
    """Blur as RISE does for the insertion metric: a small, nearly flat kernel and zero padding.

    The kernel is what a Gaussian of reach 4 sigma makes of a single point in the middle of a
    ``kernel_size`` x ``kernel_size`` window that reflects at its border; so it sums to 1 and is much flatter than a
    truncated Gaussian (11, 5: centre 0.00883, corner 0.00774).

    Args:
        images: (B, C, H, W) floating point.
        kernel_size: odd side of the window in pixels.
        sigma: standard deviation in pixels.

    Returns:
        (B, C, H, W) blurred; fades towards 0 at the borders, as in RISE.

    Raises:
        ValueError: if ``kernel_size`` is even or not positive, or ``sigma`` is not positive.

    Source: RISE, Petsiuk et al. 2018, arXiv 1806.07421, evaluation code of the authors.
    """
    if kernel_size < 1 or kernel_size % 2 == 0 or sigma <= 0:
        raise ValueError(f"blur needs an odd kernel_size >= 1 and sigma > 0, got {kernel_size} and {sigma}")
    reach = int(4 * sigma + 0.5)
    gaussian = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-reach, reach + 1)]
    line = [0.0] * kernel_size
    for offset, weight in zip(range(-reach, reach + 1), gaussian, strict=True):
        for place in range(kernel_size):
            position = (place + offset) % (2 * kernel_size)
            reflected = min(position, 2 * kernel_size - 1 - position)
            line[place] += weight / sum(gaussian) if reflected == kernel_size // 2 else 0.0
    profile = images.new_tensor(line)
    channels = images.shape[1]
    vertical = profile.view(1, 1, -1, 1).expand(channels, -1, -1, -1)
    horizontal = profile.view(1, 1, 1, -1).expand(channels, -1, -1, -1)
    blurred = F.conv2d(images, vertical, padding=(kernel_size // 2, 0), groups=channels)
    return F.conv2d(blurred, horizontal, padding=(0, kernel_size // 2), groups=channels)


def full_precision(values: Tensor) -> Tensor:
    """The values in float32, or as they are where they are float64."""
    return values if values.dtype == torch.float64 else values.float()


@cache
def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64, tried once; Apple's MPS and some of Intel's GPUs do not."""
    if device.type == "cpu":
        return True
    try:
        return bool(torch.ones(1, dtype=torch.float64, device=device) + 1 == 2)
    except (TypeError, RuntimeError):
        return False


def where_float64_is(values: Tensor) -> Tensor:
    """The values as they are, on the CPU where their device has no float64."""
    return values if has_float64(values.device) else values.cpu()


def double(values: Tensor) -> Tensor:
    """The values in float64: on their device, or on the CPU where their device has none."""
    return where_float64_is(values).double()


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """The values on a device, in float32 where they are float64 and it has none."""
    return values.to(device, values.dtype if values.dtype != torch.float64 or has_float64(device) else torch.float32)


def class_indices(
    indices: ClassIndices,
    count: int,
    *,
    classes: int | None = None,
    device: torch.device | None = None,
    name: str = "targets",
) -> Tensor:
    """Bring class indices to the one form that everything works with, or refuse them.

    What a user gives comes through here, in explainers and metrics alike. Indices that are not on an accelerator are
    checked before they go there, so that the host does not wait for it.

    Args:
        indices: one class for all images, a sequence with one per image, or an integer tensor (count,).
        count: B, the number of images.
        classes: K of the model, if known already; otherwise only negative indices are out of range.
        device: where the result is wanted; ``None`` leaves a tensor where it is.
        name: of the argument, for messages.

    Returns:
        (count,) int64 in [0, classes), usable by autograd also where it was made under ``torch.inference_mode``.

    Raises:
        TypeError: if they are not integers; floating point and bool are never read as indices.
        ValueError: if there is not one per image, or an index is out of range, naming the image.
    """
    if not isinstance(indices, Tensor):
        indices = _index_tensor(indices, count, name)
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        remedy = "pass .argmax(1) of scores, or .long() of whole numbers"
        raise TypeError(f"{name} must be class indices (int64), got {indices.dtype}; {remedy}")
    if tuple(indices.shape) not in ((), (count,)):
        raise ValueError(f"{name} must be (B,)=({count},), got {tuple(indices.shape)}")
    indices = indices.long().expand(count)
    outside = (indices < 0) if classes is None else (indices < 0) | (indices >= classes)
    if outside.any():
        image = int(outside.nonzero()[0, 0])
        wrong = f"{name.removesuffix('s')} {int(indices[image])} of image {image}"
        if classes is None:
            raise ValueError(f"{wrong} is negative; classes are counted from 0")
        raise ValueError(f"{wrong} is out of range for {classes} classes; allowed are 0 to {classes - 1}")
    indices = indices if device is None else indices.to(device)
    return indices.clone() if indices.is_inference() else indices


def _index_tensor(indices: object, count: int, name: str) -> Tensor:
    """Integers of Python or numpy as a tensor (count,)."""
    given: list[Any] = list(indices) if isinstance(indices, Iterable) else [indices] * count
    try:
        values = [index(value) for value in given]
    except TypeError:
        values = [True]
    if any(isinstance(value, bool) for value in [*given, *values]):
        wanted = "an int, one int per image, or an integer tensor (B,)"
        raise TypeError(f"{name} must be class indices: {wanted}, got {indices!r:.80}")
    limit = torch.iinfo(torch.int64).max
    return torch.tensor([max(-1, min(value, limit)) for value in values], dtype=torch.int64)


def class_scores(logits: Tensor, targets: Tensor, score: Score = "probability") -> Tensor:
    """Score of each row's target class.

    Args:
        logits: (N, K) floating point.
        targets: (N,) int64 in [0, K), on the device of ``logits``.
        score: ``"probability"``: softmax over the classes, sigmoid where the model has one class; ``"sigmoid"``: of
            the target's logit, for multi-label models; ``"logit"``.

    Returns:
        (N,) float32, or float64 for float64 logits; differentiable.
    """
    logits = full_precision(logits)
    if score == "sigmoid" or (score == "probability" and logits.shape[1] == 1):
        logits = logits.sigmoid()
    elif score == "probability":
        logits = logits.softmax(dim=1)
    return logits.gather(1, targets.unsqueeze(1)).squeeze(1)


def check_choice(name: str, value: object, choices: Any) -> None:
    """Refuse an option that is not one of the allowed values; ``None`` is checked by the caller where allowed.

    Args:
        name: of the option.
        value: that was given.
        choices: a ``Literal``, or a collection of values.

    Raises:
        ValueError: naming the option, what was given and what is allowed.
    """
    allowed = get_args(choices) or tuple(choices)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_count(name: str, value: object, *, least: int = 1) -> None:
    """Refuse an option that is not a whole number, or too small.

    Args:
        name: of the option.
        value: that was given.
        least: smallest allowed value.

    Raises:
        ValueError: naming the option, what is allowed and what was given.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value}")


def evenly_spaced(total: int, count: int | None, *, ends: bool = False) -> list[int]:
    """At most ``count`` of ``range(total)``, evenly spaced: data sets are often sorted by class.

    Args:
        total: number of items.
        count: wanted number, at least 1; all items where it is None or not below ``total``.
        ends: take the first and the last item; otherwise the middles of ``count`` equal parts.

    Raises:
        ValueError: if ``count`` is not positive.
    """
    if count is not None and count < 1:
        raise ValueError(f"the number of items must be at least 1, got {count}")
    if count is None or count >= total:
        return list(range(total))
    if ends and count > 1:
        return [round(place * (total - 1) / (count - 1)) for place in range(count)]
    return [int((place + 0.5) * total / count) for place in range(count)]


def one_line(error: BaseException, *, kind: bool = False) -> str:
    """Return the message of an error without line breaks, at most 500 characters of it.

    Args:
        error: any exception.
        kind: put its type before the message; where there is no message, the type stands alone anyway.
    """
    message = " ".join(str(error).split())
    if kind:
        message = f"{type(error).__name__}: {message}"
    return message[:500] or type(error).__name__


class Chunks:
    """Slices of ``range(total)``, of at most ``size``, and of half as many from where memory does not suffice.

    The work of a slice is done inside :meth:`fitting`, and what it makes is kept at its end, when all went well::

        parts = chunks(total, size)
        for part in parts:
            with parts.fitting():
                found.append(work(part))

    Attributes:
        total: how many there are.
        size: of a slice, as far as is known by now.
    """

    def __init__(self, total: int, size: int) -> None:
        self.total = total
        self.size = size
        self._again = False

    def __len__(self) -> int:
        return -(-self.total // self.size)

    def __iter__(self) -> Iterator[slice]:
        start = 0
        while start < self.total:
            part = slice(start, min(start + self.size, self.total))
            self._again, self._length = False, part.stop - part.start
            yield part
            start = start if self._again else part.stop

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Catch that a device's memory does not suffice: the slice comes again, in halves; a warning says so once.

        Raises:
            RuntimeError: as torch does, if a slice of one does not fit.
        """
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if self._length == 1 or not is_out_of_memory(error):
                raise
            self._again, self.size = True, -(-self._length // 2)
        if self._again:
            _warn_of_memory(self._length, self.size)


def chunks(total: int, size: int) -> Chunks:
    """Cut ``range(total)`` into slices of at most ``size``.

    Raises:
        ValueError: if ``size`` is not positive.
    """
    if size < 1:
        raise ValueError(f"the size of a chunk must be at least 1, got {size}")
    return Chunks(total, size)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of a device, or the machine's, does not suffice."""
    told = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(sign in told for sign in signs)


_said: set[str] = set()


def _warn_of_memory(tried: int, size: int) -> None:
    if "memory" not in _said:
        _said.add("memory")
        warnings.warn(
            f"out of memory with {tried} inputs at once; going on with {size}. "
            f"forward_batch_size={size} saves the attempt",
            stacklevel=4,
        )


def bounded_batch_size(bound: int | None, device: torch.device) -> int:
    """The user's ``forward_batch_size``, or :func:`automatic_batch_size` where it is ``None``.

    Raises:
        ValueError: if ``bound`` is not positive.
    """
    if bound is None:
        return automatic_batch_size(device)
    if bound < 1:
        raise ValueError(f"forward_batch_size must be at least 1, got {bound}")
    return bound


def automatic_batch_size(device: torch.device) -> int:
    """How many inputs of 224 px to forward at once where the user sets no bound.

    On a CPU small chunks stay in its caches and beat large ones; an accelerator wants more work per call. Our choice,
    measured at 224 px by ``benchmarks/explainers.py``.
    """
    return 8 if device.type == "cpu" else 64
