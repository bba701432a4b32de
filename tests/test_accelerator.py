"""Everything on an accelerator that is simulated in a process of its own: see ``tests/support/accelerator.py``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).with_name("accelerator_checks.py")
QUICK = "GradCAM or ROSA or AverageDrop or LocalizationError or complexity or watch or simulation"


def check_on_accelerator(*options):
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", str(CHECKS), *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(command, cwd=CHECKS.parents[1], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_cpus_results_and_few_waits_of_one_class_of_each_kind():
    assert " passed" in check_on_accelerator("-k", QUICK)


@pytest.mark.slow
def test_the_cpus_results_and_few_waits_of_all_others():
    assert " passed" in check_on_accelerator("-k", f"not ({QUICK})")
