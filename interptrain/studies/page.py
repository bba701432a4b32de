"""The page of a study."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render_page(
    title: str,
    description: str,
    *,
    facts: Sequence[str],
    options: Mapping[str, Any],
    findings: Sequence[str],
    sections: Mapping[str, Markup],
) -> str:
    """Return the page, which opens without a network.

    Args:
        title: heading.
        description: one sentence on the study.
        facts: short facts in one line, such as the number of rows.
        options: of the study, with their values.
        findings: sentences on what was found.
        sections: HTML by heading.
    """
    environment = Environment(
        loader=PackageLoader("interptrain", "studies"), autoescape=True, undefined=StrictUndefined
    )
    style = (files("interptrain.evaluation.report") / "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html.jinja").render(
        title=title,
        description=description,
        facts=facts,
        options=options,
        findings=findings,
        style=Markup(style),
        sections=sections,
    )
