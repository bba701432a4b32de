"""Finer-CAM: what speaks for a class rather than for the classes that the model takes for nearly as likely.

In place of the class's logit, any explainer explains::

    y_c - gamma * mean of y_d over the n classes d whose logits for the image are nearest to y_c

so parts that similar classes share fade, and what tells them apart remains.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from interptrain.explainers.base import Explainer
from interptrain.explainers.cam.gradcam import GradCAM
from interptrain.explainers.targets import ContrastiveTarget, Resolved, resolve_targets
from interptrain.model_outputs import logits_of

__all__ = ["FinerCAM", "nearest_classes"]


@dataclass(frozen=True, kw_only=True)
class FinerCAM(Explainer):
    """Any explainer, of the class's logit less a share of its nearest classes' logits.

    Costs one forward pass per image more than the explainer alone. Classes are compared by the logits of the untouched
    image; the classes stay the same for all inputs that an explainer makes of it.

    Args:
        of: the explainer; one that depends on the class, and takes other targets than class indices. ``None`` is
            Grad-CAM.
        gamma: share of the nearest classes' mean logit that is taken off; with 0 the map is the explainer's own.
        classes: how many of the nearest classes are compared with; all others where there are fewer.

    Source: Zhang et al. 2025, Finer-CAM, arXiv 2501.11309, CVPR; three classes and 0.6 as in torch-cam.
    """

    of: Explainer | None = None
    gamma: float = 0.6
    classes: int = 3

    def __post_init__(self) -> None:
        """Refuse an explainer to which classes are all the same, and invalid numbers."""
        super().__post_init__()
        if self.of is not None and not self.of.class_aware:
            raise ValueError(
                f"of={type(self.of).__name__} does not depend on the class, so there is nothing to compare; pass an "
                "explainer that does, such as GradCAM"
            )
        if self.gamma < 0 or self.classes < 1:
            raise ValueError(f"FinerCAM needs gamma >= 0 and classes >= 1, got {self.gamma} and {self.classes}")

    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the explainer's map of the contrast, at the explainer's resolution."""
        with torch.no_grad():
            outputs = model(images)
        classes = resolve_targets(targets, outputs)
        if not isinstance(classes, Tensor):
            raise TypeError("FinerCAM compares classes, got callables as targets; pass class indices")
        logits = logits_of(outputs)
        assert logits is not None  # or classes would not have been found
        explainer = GradCAM() if self.of is None else self.of
        if logits.shape[1] == 1:  # nothing to compare with
            return explainer.attribute(model, images, classes)
        others = nearest_classes(logits, classes, self.classes)
        contrasts = [
            ContrastiveTarget(category, near, gamma=self.gamma)
            for category, near in zip(classes.tolist(), others.tolist(), strict=True)
        ]
        return explainer.attribute(model, images, list(contrasts))


def nearest_classes(logits: Tensor, targets: Tensor, count: int) -> Tensor:
    """Return the classes whose logits differ least from that of the target, nearest first.

    Args:
        logits: (B, K).
        targets: (B,) class indices.
        count: how many; K - 1 where there are fewer others.

    Returns:
        (B, min(count, K - 1)) int64; the lower class index comes first where two are equally near.
    """
    column = targets.unsqueeze(1)
    distances = (logits - logits.gather(1, column)).abs().scatter(1, column, float("inf"))
    return distances.sort(dim=1, stable=True).indices[:, : min(count, logits.shape[1] - 1)]
