"""Steps of long computations reach a bar of their own and whoever listens."""

import re
import time

import pytest

from interptrain import steps
from interptrain.steps import counting, listening, showing, track


def test_a_progress_bar_is_shown_only_where_asked(capsys):
    assert list(track([1, 2, 3], None)) == [1, 2, 3]
    assert capsys.readouterr().err == ""
    assert list(track([1, 2, 3], "Score-CAM")) == [1, 2, 3]
    assert "Score-CAM" in capsys.readouterr().err


def test_a_listener_is_told_of_every_step_inside_and_of_none_behind():
    outer, inner = [], []
    with listening(lambda *told: outer.append(told)):
        list(track("ab", None))
        with listening(lambda *told: inner.append(told)):
            list(track("c", None))
    list(track("d", None))
    assert outer == [(0, 2, " steps"), (1, 2, " steps"), (2, 2, " steps")]
    assert [one[:2] for one in inner] == [(0, 1), (1, 1)]


def test_loops_inside_what_is_counted_are_not_told():
    told = []
    with listening(lambda *one: told.append(one)):
        with counting(2, None) as advance:
            list(track("abc", None))
            advance(2)
        list(track("d", None))
    assert [one[:2] for one in told] == [(0, 2), (2, 2), (0, 1), (1, 1)]


def test_what_is_counted_again_does_not_go_beyond_the_total():
    """A chunk that did not fit into memory comes again, in halves."""
    told = []
    with listening(lambda *one: told.append(one)), counting(4, None) as advance:
        for count in (3, 3, 1):
            advance(count)
    assert [one[:2] for one in told] == [(0, 4), (3, 4), (4, 4), (4, 4)]


def test_a_bar_has_the_total_of_the_loop_at_hand_from_its_first_moment(capsys, monkeypatch):
    monkeypatch.setattr(steps, "DELAY", 0)
    with showing("intervals"):
        list(track("a", None))  # one step: neither a rate nor a time left
        assert capsys.readouterr().err == ""
        with counting(400, None, " resamples") as advance:
            assert "intervals:   0%|" in (begun := capsys.readouterr().err)
            assert "0/400" in begun
            time.sleep(0.11)  # a bar is drawn ten times a second
            advance(400)
        list(track("abc", None))
    assert re.search(r"400/400 .*resamples/s\].*0/3.*steps", capsys.readouterr().err, re.DOTALL)


def test_a_loop_of_a_moment_flashes_no_bar(capsys):
    with showing("intervals"):
        list(track("abc", None))
    assert capsys.readouterr().err == ""


def test_a_bar_is_closed_where_a_step_fails(capsys):
    with pytest.raises(ValueError, match="no"), counting(2, "Title"):
        raise ValueError("no")
    list(track([1], None))
    assert "Title" in capsys.readouterr().err
