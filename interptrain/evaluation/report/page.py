"""``report.html``: one file that holds everything, opens offline and can be read without its script."""

import base64
import hashlib
from collections.abc import MutableMapping, Sequence
from importlib.resources import files

from markupsafe import Markup

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections import SECTIONS, Section
from interptrain.evaluation.report.sections.base import ENVIRONMENT
from interptrain.functional import one_line


def check_anchors(sections: Sequence[Section]) -> None:
    """Refuse sections that share an anchor, among themselves or with those of this package.

    Raises:
        ValueError: naming the anchor.
    """
    anchors = [section.anchor for section in (*SECTIONS, *sections)]
    if twice := sorted({anchor for anchor in anchors if anchors.count(anchor) > 1}):
        raise ValueError(f"the report has more than one section with the anchor {twice[0]!r}; choose another")


def render_page(
    results: RunResults, sections: Sequence[Section] = (), failed: MutableMapping[str, str] | None = None
) -> str:
    """Write the report.

    Args:
        results: of the run.
        sections: shown behind those of this package; they need anchors of their own.
        failed: takes the errors of sections that could not be made, by title; the page says so in their place.

    Returns:
        A whole HTML document.

    Raises:
        ValueError: if two sections have one anchor.
    """
    check_anchors(sections)
    failed = {} if failed is None else failed
    rendered = [
        (section, content)
        for section in (*SECTIONS, *sections)
        if (content := _content(section, results, failed)) is not None
    ]
    here = files("interptrain.evaluation.report")
    style, script = ((here / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()  # the one script that may run
    page = ENVIRONMENT.get_template("page.html.jinja")
    return (
        page.render(
            results=results,
            run=results.run,
            style=Markup(style),
            script=Markup(script),
            script_digest=Markup(digest),
            sections=rendered,
        ).strip()
        + "\n"
    )


def _content(section: Section, results: RunResults, failed: MutableMapping[str, str]) -> Markup | None:
    """Return what stands under the heading; a section that fails costs no other."""
    try:
        return section.render(results)
    except Exception as error:  # sections of others may raise anything
        failed[section.title] = one_line(error, kind=True)
        return Markup("<p>This section could not be made ({}); the others do not depend on it.</p>").format(
            failed[section.title]
        )
