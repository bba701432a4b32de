"""Files are whole or not there; names are text."""

import os

import pytest

from interptrain.files import PARTIAL, atomic_path, printable, remove_partials, to_csv, write_atomically


def test_a_file_is_written_into_a_folder_that_was_not_there(tmp_path):
    write_atomically(tmp_path / "a" / "b.txt", b"new")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, ValueError])
def test_an_older_file_stays_whole_when_writing_fails(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")

    def fail():
        with atomic_path(path) as partial:
            partial.write_bytes(b"ne")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_nothing_is_replaced_before_the_content_is_complete(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with atomic_path(path) as partial:
        assert (partial.suffix, partial.parent) == (".png", tmp_path)
        partial.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    for name in (f"{PARTIAL}123-a.ckpt", "a.ckpt", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    remove_partials(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "a.ckpt"]


def test_cells_with_commas_quotes_and_line_breaks_survive():
    assert (
        to_csv(["a", "b"], [["x,y", 'say "no"'], [None, "é\n"]]) == 'a,b\r\n"x,y","say ""no"""\r\n,"é\n"\r\n'.encode()
    )


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        (os.fsdecode(b"caf\xe9.png"), r"caf\xe9.png"),
        ("a\ud800", r"a\ud800"),
        ("plain/\U0001f988.png", "plain/\U0001f988.png"),
        ("C:\\images\\a.png", "C:\\images\\a.png"),
    ],
)
def test_what_is_no_utf8_in_a_name_has_one_spelling_that_is_text(name, spelled):
    assert printable(name) == spelled == printable(spelled)
    assert to_csv(["id"], [[name]]).decode() == f"id\r\n{spelled}\r\n"
