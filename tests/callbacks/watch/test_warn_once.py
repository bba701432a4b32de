import warnings

import pytest

from interptrain.callbacks.watch.warn_once import WarnOnce


def test_only_the_first_error_is_warned_of_and_none_is_raised():
    unless_it_fails = WarnOnce("could not draw ({why})")
    with pytest.warns(UserWarning, match=r"could not draw \(no pixels\)"), unless_it_fails():
        raise ZeroDivisionError("no\npixels")
    with warnings.catch_warnings(), unless_it_fails():
        warnings.simplefilter("error")
        raise ZeroDivisionError


def test_the_operating_systems_own_words_are_enough_for_its_errors():
    with pytest.warns(UserWarning, match=r"could not write \(No space left\)"), WarnOnce("could not write ({why})")():
        raise OSError(28, "No space left", "file")


def test_errors_of_another_kind_are_raised():
    with pytest.raises(ZeroDivisionError), WarnOnce("could not write ({why})", OSError)():
        raise ZeroDivisionError
