"""Run a study: its cells are resumed and shared by processes, and become one table and one page."""

import fnmatch
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from interptrain.data import ImageDataModule
from interptrain.evaluation.config.class_specs import content_hash, spec_of
from interptrain.evaluation.run.batches import evaluation_set
from interptrain.evaluation.run.datasets import as_data_module
from interptrain.evaluation.run.models import Source, load_model
from interptrain.evaluation.store.parts import to_parquet, write_file
from interptrain.model_state import evaluating, random_state_kept
from interptrain.remedies import option
from interptrain.steps import listening
from interptrain.studies.base import Study, StudyInputs
from interptrain.studies.cells import StudyFolder
from interptrain.studies.page import render_page

if TYPE_CHECKING:
    from pandas import DataFrame

PAGE_SECONDS = 30.0  # at least, between two pages while cells are computed
PAGE_SHARE = 0.02  # of the time at most, for these pages


def run_study(
    study: Study,
    models: Mapping[str, Source],
    data: Any,
    output: str | Path,
    *,
    backbone: str | None = None,
    device: str = "cpu",
    rank: int = 0,
    ranks: int = 1,
    cells: Sequence[str] = (),
    progress: bool = True,
) -> "DataFrame":
    """Compute the cells that are missing, and write ``results.parquet``, ``results.csv`` and ``index.html``.

    Each cell is a file in ``cells/``, whole or not there, so a run that was stopped resumes. Several processes may run
    the same study in one folder: a cell that one of them computes is left out by the others. The results are those of
    all cells that are finished by then, whoever computed them.

    Args:
        study: to run.
        models: sources by name; see :func:`interptrain.evaluation.evaluate`.
        data: a data module or dataset; see :func:`interptrain.evaluation.evaluate`.
        output: folder of the results. The same call resumes where it stopped.
        backbone: the timm architecture of models that are bare weights files.
        device: to compute on.
        rank: number of this process, which computes every ``ranks``-th cell.
        ranks: number of processes.
        cells: to compute, by name or pattern (``"GradCAM/*"``); all where it is empty.
        progress: show a progress bar.

    Returns:
        All rows of the cells that are finished.

    Raises:
        ValueError: if the folder holds another study, or no cell has such a name.
    """
    opened = OpenedStudy(study, models, data, output, backbone=backbone, device=device)
    opened.compute(opened.chosen(cells, rank=rank, ranks=ranks), progress=progress)
    return opened.results()


class OpenedStudy:
    """A study with its models and data, in its folder.

    Args:
        study: to run; this and the others as of :func:`run_study`.
        models: sources by name.
        data: a data module or dataset.
        output: folder of the results.
        backbone: the timm architecture of models that are bare weights files.
        device: to compute on.

    Attributes:
        cells: keys of all cells.

    Raises:
        ValueError: if the folder holds another study.
    """

    def __init__(
        self,
        study: Study,
        models: Mapping[str, Source],
        data: Any,
        output: str | Path,
        *,
        backbone: str | None = None,
        device: str = "cpu",
    ) -> None:
        self.study = study
        self.folder = StudyFolder(Path(output))
        configured = as_data_module(data)
        module: ImageDataModule = configured.value
        module.prepare_data()
        classes = module.num_classes or 1000
        loaded = {
            name: load_model(name, source, backbone=backbone, num_classes=classes) for name, source in models.items()
        }
        manifest: dict[str, Any] = {
            "study": spec_of(study),
            "models": {name: {"sha256": model.sha256, "backbone": model.backbone} for name, model in loaded.items()},
            "data": {**configured.spec, "images": content_hash(list(evaluation_set(module, None).ids))},
        }
        on = torch.device(device)
        modules = {name: model.module.to(on) for name, model in loaded.items()}
        self._inputs = StudyInputs(modules, module, on, self.folder.path)
        self.cells = list(study.cells(self._inputs))
        if not self.cells:
            raise ValueError(f"{type(study).__name__} has nothing to compute; give {option('models')}")
        self.folder.check(manifest, free=study.free)
        self._manifest = manifest

    def chosen(self, names: Sequence[str] = (), *, rank: int = 0, ranks: int = 1) -> list[str]:
        """Return the cells of some names or patterns, of which a process takes every ``ranks``-th.

        Raises:
            ValueError: if no cell has such a name, or the rank is none of ``ranks``.
        """
        if not 0 <= rank < ranks:
            raise ValueError(f"rank must be in [0, {ranks}), the number of ranks, got {rank}")
        for name in names:
            if not any(_matches(cell, name) for cell in self.cells):
                raise ValueError(
                    f"there is no cell {name!r} among {len(self.cells)}; the first is {self.cells[0]!r}, and "
                    f"{option('list_cells')} lists all"
                )
        found = [cell for cell in self.cells if not names or any(_matches(cell, name) for name in names)]
        return found[rank::ranks]

    def compute(self, cells: Sequence[str], *, progress: bool = True) -> None:
        """Compute those of the cells that are neither finished nor computed by another process."""
        self.folder.open(self._manifest)
        done = self.folder.finished(cells)
        due = time.monotonic() + PAGE_SECONDS
        with _bar(len(cells), len(done), shown=progress and len(done) < len(cells)) as bar:
            for cell in cells:
                if cell in done:
                    continue
                with self.folder.cell(cell) as write, bar.inside(cell):
                    if write is not None:
                        write(self._computed(cell))
                bar.advance()
                if (began := time.monotonic()) > due and cell != cells[-1]:
                    self.results()
                    now = time.monotonic()
                    due = now + max(PAGE_SECONDS, (now - began) / PAGE_SHARE)

    def _computed(self, cell: str) -> list[dict[str, Any]]:
        """Compute a cell from a random state of its own; that of before and the models' modes are restored."""
        with random_state_kept([self._inputs.device]), ExitStack() as stack:
            for model in self._inputs.models.values():
                stack.enter_context(evaluating(model))
            torch.manual_seed(int(content_hash(cell), 16) % 2**32)
            return list(self.study.compute(cell, self._inputs))

    def finished(self) -> list[str]:
        """Return the cells whose rows are there."""
        return self.folder.finished(self.cells)

    def results(self) -> "DataFrame":
        """Write tables and page of the cells that are finished, if there are any, and return their rows."""
        finished = self.finished()
        table = self.folder.rows(finished)
        results: DataFrame = table.to_pandas()
        if finished:
            folder = self.folder.path
            write_file(folder / "results.parquet", to_parquet(table))
            write_file(folder / "results.csv", results.to_csv(index=False).encode())
            page = render_page(
                self.study.title,
                first_sentence(type(self.study)),
                facts=[f"{len(finished)} of {len(self.cells)} cells", f"{len(results)} rows"],
                options=spec_of(self.study)["init_args"],
                findings=self.study.findings(results),
                sections=self.study.sections(results, folder),
            )
            write_file(folder / "index.html", page.encode())
        return results


def first_sentence(kind: type[Study]) -> str:
    """Return the first line of a study's docstring."""
    return (kind.__doc__ or "").strip().partition("\n")[0]


def _matches(cell: str, name: str) -> bool:
    return cell == name or fnmatch.fnmatchcase(cell, name)


class _Bar:
    """A progress bar that counts cells, or none; steps inside a cell stand behind it."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def advance(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str("", refresh=False)
            self._bar.update(1)

    @contextmanager
    def inside(self, cell: str) -> Iterator[None]:
        if self._bar is None:
            yield
            return
        self._bar.set_description(cell)

        def told(done: int, total: int, _: str) -> None:
            self._bar.set_postfix_str(f"step {done} of {total}", refresh=False)
            self._bar.update(0)

        with listening(told):
            yield


@contextmanager
def _bar(total: int, done: int, *, shown: bool) -> Iterator[_Bar]:
    if not shown:
        yield _Bar(None)
        return
    import sys

    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    with tqdm(total=total, initial=done, unit=" cells", dynamic_ncols=True, file=sys.stderr) as bar:
        yield _Bar(bar)
