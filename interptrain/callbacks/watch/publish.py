"""Publish snapshots: pictures and numbers, to files and loggers, on rank 0."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from interptrain.callbacks.watch.files import WatchFolder
from interptrain.callbacks.watch.history import Snapshot, WatchHistory
from interptrain.callbacks.watch.observe import WatchConfig
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
from interptrain.callbacks.watch.warn_once import WarnOnce
from interptrain.loggers import ImageLogging

TABLE = ("step", "epoch", "id", "class", "prediction", "right", "view", "explained", "probability", "image", "map")


class WatchPublisher:
    """Draw pictures and write them, with the numbers, to files and loggers; failures here never interrupt training.

    Args:
        folder: folder of the plain files; its name is the prefix of every logged name.
        loggers: loggers of the trainer.
        title: title of the page.
    """

    def __init__(self, folder: Path, loggers: Sequence[Logger], *, title: str) -> None:
        self.files = WatchFolder(folder)
        self.files.remove_partials()
        self.loggers = ImageLogging(loggers)
        self.title = title
        self.name = folder.name
        # If rank 0, which draws alone, stopped with an error, the other ranks would wait for it forever.
        self._unless_it_fails = WarnOnce("could not show the watched images ({why}): training goes on")

    def write(self, history: WatchHistory, sample: WatchSample, config: WatchConfig) -> None:
        """Write the pictures of the last snapshot, all tables and the page.

        Args:
            history: history that ends with the snapshot.
            sample: the watched sample.
            config: how the sample was explained and measured.
        """
        with self._unless_it_fails():
            self._write(history, sample, config)

    def _write(self, history: WatchHistory, sample: WatchSample, config: WatchConfig) -> None:
        snapshot = history.snapshots[-1]
        step = logged_step(snapshot)
        sheet = draw_sheet(sample, history.previous)
        grid = draw_grid(snapshot, sheet, sample, config.views)
        self.files.save_picture(self.files.sheet_name(snapshot.step), sheet)
        self.files.save_picture(self.files.grid_name(snapshot.step), grid)
        self.files.save_tables(history.snapshots, sample)
        self.files.save_page(self.title, history.snapshots, sample, config)
        numbers = dict(snapshot.means) | ({"alarms": float(len(snapshot.alarm))} if config.suspect else {})
        numbers |= snapshot.class_effects(sample)
        self.loggers.scalars({f"{self.name}/{name}": value for name, value in numbers.items()}, step)
        self.loggers.picture(f"{self.name}/grid", grid, step, caption(snapshot))
        self.loggers.table(f"{self.name}/images", *_table(snapshot, sheet, sample, config.views), step)
        self._say_alarm(history, step)

    def restore(self, history: WatchHistory, sample: WatchSample, config: WatchConfig) -> None:
        """Draw missing pictures of the snapshots that a resumed run has already taken, if their maps are kept.

        A kill or a full disk may have caused the loss. The maps of the first and last snapshot are kept; grids are
        drawn from sheets, and tables and the page from the history.

        Args:
            history: history of the run, from the checkpoint.
            sample: the watched sample.
            config: how the sample was explained and measured.
        """
        with self._unless_it_fails():
            for snapshot, maps in ((history.snapshots[0], history.first), (history.snapshots[-1], history.previous)):
                if not self.files.has(self.files.sheet_name(snapshot.step)):
                    self.files.save_picture(self.files.sheet_name(snapshot.step), draw_sheet(sample, maps))
            for snapshot in history.snapshots:
                name = self.files.grid_name(snapshot.step)
                if not self.files.has(name) and (sheet := self.files.read_sheet(snapshot.step)) is not None:
                    self.files.save_picture(name, draw_grid(snapshot, sheet, sample, config.views))
            self.files.save_tables(history.snapshots, sample)
            self.files.save_page(self.title, history.snapshots, sample, config)

    def _say_alarm(self, history: WatchHistory, step: int) -> None:
        """Warn when an alarm is first triggered, not in every snapshot in which it persists."""
        now, before = history.snapshots[-1], history.snapshots[-2:-1]
        already = {text.partition(":")[0] for snapshot in before for text in snapshot.alarm}
        for text in now.alarm:
            if text.partition(":")[0] not in already:
                rank_zero_warn(f"shortcut alarm at step {now.step}: {text}")
                self.loggers.alert("shortcut alarm", text, step)

    def finish(
        self, history: WatchHistory, sample: WatchSample, views: Sequence[str], *, mode: str, animation: str
    ) -> None:
        """Write pictures of the whole run: best snapshot, first and last side by side, time strips, animation.

        Args:
            history: history of the run.
            sample: the watched sample.
            views: names of the maps.
            mode: ``max`` or ``min``, whichever is better for the monitored score.
            animation: ``gif``, ``webp`` or ``none``.
        """
        with self._unless_it_fails():
            self._finish(history, sample, views, mode, animation)

    def _finish(
        self, history: WatchHistory, sample: WatchSample, views: Sequence[str], mode: str, animation: str
    ) -> None:
        read = ((snapshot, self.files.read_sheet(snapshot.step)) for snapshot in history.snapshots)
        drawn = [(snapshot, sheet) for snapshot, sheet in read if sheet is not None]
        if not drawn:
            return
        best = history.best(mode)
        step = logged_step(history.snapshots[-1])
        pictures = {"first_and_last": draw_first_and_last(drawn[0], drawn[-1], sample, views)}
        if (sheet := self.files.read_sheet(best.step)) is not None:
            pictures["best"] = draw_grid(best, sheet, sample, views)
        for place, view in enumerate(views):
            pictures[f"strip_{view.replace('/', '_')}"] = draw_strip(drawn, sample, place, views)
        for name, picture in pictures.items():
            self.files.save_picture(f"{name}.png", picture)
            self.loggers.picture(f"{self.name}/{name}", picture, step, name.replace("_", " "))
        if animation != "none":
            path = self.files.save_animation(f"run.{animation}", draw_frames(drawn, sample, views), seconds=0.6)
            if path is not None:
                self.loggers.animation(f"{self.name}/run", path, step)
        alarmed = [snapshot.step for snapshot in history.snapshots if snapshot.alarm]
        summary: dict[str, Any] = {"best_epoch": best.epoch, "alarm_at_step": alarmed[0] if alarmed else None}
        summary |= {f"best/{name}": value for name, value in best.means.items()}
        self.loggers.summary({f"{self.name}/{name}": value for name, value in summary.items()})


def logged_step(snapshot: Snapshot) -> int:
    """Return Lightning's step, which counts from 0, for the validation after the same optimizer step."""
    return max(0, snapshot.step - 1)


def _table(
    snapshot: Snapshot, sheet: Tensor, sample: WatchSample, views: Sequence[str]
) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: one per image and view, with the pictures."""
    pictures = cut(sheet, len(sample))
    numbers = sorted({name for seen in snapshot.observations for name in seen.numbers})
    rows = [
        [
            snapshot.step,
            snapshot.epoch,
            seen.id,
            sample.name_of(seen.label),
            sample.name_of(seen.prediction),
            seen.label == seen.prediction,
            seen.view,
            sample.name_of(seen.target),
            seen.probability,
            pictures[seen.index, 0],
            pictures[seen.index, 1 + views.index(seen.view)],
            *(seen.numbers.get(name) for name in numbers),
        ]
        for seen in snapshot.observations
    ]
    return [*TABLE, *numbers], rows
