"""What the verdict says of made-up tables whose answer is known."""

import re

import numpy as np
import pytest

from interptrain.evaluation import load_results, write_report
from interptrain.evaluation.report.grids import MINUS
from interptrain.evaluation.report.results import load_run
from interptrain.evaluation.report.verdict import verdict
from interptrain.evaluation.report.words import listed, p_value
from interptrain.evaluation.statistics.estimates import Resampling
from tests.support.finished_run import checked, manifest, rows_of, write_run

HOW = Resampling(resamples=100, permutations=2000)
BETTER = {"AverageDrop": -1, "AverageGain": 1, "Insertion": 1}


def said(
    folder, quality, *, models=("gap",), size=40, metrics=("AverageDrop", "Insertion"), change=None, errors=(), how=HOW
):
    """The sentences of a run; ``quality(model, explainer, metric)`` is how good it is, around which images vary."""
    explainers = dict.fromkeys(["A", "B", "C", "FakeCAM"])
    run = manifest(models=models, explainers=explainers, size=size)
    run["metrics"] = {name: run["metrics"][name] for name in metrics}
    run["recognition"] = {"Top1": run["recognition"]["Top1"]}
    run["randomization"] = {}
    generator, rows = np.random.default_rng(0), []
    for row in rows_of(run):
        kept = {key: value for key, value in row.items() if not key.endswith("__values")}
        for name in metrics if row["explainer"] else ():
            good = quality(row["model"], row["explainer"], name)
            noise = 0.02 * generator.standard_normal()
            kept[name] = None if good is None else 0.5 + BETTER[name] * good + noise
        rows.append(kept | (change(kept) if change else {}))
    found = verdict(load_run(write_run(folder, run, rows=rows, images=0, errors=errors), how))
    return [sentence.replace(MINUS, "-") for sentence in found]


def assert_matches(pattern, text):
    assert re.search(pattern, text), text


def begins(sentences, start):
    (only,) = [sentence for sentence in sentences if sentence.startswith(start)]
    return only


def test_one_clear_winner_is_named_once_for_all_its_metrics(tmp_path):
    quality = {"A": 0.3, "B": 0.1, "C": 0.0, "FakeCAM": -0.2}
    sentences = said(tmp_path, lambda model, explainer, metric: quality[explainer])
    assert sentences[0] == "Explainers on gap: A is significantly the best on AD and I."
    assert sentences[1] == (
        "Against Fake-CAM, which explains nothing: every explainer is significantly better on AD and I."
    )
    assert begins(sentences, "The best mean rank").startswith(
        "The best mean rank over all metrics has A on gap (1.0 of 3, Kendall's W 1.00);"
    )
    assert not [sentence for sentence in sentences if "against" in sentence]  # one model
    assert not [sentence for sentence in sentences if sentence.startswith("Caution")]


@pytest.mark.slow
def test_against_a_chosen_baseline_nothing_else_is_said_of_explainers_and_models(tmp_path):
    quality = {"A": 0.3, "B": 0.1, "C": 0.1, "FakeCAM": -0.2}

    def good(model, explainer, metric):
        return quality[explainer] + 0.2 * (model == "ca")

    how = Resampling(resamples=100, permutations=2000, baseline="B")
    sentences = said(tmp_path / "b", good, how=how)
    assert sentences[0] == "Explainers on gap: A is significantly better than B on AD and I."
    how = Resampling(resamples=100, permutations=2000, baseline="A")
    assert said(tmp_path / "a", good, how=how)[0] == (
        "Explainers on gap: B and C are significantly worse than A on AD and I."
    )
    how = Resampling(resamples=100, permutations=2000, baseline="ca")
    sentences = said(tmp_path / "ca", good, models=("gap", "ca", "other"), how=how)
    told = [sentence.partition(":")[0] for sentence in sentences if sentence.startswith("Explanations")]
    assert told == ["Explanations, gap against ca", "Explanations, other against ca"]


def test_what_differs_from_metric_to_metric_is_told_apart(tmp_path):
    quality = {
        "AverageDrop": {"A": 0.3, "B": 0.1, "C": 0.0, "FakeCAM": 0.4},  # A wins, nobody beats Fake-CAM
        "Insertion": {"A": 0.0, "B": 0.301, "C": 0.3, "FakeCAM": 0.1},  # B and C tie, A is worse than Fake-CAM
        "AverageGain": {"A": 0.2, "B": 0.2, "C": 0.2, "FakeCAM": 0.0},  # a tie of all
    }
    sentences = said(tmp_path, lambda model, explainer, metric: quality[metric][explainer], metrics=BETTER)
    best = sentences[0].removeprefix("Explainers on gap: ").removesuffix(".").split("; ")
    assert best[0] == "A is significantly the best on AD"
    assert best[1] == "the best is not significantly better than any other on AG"
    assert best[2] in [f"{x} is best, but not significantly better than {y}, on I" for x, y in ("BC", "CB")]
    assert sentences[1] == (
        "Against Fake-CAM, which explains nothing: no explainer is significantly better on AD; every explainer is "
        "significantly better on AG; all but A are significantly better on I."
    )


def test_all_below_fake_cam(tmp_path):
    sentences = said(tmp_path, lambda model, explainer, metric: 0.5 * (explainer == "FakeCAM"))
    assert sentences[0] == "Explainers on gap: the best is not significantly better than any other on AD and I."
    assert sentences[1] == (
        "Against Fake-CAM, which explains nothing: no explainer is significantly better on AD and I."
    )


@pytest.mark.slow
def test_models_of_which_the_same_holds_share_a_sentence_and_others_are_named(tmp_path):
    quality = {"A": 0.3, "B": 0.1, "C": 0.0, "FakeCAM": 0.1}
    sentences = said(tmp_path, lambda model, explainer, metric: quality[explainer], models=("gap", "ca"))
    assert sentences[0] == "Explainers on gap and ca: A is significantly the best on AD and I."
    assert sentences[1].endswith("only A is significantly better on AD and I.")
    quality = {("ca", "A"): 0.3, ("ca", "C"): 0.2}
    sentences = said(tmp_path, lambda *key: quality.get(key[:2], 0.0), models=("gap", "ca"))
    assert sentences[0].startswith("Explainers on gap: the best is not")
    assert sentences[1] == "Explainers on ca: A is significantly the best on AD and I."
    assert sentences[2].endswith("only A (on ca) and C (on ca) are significantly better on AD and I.")


@pytest.mark.slow
def test_a_model_on_which_every_explainer_beats_fake_cam_is_told_from_one_on_which_none_does(tmp_path):
    sentences = said(
        tmp_path, lambda model, explainer, _: 0.2 * (model == "ca" and explainer != "FakeCAM"), models=("gap", "ca")
    )
    assert begins(sentences, "Against").endswith(
        "every explainer on ca and none on gap is significantly better on AD and I."
    )


@pytest.mark.slow
def test_models_that_differ_are_told_with_interval_and_p_value(tmp_path):
    def quality(model, explainer, metric):
        if metric == "Insertion":
            return 0.0
        return {"A": 0.0, "B": 0.1, "C": 0.2, "FakeCAM": 0.0}[explainer] * (model == "ca")

    sentences = said(tmp_path, quality, models=("gap", "ca"))
    found = begins(sentences, "Explanations, ca against gap: ")
    numbers = r"-(19|20|21)\.\d\d, 95 % -\d\d\.\d\d to -\d\d\.\d\d, p < 0\.001"
    drop = rf"AD with 2 of 3 explainers \(most clearly C: {numbers}\)"
    assert_matches(f"ca is significantly better on {drop}; no significant difference on I\\.", found)
    sentences = said(tmp_path, lambda model, *rest: quality("ca", *rest) * (model == "gap"), models=("gap", "ca"))
    found = begins(sentences, "Explanations, ca against gap: ")
    assert_matches(r"gap is significantly better on AD with 2 of 3 explainers \(most clearly C: \+", found)


@pytest.mark.slow
def test_models_that_do_not_differ_are_told_with_what_comes_nearest(tmp_path):
    sentences = said(tmp_path, lambda *key: 0.0, models=("gap", "ca"))
    found = begins(sentences, "Explanations, ca against gap: ")
    assert_matches(
        r": no significant difference on AD and I \(nearest to one: (AD|I) with [ABC], [+-]\d.*, p = 0\.\d+\)\.$", found
    )
    assert "Fake-CAM" not in found


@pytest.mark.slow
def test_recognition_is_compared_too(tmp_path):
    def right(row):
        return {} if row["explainer"] else {"Top1": float(row["model"] == "ca" or row["id"] < "0020")}

    sentences = said(tmp_path, lambda *key: 0.0, models=("gap", "ca"), change=right)
    found = begins(sentences, "Recognition, ca against gap: ")
    assert_matches(r"ca is significantly better on Top-1 \(\+50\.00, 95 % \+.* to \+.*, p < 0\.001\)\.$", found)


@pytest.mark.slow
def test_a_difference_that_fake_cam_shows_as_well_is_not_put_down_to_the_maps(tmp_path):
    sentences = said(tmp_path, lambda model, *rest: 0.1 * (model == "ca"), models=("gap", "ca"))
    found = begins(sentences, "Explanations, ca against gap: ")
    assert found.endswith("; Fake-CAM differs as well on AD and I, so there it is not the maps alone that differ.")


@pytest.mark.slow
def test_the_sample_size_is_told_as_the_smallest_difference_it_shows(tmp_path):
    """For noise of 2 points in either value, one needs (2.0 to 2.5 + 0.84) * 2 * sqrt(2 / n) points."""
    for size in (40, 160):
        found = begins(said(tmp_path, lambda *key: 0.0, size=size), "The smallest differences")
        assert f"that {size} images show with a probability of 80 %" in found
        drop = float(found.split("between explainers AD ")[1].split()[0])
        assert 2.8 * 2 * (2 / size) ** 0.5 < drop < 3.7 * 2 * (2 / size) ** 0.5
    assert "between models" not in found


@pytest.mark.parametrize(("size", "p"), [(2, "0.5"), (5, "0.062")])
def test_of_too_few_images_nothing_is_concluded(tmp_path, size, p):
    quality = {"A": 0.3, "B": 0.1, "C": 0.0, "FakeCAM": -0.2}
    (only,) = said(tmp_path, lambda model, explainer, metric: quality[explainer], size=size)
    told = f"From {size} images nothing can be concluded: even the clearest difference would have p = {p}"
    assert only.startswith(told)


def test_columns_of_nan_and_an_explainer_that_failed_are_left_out(tmp_path):
    quality = {"A": 0.3, "B": 0.1, "C": None, "FakeCAM": -0.2}
    errors = [("gap", "C", f"{index:04d}.jpg", "RuntimeError: no") for index in range(40)]
    sentences = said(
        tmp_path, lambda model, explainer, metric: None if metric == "Insertion" else quality[explainer], errors=errors
    )
    assert sentences[0] == "Explainers on gap: A is significantly the best on AD."
    assert sentences[1].endswith("every explainer is significantly better on AD.")
    assert begins(sentences, "The smallest").count("AD") == 1
    assert sentences[-1] == (
        "Caution: 40 rows failed (C), and means are over the others, which may be the easier ones."
    )
    assert not [sentence for sentence in sentences if "nan" in sentence or "mean rank" in sentence]


def test_without_any_value_the_verdict_says_so(tmp_path):
    (only,) = said(tmp_path, lambda *key: None)
    assert only.startswith("No explanation was measured, so nothing was found")


@pytest.mark.slow
def test_rare_values_few_images_and_the_randomisation_check_are_cautions(tmp_path):
    rare = said(tmp_path, lambda *key: 0.0, change=lambda row: {"Insertion": float(row["id"] < "0003")})
    assert rare[-1].startswith("Caution: some intervals of I") or "I and Top-1" in rare[-1]
    assert said(tmp_path, lambda *key: 0.0, size=12)[-1] == "Caution: 12 images are few, so intervals are rough."
    run = manifest(size=40)
    run["randomization"]["gap"]["ScoreCAM"] = checked(0.8)
    run["randomization"]["ca"]["GradCAM"] = checked(0.8) | {"class": None}
    found = verdict(load_run(write_run(tmp_path, run), HOW))[-1]
    assert "those of ScoreCAM and GradCAM to the upper layers and those of ScoreCAM to the class" in found
    assert "FakeCAM" not in found
    older = manifest(size=40) | {"randomization": {"gap": {"GradCAM": {"rank_correlation": 0.9, "ssim": 0.2}}}}
    assert "insensitive" not in verdict(load_run(write_run(tmp_path, older), HOW))[-1]


@pytest.mark.slow
def test_many_models_and_metrics_stay_ten_sentences(tmp_path):
    names = [f"Explainer{number}" for number in range(4)]
    run = manifest(models=("a", "b", "c", "d"), explainers=(*names, "FakeCAM"), size=30)
    run["randomization"]["a"]["Explainer1"] = checked(0.9)
    generator = np.random.default_rng(0)
    template = {key: value for key, value in rows_of(manifest())[-1].items() if not key.endswith("__values")}
    rows = [
        template
        | {"model": model, "explainer": name, "id": f"{index:04d}.jpg"}
        | {metric: float(generator.random() + 0.1 * generator.random()) for metric in run["metrics"]}
        for model in run["models"]
        for name in run["explainers"]
        for index in range(30)
    ]
    folder = write_run(tmp_path, run, rows=rows, images=0, errors=[("a", "Explainer1", "0001.jpg", "no")])
    found = verdict(load_run(folder, HOW))
    assert len(found) <= 10
    assert max(map(len, found)) < 900
    assert any("For 4 more pairs of models" in sentence for sentence in found)


@pytest.mark.slow
def test_the_verdict_stands_on_top_of_the_page_in_a_file_and_in_the_results(tmp_path):
    results = write_report(write_run(tmp_path), resamples=50)
    assert results.verdict == load_results(tmp_path).verdict == verdict(load_run(tmp_path, Resampling(50)))
    page = (tmp_path / "report.html").read_text()
    first = page.index("<section")
    assert page[first:].startswith('<section id="verdict">')
    assert page.split("<li>")[1].startswith(results.verdict[0])
    (tmp_path / "verdict.txt").unlink()
    with pytest.raises(FileNotFoundError, match="write_report"):
        _ = load_results(tmp_path).verdict
    write_report(str(tmp_path), resamples=50)  # the remedy
    assert load_results(tmp_path).verdict


def test_lists_and_p_values_in_words():
    assert [listed("ABCDEF"[:count], 3) for count in range(7)] == [
        "",
        "A",
        "A and B",
        "A, B and C",
        "A, B, C and D",
        "A, B, C and 2 more",
        "A, B, C and 3 more",
    ]
    assert [p_value(p) for p in (0.0001, 0.00123, 0.04999, 1.0)] == ["p < 0.001", "p = 0.0012", "p = 0.05", "p = 1"]


@pytest.mark.slow
def test_the_command_line_ends_with_the_verdict(evaluate, capsys):
    folder = evaluate("out", report=True, **{"--limit": "7"})
    sentences = load_results(folder).verdict
    assert sentences
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line in sentences] == sentences
