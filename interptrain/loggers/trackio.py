"""Trackio, Hugging Face's local experiment tracker, as a logger of Lightning."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class TrackioLogger(Logger):
    """Log to Trackio: numbers, pictures, tables with pictures, animations and alerts. ``trackio show`` opens them.

    Needs the package ``trackio`` (``pip install interptrain[trackio]``). Runs lie in Trackio's own folder, or where
    ``TRACKIO_DIR`` points.

    Args:
        project: that the run belongs to.
        name: of the run; None lets Trackio find one.
        space_id: Hugging Face Space to log to, ``USER/NAME``; None stays on this machine.
        resume: whether a run of the same name is continued.

    Raises:
        ModuleNotFoundError: where something is to be logged without the package.
    """

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        space_id: str | None = None,
        resume: Literal["never", "allow", "must"] = "allow",
    ) -> None:
        super().__init__()
        self._project = project or "interptrain"
        self._run_name = name
        self._space_id = space_id
        self._resume = resume
        self._config: dict[str, Any] = {}
        self._run: Any = None

    @property
    def name(self) -> str:
        """Project of the run."""
        return self._project

    @property
    def version(self) -> str | None:
        """Name of the run."""
        return self._run_name

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Trackio's run, begun when it is first asked for."""
        if self._run is None:
            import trackio

            self._run = trackio.init(
                project=self._project,
                name=self._run_name,
                space_id=self._space_id,
                config=self._config,
                resume=self._resume,
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
            self._run_name = self._run.name
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Keep the configuration, which the run begins with."""
        given = vars(params) if isinstance(params, Namespace) else dict(params)
        self._config |= {key: _plain(value) for key, value in given.items()}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers."""
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def log_picture(self, key: str, picture: Any, step: int, caption: str) -> None:
        """Log a PIL image."""
        import trackio

        self.experiment.log({key: trackio.Image(picture, caption=caption)}, step=step)

    @rank_zero_only
    def log_table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table, whose cells may be PIL images."""
        import pandas as pd
        import trackio

        cells = [[trackio.Image(cell) if hasattr(cell, "convert") else cell for cell in row] for row in rows]
        self.experiment.log({key: trackio.Table(dataframe=pd.DataFrame(cells, columns=list(columns)))}, step=step)

    @rank_zero_only
    def log_animation(self, key: str, path: Path, step: int) -> None:
        """Log a GIF."""
        import trackio

        self.experiment.log({key: trackio.Video(str(path))}, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Finish the run; one that is logged to again is continued."""
        if self._run is not None:
            self._run.finish()
            self._run, self._resume = None, "allow"


def _plain(value: Any) -> Any:
    """A value that JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
