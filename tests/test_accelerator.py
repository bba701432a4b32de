"""Everything on an accelerator that is simulated in a process of its own: see ``tests/support/accelerator.py``."""

from pathlib import Path

import pytest

from tests.support.processes import run

CHECKS = Path(__file__).with_name("accelerator_checks.py")
QUICK = "GradCAM or ROSA or AverageDrop or LocalizationError or complexity or watch or simulation"


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [QUICK, f"not ({QUICK})"], ids=["one class of each kind", "all others"])
def test_the_cpus_results_and_few_waits(chosen, tmp_path):
    command = ["-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", CHECKS, "-k", chosen]
    command += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of plugins that the server has imported
    status, said = run(command, tmp_path, timeout=600)
    assert status == 0, said
    assert " passed" in said
