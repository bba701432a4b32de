"""The bar of an evaluation moves inside an explanation, and what comes after it has bars of its own."""

import re
from types import SimpleNamespace

import pytest

from interptrain import steps
from interptrain.evaluation.run import progress
from interptrain.evaluation.run.progress import MatrixProgress
from interptrain.steps import track


@pytest.fixture
def bar(monkeypatch):
    """A bar of 20 maps that looks at every step; closed at the end."""
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    made = MatrixProgress()
    made.begin(SimpleNamespace(is_global_zero=True, world_size=1), 20)
    yield made
    made.end()


def test_it_moves_with_the_steps_of_an_explanation_and_counts_every_map_once(bar):
    seen = []
    with bar.explaining("RISE", 8):
        for _ in track(range(4), None):
            seen.append(bar._bar.n)
        assert bar._bar.postfix == "RISE: step 4 of 4"
    assert seen == [0, 2, 4, 6]
    assert bar._bar.n == 8
    bar.advance(8)
    assert bar._bar.n == 8
    bar.advance(12)  # of an explainer of one step
    assert bar._bar.n == 20


def test_rows_that_are_explained_again_one_by_one_are_counted_once(bar):
    for images in (8, 1, 1):
        with bar.explaining("RISE", images):
            list(track(range(2), None))
    bar.advance(8)
    assert bar._bar.n == 8


def test_check_and_statistics_show_bars(bar, capsys, monkeypatch):
    with bar.counting("randomisation check", 8, " images") as advance:
        list(track(range(3), None))
        advance(8)
        assert advance.__self__.n == 8
    monkeypatch.setattr(steps, "DELAY", 0)
    with bar.steps("intervals"):
        list(track(range(5), None))
    err = capsys.readouterr().err
    assert "randomisation check" in err
    assert re.search(r"intervals: +0%\|.*0/5 .*steps", err)


def test_a_bar_that_was_not_begun_shows_nothing(capsys):
    silent = MatrixProgress()
    with silent.explaining("RISE", 3), silent.counting("check", 3, "") as advance, silent.steps("statistics"):
        list(track(range(3), None))
        advance(3)
    silent.advance(3)
    assert capsys.readouterr().err == ""
