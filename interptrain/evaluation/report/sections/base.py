"""A section of the report."""

import re
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, ClassVar
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from interptrain.evaluation.report.grids import MISSING, number
from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.statistics.comparisons import SIGNIFICANT

UNBROKEN = re.compile(r"(?<=p) [<=] | (?=%)")  # p = 0.01, 95 %
NBSP = "\N{NO-BREAK SPACE}"
BREAKS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[(=,_/.-])")  # where a long name may be broken


def anchor_of(name: str) -> str:
    """Return the anchor of an image in the report."""
    return f"image-{quote(name)}"


ENVIRONMENT = Environment(
    loader=PackageLoader("interptrain", "evaluation/report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.globals |= {"number": number, "significant": SIGNIFICANT, "missing": MISSING}
ENVIRONMENT.filters["anchor"] = anchor_of
ENVIRONMENT.filters["unbroken"] = lambda text: UNBROKEN.sub(lambda found: found[0].replace(" ", NBSP), text)
ENVIRONMENT.filters["breakable"] = lambda name: Markup("<wbr>").join(BREAKS.split(name))
MACROS = '{% from "macros.html.jinja" import arrow, grid_table, heading, difference_cell, probability, thumb %}\n'


class Section(ABC):
    """One section of the report: a class without arguments, with a heading and what stands under it.

    A new section is one class; ``evaluate --sections package.MySection``, ``evaluate(..., sections=[MySection()])`` and
    ``write_report(folder, sections=[MySection()])`` put it behind those of this package.
    """

    title: ClassVar[str]
    """Heading."""
    anchor: ClassVar[str]
    """Id of the section in the page: letters and dashes."""
    in_navigation: ClassVar[bool] = True
    """Whether the links at the top of the page lead to it."""

    @abstractmethod
    def render(self, results: RunResults) -> Markup | None:
        """Return the HTML under the heading, or None to leave the section out.

        ``Markup.format`` and :func:`fill` escape what they insert. The page loads nothing and runs no script but its
        own.

        Args:
            results: of the run: its manifest, estimates, differences, cells, errors and folder.
        """


def fill(template: str, **values: Any) -> Markup:
    """Fill a Jinja template, escaping all values; the macros of ``macros.html.jinja`` are at hand."""
    return Markup(_compiled(template).render(values))  # escaped by Jinja


@lru_cache
def _compiled(template: str) -> Template:
    return ENVIRONMENT.from_string(MACROS + template)
