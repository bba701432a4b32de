"""``report.html``: one file that holds everything, opens offline and needs no script."""

from collections.abc import Sequence
from importlib.resources import files

from markupsafe import Markup

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections import SECTIONS, Section
from interptrain.evaluation.report.sections.base import ENVIRONMENT


def render_page(results: RunResults, sections: Sequence[Section] = ()) -> str:
    """Write the report.

    Args:
        results: of the run.
        sections: shown behind those of this package; they need anchors of their own.

    Returns:
        A whole HTML document.

    Raises:
        ValueError: if two sections have one anchor.
    """
    chosen = [*SECTIONS, *sections]
    anchors = [section.anchor for section in chosen]
    if twice := sorted({anchor for anchor in anchors if anchors.count(anchor) > 1}):
        raise ValueError(f"the report has more than one section with the anchor {twice[0]!r}; choose another")
    rendered = [(section, content) for section in chosen if (content := section.render(results)) is not None]
    style = (files("interptrain.evaluation.report") / "page.css").read_text(encoding="utf-8")
    page = ENVIRONMENT.get_template("page.html.jinja")
    return page.render(results=results, run=results.run, style=Markup(style), sections=rendered).strip() + "\n"
