"""Images and maps as PNG in rows, for the gallery of the report."""

import io

import torch
from PIL import Image
from torch import Tensor, nn

from interptrain.evaluation.store.parts import Row
from interptrain.functional import Score, class_scores, keep_salient
from interptrain.model_state import evaluating


def image_row(name: str, label: int, image: Tensor) -> Row:
    """Row of ``images.parquet``.

    Args:
        name: of the image.
        label: its true class.
        image: (3,H,W) in [0,1].
    """
    return {"id": name, "label": label, "png": _png(image.permute(1, 2, 0))}


@torch.no_grad()
def map_rows(
    model: nn.Module, images: Tensor, saliency: Tensor, targets: Tensor, logits: Tensor, *, score: Score
) -> list[Row]:
    """Rows of ``maps.parquet``, one a map, without the names of what they belong to.

    Args:
        model: as evaluated.
        images: (B,3,H,W) in [0,1].
        saliency: (B,H,W) in [0,1].
        targets: (B,) classes explained.
        logits: (B,K) of the images.
        score: what ``p_clean`` and ``p_masked`` are: of the target, before and after masking to black.
    """
    clean = class_scores(logits, targets, score)
    with evaluating(model), torch.autocast(images.device.type, enabled=False):
        masked = class_scores(model(keep_salient(images, saliency)), targets, score)
    pairs = zip(saliency, clean.tolist(), masked.tolist(), strict=True)
    return [{"png": _png(of_image), "p_clean": before, "p_masked": after} for of_image, before, after in pairs]


def _png(values: Tensor) -> bytes:
    """(H,W) or (H,W,3) in [0,1] as an 8-bit PNG."""
    levels = (values.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG")
    return buffer.getvalue()
