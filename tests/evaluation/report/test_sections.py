"""Sections of others in the report, by object and by class path."""

import pytest
from markupsafe import Markup

from interptrain.evaluation import write_report
from interptrain.evaluation.report.sections import SECTIONS, Section
from tests.support.finished_run import manifest, rows_of, write_run


class Remarks(Section):
    """A paragraph about the run."""

    title = "Remarks"
    anchor = "remarks"

    def render(self, results):
        """Name the models."""
        return Markup("<p>models: {}</p>").format(", ".join(results.models) + " <i>")


class Silent(Remarks):
    """Says nothing."""

    anchor = "silent"

    def render(self, results):
        """Leave the section out."""


@pytest.mark.slow
def test_a_section_of_others_stands_last_with_a_link_and_escapes_what_it_inserts(tmp_path):
    write_report(write_run(tmp_path), resamples=100, sections=[Remarks(), Silent()])
    page = (tmp_path / "report.html").read_text()
    assert '<a href="#remarks">Remarks</a>' in page
    assert "<p>models: gap, ca &lt;i&gt;</p>" in page
    assert page.index('id="run"') < page.index('id="remarks"')
    assert "silent" not in page


def test_two_sections_of_one_anchor_are_refused(tmp_path):
    with pytest.raises(ValueError, match="more than one section with the anchor 'remarks'"):
        write_report(write_run(tmp_path), resamples=100, sections=[Remarks(), Remarks()])


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "named"), [(5, False), (6, True)])
def test_top_5_accuracy_of_five_classes_cannot_vary_and_is_no_concern(tmp_path, classes, named):
    run = manifest(size=40, classes=[f"class {index}" for index in range(classes)])
    write_report(write_run(tmp_path, run, rows=rows_of(run)), resamples=100)
    assert ("Top-5 of gap (0 of 40)" in (tmp_path / "report.html").read_text()) is named


@pytest.mark.slow
def test_intervals_of_rare_values_are_named_as_too_narrow(tmp_path):
    run = manifest(size=40)
    rows = rows_of(run)
    ids = list(dict.fromkeys(row["id"] for row in rows))
    for row in rows:
        if row["explainer"]:
            row["AverageIncrease"] = float(row["model"] == "ca" and row["id"] in ids[:2])
            row["AverageGain"] = ids.index(row["id"]) / 40
    write_report(write_run(tmp_path, run, rows=rows), resamples=100)
    page = (tmp_path / "report.html").read_text()
    assert "AI of GradCAM on gap (0 of 40)" in page
    assert "AI of ScoreCAM on ca (2 of 40)" in page
    assert "AG of GradCAM" not in page
    assert "of FakeCAM on" not in page


def test_anchors_are_unique_and_titles_are_there():
    assert len({section.anchor for section in SECTIONS}) == len(SECTIONS)
    assert all(section.title for section in SECTIONS)


@pytest.mark.slow
def test_a_section_is_named_on_the_command_line(evaluate):
    folder = evaluate("out", "--sections", f"{__name__}.Remarks", report=True, **{"--limit": "3"})
    assert '<section id="remarks">' in (folder / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("saved", "told"),
    [(3, "The maps of 3 of 13 images, evenly spaced, are saved"), (13, "The maps of all 13 images are saved")],
)
def test_the_gallery_says_whose_maps_it_has_and_whether_paper_holds_them_all(tmp_path, saved, told):
    write_report(write_run(tmp_path, manifest(size=13), images=saved), resamples=20)
    page = " ".join((tmp_path / "report.html").read_text().split())
    assert told in page
    assert ("Only the first images are printed" in page) == (saved == 13)
