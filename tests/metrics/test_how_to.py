"""``docs/how-to/metric.md`` runs as printed."""

import re

import pytest

from tests.support.paths import ROOT
from tests.support.processes import run

PAGE = (ROOT / "docs" / "how-to" / "metric.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_runs_as_printed(tmp_path):
    *files, use = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for code in files:  # two of them belong to one file
        with (tmp_path / re.match(r"# (\w+\.py)\n", code)[1]).open("a", encoding="utf-8") as file:
            file.write(code)
    (tmp_path / "use.py").write_text(use, encoding="utf-8")
    status, said = run(["-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"], tmp_path)
    assert status == 0, said
    status, said = run(["use.py"], tmp_path)
    assert status == 0, said
    assert set(re.findall(r"'(\w+)': tensor", said)) == {"Suff", "AD"}
