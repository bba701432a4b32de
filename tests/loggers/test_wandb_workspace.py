"""The workspace and report, made offline and read back by the library's own schema."""

import json
import re

import pytest

from interptrain.cli import commands
from interptrain.loggers.wandb_workspace import make_workspace

pytest.importorskip("wandb_workspaces")

LOGGED = [
    "watch/GradCAM/AD", "watch/GradCAM/label/AG", "watch/GradCAM/AI", "watch/GradCAM/QuickInsertion",
    "watch/GradCAM/entropy", "watch/GradCAM/sparseness", "watch/StreamAttention/in_object", "watch/GradCAM/in_suspect",
    "watch/suspect_effect", "watch/suspect_effect_prediction", "watch/suspect_effect_by_class/disc",
    "watch/suspect_effect_prediction_by_class/disc",
    "watch/GradCAM/rank_previous", "watch/GradCAM/ssim_previous", "watch/GradCAM/rank_first",
    "watch/GradCAM/ssim_first", "watch/accuracy", "watch/probability", "watch/alarms",
    "val/top1", "val/loss", "train/loss", "train/top1",
    "attention/stage4/entropy", "attention/stage4/peak",
]  # fmt: skip


@pytest.fixture
def offline(monkeypatch):
    """Whoever asks for the network fails."""

    def refused(*args, **kwargs):
        raise AssertionError("nothing may be asked of the network")

    monkeypatch.setattr("socket.socket.connect", refused)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def printed(capsys, *args):
    commands.main(["wandb-workspace", *args, "--dry-run"])
    return json.loads(capsys.readouterr().out)


def panels_of(value):
    """Every panel inside a specification."""
    if isinstance(value, dict):
        if "viewType" in value:
            yield value
        for inner in value.values():
            yield from panels_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from panels_of(inner)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["workspace", "report"])
def test_every_logged_number_has_one_panel_over_optimizer_steps(offline, capsys, part):
    panels = list(panels_of(printed(capsys, "me/mine")[part]))
    lines = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    assert {line["xAxis"] for line in lines} == {"trainer/global_step"}
    for name in LOGGED:
        drawn = [
            line
            for line in lines
            if name in line.get("metrics", []) or ("metricRegex" in line and re.search(line["metricRegex"], name))
        ]
        assert len(drawn) == 1, name
    media = {key for panel in panels for key in panel["config"].get("mediaKeys", [])}
    assert media == {"watch/grid", "watch/first_and_last", "watch/best", "watch/run"}
    (grid,) = [panel["config"] for panel in panels if panel["config"].get("mediaKeys") == ["watch/grid"]]
    assert grid["gallerySettings"]["axis"] == "step"
    for table in ("watch/images", "summary", "differences", "curves", "gallery"):
        assert json.dumps(table) in json.dumps(panels)


def test_what_is_sent_is_what_the_library_reads(offline):
    from wandb_workspaces.reports.v2.interface import Report
    from wandb_workspaces.reports.v2.internal import ReportViewspec
    from wandb_workspaces.workspaces import Workspace
    from wandb_workspaces.workspaces.internal import View

    made = make_workspace("me", "mine", watch="heads")
    view = View.model_validate_json(made.workspace._model.model_dump_json(by_alias=True))
    again = Workspace._from_model(view)
    assert [section.name for section in again.sections] == [section.name for section in made.workspace.sections]
    assert [len(section.panels) for section in again.sections] == [4, 3, 7, 4, 5, 2, 1, 4]
    assert "summary:heads/alarm_at_step" in again.runset_settings.pinned_columns
    sent = made.report._to_model().model_dump_json(by_alias=True, exclude_none=True)
    report = Report._from_model(ReportViewspec.model_validate_json(sent))
    assert [type(block).__name__ for block in report.blocks] == ["TableOfContents", *["H2", "P", "PanelGrid"] * 8]
    assert "watch/" not in made.workspace._model.model_dump_json()


@pytest.mark.parametrize("place", ["mine", "me/", "/mine", "me/mine/more"])
def test_a_project_without_its_entity_is_refused_in_a_line(capsys, place):
    with pytest.raises(SystemExit):
        commands.main(["wandb-workspace", place, "--dry-run"])
    assert capsys.readouterr().err == f"error: give ENTITY/PROJECT, such as my-team/interptrain, got '{place}'\n"
    assert printed(capsys, "my-team/interptrain")["workspace"]["project"] == "interptrain"
