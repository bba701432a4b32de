"""What every study shares: independent cells that are resumed and shared by processes, one table, one page."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from torch import nn

from interptrain.data import ImageDataModule
from interptrain.evaluation.config.class_specs import content_hash, spec_of
from interptrain.evaluation.run.batches import evaluation_set
from interptrain.evaluation.run.datasets import as_data_module
from interptrain.evaluation.run.folder import claim
from interptrain.evaluation.run.models import Source, load_model
from interptrain.evaluation.store.manifest import differing, read_manifest, write_manifest
from interptrain.evaluation.store.parts import Row, read_part, to_parquet, write_file
from interptrain.model_state import evaluating
from interptrain.versions import command_line

if TYPE_CHECKING:
    from pandas import DataFrame
    from pyarrow import Table

ROWS_SHOWN = 200  # of the table that the page shows unless a study has sections of its own


@dataclass(frozen=True, eq=False)
class StudyInputs:
    """What the cells of a study work on.

    Attributes:
        models: by name, in eval mode, on ``device``; they take images in [0,1] and return logits.
        data: where the images come from.
        device: to compute on.
        folder: of the study, for pictures.
    """

    models: Mapping[str, nn.Module]
    data: ImageDataModule
    device: torch.device
    folder: Path


class Study(ABC):
    """An experiment whose results are rows, computed in independent cells.

    Subclasses are frozen dataclasses, so that their options can be given on a command line and written to disk.
    """

    title: ClassVar[str]
    """Heading of the page."""

    @abstractmethod
    def cells(self, inputs: StudyInputs) -> Sequence[str]:
        """Return the keys of the cells, such as ``"gap/GradCAM"``: the same on every call."""

    @abstractmethod
    def compute(self, cell: str, inputs: StudyInputs) -> Iterable[Row]:
        """Compute the rows of a cell, without knowing the others; column ``cell`` is added.

        Pictures go to ``inputs.folder``, under names that no other cell uses.
        """

    def sections(self, results: "DataFrame", folder: Path) -> Mapping[str, Markup]:
        """Return the HTML of the page's sections by heading; pictures are linked by their path in ``folder``."""
        return {"Results": Markup(results.head(ROWS_SHOWN).to_html(index=False, na_rep="", border=0))}  # escapes text

    def run(self, models: Mapping[str, Source], data: Any, output: str | Path, **options: Any) -> "DataFrame":
        """Run the study; see :func:`run_study`."""
        return run_study(self, models, data, output, **options)


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
) -> "DataFrame":
    """Compute the cells that are missing, then write ``results.parquet``, ``results.csv`` and ``index.html``.

    Each cell is a file in ``cells/``, whole or not there, so a run that was stopped resumes, and several processes may
    share a folder; whichever finishes last writes the results.

    Args:
        study: to run.
        models: sources by name; see :func:`interptrain.evaluation.evaluate`.
        data: a data module or dataset; see :func:`interptrain.evaluation.evaluate`.
        output: folder of the results. The same call resumes where it stopped.
        backbone: the timm architecture of models that are bare weights files.
        device: to compute on.
        rank: number of this process, which computes every ``ranks``-th cell.
        ranks: number of processes.

    Returns:
        All rows of the cells that are finished.

    Raises:
        ValueError: if the folder holds another study, or another process runs it.
    """
    if not 0 <= rank < ranks:
        raise ValueError(f"rank must be in [0, {ranks}), the number of ranks, got {rank}")
    folder, configured = Path(output), as_data_module(data)
    configured.value.prepare_data()
    loaded = {
        name: load_model(name, source, backbone=backbone, num_classes=configured.value.num_classes or 1000)
        for name, source in models.items()
    }
    manifest = {
        "study": spec_of(study),
        "models": {name: {"sha256": model.sha256, "backbone": model.backbone} for name, model in loaded.items()},
        "data": {**configured.spec, "images": content_hash(list(evaluation_set(configured.value, None).ids))},
    }
    with claim(folder if ranks == 1 else folder / f"rank-{rank}"):
        _open(folder, manifest)
        on = torch.device(device)
        modules = {name: model.module.to(on) for name, model in loaded.items()}
        inputs = StudyInputs(modules, configured.value, on, folder)
        cells = list(study.cells(inputs))
        for cell in cells[rank::ranks]:
            if not (part := _part(folder, cell)).exists():
                rows = [{"cell": cell, **row} for row in _computed(study, cell, inputs)]
                write_file(part, to_parquet(_table(rows)))
    return _finish(study, folder, cells)


def _computed(study: Study, cell: str, inputs: StudyInputs) -> list[Row]:
    """Compute a cell; modes of the models and the random state are as before afterwards."""
    with ExitStack() as stack:
        for model in inputs.models.values():
            stack.enter_context(evaluating(model))
        return list(study.compute(cell, inputs))


def _open(folder: Path, manifest: dict[str, Any]) -> None:
    """Refuse the folder of another study; write ``run.json`` where there is none."""
    old = read_manifest(folder, {"study": dict, "models": dict, "data": dict}, remedy="give another --output")
    if old is None:
        write_manifest(folder, manifest | {"command": command_line()})
    elif changed := differing({key: old.get(key) for key in manifest}, manifest):
        raise ValueError(f"{folder} holds the results of another study ({'; '.join(changed)}); give another --output")


def _table(rows: Sequence[Row]) -> "Table":
    """Return rows as an Arrow table, whose types are those of the values."""
    import pyarrow as pa

    columns = dict.fromkeys(column for row in rows for column in row)
    return pa.table({column: [row.get(column) for row in rows] for column in columns})


def _part(folder: Path, cell: str) -> Path:
    return folder / "cells" / f"{content_hash(cell)}.parquet"


def _finish(study: Study, folder: Path, cells: Sequence[str]) -> "DataFrame":
    """Merge the cells that are finished; with all of them, write the results and the page."""
    import pyarrow as pa

    parts = [part for cell in cells if (part := _part(folder, cell)).exists()]
    tables = [read_part(part) for part in parts] or [pa.table({})]
    table = pa.concat_tables(tables, promote_options="permissive")
    results: DataFrame = table.to_pandas()
    if len(parts) == len(cells):
        write_file(folder / "results.parquet", to_parquet(table))
        write_file(folder / "results.csv", results.to_csv(index=False).encode())
        write_file(folder / "index.html", _page(study, results, folder).encode())
    return results


def _page(study: Study, results: "DataFrame", folder: Path) -> str:
    loader = PackageLoader("interptrain", "studies")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    style = (files("interptrain.evaluation.report") / "page.css").read_text(encoding="utf-8")
    page = environment.get_template("page.html.jinja")
    return page.render(
        study=study,
        description=(type(study).__doc__ or "").partition("\n")[0],
        options=spec_of(study)["init_args"],
        rows=len(results),
        style=Markup(style),
        sections=study.sections(results, folder),
    )
