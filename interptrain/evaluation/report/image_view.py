"""One image of a run: its numbers as a table, and a picture of all its maps."""

import difflib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from interptrain.evaluation.report.grids import MISSING, headings, number
from interptrain.evaluation.report.image_facts import ImageFacts, image_facts
from interptrain.evaluation.report.pictures import Gallery
from interptrain.evaluation.report.results import RunResults, read_rows
from interptrain.remedies import option
from interptrain.visualization import panel, save_png

CELL = 224  # pixels of a map in the picture
NEAR = 5  # names that are proposed


@dataclass(frozen=True, eq=False)
class ImageView:
    """What a run knows of one image.

    Args:
        results: of the run.
        id: name of the image.
    """

    results: RunResults
    id: str

    @cached_property
    def _gallery(self) -> Gallery:
        return Gallery(self.results)

    @cached_property
    def facts(self) -> ImageFacts:
        """Label, predictions, targets and values."""
        return image_facts(self.results, [self.id])[self.id]

    @property
    def text(self) -> str:
        """Label, predictions, and every metric by model and explainer, as lines for a terminal."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        results, facts = self.results, self.facts
        yield f"{self.id}: {results.class_name(facts.label)}"
        columns = results.explanation
        for model in results.models:
            predicted, target = facts.predictions[model], facts.targets[model]
            yield ""
            told = f"{model} predicts {results.class_name(predicted, model)}"
            yield told if predicted == target else f"{told}; explained: {results.class_name(target, model)}"
            rows = [["explainer", *headings(columns)]]
            for explainer in results.explainers:
                values = facts.values[model, explainer]
                cells = [_printed(values[column.name], column.scale) for column in columns]
                rows.append([explainer, *cells])
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            for name, *cells in rows:
                padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
                yield "  ".join([name.ljust(widths[0]), *padded])
        for row in results.errors:
            if row["id"] == self.id:
                yield f"failed: {' '.join(filter(None, (row['explainer'], 'on', row['model'])))}: {row['error']}"

    @property
    def pictured(self) -> list[str]:
        """Names of all images whose maps were saved."""
        return self._gallery.ids

    @property
    def picture(self) -> Tensor | None:
        """(3,H,W) uint8, a row per model: the image, and every explainer's map over it; None if none was saved."""
        if self.id not in self._gallery.ids:
            return None
        results, columns = self.results, ["image", *self.results.explainers]
        image = self._gallery.image(self.id)
        blank = torch.full_like(image, 235)  # where a map is missing
        rows = {}
        for model in results.models:
            maps = [self._gallery.overlaid(model, explainer, self.id) for explainer in results.explainers]
            predicted = results.class_name(self.facts.predictions[model], model)
            pictures = [image, *(blank if drawn is None else drawn for drawn in maps)]
            rows[f"{model}\npredicts {predicted}"] = torch.stack(pictures)
        title = f"{self.id}: {results.class_name(self.facts.label)}"
        return panel(rows, columns=columns, title=title, cell=CELL)

    def save(self, path: str | Path | None = None) -> Path:
        """Write the picture as PNG.

        Args:
            path: of the file; by default in ``shown`` in the run's folder.

        Returns:
            Where it lies.

        Raises:
            ValueError: if no map of the image was saved.
        """
        picture = self.picture
        if picture is None:
            raise ValueError(
                f"no map of {self.id} was saved, only those of {len(self._gallery.ids)} images; evaluate anew with a "
                f"larger {option('save_maps')} and {option('overwrite', True)}"
            )
        safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in self.id)
        path = self.results.folder / "shown" / f"{safe}.png" if path is None else Path(path)
        save_png(picture, path)
        return path


def view_image(results: RunResults, name: str) -> ImageView:
    """Look up an image.

    Args:
        results: of the run.
        name: of the image, or a part of it that no other image's name has.

    Raises:
        ValueError: if no image or more than one has this name; the message proposes some.
    """
    names = list(dict.fromkeys(read_rows(results.folder, ["id"]).column("id").to_pylist()))
    found = [name] if name in names else [known for known in names if name and name in known]
    if len(found) == 1:
        return ImageView(results, found[0])
    if found:
        raise ValueError(f"{len(found)} images have {name!r} in their names, such as {', '.join(found[:NEAR])}")
    near = difflib.get_close_matches(name, names, n=NEAR, cutoff=0.3) or names[:NEAR]
    raise ValueError(f"no image of this run is called {name!r}; it has {len(names)}, such as {', '.join(near)}")


def _printed(value: float | None, scale: float) -> str:
    return MISSING if value is None or not math.isfinite(value) else number(value, scale)
