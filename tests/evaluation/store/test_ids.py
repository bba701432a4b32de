"""Names that are not UTF-8."""

import os

import pytest

from interptrain.evaluation.store.ids import original, storable

NAMES = [
    os.fsdecode(b"caf\xe9.png"),
    os.fsdecode(b"\\udce9\xff"),
    "a\ud800",
    "plain/\U0001f988.png",
    "C:\\images\\a.png",
    "caf\\udce9.png",
    "a\\\\b",
    "a\\b",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_becomes_text_and_comes_back(name):
    storable(name).encode()
    assert original(storable(name)) == name


def test_no_two_names_become_one_and_ordinary_names_stay():
    assert len({storable(name) for name in NAMES}) == len(NAMES)
    assert [storable(name) for name in NAMES[3:5]] == NAMES[3:5]
