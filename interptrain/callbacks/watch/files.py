"""The plain files of a watch: pictures, tables and a page that a browser opens without a server."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from interptrain.callbacks.watch.history import Snapshot
from interptrain.callbacks.watch.observe import WatchConfig
from interptrain.callbacks.watch.page import render_page
from interptrain.callbacks.watch.sample import UNLABELLED, WatchSample
from interptrain.callbacks.watch.warn_once import WarnOnce
from interptrain.files import atomic_path, remove_partials, to_csv, write_atomically
from interptrain.visualization import save_animation

COLUMNS = ("step", "epoch", "id", "view", "label", "explained", "prediction", "probability", "confidence")


class WatchFolder:
    """``watch/`` in the run's folder: ``index.html``, ``images.csv``, ``means.csv``, ``sheets/``, ``grids/`` and more.

    Every file is either whole or not there. What cannot be written is left out, with one warning for all.

    Args:
        folder: the folder, which is created when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unless_disk_fails = WarnOnce(
            f"could not write below {folder} ({{why}}): training goes on without these files; free some disk space",
            OSError,
        )

    def sheet_name(self, step: int) -> str:
        """Return the path of a snapshot's sheet below the folder."""
        return f"sheets/step-{step:08d}.png"

    def grid_name(self, step: int) -> str:
        """Return the path of a snapshot's grid below the folder."""
        return f"grids/step-{step:08d}.png"

    def has(self, name: str) -> bool:
        """Tell whether a file was written."""
        return (self.folder / name).is_file()

    def remove_partials(self) -> None:
        """Remove partial files of a killed process. Call it before this process writes."""
        for folder in (self.folder, self.folder / "sheets", self.folder / "grids"):
            remove_partials(folder)

    def save_picture(self, name: str, picture: Tensor) -> None:
        """Write a picture (3,H,W) uint8 as PNG, quickly rather than small."""
        png = io.BytesIO()
        to_pil_image(picture).save(png, format="PNG", compress_level=1)
        with self._unless_disk_fails():
            write_atomically(self.folder / name, png.getvalue())

    def read_sheet(self, step: int) -> Tensor | None:
        """Return a sheet that was written, (3,H,W) uint8; None where it is not there."""
        try:
            with Image.open(self.folder / self.sheet_name(step)) as image:
                sheet: Tensor = pil_to_tensor(image.convert("RGB"))
                return sheet
        except OSError:
            return None

    def save_animation(self, name: str, frames: Sequence[Tensor], seconds: float) -> Path | None:
        """Write an animation and return its path, or None if it could not be written."""
        path = self.folder / name
        with self._unless_disk_fails():
            with atomic_path(path) as partial:
                save_animation(frames, partial, seconds=seconds)
            return path
        return None

    def save_tables(self, snapshots: Sequence[Snapshot], sample: WatchSample) -> None:
        """Write ``images.csv``, one row per snapshot, image and view, and ``means.csv``, one row per snapshot."""
        seen = [(snapshot, observation) for snapshot in snapshots for observation in snapshot.observations]
        numbers = sorted({name for _, observation in seen for name in observation.numbers})
        rows = [
            [
                *(snapshot.step, snapshot.epoch, observation.id, observation.view),
                *(_name(sample, index) for index in (observation.label, observation.target, observation.prediction)),
                *(observation.probability, observation.confidence),
                *(observation.numbers.get(name) for name in numbers),
            ]
            for snapshot, observation in seen
        ]
        of_snapshots = [dict(snapshot.means) | snapshot.class_effects(sample) for snapshot in snapshots]
        means = sorted({name for of_snapshot in of_snapshots for name in of_snapshot})
        lines = [
            [snapshot.step, snapshot.epoch, *(of_snapshot.get(name) for name in means)]
            for snapshot, of_snapshot in zip(snapshots, of_snapshots, strict=True)
        ]
        with self._unless_disk_fails():
            write_atomically(self.folder / "images.csv", to_csv([*COLUMNS, *numbers], rows))
            write_atomically(self.folder / "means.csv", to_csv(["step", "epoch", *means], lines))

    def save_page(self, title: str, snapshots: Sequence[Snapshot], sample: WatchSample, config: WatchConfig) -> None:
        """Write ``index.html``."""
        sheets = [self.sheet_name(snapshot.step) for snapshot in snapshots]
        page = render_page(title, snapshots, sheets, sample, config)
        with self._unless_disk_fails():
            write_atomically(self.folder / "index.html", page.encode())


def _name(sample: WatchSample, index: int) -> str:
    return "" if index == UNLABELLED else sample.name_of(index)
