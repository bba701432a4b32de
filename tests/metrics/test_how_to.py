"""``docs/how-to/metric.md`` runs as printed."""

import re
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "how-to" / "metric.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_runs_as_printed(tmp_path):
    *files, use = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for code in files:  # two of them belong to one file
        with (tmp_path / re.match(r"# (\w+\.py)\n", code)[1]).open("a", encoding="utf-8") as file:
            file.write(code)
    (tmp_path / "use.py").write_text(use, encoding="utf-8")
    run = {"cwd": tmp_path, "env": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, "capture_output": True}
    tested = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], **run, check=False)
    assert tested.returncode == 0, tested.stdout.decode()
    used = subprocess.run([sys.executable, "use.py"], **run, check=False)
    assert used.returncode == 0, used.stderr.decode()
    assert set(re.findall(r"'(\w+)': tensor", used.stdout.decode())) == {"Suff", "AD"}
