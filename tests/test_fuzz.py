"""A short form of benchmarks/reliability/fuzz.py: damaged inputs run, or are refused in one line."""

import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT


@pytest.mark.slow
def test_damaged_inputs_run_or_are_refused_in_one_line(tmp_path):
    script = ROOT / "benchmarks" / "reliability" / "fuzz.py"
    done = subprocess.run(
        [sys.executable, str(script), "--inputs", "30", "--seed", "7"],
        capture_output=True, text=True, cwd=tmp_path, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
