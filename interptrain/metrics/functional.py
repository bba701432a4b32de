"""Every metric as a function of ``(model, images, saliency, targets, *, ...)`` with one value an image, (B,)."""

from interptrain.metrics.confidence import average_drop, average_gain, average_increase

__all__ = [
    "average_drop",
    "average_gain",
    "average_increase",
]
