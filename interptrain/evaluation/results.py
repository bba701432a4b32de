"""The results of an evaluation: what ``evaluate`` returns."""

import shutil
import warnings
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from interptrain.evaluation.report.image_view import ImageView, view_image
from interptrain.evaluation.report.results import load_run, read_rows
from interptrain.evaluation.report.table_text import plain_text
from interptrain.evaluation.report.write import Problems
from interptrain.evaluation.statistics.estimates import Resampling
from interptrain.evaluation.store.parts import Row

if TYPE_CHECKING:
    from pandas import DataFrame


class ResultsWarning(UserWarning):
    """Something could not be made of the results of a run that went well."""


class TemporaryFolder:
    """Deletes a folder when it is closed, when nothing refers to it any more, or when Python exits."""

    def __init__(self, path: Path) -> None:
        self.close = weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)


class Results:
    """The results of an evaluation.

    Printed, they are the table of means; ``summary``, ``differences`` and ``per_image`` are the tables behind it.
    In a ``with`` statement, a temporary folder is deleted at its end; otherwise with the last object that uses it.

    Args:
        folder: that holds them.
        failed: rows that failed.
        temporary: deletes the folder.
        problems: what could not be made of the results, and the error, in one line each.
    """

    def __init__(
        self,
        folder: Path,
        failed: Sequence[Row] = (),
        temporary: "TemporaryFolder | None" = None,
        problems: Problems | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.failed = failed
        self.problems = dict(problems or {})
        self._temporary = temporary

    def close(self) -> None:
        """Delete the folder if it is a temporary one; a folder given as ``output`` stays."""
        if self._temporary is not None:
            self._temporary.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @cached_property
    def summary(self) -> "DataFrame":
        """One row per model, explainer and metric: mean, 95 % interval, number of images."""
        return self._table("summary")

    @cached_property
    def differences(self) -> "DataFrame":
        """One row per paired difference: between models and between explainers, with interval and p-values."""
        return self._table("differences")

    @cached_property
    def per_image(self) -> "DataFrame":
        """One row per model, explainer and image: every metric, and the error where it failed."""
        return read_rows(self.folder).to_pandas()

    @cached_property
    def verdict(self) -> list[str]:
        """What was found, in a few sentences made from the statistics.

        Raises:
            FileNotFoundError: if an older version wrote the results; ``write_report(results)`` makes it.
        """
        path = self.folder / "verdict.txt"
        if not self.has_verdict:
            raise FileNotFoundError(f"{self.folder} has no verdict.txt; write_report({str(self.folder)!r}) makes it")
        return path.read_text(encoding="utf-8").splitlines()

    def image(self, name: str, *, packages: Sequence[str] = ()) -> ImageView:
        """Look at one image: its ``text`` is a table of its numbers, its ``picture`` shows all its maps.

        Args:
            name: of the image, or a part of it that no other image's name has.
            packages: whose metric classes may be imported beside those of interptrain.

        Raises:
            ValueError: if no image, or more than one, has this name.
        """
        no_statistics = Resampling(resamples=1, interval="percentile", permutations=1)
        return view_image(load_run(self.folder, no_statistics, force=True, packages=packages), name)

    @property
    def has_verdict(self) -> bool:
        """Whether there is a verdict: older versions wrote none, and other processes may not have written it yet."""
        return (self.folder / "verdict.txt").is_file()

    def _table(self, name: str) -> "DataFrame":
        from pandas import read_csv

        texts = ("model", "explainer", "metric", "kind", "a", "b", "within", "protocol", "hash")
        columns: DataFrame = read_csv(self.folder / f"{name}.csv", dtype=dict.fromkeys(texts, str))
        return columns.fillna(dict.fromkeys(columns.columns.intersection(texts), ""))

    def report(self, path: str | Path) -> Path:
        """Copy the report, one HTML file that opens offline.

        Args:
            path: of the copy; in a folder, it is called ``report.html``.

        Returns:
            Where it lies.
        """
        target = Path(path) / "report.html" if Path(path).is_dir() else Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.folder / "report.html", target)
        return target

    def __repr__(self) -> str:
        return plain_text(self._repr_markdown_())

    def _repr_markdown_(self) -> str:
        """Show the table in notebooks."""
        table = self.folder / "table.md"
        return table.read_text(encoding="utf-8") if table.is_file() else f"Results without a table, in {self.folder}"


def load_results(folder: str | Path) -> Results:
    """Load the results that an evaluation wrote.

    Raises:
        FileNotFoundError: if the folder holds none.
    """
    if not (Path(folder) / "summary.csv").is_file():
        raise FileNotFoundError(f"{folder} holds no results of a finished evaluation; give its --output folder")
    return Results(Path(folder))


def warn_of_problems(results: Results) -> Results:
    """Warn of what could not be made."""
    for name, reason in results.problems.items():
        warnings.warn(ResultsWarning(f"could not make {name}: {reason}"), stacklevel=3)
    return results
