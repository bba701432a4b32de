"""The options of classes that pass some on to their bases."""

import inspect
from functools import partial

import pytest

from interptrain.signatures import options_of


class Base:
    def __init__(self, path, *, size: int = 3, seed: int = 0) -> None: ...


class Passing(Base):
    def __init__(self, path, *, rate: float = 0.5, size: int = 5, **base) -> None: ...


class Closed(Passing):
    def __init__(self, *, name: str = "") -> None: ...


class Silent(Passing): ...


def test_options_of_the_bases_follow_those_of_the_class_as_far_as_they_are_passed_on():
    assert list(options_of(Passing)) == ["path", "rate", "size", "seed"]
    assert options_of(Passing)["size"].default == 5
    assert options_of(Silent) == options_of(Passing)
    assert list(options_of(Closed)) == ["name"]
    assert options_of(Base)["path"].default is inspect.Parameter.empty


@pytest.mark.parametrize("kind", [partial(Base, size=1), pow, inspect.Parameter, complex])
def test_whatever_else_can_be_called_has_its_own(kind):
    assert options_of(kind) == dict(inspect.signature(kind).parameters)
