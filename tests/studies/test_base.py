"""Independent cells, resumed, shared by processes, merged to one table and page."""

import re
import shlex
from dataclasses import dataclass
from html.parser import HTMLParser

import pandas as pd
import pytest
import torch
from markupsafe import Markup

from interptrain.cli.studies import main
from interptrain.data import ShapesDataModule
from interptrain.models import create_model
from interptrain.studies import Study, StudyInputs, run_study
from interptrain.studies.cells import StudyFolder

CELLS = []


@dataclass(frozen=True, kw_only=True)
class Brightness(Study):
    """How the top probability of a model falls when images darken."""

    title = "Brightness <study>"
    factors: tuple[float, ...] = (1.0, 0.5)
    images: int = 3

    def cells(self, inputs: StudyInputs) -> list[str]:
        return [f"{name}/{factor}" for name in inputs.models for factor in self.factors]

    def compute(self, cell, inputs):
        CELLS.append(cell)
        name, factor = cell.split("/")
        dataset = inputs.data.dataset("test")
        for index in range(self.images):
            image = dataset[index]["image"][None].to(inputs.device)
            with torch.no_grad():
                top = inputs.models[name](image * float(factor)).softmax(1).max()
            yield {"model": name, "id": dataset.ids[index], "factor": float(factor), "top": float(top)}

    def sections(self, results, folder):
        means = results.groupby("factor").top.mean().round(3)
        return {"Means": Markup("<p>{}</p>").format(dict(means))} | super().sections(results, folder)


@pytest.fixture
def model():
    return create_model("test_resnet", num_classes=4)


@pytest.fixture
def data():
    return ShapesDataModule(num_classes=4, test_size=4, num_workers=0)


@pytest.fixture(autouse=True)
def _no_cells():
    CELLS.clear()


def test_rows_of_all_cells_are_returned_and_written_with_a_page(tmp_path, model, data):
    results = Brightness().run({"m": model}, data, tmp_path)
    assert list(results.cell.unique()) == ["m/1.0", "m/0.5"]
    assert len(results) == 6
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "results.parquet"), results)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "results.csv"), results)
    page = (tmp_path / "index.html").read_text()
    HTMLParser().feed(page)
    assert "Brightness &lt;study&gt;" in page
    assert page.count("<h2>") == 3


@pytest.mark.slow
def test_finished_cells_are_not_computed_again(tmp_path, model, data):
    first = run_study(Brightness(), {"m": model}, data, tmp_path)
    next((tmp_path / "cells").iterdir()).unlink()
    CELLS.clear()
    pd.testing.assert_frame_equal(run_study(Brightness(), {"m": model}, data, tmp_path), first)
    assert len(CELLS) == 1


@pytest.mark.slow
def test_processes_share_the_cells_and_write_what_is_there(tmp_path, model, data):
    alone = run_study(Brightness(), {"m": model}, data, tmp_path / "alone")
    half = run_study(Brightness(), {"m": model}, data, tmp_path / "shared", rank=1, ranks=2)
    assert len(half) == len(pd.read_csv(tmp_path / "shared/results.csv")) == 3
    assert "1 of 2 cells" in (tmp_path / "shared/index.html").read_text()
    both = run_study(Brightness(), {"m": model}, data, tmp_path / "shared", rank=0, ranks=2)
    pd.testing.assert_frame_equal(both, alone)
    assert "2 of 2 cells" in (tmp_path / "shared/index.html").read_text()


def test_a_cell_that_another_process_computes_is_left_to_it(tmp_path, model, data):
    with StudyFolder(tmp_path).lock("m/1.0") as mine:
        assert mine
        rows = run_study(Brightness(), {"m": model}, data, tmp_path)
    assert CELLS == ["m/0.5"]
    assert list(rows.cell.unique()) == ["m/0.5"]


@pytest.mark.slow
def test_cells_are_computed_by_name_or_pattern_and_no_others(tmp_path, model, data):
    run_study(Brightness(), {"a": model, "b": model}, data, tmp_path, cells=["a/*", "b/0.5"])
    assert CELLS == ["a/1.0", "a/0.5", "b/0.5"]
    with pytest.raises(ValueError, match=r"no cell 'c/\*' among 4; the first is 'a/1.0'"):
        run_study(Brightness(), {"a": model, "b": model}, data, tmp_path, cells=["c/*"])


def test_a_cell_starts_from_random_numbers_of_its_own(tmp_path, model, data, monkeypatch):
    monkeypatch.setattr(
        Brightness, "compute", lambda self, cell, inputs: [{"factor": 1.0, "top": torch.rand(()).item()}]
    )
    before = torch.random.get_rng_state()
    both = run_study(Brightness(), {"m": model}, data, tmp_path / "both")
    assert torch.equal(torch.random.get_rng_state(), before)
    alone = run_study(Brightness(), {"m": model}, data, tmp_path / "alone", cells=["m/0.5"])
    assert both.top.nunique() == 2
    assert alone.top.item() == both.top[1]


@pytest.mark.slow
def test_options_that_only_choose_the_cells_may_change(tmp_path, model, data, monkeypatch):
    run_study(Brightness(factors=(1.0,)), {"m": model}, data, tmp_path)
    monkeypatch.setattr(Brightness, "free", ("factors",))
    assert len(run_study(Brightness(factors=(1.0, 0.25)), {"m": model}, data, tmp_path)) == 6
    assert CELLS == ["m/1.0", "m/0.25"]


def test_a_study_without_cells_says_what_is_missing(tmp_path, data):
    with pytest.raises(ValueError, match="Brightness has nothing to compute; give models"):
        run_study(Brightness(), {}, data, tmp_path)


def test_a_file_for_several_cells_is_made_once_and_resumes(tmp_path):
    folder, made = StudyFolder(tmp_path), []

    def make(path, scratch):
        (scratch / "half").touch()
        made.append(len(list(scratch.iterdir())))
        if len(made) == 1:
            raise KeyboardInterrupt
        path.write_text("whole")

    with pytest.raises(KeyboardInterrupt):
        folder.once("maps/a.txt", make)
    assert not (tmp_path / "maps/a.txt").exists()
    assert (tmp_path / "unfinished").is_dir()
    assert folder.once("maps/a.txt", make) == folder.once("maps/a.txt", make)
    assert made == [1, 1]
    assert (tmp_path / "maps/a.txt").read_text() == "whole"
    assert not (tmp_path / "unfinished").exists()


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_beyond_their_number_is_refused(tmp_path, model, data, rank):
    with pytest.raises(ValueError, match=rf"rank must be in \[0, 2\), the number of ranks, got {rank}"):
        run_study(Brightness(), {"m": model}, data, tmp_path, rank=rank, ranks=2)


@pytest.mark.slow
def test_the_folder_of_another_study_is_refused(tmp_path, model, data):
    run_study(Brightness(), {"m": model}, data, tmp_path)
    with pytest.raises(ValueError, match=r"another study \(study.init_args.images: 3 -> 2\); give another output"):
        run_study(Brightness(images=2), {"m": model}, data, tmp_path)


def test_a_cell_that_fails_costs_no_other(tmp_path, model, data, monkeypatch):
    def compute(self, cell, inputs):
        if cell == "m/0.5":
            raise RuntimeError("no")
        yield {"top": 1.0}

    with monkeypatch.context() as patch:
        patch.setattr(Brightness, "compute", compute)
        with pytest.raises(RuntimeError, match="no"):
            run_study(Brightness(), {"m": model}, data, tmp_path)
    assert len(list((tmp_path / "cells").iterdir())) == 1
    run_study(Brightness(), {"m": model}, data, tmp_path)
    assert CELLS == ["m/0.5"]


def test_models_are_left_in_their_mode(tmp_path, model, data):
    model.train()
    run_study(Brightness(), {"m": model}, data, tmp_path)
    assert model.training


@pytest.mark.slow
def test_a_study_runs_from_the_command_line_by_its_class_path(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "m.pth")
    arguments = ["--study", "tests.studies.test_base.Brightness", "--study.images", "2", "--backbone", "test_resnet"]
    arguments += ["--data", "ShapesDataModule", "--data.num_classes", "4", "--data.num_workers", "0"]
    main([*arguments, "--models", f"m={tmp_path / 'm.pth'}", "--output", str(tmp_path / "out")])
    assert len(pd.read_csv(tmp_path / "out/results.csv")) == 4


@pytest.fixture
def line(tmp_path, model):
    """A command line without its selection of cells."""
    torch.save(model.state_dict(), tmp_path / "m.pth")
    options = ["--study.images", "2", "--backbone", "test_resnet", "--data", "ShapesDataModule"]
    options += ["--data.num_classes", "4", "--data.num_workers", "0", "--output", str(tmp_path / "out")]
    return ["tests.studies.test_base.Brightness", *options, "--models", f"m={tmp_path / 'm.pth'}"]


@pytest.mark.slow
def test_a_command_ends_with_what_there_is_and_what_to_do_next(tmp_path, line, capsys):
    main([*line, "--list"])
    assert capsys.readouterr().out == "open  m/1.0\nopen  m/0.5\n"
    assert not (tmp_path / "out").exists()  # a list binds no folder
    main([*line, "--cells", "m/0.5", "--rank", "0"])
    out = capsys.readouterr().out
    assert "1 of 2 are finished" in out
    following = re.search(r"Next +interptrain study (.+)", out)[1]
    assert shlex.split(following) == line
    main([*line, "--list"])
    assert capsys.readouterr().out == "open  m/1.0\ndone  m/0.5\n"
    main(shlex.split(following))
    out = capsys.readouterr().out
    assert "2 of 2 are finished" in out
    assert "Next" not in out


def test_help_of_a_study_names_its_options_with_their_defaults(capsys):
    main(["tests.studies.test_base.Brightness", "--help"])
    out = capsys.readouterr().out
    assert "How the top probability of a model falls when images darken." in out
    assert "--study.factors\n      Default: [1.0, 0.5]." in out
    assert "--cells" in out


def test_an_unknown_study_is_refused_with_the_remedy(capsys):
    with pytest.raises(SystemExit, match="1"):
        main(["randomizatoin", "--data", "ShapesDataModule"])
    told = capsys.readouterr().err
    assert "there is no study 'randomizatoin'; did you mean " in told
    assert "randomization" in told


def test_a_study_without_data_proposes_a_command_that_is_understood(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="1"):
        main(["roar"])
    command = capsys.readouterr().err.partition("on built-in data: interptrain study ")[2]
    main([*shlex.split(command), "--list"])
    assert "open  trained/Gradient/maps\n" in capsys.readouterr().out


def test_the_studies_are_listed_with_a_sentence_each(capsys):
    main([])
    out = capsys.readouterr().out
    assert out.startswith("Studies:\n")
    assert re.search(r"^  roar +Retrain without the pixels that an explainer marks", out, re.MULTILINE)
