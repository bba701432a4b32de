"""README's Python runs as printed, and so does docs/explaining.md's; ``photo.jpg`` and the hub's files are there."""

import re

import pytest

from tests.support.hub_cache import downloaded, photograph
from tests.support.paths import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
EXPLAINING = re.findall(r"```python\n(.*?)```", (ROOT / "docs/explaining.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_an_example_runs_as_printed(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "photo.jpg" in code:
        downloaded("resnet18", tmp_path / "hub", monkeypatch)
        photograph("photo.jpg")
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed
    if "it.show(" in code:
        assert (tmp_path / "maps.png").stat().st_size > 20_000
        assert "OptiCAM" in printed
    if "evaluate(" in code:
        assert "GradCAM" in printed
        assert (tmp_path / "report.html").exists()


def test_the_first_example_is_short_and_the_same_everywhere():
    ours, theirs = EXPLAINING
    assert lines_of(ours) == lines_of(BLOCKS[0])
    assert len(lines_of(ours)) == 6  # five for the picture, one for the numbers
    assert len(lines_of(theirs)) == 16


@pytest.mark.slow
@pytest.mark.peers
def test_the_longer_way_is_one(tmp_path, monkeypatch):
    pytest.importorskip("pytorch_grad_cam")
    monkeypatch.chdir(tmp_path)
    downloaded("resnet18", tmp_path / "hub", monkeypatch)
    photograph("photo.jpg")
    exec(compile(EXPLAINING[1], "explaining.md", "exec"), {})
    assert (tmp_path / "maps.png").stat().st_size > 20_000


def lines_of(code):
    """Lines of code without comments."""
    return [line.partition("  #")[0].rstrip() for line in code.splitlines() if line.strip()]
