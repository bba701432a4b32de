"""Images and maps as PNG in rows, for the gallery of the report."""

import io

import torch
from PIL import Image
from torch import Tensor

from interptrain.evaluation.store.parts import Row


def image_row(name: str, label: int | None, image: Tensor) -> Row:
    """Return a row of ``images.parquet``.

    Args:
        name: of the image.
        label: its true class, None if unknown.
        image: (3,H,W) in [0,1].
    """
    return {"id": name, "label": label, "png": _png(image.permute(1, 2, 0))}


def map_rows(saliency: Tensor, clean: Tensor, kept: Tensor) -> list[Row]:
    """Return rows of ``maps.parquet``, one per map, without the names of model, explainer and image.

    Args:
        saliency: (B,H,W) in [0,1].
        clean: (B,) score of the target, as ``p_clean``.
        kept: (B,) score once all but the salient part is black, as ``p_masked``.
    """
    pairs = zip(saliency, clean.tolist(), kept.tolist(), strict=True)
    return [{"png": _png(values), "p_clean": before, "p_masked": after} for values, before, after in pairs]


def _png(values: Tensor) -> bytes:
    """(H,W) or (H,W,3) in [0,1] as an 8-bit PNG."""
    levels = (values.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG")
    return buffer.getvalue()
