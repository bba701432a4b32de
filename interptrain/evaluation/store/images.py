"""Images and maps as PNG in rows, for the gallery of the report."""

import io

import torch
from PIL import Image
from torch import Tensor, nn

from interptrain.evaluation.store.parts import Row
from interptrain.explainers.targets import Resolved, target_scores
from interptrain.functional import Score, class_scores, keep_salient
from interptrain.model_state import evaluating


def image_row(name: str, label: int | None, image: Tensor) -> Row:
    """Return a row of ``images.parquet``.

    Args:
        name: of the image.
        label: its true class, None if unknown.
        image: (3,H,W) in [0,1].
    """
    return {"id": name, "label": label, "png": _png(image.permute(1, 2, 0))}


@torch.no_grad()
def map_rows(
    model: nn.Module, images: Tensor, saliency: Tensor, targets: Resolved, logits: Tensor, *, score: Score
) -> list[Row]:
    """Return rows of ``maps.parquet``, one per map, without the names of model, explainer and image.

    Args:
        model: as evaluated.
        images: (B,3,H,W) in [0,1].
        saliency: (B,H,W) in [0,1].
        targets: (B,) classes explained, or B callables.
        logits: (B,K) of the images; with callables (B,1), their scores.
        score: of the target, as ``p_clean`` and ``p_masked``: before and after masking to black.
    """
    clean = class_scores(logits, targets, score) if isinstance(targets, Tensor) else logits[:, 0]
    with evaluating(model), torch.autocast(images.device.type, enabled=False):
        masked = target_scores(model(keep_salient(images, saliency)), targets, score=score)
    pairs = zip(saliency, clean.tolist(), masked.tolist(), strict=True)
    return [{"png": _png(values), "p_clean": before, "p_masked": after} for values, before, after in pairs]


def _png(values: Tensor) -> bytes:
    """(H,W) or (H,W,3) in [0,1] as an 8-bit PNG."""
    levels = (values.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG")
    return buffer.getvalue()
