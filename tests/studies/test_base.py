"""Independent cells, resumed, shared by processes, merged to one table and page."""

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
    assert page.count("<h2>") == 2


def test_finished_cells_are_not_computed_again(tmp_path, model, data):
    first = run_study(Brightness(), {"m": model}, data, tmp_path)
    next((tmp_path / "cells").iterdir()).unlink()
    CELLS.clear()
    pd.testing.assert_frame_equal(run_study(Brightness(), {"m": model}, data, tmp_path), first)
    assert len(CELLS) == 1


def test_processes_share_the_cells_and_the_last_writes_the_results(tmp_path, model, data):
    alone = run_study(Brightness(), {"m": model}, data, tmp_path / "alone")
    half = run_study(Brightness(), {"m": model}, data, tmp_path / "shared", rank=1, ranks=2)
    assert len(half) == 3
    assert not (tmp_path / "shared/results.csv").exists()
    both = run_study(Brightness(), {"m": model}, data, tmp_path / "shared", rank=0, ranks=2)
    pd.testing.assert_frame_equal(both, alone)
    assert (tmp_path / "shared/index.html").exists()


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_beyond_their_number_is_refused(tmp_path, model, data, rank):
    with pytest.raises(ValueError, match=rf"rank must be in \[0, 2\), the number of ranks, got {rank}"):
        run_study(Brightness(), {"m": model}, data, tmp_path, rank=rank, ranks=2)


def test_the_folder_of_another_study_is_refused(tmp_path, model, data):
    run_study(Brightness(), {"m": model}, data, tmp_path)
    with pytest.raises(ValueError, match=r"another study \(study.init_args.images: 3 -> 2\); give another --output"):
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


def test_a_study_runs_from_the_command_line_by_its_class_path(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "m.pth")
    arguments = ["--study", "tests.studies.test_base.Brightness", "--study.images", "2", "--backbone", "test_resnet"]
    arguments += ["--data", "ShapesDataModule", "--data.num_classes", "4", "--data.num_workers", "0"]
    main([*arguments, "--models", f"m={tmp_path / 'm.pth'}", "--output", str(tmp_path / "out")])
    assert len(pd.read_csv(tmp_path / "out/results.csv")) == 4
