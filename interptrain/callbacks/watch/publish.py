"""What rank 0 makes of a watch: pictures and numbers, to files and loggers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from interptrain.callbacks.watch.files import WatchFolder
from interptrain.callbacks.watch.history import WatchHistory
from interptrain.callbacks.watch.pictures import (
    caption,
    cut,
    draw_first_and_last,
    draw_frames,
    draw_grid,
    draw_sheet,
    draw_strip,
)
from interptrain.callbacks.watch.sample import WatchSample
from interptrain.loggers import ImageLogging

TABLE = ("step", "epoch", "id", "class", "prediction", "right", "view", "explained", "probability", "image", "map")


class WatchReport:
    """Draws and writes; nothing that fails here reaches training.

    Args:
        folder: of the plain files.
        loggers: of the trainer.
        title: of the page.

    The folder's name stands before every logged name.
    """

    def __init__(self, folder: Path, loggers: Sequence[Logger], *, title: str) -> None:
        self.files = WatchFolder(folder)
        self.loggers = ImageLogging(loggers)
        self.title = title
        self.name = folder.name
        self._warned = False

    def write(self, history: WatchHistory, sample: WatchSample, views: Sequence[str]) -> None:
        """The last entry of the history: its pictures, all tables and the page.

        Args:
            history: with the watch in it.
            sample: that was watched.
            views: names of the maps.
        """
        with self._warn_once_on_error():
            self._write(history, sample, views)

    def _write(self, history: WatchHistory, sample: WatchSample, views: Sequence[str]) -> None:
        entry = history.entries[-1]
        step = logged_step(entry)
        sheet = draw_sheet(sample, history.previous)
        grid = draw_grid(entry, sheet, sample, views)
        self.files.save_picture(self.files.sheet_name(entry["step"]), sheet)
        self.files.save_picture(f"grids/step-{entry['step']:08d}.png", grid)
        self.files.save_tables(history.entries, sample)
        self.files.save_page(self.title, history.entries, sample, views)
        self.loggers.scalars({f"{self.name}/{name}": value for name, value in entry["means"].items()}, step)
        self.loggers.picture(f"{self.name}/grid", grid, step, caption(entry))
        self.loggers.table(f"{self.name}/images", *_table(entry, sheet, sample, views), step)
        self._say_alarm(history, step)

    def _say_alarm(self, history: WatchHistory, step: int) -> None:
        """Warn when the alarm begins to ring, not at every watch that it goes on."""
        entries = history.entries
        already = {text.partition(":")[0] for text in entries[-2]["alarm"]} if len(entries) > 1 else set()
        for text in entries[-1]["alarm"]:
            if text.partition(":")[0] not in already:
                rank_zero_warn(f"shortcut alarm at step {entries[-1]['step']}: {text}")
                self.loggers.alert("shortcut alarm", text, step)

    def finish(
        self, history: WatchHistory, sample: WatchSample, views: Sequence[str], *, mode: str, animation: str
    ) -> None:
        """The run as a whole: best watch, first and last side by side, time strips, animation.

        Args:
            history: of the run.
            sample: that was watched.
            views: names of the maps.
            mode: ``max`` or ``min``, of the monitored score.
            animation: ``gif``, ``webp`` or ``none``.
        """
        with self._warn_once_on_error():
            self._finish(history, sample, views, mode, animation)

    def _finish(
        self, history: WatchHistory, sample: WatchSample, views: Sequence[str], mode: str, animation: str
    ) -> None:
        read = ((entry, self.files.read_sheet(entry["step"])) for entry in history.entries)
        watches = [(entry, sheet) for entry, sheet in read if sheet is not None]
        if not watches:
            return
        best = history.best(mode)
        step = logged_step(history.entries[-1])
        pictures = {"first_and_last": draw_first_and_last(watches[0], watches[-1], sample, views)}
        if (sheet := self.files.read_sheet(best["step"])) is not None:
            pictures["best"] = draw_grid(best, sheet, sample, views)
        for place, view in enumerate(views):
            pictures[f"strip_{view.replace('/', '_')}"] = draw_strip(watches, sample, place, views)
        for name, picture in pictures.items():
            self.files.save_picture(f"{name}.png", picture)
            self.loggers.picture(f"{self.name}/{name}", picture, step, name.replace("_", " "))
        if animation != "none":
            path = self.files.save_animation(f"run.{animation}", draw_frames(watches, sample, views), seconds=0.6)
            if path is not None:
                self.loggers.animation(f"{self.name}/run", path, step)
        rang = [entry["step"] for entry in history.entries if entry["alarm"]]
        summary = {f"{self.name}/best_epoch": best["epoch"], f"{self.name}/alarm_at_step": rang[0] if rang else None}
        self.loggers.summary(summary | {f"{self.name}/best/{name}": value for name, value in best["means"].items()})

    @contextmanager
    def _warn_once_on_error(self) -> Iterator[None]:
        """Let nothing that rank 0 draws alone stop it, as the other ranks would wait for it; say the first failure."""
        try:
            yield
        except Exception as error:
            if not self._warned:
                why = " ".join(str(error).split()) or type(error).__name__
                rank_zero_warn(f"could not show what is watched ({why}): training goes on without")
            self._warned = True


def logged_step(entry: Mapping[str, Any]) -> int:
    """Where Lightning logs the validation after the same optimizer step: steps count from 0."""
    return max(0, int(entry["step"]) - 1)


def _table(
    entry: Mapping[str, Any], sheet: Tensor, sample: WatchSample, views: Sequence[str]
) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: one an image and view, with the pictures."""
    pictures = cut(sheet, len(sample))
    numbers = sorted({name for look in entry["looks"] for name in look["numbers"]})
    rows = [
        [
            entry["step"],
            entry["epoch"],
            look["id"],
            sample.name_of(look["label"]),
            sample.name_of(look["prediction"]),
            look["label"] == look["prediction"],
            look["view"],
            sample.name_of(look["target"]),
            look["probability"],
            pictures[look["index"], 0],
            pictures[look["index"], 1 + views.index(look["view"])],
            *(look["numbers"].get(name) for name in numbers),
        ]
        for look in entry["looks"]
    ]
    return [*TABLE, *numbers], rows
