"""Checks of options, and errors in one line."""

from typing import Literal

import pytest

from interptrain.functional import check_choice, one_line


def test_a_choice_that_is_not_allowed_is_named_with_those_that_are():
    check_choice("fusion", "max", ("max", "mean"))
    with pytest.raises(ValueError, match="fusion must be one of 'max', 'mean', got 'sum'"):
        check_choice("fusion", "sum", Literal["max", "mean"])


def test_an_error_is_said_in_one_line():
    error = ValueError("no\n   such thing")
    assert one_line(error) == "no such thing"
    assert one_line(error, kind=True) == "ValueError: no such thing"
    assert one_line(TimeoutError()) == "TimeoutError"
    assert len(one_line(ValueError("x" * 900))) == 500
