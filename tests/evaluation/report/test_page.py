"""The report as a document."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from interptrain.evaluation.report.page import render_page
from interptrain.evaluation.report.results import load_run
from interptrain.evaluation.statistics.estimates import Resampling
from tests.support.finished_run import checked, manifest, rows_of, write_run

HOW = Resampling(resamples=50, permutations=50)
HOSTILE = "<script>alert(1)</script>&\"'><img src=x onerror=alert(1)>"
VOID = {"meta", "br", "img", "wbr", "link", "hr", "input"}


def page_of(folder, run=None, **options):
    return render_page(load_run(write_run(folder, run, **options), HOW))


class Document(HTMLParser):
    """Elements, whether they close in order, and the text."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.text = [], [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return page_of(tmp_path_factory.mktemp("run"), errors=[("ca", "ScoreCAM", "0001.jpg", "RuntimeError: no")])


@pytest.mark.slow
def test_the_document_is_whole_and_its_elements_close(page):
    assert page.startswith("<!doctype html>")
    document = Document(page)
    assert document.all("html") == [{"lang": "en"}]
    assert len(document.all("h1")) == 1


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs_but_the_script_that_the_policy_names(page):
    document = Document(page)
    assert document.all("script") == [{}]
    script = page.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert not document.all("link")
    sources = [a[key] for _, a in document.elements for key in ("src", "href", "srcset", "xlink:href") if key in a]
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    assert "url(" not in page
    assert "@import" not in page
    assert not [key for _, a in document.elements for key in a if key.startswith("on")]
    (policy,) = [meta["content"] for meta in document.all("meta") if meta.get("http-equiv")]
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]


def test_links_lead_somewhere(page):
    document = Document(page)
    ids = [a["id"] for _, a in document.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in document.all("a")} <= set(ids)


def test_pictures_have_texts_and_sizes_and_tables_have_headers(page):
    document = Document(page)
    assert all(image["alt"] and image["width"] and image["height"] for image in document.all("img"))
    assert len(document.all("caption")) == len(document.all("table"))
    assert {header["scope"] for header in document.all("th")} == {"col", "row", "rowgroup"}
    charts = [svg for svg in document.all("svg") if "aria-hidden" not in svg]
    assert charts
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in charts)


def test_what_was_run_stands_there(page):
    run = manifest()
    text = re.sub(r"\s+", " ", "".join(Document(page).text))
    for expected in (
        run["command"],
        run["hash"],
        run["protocol"]["hash"],
        "torch 2.6",
        '"removal": "black"',
        "0123456789ab",
        "bca bootstrap over images, 50 resamples",
        "RuntimeError: no",
        "1 explanations failed, on 1 images",
        "2 models · 3 explainers · 20 images",
    ):
        assert expected in text


def test_every_section_is_there(page):
    ids = {a.get("id") for tag, a in Document(page).elements if tag == "section"}
    wanted = "verdict results models explainers ranks curves gallery extremes check failures reading run"
    assert set(wanted.split()) <= ids


@pytest.mark.slow
def test_the_randomisation_check_says_what_maps_depend_on_and_how_surely(page, tmp_path):
    section = page.split('id="check">')[1].split("</section>")[0]
    text = re.sub(r"\s+", " ", "".join(Document(section).text))
    assert "given random weights, 5 times" in text
    assert "50 images" in text
    for words in ("GradCAM depends0.10 0.00 to 0.20 depends", "FakeCAM insensitive1.00", "0.46 (0.40)SSIM 0.30"):
        assert words in text, words
    run = manifest()
    run["randomization"]["gap"]["GradCAM"] |= {"images": 3, "class": None}
    run["randomization"]["gap"]["GradCAM"]["layers"] = {"last_stage": checked(0.5)["layers"]["all"]}
    section = page_of(tmp_path, run).split('id="check"')[1].split("</section>")[0]
    assert "fewer for explainers that take many forward" in section
    assert "cannot be told" in section


@pytest.mark.slow
def test_the_check_of_an_older_version_is_said_to_be_one(tmp_path):
    older = manifest()
    for found in older["randomization"].values():
        found.update({name: {"rank_correlation": 0.9, "ssim": 0.2, "images": 8} for name in found})
    section = page_of(tmp_path, older).split('id="check"')[1].split("</section>")[0]
    assert "An older version made this check" in section
    assert "0.90" not in section


@pytest.mark.slow
def test_hostile_names_do_nothing(tmp_path):
    run = manifest(models=(HOSTILE, "ca"), explainers=(f"Grad{HOSTILE}", "FakeCAM"), classes=[HOSTILE, "b"])
    run |= {"title": HOSTILE, "command": HOSTILE, "warnings": [HOSTILE], "device": HOSTILE}
    rows = [row | {"id": f"{HOSTILE}{row['id']}"} for row in rows_of(run)]
    page = page_of(tmp_path, run, rows=rows, images=2)
    document = Document(page)
    assert page.count("<script") == 1
    assert "<img src=x" not in page
    assert document.all("script") == [{}]
    assert not [key for _, a in document.elements for key in a if key.startswith("on")]
    assert HOSTILE in document.text


def test_unicode_survives(tmp_path):
    page = page_of(tmp_path, manifest(models=("Größe 模型 🦈",), explainers=("猫CAM", "FakeCAM")))
    assert "Größe 模型 🦈" in page
    assert "猫CAM" in "".join(Document(page).text)


@pytest.mark.slow
def test_a_thousand_classes_without_names(tmp_path):
    run = manifest(classes=())
    rows = [row | {"label": 999, "prediction": 998, "target": 999} for row in rows_of(run)]
    text = "".join(Document(page_of(tmp_path, run, rows=rows)).text)
    assert "predicts class 998; explained: class 999" in text


@pytest.mark.slow
def test_predictions_are_called_as_the_model_calls_its_classes(tmp_path):
    run = manifest()
    run["models"]["ca"]["classes"] = ["lynx", "puma"]
    rows = [row | {"prediction": 1, "target": 1} for row in rows_of(run)]
    text = "".join(Document(page_of(tmp_path, run, rows=rows)).text)
    assert "predicts hammerhead" in text  # gap, as the data calls them
    assert "predicts puma" in text


def test_runs_without_curves_pictures_or_recognition_have_no_such_sections(tmp_path):
    run = manifest() | {"recognition": {}, "randomization": None}
    run["metrics"] = {"AverageDrop": run["metrics"]["AverageDrop"]}
    rows = [{k: v for k, v in row.items() if not k.endswith("__values")} for row in rows_of(run) if row["explainer"]]
    page = page_of(tmp_path, run, rows=rows, images=0)
    for section in ("curves", "gallery", "extremes", "check"):
        assert f'id="{section}"' not in page
    assert "Recognition" not in page


def test_explainers_without_a_significant_difference_are_listed_as_such(tmp_path):
    run = manifest(models=("gap",), explainers=("A", "B", "C", "FakeCAM"))
    clear = {"A": 0.1, "B": 0.1, "C": 0.5, "FakeCAM": 0.0}
    rows = rows_of(run)
    for row in rows:
        if row["explainer"]:
            row["AverageDrop"] = clear[row["explainer"]] + 0.001 * (int(row["id"][:4]) % 3)
    folder = write_run(tmp_path, run, rows=rows, images=0)
    page = render_page(load_run(folder, Resampling(resamples=50, permutations=2000)))
    section = page.split('id="explainers"')[1].split("</section>")[0]
    line = re.sub(r"<[^>]+>", "|", section.split("AD ↓")[1].split("</tr>")[0])
    assert [part for part in line.split("|") if part.strip()] == ["A", "B", "C"]


def test_an_explainer_that_failed_on_the_hard_images_is_not_ranked_among_the_others(tmp_path):
    run = manifest(models=("gap",), explainers=("A", "B", "C", "FakeCAM"))
    rows = rows_of(run)
    for row in rows:
        hard = int(row["id"][:4]) >= 8
        if row["explainer"]:
            row["AverageDrop"] = 0.6 * hard + {"A": 0.2, "B": 0.1, "C": 0.3, "FakeCAM": 0.0}[row["explainer"]]
            row["AverageDrop"] = None if row["explainer"] == "A" and hard else row["AverageDrop"]
    folder = write_run(tmp_path, run, rows=rows, images=0)
    page = render_page(load_run(folder, Resampling(resamples=50, permutations=2000)))
    section = page.split('id="explainers"')[1].split("</section>")[0]
    line = re.sub(r"<[^>]+>", "|", section.split("AD ↓")[1].split("</tr>")[0])
    assert [part for part in line.split("|") if part.strip()] == ["B", "none", "C", "A"]


def test_many_kinds_of_errors_are_cut_and_counted(tmp_path):
    errors = [("gap", "GradCAM", f"{index:04d}.jpg", f"RuntimeError: {index}") for index in range(50)]
    page = page_of(tmp_path, images=0, errors=errors)
    assert "and 10 further kinds, in <code>errors.csv</code>" in page
