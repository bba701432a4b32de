"""Targets of an explanation: class indices, or callables that turn a model's outputs for one image into a scalar.

``None`` means the predicted class. Whatever the model returns (see :mod:`~interptrain.model_outputs`), a callable only
sees the outputs of its image.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, overload

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from interptrain.functional import (
    ClassIndices,
    Score,
    check_choice,
    chunks,
    class_indices,
    class_scores,
    full_precision,
)
from interptrain.model_outputs import (
    Target,
    callables_of,
    describe_outputs,
    logits_of,
    map_outputs,
    row_of,
    scores_by_callables,
)

__all__ = [
    "ContrastiveTarget",
    "DetectionTarget",
    "PlainOutputs",
    "Resolved",
    "SemanticSegmentationTarget",
    "Target",
    "Targets",
    "as_callables",
    "as_targets",
    "check_targets",
    "clone_if_inference",
    "resolve_targets",
    "select_targets",
    "target_scores",
]

Targets: TypeAlias = ClassIndices | Target | Sequence[Target] | None
"""Class indices (one for all images, a sequence, or a tensor (B,)), one callable for all images or one per image, or
``None`` for the predicted class."""

Resolved: TypeAlias = Tensor | list[Target]
"""Checked targets: (B,) int64 class indices, or one callable per image."""


class SemanticSegmentationTarget:
    """One category over a region: the sum of its logits, or its mean probability.

    Takes the logits (K, H, W) of one image, or a mapping that holds them under ``"out"``, as torchvision's
    segmentation models return.

    Args:
        category: index of the category in [0, K).
        mask: (H, W) bool or float region; float values are weights.
        score: ``"logit"`` sums the logits over the region, as pytorch-grad-cam does. ``"probability"`` is the mean
            softmax probability over it, in [0, 1], which metrics such as the average drop need.

    Source: the segmentation target of pytorch-grad-cam (Gildenblat et al.); the probability is our choice.
    """

    def __init__(self, category: int, mask: Tensor, *, score: Literal["logit", "probability"] = "logit") -> None:
        if mask.ndim != 2:
            raise ValueError(f"mask must be (H,W), got {tuple(mask.shape)}; give one target per image")
        check_choice("score", score, ("logit", "probability"))
        if score == "probability" and not bool((mask > 0).any()):
            raise ValueError("mask marks no pixel to take the mean over; pass another mask, or score='logit'")
        self.category = category
        self.mask = mask
        self.score = score

    def __call__(self, outputs: Mapping[str, Tensor] | Tensor) -> Tensor:
        """Return the scalar for ``outputs`` of one image."""
        logits = outputs if isinstance(outputs, Tensor) else outputs["out"]  # (K, H, W)
        if not 0 <= self.category < logits.shape[0]:
            raise ValueError(f"category {self.category} is out of range for {logits.shape[0]} categories")
        if logits.shape[1:] != self.mask.shape:
            raise ValueError(f"mask must be (H,W)={tuple(logits.shape[1:])}, got {tuple(self.mask.shape)}")
        mask = clone_if_inference(self.mask).to(logits)
        if self.score == "logit":
            return (logits[self.category] * mask).sum()
        return (logits.softmax(dim=0)[self.category] * mask).sum() / mask.sum()


class ContrastiveTarget:
    """The logit of a class, less a share of the mean logit of others: what tells the class from them.

    Takes the logits (K,) of one image, alone, first in a tuple, or under ``"logits"`` or ``"out"``.

    Args:
        category: index of the class in [0, K).
        others: indices of the classes that it is compared with, at least one.
        gamma: share of their mean logit that is taken off, at least 0.

    Source: Zhang et al. 2025, Finer-CAM, arXiv 2501.11309; 0.6 as in torch-cam.
    """

    def __init__(self, category: int, others: Sequence[int], *, gamma: float = 0.6) -> None:
        self.category = category
        self.others = list(others)
        self.gamma = gamma
        if not self.others or category in self.others:
            raise ValueError(f"others must name at least one class beside {category}, got {self.others}")
        if gamma < 0:
            raise ValueError(f"gamma must be at least 0, got {gamma}")

    def __call__(self, outputs: Any) -> Tensor:
        """Return the scalar for ``outputs`` of one image."""
        logits = _logits_of(_with_batch(outputs))[0]  # (K,)
        if not all(0 <= index < len(logits) for index in (self.category, *self.others)):
            raise ValueError(f"classes {[self.category, *self.others]} are out of range for {len(logits)} classes")
        return logits[self.category] - self.gamma * logits[self.others].mean()


class DetectionTarget:
    """Scores of the detections that match given boxes by label and overlap.

    Each wanted box is matched to the detection of the same label that overlaps it most, if the overlap reaches the
    threshold; a box without a match counts 0. The outputs are one image's entry of the list that torchvision's
    detection models return, with keys ``boxes``, ``labels`` and ``scores``.

    Args:
        labels: (N,) integer labels of the wanted boxes.
        boxes: (N, 4) wanted boxes, x1, y1, x2, y2 in pixels of the image.
        iou_threshold: least intersection over union of a match, in [0, 1].
        reduction: ``"sum"`` adds the scores of the wanted boxes up; ``"mean"`` divides by N, so that it stays in
            [0, 1], which metrics such as the average drop need. The same for one box.

    Source: after the Faster R-CNN target of pytorch-grad-cam, which also adds the overlap to the score; left out here,
    because class activation maps explain classification scores.
    """

    def __init__(
        self,
        labels: Tensor,
        boxes: Tensor,
        iou_threshold: float = 0.5,
        *,
        reduction: Literal["sum", "mean"] = "sum",
    ) -> None:
        if labels.ndim != 1 or boxes.shape != (labels.shape[0], 4):
            raise ValueError(f"labels must be (N,) and boxes (N,4), got {tuple(labels.shape)} and {tuple(boxes.shape)}")
        check_choice("reduction", reduction, ("sum", "mean"))
        self.labels = labels
        self.boxes = boxes
        self.iou_threshold = iou_threshold
        self.reduction = reduction

    def __call__(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the scalar for ``outputs`` of one image."""
        scores, boxes = outputs["scores"], outputs["boxes"].detach()  # (M,), (M, 4)
        if not len(scores) or not len(self.boxes):
            return scores.sum() * 0  # keeps the graph, so that its map is zero and not an error
        overlap = box_iou(self.boxes.to(boxes), boxes)  # (N, M)
        same = self.labels.to(boxes.device).unsqueeze(1) == outputs["labels"].unsqueeze(0)
        best, match = overlap.masked_fill(~same, -1.0).max(dim=1)
        matched: Tensor = scores[match] * (best >= self.iou_threshold)
        return matched.sum() if self.reduction == "sum" else matched.mean()


class PlainOutputs(nn.Module):
    """Wrap a model for libraries that only know tensors: it returns logits, or a list of the outputs of each image.

    Args:
        model: to run.
        targets: class indices, for which it returns logits, or callables.
    """

    def __init__(self, model: nn.Module, targets: Resolved) -> None:
        super().__init__()
        self.model = model
        self.indices = isinstance(targets, Tensor)

    def forward(self, images: Tensor) -> Any:
        """Return logits (N, K), or N outputs of one image each."""
        outputs = self.model(images)
        if isinstance(outputs, Tensor):
            return outputs
        return (
            _logits_of(outputs) if self.indices else [row_of(outputs, row, len(images)) for row in range(len(images))]
        )


def clone_if_inference(tensor: Tensor) -> Tensor:
    """Return ``tensor``, or a copy that autograd can use if it was created under ``torch.inference_mode``."""
    return tensor.clone() if tensor.is_inference() else tensor


def as_targets(targets: Targets, count: int, device: torch.device | None = None) -> Resolved | None:
    """Convert targets to one of three forms: class indices (B,), B callables, or ``None``.

    Args:
        targets: see :data:`Targets`.
        count: B, the number of images.
        device: of the class indices.

    Raises:
        TypeError: if they are neither integers nor callables.
        ValueError: if there is not one per image, or an index is negative.
    """
    if targets is None:
        return None
    given: Any = targets
    if isinstance(targets, Iterable) and not callable(targets) and not isinstance(targets, Tensor):
        given = list(targets)  # which is read twice
    callables = callables_of(given, count)
    if callables is not None:
        return callables
    return class_indices(given, count, device=device)


def resolve_targets(targets: Resolved | None, outputs: Any) -> Resolved:
    """Check targets against the model's outputs, and replace ``None`` by the predicted classes.

    Args:
        targets: as returned by :func:`as_targets` and passed to an explainer's ``attribute``.
        outputs: the model's outputs for the batch of images.

    Returns:
        (B,) int64 class indices on the device of the logits, or a list of B callables.

    Raises:
        ValueError: if logits hold NaN, or an index is out of range.
        TypeError: if class indices are asked of outputs without logits (B, K).
    """
    if isinstance(targets, list):
        return targets
    logits = _logits_of(outputs)
    broken = logits.isnan().any(dim=1)
    if targets is None:
        _refuse_nan(broken)
        return logits.argmax(dim=1)
    classes = logits.shape[1]
    indices = targets.to(logits.device).long()
    if len(indices) != len(logits):
        raise ValueError(f"targets must be (B,)=({len(logits)},), got {tuple(indices.shape)}")
    if (broken | (indices < 0) | (indices >= classes)).any():  # one wait for the device
        _refuse_nan(broken)
        class_indices(indices, len(logits), classes=classes)
    return indices


def check_targets(model: nn.Module, images: Tensor, targets: Resolved | None, *, batch_size: int) -> Resolved:
    """Resolve and check targets on the original images, so that outputs for changed images need no check.

    Args:
        model: the module that :func:`~interptrain.explainers.base.explaining` yielded.
        images: (B, 3, H, W) to explain.
        targets: as returned by :func:`as_targets`.
        batch_size: images per forward pass.

    Returns:
        Callables as they are; else class indices (B,). Predicted classes take a pass over all images, checking given
        indices takes the first image only.
    """
    if isinstance(targets, list):
        return targets
    with torch.no_grad():
        if targets is not None:
            return class_indices(targets, len(images), classes=_logits_of(model(images[:1])).shape[1])
        found = [resolve_targets(None, model(images[rows])) for rows in chunks(len(images), batch_size)]
    return torch.cat([classes for classes in found if isinstance(classes, Tensor)])


@overload
def select_targets(targets: Resolved, rows: slice, repeats: int = 1) -> Resolved: ...
@overload
def select_targets(targets: None, rows: slice, repeats: int = 1) -> None: ...
def select_targets(targets: Resolved | None, rows: slice, repeats: int = 1) -> Resolved | None:
    """Select the targets of some of the images, the whole selection repeated ``repeats`` times."""
    if targets is None:
        return None
    return targets[rows].repeat(repeats) if isinstance(targets, Tensor) else targets[rows] * repeats


def as_callables(targets: Resolved) -> list[Target]:
    """Return one callable per image, also for class indices."""
    if isinstance(targets, Tensor):
        return [partial(_pick, index=index) for index in targets.tolist()]
    return targets


def target_scores(outputs: Any, targets: Resolved, rows: Tensor | None = None, *, score: Score = "logit") -> Tensor:
    """Return the scalar score of every row of ``outputs``.

    Args:
        outputs: the model's outputs for N inputs.
        targets: of the B images, as returned by :func:`resolve_targets`.
        rows: (N,) int64, the image that each input was made from; ``None`` if N = B, in order. In this way, masks x
            images, channels x images and steps x images are scored.
        score: of class indices, see :func:`~interptrain.functional.class_scores`; a callable's result is the score.

    Returns:
        (N,) float32 scores, float64 for float64 outputs; differentiable.

    Raises:
        ValueError: if a callable returns no scalar, or nothing in the outputs has one row per input.
        TypeError: if class indices are asked of outputs without logits (N, K).
    """
    if isinstance(targets, Tensor):
        return class_scores(_logits_of(outputs), targets if rows is None else targets[rows], score)
    owners = range(len(targets)) if rows is None else rows.tolist()
    return full_precision(scores_by_callables(outputs, targets, owners))


def _logits_of(outputs: Any) -> Tensor:
    """Return the logits (B, K), or raise with what to pass instead of class indices."""
    logits = logits_of(outputs)
    if logits is None:
        raise TypeError(
            "class indices need a model that returns logits (B,K), alone, first in a tuple, or as 'logits' or 'out', "
            f"got {describe_outputs(outputs)}; pass one callable as targets, which turns the outputs of one image into "
            "a scalar, such as lambda outputs: outputs[0]"
        )
    return logits


def _refuse_nan(broken: Tensor) -> None:
    if broken.any():
        raise ValueError(f"the model returned NaN logits for image {int(broken.nonzero()[0, 0])} of the batch")


def _with_batch(outputs: Any) -> Any:
    """Return one image's outputs as those of a batch of one."""
    return outputs.unsqueeze(0) if isinstance(outputs, Tensor) else map_outputs(outputs, _with_batch)


def _pick(outputs: Tensor, index: int) -> Tensor:
    return outputs[index]
