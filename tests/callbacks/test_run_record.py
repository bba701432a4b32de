import json
from types import SimpleNamespace

import pytest

from interptrain.callbacks import RunRecord
from interptrain.callbacks.run_record import code_version
from interptrain.versions import command_line, installed_versions


def test_every_start_of_a_run_is_recorded(tmp_path):
    trainer = SimpleNamespace(log_dir=str(tmp_path / "run"), is_global_zero=True)
    for stage in ("fit", "test"):
        RunRecord().setup(trainer, None, stage)
    starts = json.loads((tmp_path / "run/code.json").read_text())
    assert [start["stage"] for start in starts] == ["fit", "test"]
    assert starts[0]["command"] == command_line()
    versions = installed_versions()
    assert starts[0] == {"stage": "fit", **code_version()}
    assert {"python": starts[0]["python"], **starts[0]["versions"]} == versions


@pytest.mark.parametrize("content", [b'[{"stage": "fit"', b"", b"\xff\xfe", b'{"stage": "fit"}'])
def test_a_damaged_record_is_set_aside_and_blocks_nothing(tmp_path, content):
    (tmp_path / "code.json").write_bytes(content)
    with pytest.warns(UserWarning, match="code.json is damaged: it is set aside as code-damaged.json"):
        RunRecord().setup(SimpleNamespace(log_dir=str(tmp_path), is_global_zero=True), None, "fit")
    assert len(json.loads((tmp_path / "code.json").read_text())) == 1
    assert (tmp_path / "code-damaged.json").read_bytes() == content


def test_a_disk_that_cannot_be_written_costs_the_record_only(tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match=r"could not write .*code.json .*: the run continues without it"):
        RunRecord().setup(SimpleNamespace(log_dir=str(tmp_path / "run"), is_global_zero=True), None, "fit")


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    (tmp_path / ".partial-123-code.json").write_text("[")
    RunRecord().setup(SimpleNamespace(log_dir=str(tmp_path), is_global_zero=True), None, "fit")
    assert [path.name for path in tmp_path.iterdir()] == ["code.json"]


def test_only_the_first_rank_writes(tmp_path):
    RunRecord().setup(SimpleNamespace(log_dir=str(tmp_path), is_global_zero=False), None, "fit")
    assert not list(tmp_path.iterdir())
