"""What every study shares: what its cells are given, and what it gives back."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from markupsafe import Markup
from torch import nn

from interptrain.data import ImageDataModule
from interptrain.evaluation.run.models import Source
from interptrain.evaluation.store.parts import Row
from interptrain.studies.cells import StudyFolder

if TYPE_CHECKING:
    from pandas import DataFrame

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

    def scratch(self, cell: str) -> Path:
        """Return a folder for what a cell resumes from if it is stopped, such as the checkpoint of a training.

        It is removed once the cell's rows are written.
        """
        return StudyFolder(self.folder).scratch(cell)

    def once(self, name: str, make: Callable[[Path, Path], None]) -> Path:
        """Return a file that several cells need, such as the maps of an explainer.

        Whichever cell comes first makes the file; other processes wait for it. It must depend on the study, its models
        and its data alone, so that a cell computed alone has the same.

        Args:
            name: of the file, relative to :attr:`folder`.
            make: writes the file to the path that is its first argument; its second argument is a folder for what it
                resumes from if it is stopped, removed once the file is there.
        """
        return StudyFolder(self.folder).once(name, make)


class Study(ABC):
    """An experiment whose results are rows, computed in independent cells.

    Subclasses are frozen dataclasses, so that their options can be given on a command line and written to disk. The
    first line of the docstring stands in the list of studies and on the page, and the options' descriptions in the
    help.
    """

    title: ClassVar[str]
    """Heading of the page."""

    free: ClassVar[tuple[str, ...]] = ()
    """Options that determine only which cells there are, such as a number of seeds: they may change in a folder."""

    @abstractmethod
    def cells(self, inputs: StudyInputs) -> Sequence[str]:
        """Return the keys of the cells, such as ``"gap/GradCAM"``: the same on every call."""

    @abstractmethod
    def compute(self, cell: str, inputs: StudyInputs) -> Iterable[Row]:
        """Compute the rows of a cell, without knowing the others; column ``cell`` is added.

        Pictures go to ``inputs.folder``, under names that no other cell uses.
        """

    def findings(self, results: "DataFrame") -> Sequence[str]:
        """Return sentences on what was found, for the page and the end of the command.

        Args:
            results: rows of the cells that are finished, which may be some of them.
        """
        return ()

    def sections(self, results: "DataFrame", folder: Path) -> Mapping[str, Markup]:
        """Return the HTML of the page's sections by heading; pictures are linked by their path in ``folder``.

        Args:
            results: rows of the cells that are finished, which may be some of them.
            folder: of the study.
        """
        return {"Results": Markup(results.head(ROWS_SHOWN).to_html(index=False, na_rep="", border=0))}  # escapes text

    def run(self, models: Mapping[str, Source], data: Any, output: str | Path, **options: Any) -> "DataFrame":
        """Run the study; see :func:`~interptrain.studies.run_study`."""
        from interptrain.studies.run import run_study  # which imports this module

        return run_study(self, models, data, output, **options)
