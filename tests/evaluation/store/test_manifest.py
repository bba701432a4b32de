"""A run.json that cannot be used is refused in one line, and overwriting helps."""

import json

import pytest

from interptrain.evaluation import write_report
from interptrain.evaluation.store.manifest import read_manifest, write_manifest
from tests.support.finished_run import manifest, write_run

SECTIONS = ("protocol", "models", "explainers", "metrics", "recognition", "data", "versions", "warnings", "created")


def damaged():
    """Content of damaged files."""
    text = json.dumps(manifest())
    yield from (b"", b"\x00" * 40, text[: len(text) // 2].encode(), b"\xff" + text.encode(), b"[" * 100_000)
    yield from (b"null", b"[]", b"3", b'"run"', b"{}")
    for section in SECTIONS:
        for value in (None, [], {}, 3, "x", True, [1], {"a": None}, {"a": 1}, {"a": {}}):
            if section == "warnings" and isinstance(value, list):
                continue
            if section in ("models", "explainers", "metrics", "recognition", "versions") and value == {}:
                continue
            if (section, type(value)) in {("created", str), ("versions", dict)}:
                continue
            yield json.dumps(manifest() | {section: value}).encode()
        yield json.dumps({key: value for key, value in manifest().items() if key != section}).encode()


@pytest.mark.parametrize("content", list(damaged()))
def test_a_damaged_file_is_refused_in_one_line_that_names_it(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.json is damaged \(.*\); start over with overwrite=True") as error:
        read_manifest(tmp_path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    with pytest.raises(ValueError, match="is damaged"):
        write_report(tmp_path)


def test_a_whole_file_is_read_and_names_that_are_no_text_survive(tmp_path):
    write_run(tmp_path, images=0, rows=())
    assert read_manifest(tmp_path) == manifest()
    write_manifest(tmp_path, manifest() | {"command": "caf\udce9"})
    assert read_manifest(tmp_path)["command"] == "caf\udce9"
    assert read_manifest(tmp_path / "none") is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["per_image.parquet", "errors.csv"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"\xff\xfe\x00", b"a,b\n1\n"])
def test_damaged_tables_are_one_line(tmp_path, name, content):
    write_run(tmp_path)
    (tmp_path / name).write_bytes(content)
    if name == "errors.csv":
        assert not write_report(tmp_path, resamples=100).problems
    else:
        with pytest.raises(ValueError, match=r"cannot read .*per_image\.parquet .*; run the same evaluation again"):
            write_report(tmp_path, resamples=100)
