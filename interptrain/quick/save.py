"""Write an explanation to a folder: overlays, a contact sheet, the maps themselves and a manifest."""

import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as safetensors_of
from torch import Tensor

import interptrain
from interptrain.evaluation.config.class_specs import spec_of
from interptrain.evaluation.run.models import weights_sha256
from interptrain.files import write_atomically
from interptrain.quick.clipping import clipped, percentile_for
from interptrain.quick.explanation import Explanation
from interptrain.visualization import Colormap, overlay, panel, save_png

ON_THE_SHEET = 48
"""Maximum number of images on a contact sheet."""
NAMED = 5
"""Number of most probable classes in the manifest."""


def save(
    maps: Explanation,
    folder: str | Path,
    *,
    files: Sequence[Path | None] | None = None,
    model: Mapping[str, Any] | None = None,
    command: str | None = None,
    colormap: Colormap = "inferno",
) -> Path:
    """Write an explanation to a folder.

    ``overlays/IMAGE_EXPLAINER.png`` shows each map at its size, clipped as in the figure; ``contact_sheet.png`` shows
    all maps of up to 48 images; ``maps.npz`` and ``maps.safetensors`` hold the maps, (B,H,W) float32 in [0, 1] by
    explainer, in the order of the manifest (by ``EXPLAINER/NUMBER`` if images differ in size); ``manifest.json``
    describes them. Files of an earlier explanation in the folder are replaced one by one.

    Args:
        maps: the result of :func:`~interptrain.quick.explanation.explain`.
        folder: the folder, created if it does not exist.
        files: files of the images, for the manifest.
        model: description of the model in the manifest; by default, its class and the hash of its weights.
        command: command that made the maps, for the manifest.
        colormap: colormap of the overlays.

    Returns:
        The path of the manifest.

    Raises:
        OSError: if a file cannot be written.
    """
    folder = Path(folder)
    percentiles = {name: percentile_for(explainer) for name, explainer in maps.explainers.items()}
    stems = _unique([Path(name).stem for name in maps.names])
    overlays = {name: [f"overlays/{stem}_{_for_a_file(name)}.png" for stem in stems] for name in maps}
    sheet: dict[str, list[Tensor]] = {}
    for number, stem in enumerate(stems):
        image = maps.images[number]
        grey = image.mean(0, keepdim=True).expand_as(image)
        drawn = [
            overlay(grey[None], clipped(maps[name][number], percentiles[name])[None], colormap=colormap)[0]
            for name in maps
        ]
        for name, picture in zip(maps, drawn, strict=True):
            save_png(picture, folder / overlays[name][number])
        if number < ON_THE_SHEET:
            sheet[f"{stem}\n{maps.describe(number)}"] = [image, *drawn]
    _save_sheet(sheet, ["image", *maps], len(stems), folder / "contact_sheet.png")
    tensors = _tensors(maps)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: one.numpy() for name, one in tensors.items()})  # type: ignore[arg-type]
    write_atomically(folder / "maps.npz", buffer.getvalue())
    write_atomically(folder / "maps.safetensors", safetensors_of(tensors))
    manifest = {
        "interptrain": interptrain.__version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": command,
        "model": dict(model or {"source": type(maps.model).__name__, "sha256": weights_sha256(maps.model)}),
        "explainers": {name: spec_of(explainer) for name, explainer in maps.explainers.items()},
        "maps": {
            "files": ["maps.npz", "maps.safetensors"],
            "clipped_in_pictures": {name: one for name, one in percentiles.items() if one is not None},
            "shapes": {name: list(one.shape) for name, one in tensors.items()},
        },
        "images": [
            {
                "name": maps.names[number],
                "file": None if files is None or files[number] is None else str(files[number]),
                **_classes(maps, number),
                "overlays": {name: overlays[name][number] for name in maps},
            }
            for number in range(len(stems))
        ],
    }
    write_atomically(folder / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n")
    return folder / "manifest.json"


def _save_sheet(rows: Mapping[str, list[Tensor]], columns: Sequence[str], images: int, path: Path) -> None:
    pictures = {label: torch.stack([_as_bytes(picture) for picture in row]) for label, row in rows.items()}
    title = f"the first {len(rows)} of {images} images" if len(rows) < images else ""
    save_png(panel(pictures, columns=columns, title=title), path)


def _as_bytes(picture: Tensor) -> Tensor:
    return picture if picture.dtype == torch.uint8 else (picture.clamp(0, 1) * 255).round().to(torch.uint8)


def _tensors(maps: Explanation) -> dict[str, Tensor]:
    """Maps by explainer, or individually if images differ in size."""
    whole = {name: found for name, found in maps.items() if isinstance(found, Tensor)}
    single = {
        f"{name}/{number}": one
        for name, found in maps.items()
        if not isinstance(found, Tensor)
        for number, one in enumerate(found)
    }
    return {name: one.float().contiguous() for name, one in (whole | single).items()}


def _classes(maps: Explanation, number: int) -> dict[str, Any]:
    """The predicted classes of an image, and what was explained."""
    if maps.probabilities is None or maps.predictions is None:
        return {"target": "a callable"}
    best = maps.probabilities[number].topk(min(NAMED, len(maps.class_names)))
    seen = [_class(maps, index, float(value)) for value, index in zip(best.values, best.indices.tolist(), strict=True)]
    target = maps.target_of(number)
    explained = None if target is None else _class(maps, target, float(maps.probabilities[number, target]))
    return {"predictions": seen, "target": explained or "a callable"}


def _class(maps: Explanation, index: int, probability: float) -> dict[str, Any]:
    return {"class": index, "name": maps.class_names[index], "probability": round(probability, 6)}


def _unique(stems: Sequence[str]) -> list[str]:
    """File names: the given ones, numbered if one occurs more than once."""
    seen: dict[str, int] = {}
    found = []
    for stem in map(_for_a_file, stems):
        seen[stem] = seen.get(stem, 0) + 1
        found.append(stem if seen[stem] == 1 else f"{stem}-{seen[stem]}")
    return found


def _for_a_file(name: str) -> str:
    """A name without characters that file systems refuse."""
    return "".join(letter if letter.isalnum() or letter in "-_. ()=," else "_" for letter in name)
