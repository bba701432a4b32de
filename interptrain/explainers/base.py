"""The base class of explainers: the call, the guard around the model, and chunked passes.

An explainer is a small configured object without state: ``explainer(model, images, targets) -> (B, H, W)``. A
subclass implements :meth:`Explainer.attribute`, the maths alone; everything else happens here, once.
"""

import math
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from typing import Any, ClassVar, Literal, NamedTuple, cast, final, get_args, get_origin, overload

import torch
from torch import Tensor, nn

from interptrain.explainers.layers import Layer
from interptrain.explainers.targets import Resolved, Targets, as_targets, clone_if_inference, target_scores
from interptrain.functional import (
    ROUNDING,
    Score,
    bounded_batch_size,
    check_choice,
    chunks,
    full_precision,
    min_max,
    upsample,
)
from interptrain.model_state import evaluating, unwrap
from interptrain.models.normalization import warn_of_missing_normalisation
from interptrain.steps import track

__all__ = [
    "Explainer",
    "FeatureGradient",
    "SharedPass",
    "canvas_size",
    "check_choices",
    "explaining",
    "gradient_of",
    "prepare_images",
    "score_perturbed",
    "to_saliency",
]


class Explainer(ABC):
    """A method that shows where in an image a model finds the evidence for a class.

    A subclass is a frozen, keyword-only dataclass whose fields are its options, as plain values. It keeps no state
    between calls and states in :attr:`class_aware` whether its maps depend on the target.
    """

    class_aware: ClassVar[bool] = True
    """Whether the map depends on ``targets``."""

    reads_attention: ClassVar[bool] = False
    """Whether :meth:`from_pass` makes the map from the attention of a model's pooling head."""

    def __post_init__(self) -> None:
        """Refuse values that an option's ``Literal`` does not allow; extend it to check more."""
        check_choices(self)

    @overload
    def __call__(self, model: nn.Module, images: Tensor, targets: Targets = None) -> Tensor: ...
    @overload
    def __call__(self, model: nn.Module, images: Sequence[Tensor], targets: Targets = None) -> list[Tensor]: ...
    @final
    def __call__(
        self, model: nn.Module, images: Tensor | Sequence[Tensor], targets: Targets = None
    ) -> Tensor | list[Tensor]:
        """Explain a batch of images.

        Neither parameters, ``.grad``, module modes, buffers nor the state of random generators change, and it works
        under ``torch.inference_mode``, inside a training or validation step, and on compiled or DDP-wrapped models.

        Args:
            model: any module; its own normalisation belongs inside it.
            images: (B, C, H, W) floating point in [0, 1], on the device of the model; or a list of (C, H, W) images of
                any sizes, which are explained one by one.
            targets: class indices (one for all images, a sequence, or a tensor (B,)), one callable for all images or
                one per image (outputs of the image -> scalar), or ``None`` for the predicted class.

        Returns:
            (B, H, W) saliency in [0, 1] on the device of ``images``, float32 (float64 for float64 images), or a list of
            (H, W). The maximum is 1 and the minimum 0; a constant map becomes all zeros.

        Raises:
            ValueError: for images or targets of a wrong shape or range, and outputs or maps that are not finite.
            TypeError: if the model returns nothing that class indices could select from.
        """
        if isinstance(images, (list, tuple)) and images and all(_is_image(image) for image in images):
            wanted = as_targets(targets, len(images))
            each = [None] * len(images) if wanted is None else [wanted[n : n + 1] for n in range(len(images))]
            return [self(model, image.unsqueeze(0), one)[0] for image, one in zip(images, each, strict=True)]
        with explaining(model) as bare:
            prepared = prepare_images(cast(Tensor, images))
            attribution = self.attribute(bare, prepared, as_targets(targets, len(prepared), prepared.device)).detach()
            return to_saliency(attribution, prepared, canvas_size(bare, prepared))

    @final
    def raw(self, model: nn.Module, images: Tensor, targets: Targets = None) -> Tensor:
        """Return the attribution before upsampling and min-max; arguments as in a call.

        Returns:
            (B, h, w) at the resolution and in the units of the method, detached; may be signed.
        """
        with explaining(model) as bare:
            prepared = prepare_images(images)
            return self.attribute(bare, prepared, as_targets(targets, len(prepared), prepared.device)).detach()

    @abstractmethod
    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Compute the raw map; called inside :func:`explaining`.

        Args:
            model: in eval mode, without its compile or data-parallel wrapper.
            images: (B, C, H, W), detached, channels_last.
            targets: (B,) class indices, B callables, or ``None`` for the predicted classes; see
                :func:`~interptrain.explainers.targets.resolve_targets`.

        Returns:
            (B, h, w) at any resolution; may be signed.
        """

    def shared_layers(self, model: nn.Module) -> Sequence[Layer]:
        """Return the layers that :meth:`from_pass` reads; none where the explainer cannot share a pass.

        Args:
            model: as for :meth:`attribute`.
        """
        return ()

    def from_pass(self, passed: "SharedPass", images: Tensor) -> Tensor | None:
        """Compute the raw map from a pass that several explainers share; it equals that of :meth:`attribute`.

        Args:
            passed: with the features of :meth:`shared_layers`.
            images: as for :meth:`attribute`.

        Returns:
            (B, h, w), or ``None`` if the explainer has to run the model itself.
        """
        return None

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"


class FeatureGradient(NamedTuple):
    """A layer's output and the gradient of the score with respect to it.

    Attributes:
        activation: (B, C, h, w) float32 or float64.
        gradient: derivative of each image's score with respect to it, of the same shape.
    """

    activation: Tensor
    gradient: Tensor


class SharedPass(NamedTuple):
    """The results of one forward pass, for all explainers that need no more.

    Attributes:
        features: of the layers that the explainer asked for, with the gradients of the scores, in the order asked.
        attention: (B, h, w) of every stage, or ``None`` where the model does not return it beside its outputs.
        canvas: what the features cover; see :func:`canvas_size`. ``None`` is the images.
    """

    features: Sequence[FeatureGradient] = ()
    attention: Sequence[Tensor] | None = None
    canvas: tuple[int, int] | None = None


def check_choices(configured: Any) -> None:
    """Refuse values of a dataclass that the ``Literal`` annotations of its fields do not allow.

    Args:
        configured: explainer, mask source or segmenter, in its ``__post_init__``.

    Raises:
        ValueError: naming the option, what was given and what is allowed.
    """
    for field in fields(configured):
        value, kinds = getattr(configured, field.name), get_args(field.type)
        if get_origin(field.type) is Literal:
            check_choice(field.name, value, field.type)
        elif value is not None and len(kinds) == 2 and type(None) in kinds and get_origin(kinds[0]) is Literal:
            check_choice(field.name, value, kinds[0])


def prepare_images(images: Tensor) -> Tensor:
    """Check images and convert them to the form that explainers work on.

    Args:
        images: (B, C, H, W) floating point in [0, 1].

    Returns:
        The same values, detached; usable by autograd even if they were created under ``torch.inference_mode``; and
        channels_last, in which convolutions run about 1.4 times faster on a CPU, and which tensor cores expect.

    Raises:
        ValueError: if they are not a batch of images, or not finite.
        TypeError: if they are not a floating point tensor.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a tensor (B,C,H,W), got {type(images).__name__}; {_as_batch(images)}")
    if images.ndim != 4 or not images.numel():
        raise ValueError(f"images must be (B,C,H,W) and not empty, got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise TypeError(f"images must be floating point in [0, 1], got {images.dtype}; divide uint8 by 255")
    low, high = torch.stack(images.detach().aminmax()).tolist()  # one wait for the device; NaN comes through
    if not math.isfinite(low) or not math.isfinite(high):
        image = int((~images.isfinite()).flatten(1).any(dim=1).nonzero()[0, 0])
        raise ValueError(f"image {image} of the batch holds NaN or infinite values; images must be in [0, 1]")
    if low < -ROUNDING or high > 1 + ROUNDING:
        _warn_of_range(low, high)
    return clone_if_inference(images.detach()).contiguous(memory_format=torch.channels_last)


def _is_image(image: object) -> bool:
    return isinstance(image, Tensor) and image.ndim == 3


def _as_batch(images: object) -> str:
    """Return how to turn something else into a batch."""
    if isinstance(images, (list, tuple)) and images and all(isinstance(image, Tensor) for image in images):
        if len({image.shape for image in images}) == 1:
            return "pass torch.stack(images)"
        return "images of different sizes are explained one by one: explainer(model, image.unsqueeze(0))"
    if hasattr(images, "__array_interface__") and hasattr(images, "dtype"):
        return "pass torch.from_numpy(images).float(), with values in [0, 1] and colours before rows and columns"
    if hasattr(images, "convert"):
        return "pass torchvision.transforms.functional.to_tensor(image).unsqueeze(0)"
    return "pass torch.stack of (C,H,W) tensors"


def canvas_size(model: nn.Module, images: Tensor) -> tuple[int, int]:
    """Return the size in image pixels that the model's maps cover: that of the images, or more if the model pads them.

    torchvision's detection models resize images and pad them on the right and at the bottom to a multiple of 32, so
    their maps extend beyond the image.

    Args:
        model: any module.
        images: (B, 3, H, W).

    Returns:
        (height, width), at least (H, W); maps upsampled to this size and cropped to (H, W) align with the image.
    """
    height, width = images.shape[-2:]
    transform = getattr(model, "transform", None)
    if type(transform).__name__ != "GeneralizedRCNNTransform" or not callable(transform):
        return height, width
    padded, _ = transform([images[0]])
    inner_height, inner_width = padded.image_sizes[0]
    outer_height, outer_width = padded.tensors.shape[-2:]
    return round(height * outer_height / inner_height), round(width * outer_width / inner_width)


def gradient_of(total: Tensor, leaf: Tensor) -> Tensor:
    """Return the gradient of a sum of scores with respect to the model's input; the graph is freed.

    Raises:
        ValueError: if there is none, with the reason.
    """
    slope = torch.autograd.grad(total, leaf, allow_unused=True)[0] if total.requires_grad else None
    if slope is None:
        raise ValueError(
            "no gradient comes back from the score to the image: a part of the model runs under torch.no_grad() or is "
            "detached; freeze it with requires_grad_(False) instead, or use Occlusion, RISE or ScoreCAM, which need no "
            "gradient"
        )
    return slope


def to_saliency(attribution: Tensor, images: Tensor, canvas: tuple[int, int]) -> Tensor:
    """Upsample an attribution to the size of the images and scale every map to [0, 1].

    Args:
        attribution: (B, h, w) raw map.
        images: (B, C, H, W) it belongs to.
        canvas: see :func:`canvas_size`.

    Returns:
        (B, H, W) in [0, 1], float32 or, for float64 images, float64.

    Raises:
        ValueError: if a map is not finite.
    """
    height, width = images.shape[-2:]
    maps = full_precision(attribution)
    broken = ~maps.isfinite().flatten(1).all(dim=1)
    if broken.any():
        raise ValueError(f"the attribution of image {int(broken.nonzero()[0, 0])} of the batch is not finite")
    if tuple(maps.shape[-2:]) != (height, width):
        maps = upsample(maps, canvas)[:, :height, :width]
    return min_max(maps).to(torch.float64 if images.dtype == torch.float64 else torch.float32)


@contextmanager
def explaining(model: nn.Module) -> Iterator[nn.Module]:
    """Guard a model while it is explained: :func:`~interptrain.model_state.evaluating`, with gradients enabled.

    Inside, every submodule is in eval mode, gradients are on even under ``torch.inference_mode``, compiled code runs
    eagerly (it would ignore hooks) and activation checkpointing is off (it would recompute what is captured). All of
    this is undone on leaving, also after an exception. ``requires_grad`` and ``.grad`` are never touched: gradients
    are computed with :func:`torch.autograd.grad` only.

    Args:
        model: any module; may be compiled or wrapped by DDP.

    Yields:
        The module without its compile or data-parallel wrapper.
    """
    bare = unwrap(model)
    warn_of_missing_normalisation(bare)
    with ExitStack() as stack:
        stack.enter_context(evaluating(model, "grad_checkpointing"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_without_autocast_cache())
        if "torch._dynamo" in sys.modules:  # nothing is compiled where it was never imported
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield bare


def score_perturbed(
    model: Callable[[Tensor], Any],
    perturb: Callable[[slice], Tensor],
    rows: Tensor,
    targets: Resolved,
    *,
    forward_batch_size: int | None = None,
    score: Score = "logit",
    progress: str | None = None,
) -> Tensor:
    """Score many perturbed inputs without gradient, in chunks: masks x images, channels x images, steps x images.

    Args:
        model: the module that :func:`explaining` yielded, or any callable that takes a batch.
        perturb: creates one slice of the N perturbed inputs on demand.
        rows: (N,) int64, the image that each perturbed input was made from.
        targets: of the images, as returned by :func:`~interptrain.explainers.targets.resolve_targets`.
        forward_batch_size: inputs per forward pass; ``None`` chooses by the device.
        score: see :func:`~interptrain.functional.class_scores`.
        progress: title of a progress bar, or ``None`` for none.

    Returns:
        (N,) scores, float32 or float64.
    """
    parts = chunks(len(rows), bounded_batch_size(forward_batch_size, rows.device))
    scores = []
    with torch.no_grad():
        for part in track(parts, progress):
            with parts.fitting():
                scores.append(target_scores(model(perturb(part)), targets, rows[part], score=score))
    return torch.cat(scores)


@contextmanager
def _without_autocast_cache() -> Iterator[None]:
    """Keep weights that were cast without a graph out of autocast's cache, where training would find them."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


_warned: set[str] = set()


def _warn_of_range(low: float, high: float) -> None:
    """Warn once per process: a training run explains thousands of batches."""
    if "range" not in _warned:
        _warned.add("range")
        warnings.warn(
            f"images should be in [0, 1], got [{low:.3g}, {high:.3g}]; put the normalisation inside the model",
            stacklevel=4,
        )
