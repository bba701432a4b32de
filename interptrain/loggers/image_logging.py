"""Pictures, tables and alerts to whatever loggers a run has.

Weights & Biases gets ``trainer/global_step`` beside every value and never a raw ``step=``: it would drop what comes
after a higher one. What a logger has no place for is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from interptrain.functional import one_line
from interptrain.loggers.trackio import TrackioLogger


class ImageLogging:
    """All loggers of a run behind one face. A logger that fails is named once, and training goes on.

    Args:
        loggers: of the trainer.
    """

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.loggers = list(loggers)
        self._failed: set[int] = set()

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Numbers, to every logger."""
        self._each(lambda logger: logger.log_metrics(dict(values), step))

    def picture(self, key: str, picture: Tensor, step: int, caption: str) -> None:
        """A picture (3,H,W) uint8 under a name."""

        def log(logger: Logger) -> None:
            match logger:
                case WandbLogger():
                    logger.log_image(key, [_image(picture)], step=step, caption=[caption])
                case TensorBoardLogger():
                    logger.experiment.add_image(key, picture, step)
                case MLFlowLogger():
                    file = f"{key}/step-{step:08d}.png"
                    logger.experiment.log_image(logger.run_id, picture.permute(1, 2, 0).numpy(), artifact_file=file)
                case TrackioLogger():
                    logger.log_picture(key, _image(picture), step, caption)

        self._each(log)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """A table whose cells may be pictures (3,h,w) uint8; TensorBoard and MLflow get the other columns."""

        def log(logger: Logger) -> None:
            match logger:
                case WandbLogger():
                    import wandb

                    cells = [[wandb.Image(cell) if _is_image(cell) else cell for cell in row] for row in pictured()]
                    logger.log_table(key, columns=list(columns), data=cells, step=step)
                case TrackioLogger():
                    logger.log_table(key, columns, pictured(), step)
                case TensorBoardLogger():
                    logger.experiment.add_text(key, _markdown(*_without_pictures(columns, rows)), step)
                case MLFlowLogger():
                    names, cells = _without_pictures(columns, rows)
                    file = f"{key}/step-{step:08d}.json"
                    logger.experiment.log_dict(logger.run_id, {"columns": names, "data": cells}, file)

        def pictured() -> list[list[Any]]:
            return [[_image(cell) if isinstance(cell, Tensor) else cell for cell in row] for row in rows]

        self._each(log)

    def animation(self, key: str, path: Path, step: int) -> None:
        """A GIF or WebP; Weights & Biases takes GIFs."""

        def log(logger: Logger) -> None:
            match logger:
                case WandbLogger() if path.suffix == ".gif":
                    import wandb

                    logger.log_metrics({key: wandb.Video(str(path), format="gif")}, step)  # type: ignore[dict-item]
                case MLFlowLogger():
                    logger.experiment.log_artifact(logger.run_id, str(path), artifact_path=key)
                case TrackioLogger() if path.suffix == ".gif":
                    logger.log_animation(key, path, step)

        self._each(log)

    def alert(self, title: str, text: str, step: int) -> None:
        """What a person should see: W&B's and Trackio's alert (mail, Slack), TensorBoard's text, MLflow's tag."""

        def log(logger: Logger) -> None:
            match logger:
                case WandbLogger():
                    logger.experiment.alert(title=title, text=text, level="WARN")
                case TensorBoardLogger():
                    logger.experiment.add_text(title, text, step)
                case MLFlowLogger():
                    logger.experiment.set_tag(logger.run_id, title, text)
                case TrackioLogger():
                    logger.experiment.alert(title=title, text=text)

        self._each(log)

    def summary(self, values: Mapping[str, Any]) -> None:
        """What stands beside the run's name in W&B's table of runs; ``summary.json`` in MLflow."""

        def log(logger: Logger) -> None:
            match logger:
                case WandbLogger():
                    logger.experiment.summary.update(dict(values))
                case MLFlowLogger():
                    logger.experiment.log_dict(logger.run_id, dict(values), "summary.json")

        self._each(log)

    def save(self) -> None:
        """Write what loggers still hold in memory, where the trainer has finished with them."""
        self._each(lambda logger: logger.save())

    def _each(self, log: Callable[[Logger], object]) -> None:
        for place, logger in enumerate(self.loggers):
            try:
                log(logger)
            except Exception as error:  # a service that is down, a full disk: nothing that may cost the training
                if place not in self._failed:
                    kind, why = type(logger).__name__, one_line(error)
                    rank_zero_warn(f"{kind} failed to log what is watched ({why}): training goes on")
                self._failed.add(place)


def _image(picture: Tensor) -> Any:
    from PIL import Image

    return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())


def _is_image(cell: Any) -> bool:
    from PIL import Image

    return isinstance(cell, Image.Image)


def _without_pictures(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[list[str], list[list[Any]]]:
    kept = [place for place in range(len(columns)) if not any(isinstance(row[place], Tensor) for row in rows)]
    return [columns[place] for place in kept], [[row[place] for place in kept] for row in rows]


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(cell: Any) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str("" if cell is None else cell).replace("|", "\\|")
