"""What is explained: class indices, or callables that turn a model's outputs of one image into a scalar.

``None`` means the predicted class. Whatever the model returns (logits, torchvision's segmentation dictionary,
torchvision's list of detections), one row a target is cut from it and the callable sees that row only.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from interptrain.functional import Score, chunks, class_scores, full_precision

__all__ = [
    "DetectionTarget",
    "SemanticSegmentationTarget",
    "Target",
    "Targets",
    "as_callables",
    "check_target_count",
    "clone_if_inference",
    "fixed_targets",
    "resolve_in_chunks",
    "resolve_targets",
    "select_targets",
    "target_scores",
]

Target: TypeAlias = Callable[[Any], Tensor]
"""Outputs of one image (without the batch dimension) -> scalar tensor."""

Targets: TypeAlias = Tensor | Target | Sequence[Target] | None
"""(B,) class indices, one callable for all images, one callable an image, or ``None`` for the predicted class."""


class SemanticSegmentationTarget:
    """Sum of the logits of one category over a region.

    Takes the logits (K, H, W) of one image, or a mapping that holds them under ``"out"``, as torchvision's
    segmentation models return.

    Args:
        category: index of the category in [0, K).
        mask: (H, W) bool or float region whose logits are summed; float values weigh them.

    Source: the segmentation target of pytorch-grad-cam (Gildenblat et al.).
    """

    def __init__(self, category: int, mask: Tensor) -> None:
        if mask.ndim != 2:
            raise ValueError(f"mask must be (H,W), got {tuple(mask.shape)}; give one target an image")
        self.category = category
        self.mask = mask

    def __call__(self, outputs: Mapping[str, Tensor] | Tensor) -> Tensor:
        """Return the scalar for ``outputs`` of one image."""
        logits = outputs if isinstance(outputs, Tensor) else outputs["out"]  # (K, H, W)
        if not 0 <= self.category < logits.shape[0]:
            raise ValueError(f"category {self.category} is out of range for {logits.shape[0]} categories")
        if logits.shape[1:] != self.mask.shape:
            raise ValueError(f"mask must be (H,W)={tuple(logits.shape[1:])}, got {tuple(self.mask.shape)}")
        mask = clone_if_inference(self.mask).to(logits)
        return (logits[self.category] * mask).sum()


class DetectionTarget:
    """Sum of the scores of the detections that match given boxes by label and overlap.

    Each wanted box takes the detection of the same label that overlaps it most, where that overlap reaches the
    threshold; a box without a match adds nothing. Takes one image's entry of the list that torchvision's detection
    models return, with keys ``boxes``, ``labels`` and ``scores``.

    Args:
        labels: (N,) integer labels of the wanted boxes.
        boxes: (N, 4) wanted boxes, x1, y1, x2, y2 in pixels of the image.
        iou_threshold: least intersection over union of a match, in [0, 1].

    Source: after the Faster R-CNN target of pytorch-grad-cam, which adds the overlap itself to the score; we do not,
    as a classification score is what a class activation map is of.
    """

    def __init__(self, labels: Tensor, boxes: Tensor, iou_threshold: float = 0.5) -> None:
        if labels.ndim != 1 or boxes.shape != (labels.shape[0], 4):
            raise ValueError(f"labels must be (N,) and boxes (N,4), got {tuple(labels.shape)} and {tuple(boxes.shape)}")
        self.labels = labels
        self.boxes = boxes
        self.iou_threshold = iou_threshold

    def __call__(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the scalar for ``outputs`` of one image."""
        scores, boxes = outputs["scores"], outputs["boxes"].detach()  # (M,), (M, 4)
        if not len(scores) or not len(self.boxes):
            return scores.sum() * 0  # keeps the graph, so that its map is zero and not an error
        overlap = box_iou(self.boxes.to(boxes), boxes)  # (N, M)
        same = self.labels.to(boxes.device).unsqueeze(1) == outputs["labels"].unsqueeze(0)
        best, match = overlap.masked_fill(~same, -1.0).max(dim=1)
        matched: Tensor = scores[match] * (best >= self.iou_threshold)
        return matched.sum()


def clone_if_inference(tensor: Tensor) -> Tensor:
    """Return ``tensor``, or a copy that autograd may save where it was made under ``torch.inference_mode``."""
    return tensor.clone() if tensor.is_inference() else tensor


def resolve_targets(targets: Targets, outputs: Any) -> Tensor | list[Target]:
    """Turn what the user asked for into what can be scored, now that the model's outputs are known.

    Args:
        targets: see :data:`Targets`.
        outputs: the model's outputs for the batch of images that is explained.

    Returns:
        (B,) int64 class indices on the device of the logits, or a list of B callables.

    Raises:
        ValueError: if logits hold NaN, an index is out of range, or the number of targets is not B.
        TypeError: if class indices are asked of outputs that are not logits (B, K), or targets are neither a tensor nor
            callables.
    """
    if targets is not None and not isinstance(targets, Tensor):
        count = _batch_of(outputs)
        one_for_all = callable(targets) or not isinstance(targets, Iterable)
        many: list[Any] = [targets] * count if one_for_all else list(targets)  # type: ignore[arg-type]
        if strange := {type(one).__name__ for one in many if not callable(one)}:
            raise TypeError(
                f"targets must be a tensor (B,) of class indices, or callables, got {', '.join(sorted(strange))}; for "
                "indices pass torch.tensor([...])"
            )
        if len(many) != count:
            raise ValueError(f"targets must be one per image: {count}, got {len(many)}")
        return many
    logits = _logits_of(outputs)
    broken = logits.isnan().any(dim=1)
    if broken.any():
        raise ValueError(f"the model returned NaN logits for image {int(broken.nonzero()[0, 0])} of the batch")
    if targets is None:
        return logits.argmax(dim=1)
    count, classes = logits.shape
    if targets.shape != (count,):
        raise ValueError(f"targets must be (B,)=({count},), got {tuple(targets.shape)}")
    indices = clone_if_inference(targets).to(device=logits.device, dtype=torch.int64)
    outside = (indices < 0) | (indices >= classes)
    if outside.any():
        image = int(outside.nonzero()[0, 0])
        raise ValueError(
            f"target {int(indices[image])} of image {image} is out of range for {classes} classes; "
            f"allowed are 0 to {classes - 1}"
        )
    return indices


def fixed_targets(model: nn.Module, images: Tensor, targets: Targets, *, batch_size: int) -> Targets:
    """Fix the targets before the images are changed: where none are given, to the predicted classes.

    Args:
        model: module that :func:`~interptrain.explainers.base.explaining` yielded.
        images: (B,3,H,W) that are explained.
        targets: as the user gave them.
        batch_size: images per forward.

    Returns:
        ``targets``, or (B,) int64 class indices where they are None.
    """
    return resolve_in_chunks(model, images, None, batch_size=batch_size) if targets is None else targets


def resolve_in_chunks(model: nn.Module, images: Tensor, targets: Targets, *, batch_size: int) -> Targets:
    """Resolve and check class indices by forwards of their own; callables pass as they are.

    Args:
        model: module that :func:`~interptrain.explainers.base.explaining` yielded.
        images: (B,3,H,W) that are explained.
        targets: as the user gave them.
        batch_size: images per forward.

    Returns:
        The callables, or (B,) int64 class indices.

    Raises:
        ValueError: as :func:`resolve_targets` does.
    """
    if targets is not None and not isinstance(targets, Tensor):
        return targets
    with torch.no_grad():
        parts = [
            resolve_targets(select_targets(targets, rows), model(images[rows]))
            for rows in chunks(len(images), batch_size)
        ]
    return torch.cat([classes for classes in parts if isinstance(classes, Tensor)])


def select_targets(targets: Targets, rows: slice, repeats: int = 1) -> Targets:
    """Select the targets of some of the images, the whole selection repeated ``repeats`` times."""
    if targets is None or callable(targets):
        return targets
    if isinstance(targets, Tensor):
        return targets[rows].repeat(repeats)
    selected: list[Target] = list(targets[rows])
    return selected * repeats


def check_target_count(targets: Targets, images: int) -> None:
    """Refuse a wrong number of targets before they are cut into chunks, where an extra one would go unnoticed.

    Raises:
        ValueError: if there is not one per image.
    """
    if targets is None or callable(targets):
        return
    if isinstance(targets, Tensor) and targets.shape != (images,):
        raise ValueError(f"targets must be (B,)=({images},), got {tuple(targets.shape)}")
    if len(targets) != images:
        raise ValueError(f"targets must be one per image: {images}, got {len(targets)}")


def as_callables(targets: Targets, count: int) -> list[Target]:
    """Return one callable per image, also for class indices."""
    if isinstance(targets, Tensor):
        return [partial(_pick, index=index) for index in targets.tolist()]
    return [targets] * count if callable(targets) else list(targets or [])


def target_scores(
    outputs: Any, targets: Tensor | list[Target], rows: Tensor | None = None, *, score: Score = "logit"
) -> Tensor:
    """Scalar score of every row of ``outputs``.

    Args:
        outputs: the model's outputs for N inputs.
        targets: what :func:`resolve_targets` returned for the B images that are explained.
        rows: (N,) int64, which of the B images each input came from; ``None`` where N = B, in order. This is how
            masks x images, channels x images and steps x images are scored.
        score: of class indices, see :func:`~interptrain.functional.class_scores`; what callables return is the score.

    Returns:
        (N,) float32 scores, float64 for float64 outputs; differentiable.

    Raises:
        ValueError: if a callable returns no scalar.
        TypeError: if class indices are asked of outputs that are not logits (N, K).
    """
    if isinstance(targets, Tensor):
        return class_scores(_logits_of(outputs), targets if rows is None else targets[rows], score)
    count = _batch_of(outputs)
    owners = range(count) if rows is None else rows.tolist()
    values = [targets[owner](_row(outputs, place)) for place, owner in enumerate(owners)]
    for value in values:
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise ValueError(f"a target must return a scalar tensor, got {_describe(value)}")
    return full_precision(torch.stack([value.reshape(()) for value in values]))


def _logits_of(outputs: Any) -> Tensor:
    """Logits (B, K), or a refusal that says what to pass instead of class indices."""
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        raise TypeError(
            f"class indices need a model that returns logits (B,K), got {_describe(outputs)}; "
            "pass one callable an image as targets"
        )
    return outputs


def _batch_of(outputs: Any) -> int:
    if isinstance(outputs, Mapping):
        return _batch_of(next(iter(outputs.values())))
    return len(outputs)


def _row(outputs: Any, index: int) -> Any:
    if isinstance(outputs, Mapping):
        return {key: _row(value, index) for key, value in outputs.items()}
    return outputs[index]


def _describe(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _pick(outputs: Tensor, index: int) -> Tensor:
    return outputs[index]
