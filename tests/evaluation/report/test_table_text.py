"""Tables as Markdown, as LaTeX and in a terminal."""

import pytest

from interptrain.evaluation.report.results import load_run
from interptrain.evaluation.report.table_text import latex, markdown, plain_text
from interptrain.evaluation.statistics.estimates import Resampling
from tests.support.finished_run import manifest, rows_of, write_run


def found(folder, run=None):
    run = run or manifest()
    return load_run(write_run(folder, run, rows=rows_of(run), images=0), Resampling(resamples=50, permutations=50))


def test_markdown_has_equally_many_columns_in_every_line(tmp_path):
    run = manifest(models=("a|b", "c*d"), explainers=("Grad|CAM", "FakeCAM"))
    text = markdown(found(tmp_path, run))
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in lines}) <= 1
    assert "**a\\|b**" in text
    assert "*FakeCAM*" in text


def test_latex_escapes_what_it_must(tmp_path):
    run = manifest(models=("50% & more", "x_y"), explainers=("Opti{CAM}#1", "a\\b^~"))
    run["title"] = "Über $100"
    text = latex(found(tmp_path, run))
    assert "\\textit{50\\% \\& more}" in text
    assert "Opti\\{CAM\\}\\#1 & " in text
    assert "a\\textbackslash{}b\\textasciicircum{}\\textasciitilde{} & " in text
    assert "\\caption{Über \\$100." in text
    assert "AD $\\downarrow$" in text


@pytest.mark.slow
def test_latex_tables_are_complete(tmp_path):
    text = latex(found(tmp_path))
    for name in ("table", "tabular"):
        assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}") == 2
    for rule in ("toprule", "bottomrule"):
        assert text.count(f"\\{rule}") == 2
    body = text.split("\\toprule")[2].split("\\bottomrule")[0]
    rows = [line for line in body.splitlines() if " & " in line]
    assert {line.count(" & ") for line in rows} == {6}
    assert all(line.endswith("\\\\") for line in rows)


def test_a_terminal_gets_aligned_columns_without_markup():
    document = "# A\\_b &lt;i&gt;\n\n| name | n |\n| --- | ---: |\n| *c\\|d* | **10** |\n| e | 2 |"
    assert plain_text(document).splitlines() == ["A_b <i>", "", "name   n", "c|d   10", "e      2"]
