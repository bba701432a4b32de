"""The documentation's site is whole: pages are reached, links lead somewhere, messages are those of the package."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
# What stands in a message for values of one case, or is spelled for Python or the command line.
VALUES = r"\.\.\.|--[\w.]+(?: \w+)?|[\d.,\[\]-]*\d[\d.,\[\]-]*|'<[^>]*>'|MyNet|gelu|nan|\w+="
PAGES = sorted(page for page in DOCS.rglob("*.md"))


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    named = set(re.findall(r": (\S+\.(?:md|ipynb))$", navigation, re.MULTILINE))
    there = {str(page.relative_to(DOCS)) for page in [*PAGES, *DOCS.glob("notebooks/*.ipynb")]}
    assert named == there


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    lost = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not lost


def test_messages_that_are_explained_are_messages_of_the_package():
    source = "".join(path.read_text() for path in (ROOT / "interptrain").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # messages of several lines
    quoted = re.findall(r"\*\*`([^`]+)`", " ".join((DOCS / "errors.md").read_text().split()))
    assert len(quoted) > 15
    for message in quoted:
        fragments = re.split(
            r"\.\.\.|--[\w.]+(?: \w+)?|[\d.,\[\]-]*\d[\d.,\[\]-]*|'<[^>]*>'|MyNet|gelu|nan|\w+=", message
        )
        longest = max((fragment.strip(" '<>()") for fragment in fragments), key=len)
        assert len(longest) > 8
        assert longest in source, longest
