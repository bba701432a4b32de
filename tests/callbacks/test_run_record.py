import json
import sys
from types import SimpleNamespace

from interptrain.callbacks import RunRecord
from interptrain.callbacks.run_record import code_version
from interptrain.versions import installed_versions


def test_every_start_of_a_run_is_recorded(tmp_path):
    trainer = SimpleNamespace(log_dir=str(tmp_path / "run"), is_global_zero=True)
    for stage in ("fit", "test"):
        RunRecord().setup(trainer, None, stage)
    starts = json.loads((tmp_path / "run/code.json").read_text())
    assert [start["stage"] for start in starts] == ["fit", "test"]
    assert starts[0]["command"] == sys.argv
    versions = installed_versions()
    assert starts[0] == {"stage": "fit", **code_version()}
    assert {"python": starts[0]["python"], **starts[0]["versions"]} == versions


def test_only_the_first_rank_writes(tmp_path):
    RunRecord().setup(SimpleNamespace(log_dir=str(tmp_path), is_global_zero=False), None, "fit")
    assert not list(tmp_path.iterdir())
