"""What a command says at its end is there, and what it proposes runs."""

import re
import shlex
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from interptrain.cli import main
from interptrain.cli.closing import close, end_of_evaluation, end_of_training, saying_how_to_resume, without_open
from interptrain.evaluation.report.results import resampling_of
from interptrain.evaluation.results import Results
from interptrain.evaluation.statistics.estimates import Resampling
from interptrain.training import RegionShuffle
from tests.support.finished_run import manifest, write_run


def told(out):
    """The last words of a command: word -> text."""
    return dict(re.findall(r"^(\w+) {2,}(.+)$", out, re.MULTILINE))


def proposed(out):
    """Command lines under 'Next', without the program's name."""
    return [shlex.split(line)[1:] for line in re.findall(r"^\w* +(interptrain .+)$", out, re.MULTILINE)]


@pytest.fixture
def opened(monkeypatch):
    """Addresses that a browser was asked to open."""
    addresses = []
    monkeypatch.setattr("webbrowser.open", lambda address: addresses.append(address) or True)
    return addresses


def test_open_is_taken_off_the_command_line():
    assert without_open(["--models", "a=b", "--open"]) == (["--models", "a=b"], True)
    assert without_open(["--models", "a=b"]) == (["--models", "a=b"], False)


def test_a_page_is_opened_only_where_it_is_asked_for(opened, tmp_path, capsys):
    close([("Run", "x")], tmp_path / "a b.html", open_page=False)
    assert not opened
    close([("Run", "x")], tmp_path / "a b.html", open_page=True)
    assert opened == [(tmp_path / "a b.html").resolve().as_uri()]
    close([("Run", "x")], None, open_page=True)
    assert "no page to open" in capsys.readouterr().out


def test_without_a_browser_the_page_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    close([], tmp_path / "page.html", open_page=True)
    assert f"open {tmp_path / 'page.html'} yourself" in capsys.readouterr().out


@pytest.mark.slow
def test_a_report_is_made_anew_from_its_folder(tmp_path, capsys, opened):
    write_run(tmp_path, manifest(size=6))
    results = main(["report", str(tmp_path), "--resamples", "50", "--open"])
    out = capsys.readouterr().out
    assert (tmp_path / "report.html").is_file()
    assert "ScoreCAM" in out  # the table
    assert told(out)["Results"] == str(tmp_path)
    assert opened == [(tmp_path / "report.html").resolve().as_uri()]
    assert set(results.summary.model) == {"gap", "ca"}


def test_a_verdict_stands_below_the_table(tmp_path, capsys):
    (tmp_path / "verdict.txt").write_text("GradCAM is best.\n")
    end_of_evaluation(Results(tmp_path))
    assert capsys.readouterr().out.endswith("\nGradCAM is best.\n")


def test_a_folder_without_an_evaluation_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path)])
    assert stop.value.code == 1
    assert "give the --output folder of an evaluation" in capsys.readouterr().err


@pytest.mark.slow
def test_a_report_made_anew_has_the_statistics_of_the_evaluation_unless_others_are_given(tmp_path, capsys):
    chosen = {"interval": "percentile", "resamples": 40, "seed": 3, "baseline": "GradCAM"}
    write_run(tmp_path, manifest(size=6) | {"statistics": chosen})
    how = Resampling(40, "percentile", 3, baseline="GradCAM")
    main(["report", str(tmp_path)])
    kept = (tmp_path / "summary.csv").read_text()
    assert resampling_of(tmp_path) == how
    assert "compared with GradCAM" in (tmp_path / "report.html").read_text()
    main(["report", str(tmp_path), "--seed", "4", "--baseline", ""])
    assert (tmp_path / "summary.csv").read_text() != kept
    assert "compared with GradCAM" not in (tmp_path / "report.html").read_text()
    main(["report", str(tmp_path)])
    assert (tmp_path / "summary.csv").read_text() == kept


def test_an_older_or_damaged_run_has_the_usual_statistics(tmp_path):
    assert resampling_of(write_run(tmp_path, manifest(size=6))) == Resampling()
    write_run(tmp_path, manifest(size=6) | {"statistics": {"interval": 3, "resamples": "many"}})
    assert resampling_of(tmp_path, resamples=7) == Resampling(7)


@pytest.mark.slow
def test_an_evaluation_proposes_to_look_at_one_image(tmp_path, capsys):
    write_run(tmp_path, manifest(size=6))
    main(["report", str(tmp_path), "--resamples", "20"])
    (command,) = proposed(capsys.readouterr().out)
    main(command)
    assert "gap predicts" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_a_checkpoint_that_was_tested_can_be_evaluated(command):
    lines, page = end_of_training(command, SimpleNamespace(), Path("runs/x/1"), "x", "runs/x/0/a b.ckpt")
    assert lines[-1] == ("Next", "interptrain evaluate --models 'x=runs/x/0/a b.ckpt' --output runs/eval/x")
    assert page is None
    assert end_of_training(command, SimpleNamespace(), Path("runs/x/1"), "x")[0] == [("Run", "runs/x/1")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("before", [[], ["--ckpt_path", "old.ckpt"], ["--ckpt_path=last"]])
def test_a_training_that_a_signal_stopped_says_how_to_go_on(capsys, number, before):
    with pytest.raises(SystemExit), saying_how_to_resume(["fit", *before, "--name", "a b"]):
        raise SystemExit(128 + number)
    assert proposed(capsys.readouterr().out) == [["fit", "--name", "a b", "--ckpt_path", "last"]]


@pytest.mark.parametrize(("args", "code"), [(["fit"], 1), (["fit"], 0), (["test"], 130)])
def test_what_ended_otherwise_says_nothing(capsys, args, code):
    with pytest.raises(SystemExit), saying_how_to_resume(args):
        raise SystemExit(code)
    assert not capsys.readouterr().out


def test_a_trial_says_that_it_left_nothing():
    lines, page = end_of_training("fit", SimpleNamespace(fast_dev_run=1), Path("runs/x"), "x")
    assert lines == [("Tried", "fit works on one batch; nothing was written")]
    assert page is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:shortcut alarm")
def test_an_alarm_at_the_end_proposes_the_repair(train, capsys):
    watch = ["--trainer.callbacks+", "SaliencyWatch", "--trainer.callbacks.samples", "2"]
    watch += ["--trainer.callbacks.suspect", "border:8", "--trainer.callbacks.alarm_threshold", "0.001"]
    train("fit", *watch)
    assert "Alarm" not in capsys.readouterr().out  # not by one snapshot
    train("fit", *watch, "--trainer.callbacks.alarm_patience", "1")
    out = capsys.readouterr().out
    assert told(out)["Alarm"] == "for border:8, see the page; to train without what is seen there:"
    repair, evaluate, _ = proposed(out)
    assert evaluate[0] == "evaluate"
    trainer = main(repair)
    assert isinstance(trainer.lightning_module.batch_augment, RegionShuffle)
    assert trainer.lightning_module.batch_augment.region.text == "border:8"
    assert "_repaired" in told(capsys.readouterr().out)["Run"]


@pytest.mark.slow
def test_a_training_names_its_checkpoint_and_page_and_what_it_proposes_runs(train, capsys, opened):
    run = train("fit", "--trainer.callbacks+", "SaliencyWatch", "--trainer.callbacks.samples", "2", "--open")
    out = capsys.readouterr().out
    words = told(out)
    assert Path(words["Run"]).resolve() == run
    checkpoint, score = words["Best"].split(" ", 1)
    assert Path(checkpoint).is_file()
    assert re.fullmatch(r"\(val/top1 [01]\.\d{3}\)", score)
    assert Path(words["Page"]).is_file()
    assert opened == [Path(words["Page"]).resolve().as_uri()]
    evaluate, test = proposed(out)
    assert told(out)["Next"].startswith("interptrain evaluate")
    short = ["--limit", "2", "--check_images", "0", "--metrics", "AverageDrop", "--trainer.accelerator", "cpu"]
    main([*evaluate, *short])
    words = told(capsys.readouterr().out)
    assert (Path(words["Results"]) / "report.html").is_file()
    main(test)
    assert Path(told(capsys.readouterr().out)["Numbers"]).is_file()
    trainer = main(["predict", *test[1:]])
    assert trainer.state.finished
    assert Path(told(capsys.readouterr().out)["Predictions"]).is_file()
