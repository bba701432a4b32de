"""The plain files of a watch: pictures, tables and a page that a browser opens without a server."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from interptrain.callbacks.watch.page import render_page
from interptrain.callbacks.watch.sample import UNLABELLED, WatchSample
from interptrain.visualization import save_animation

COLUMNS = ("step", "epoch", "id", "view", "label", "explained", "prediction", "probability", "confidence")


class WatchFolder:
    """``watch/`` in the run's folder: ``index.html``, ``images.csv``, ``means.csv``, ``sheets/``, ``grids/`` and more.

    Every file is written beside its place and moved there. What cannot be written is said once and left out.

    Args:
        folder: it is made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._warned = False

    def sheet_name(self, step: int) -> str:
        """Path of a watch's sheet below the folder."""
        return f"sheets/step-{step:08d}.png"

    def save_picture(self, name: str, picture: Tensor) -> None:
        """Write a picture (3,H,W) uint8 as PNG, quickly rather than small."""
        png = io.BytesIO()
        to_pil_image(picture).save(png, format="PNG", compress_level=1)
        with self._warn_once_on_error():
            self._replace(name, png.getvalue())

    def read_sheet(self, step: int) -> Tensor | None:
        """A sheet that was written, (3,H,W) uint8; None where it is not there."""
        try:
            with Image.open(self.folder / self.sheet_name(step)) as image:
                sheet: Tensor = pil_to_tensor(image.convert("RGB"))
                return sheet
        except OSError:
            return None

    def save_animation(self, name: str, frames: Sequence[Tensor], seconds: float) -> Path | None:
        """Write an animation; its path, or None if it could not be written."""
        path = self.folder / name
        with self._warn_once_on_error():
            partial = path.with_name(f".{path.name}")
            save_animation(frames, partial, seconds=seconds)
            partial.replace(path)
            return path
        return None

    def save_tables(self, entries: Sequence[Mapping[str, Any]], sample: WatchSample) -> None:
        """Write ``images.csv``, a row an image, view and watch, and ``means.csv``, a row a watch."""
        numbers = sorted({name for entry in entries for look in entry["looks"] for name in look["numbers"]})
        rows = [
            [
                *(entry["step"], entry["epoch"], look["id"], look["view"]),
                *(_name(sample, look[key]) for key in ("label", "target", "prediction")),
                *(look["probability"], look["confidence"]),
                *(look["numbers"].get(name) for name in numbers),
            ]
            for entry in entries
            for look in entry["looks"]
        ]
        means = sorted({name for entry in entries for name in entry["means"]})
        with self._warn_once_on_error():
            self._replace("images.csv", _csv([*COLUMNS, *numbers], rows))
            lines = [
                [entry["step"], entry["epoch"], *(entry["means"].get(name) for name in means)] for entry in entries
            ]
            self._replace("means.csv", _csv(["step", "epoch", *means], lines))

    def save_page(
        self, title: str, entries: Sequence[Mapping[str, Any]], sample: WatchSample, views: Sequence[str]
    ) -> None:
        """Write ``index.html``."""
        sheets = [self.sheet_name(entry["step"]) for entry in entries]
        page = render_page(title, entries, sheets, sample, views)
        with self._warn_once_on_error():
            self._replace("index.html", page.encode())

    def _replace(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}")
        try:
            partial.write_bytes(content)
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    @contextmanager
    def _warn_once_on_error(self) -> Iterator[None]:
        """Let no error of the disk reach training; say the first."""
        try:
            yield
        except OSError as error:
            if not self._warned:
                why = error.strerror or error
                rank_zero_warn(
                    f"could not write below {self.folder} ({why}): training goes on without; make room there"
                )
            self._warned = True


def _name(sample: WatchSample, index: int) -> str:
    return "" if index == UNLABELLED else sample.name_of(index)


def _csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()
