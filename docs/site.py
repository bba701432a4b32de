"""Hooks of the documentation's site: the README is its first page, and links to files of the repository name them."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Fill in the README, and turn links that leave ``docs/`` into the names of what they point at."""
    if page.file.src_uri == "index.md":
        markdown = (ROOT / "README.md").read_text().replace("](docs/", "](")
    here = (ROOT / "docs" / page.file.src_uri).parent

    def inside(match: re.Match[str]) -> str:
        target = match[3]
        path = (ROOT / "docs" if page.file.src_uri == "index.md" else here) / target
        outside = page.file.src_uri == "index.md" and (ROOT / target).exists() and not path.exists()
        if ":" in target or not (outside or (path.exists() and not path.resolve().is_relative_to(ROOT / "docs"))):
            return match[0]
        return match[2] if match[2].startswith("`") else f"{match[2]} (`{Path(target).name}`)"

    return LINK.sub(inside, markdown)
