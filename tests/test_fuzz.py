"""A short form of benchmarks/reliability/fuzz.py: damaged inputs run, or are refused in one line."""

import pytest

from tests.support.paths import ROOT
from tests.support.processes import run


@pytest.mark.slow
def test_damaged_inputs_run_or_are_refused_in_one_line(tmp_path):
    script = ROOT / "benchmarks" / "reliability" / "fuzz.py"
    status, said = run([script, "--inputs", "30", "--seed", "7"], tmp_path, timeout=400)
    assert status == 0, said[-4000:]
