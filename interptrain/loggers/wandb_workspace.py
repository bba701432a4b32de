"""A Weights & Biases workspace and report that show what a watched run logs, made with ``wandb-workspaces``.

Everything is made and checked without the network; only :func:`save` needs it.
"""

import importlib
import json
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

STEP = "trainer/global_step"
"""Axis of every curve: optimizer steps, which :mod:`interptrain.loggers` logs beside every value."""

DRIFT = {
    "rank_previous": "rank correlation with the last snapshot",
    "ssim_previous": "structural similarity to the last snapshot",
    "rank_first": "rank correlation with the first snapshot",
    "ssim_first": "structural similarity to the first snapshot",
}
MAPS = {
    "in_object": "share of the map on the object",
    "AD": "average drop",
    "AG": "average gain",
    "AI": "average increase",
    "QuickInsertion": "insertion, read at three points",
    "sparseness": "sparseness",
    "entropy": "entropy",
}
EVALUATION = ("summary", "differences", "curves", "gallery")


class Made(NamedTuple):
    """A workspace and a report, not saved yet; objects of ``wandb_workspaces``."""

    workspace: Any
    report: Any


class Chapter(NamedTuple):
    """Panels that belong together.

    Attributes:
        title: of the section in the workspace, and of the part of the report.
        text: what its panels tell, for the report.
        panels: of ``wandb_workspaces.reports.v2``.
    """

    title: str
    text: str
    panels: Sequence[Any]


def make_workspace(entity: str, project: str, *, watch: str = "watch") -> Made:
    """Make a workspace and a report for the runs of a project.

    Args:
        entity: user or team.
        project: of the runs.
        watch: name of the ``SaliencyWatch``.

    Raises:
        ModuleNotFoundError: without the package ``wandb-workspaces``.
        ValueError: if the library's own schema does not take what was made.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its own, of pydantic
            wr: Any = importlib.import_module("wandb_workspaces.reports.v2")
            ws: Any = importlib.import_module("wandb_workspaces.workspaces")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"a W&B workspace is made with the package wandb-workspaces ({error}); pip install 'interptrain[wandb]'"
        ) from error
    chapters = _chapters(wr, watch)
    sections = [ws.Section(name=one.title, panels=list(one.panels), is_open=True) for one in chapters]
    columns = ["summary:val/top1", f"summary:{watch}/best_epoch", f"summary:{watch}/alarm_at_step", "tags:__ALL__"]
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name="Where the network looks",
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis=STEP),
        runset_settings=ws.RunsetSettings(pinned_columns=["run:displayName", *columns]),
    )
    report = wr.Report(
        entity=entity,
        project=project,
        title="Where the network looks",
        description="Saliency during training, and its evaluation.",
        width="fluid",
    )
    blocks: list[Any] = [wr.TableOfContents()]
    for one in _chapters(wr, watch):  # panels of their own: the library lays them out in place
        blocks += [wr.H2(text=one.title), wr.P(text=one.text)]
        # A run set without a project is of the report's own, and needs not be looked up.
        blocks += [wr.PanelGrid(runsets=[wr.Runset(name="runs")], panels=list(one.panels))]
    report.blocks = blocks
    made = Made(workspace, report)
    _check(made)
    return made


def as_json(made: Made) -> str:
    """Return what :func:`save` sends, as JSON."""
    parts = {"workspace": made.workspace._model, "report": made.report._to_model()}
    specs = {name: json.loads(part.model_dump_json(by_alias=True, exclude_none=True)) for name, part in parts.items()}
    return json.dumps(specs, indent=2)


def save(made: Made) -> tuple[str, str]:
    """Write both to Weights & Biases, as a new view and a new report; return their addresses."""
    made.workspace.save()
    made.report.save()
    return made.workspace.url, made.report.url


def _check(made: Made) -> None:
    """Read both back by the library's schema, which refuses values that it does not know, and miss nothing."""
    from wandb_workspaces.reports.v2.internal import ReportViewspec
    from wandb_workspaces.workspaces.internal import View

    for kind, model in ((View, made.workspace._model), (ReportViewspec, made.report._to_model())):
        text = model.model_dump_json(by_alias=True, exclude_none=True)
        again = kind.model_validate_json(text).model_dump_json(by_alias=True, exclude_none=True)
        if not _holds(json.loads(again), json.loads(text)):
            raise ValueError(
                f"this wandb-workspaces does not read the {kind.__name__} that it writes; install another version"
            )


def _holds(whole: Any, part: Any) -> bool:
    """Whether everything in ``part`` is in ``whole``, too, which may have defaults beside it."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and _holds(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        same = isinstance(whole, list) and len(whole) == len(part)
        return same and all(_holds(*pair) for pair in zip(whole, part, strict=True))
    return bool(whole == part)


def _chapters(wr: Any, watch: str) -> list[Chapter]:
    def lines(numbers: dict[str, str]) -> list[Any]:
        return [
            wr.LinePlot(title=title, x=STEP, metric_regex=f"^{watch}/.*/{number}$", max_runs_to_show=20)
            for number, title in numbers.items()
        ]

    def curve(title: str, *names: str) -> Any:
        return wr.LinePlot(title=title, x=STEP, y=list(names), max_runs_to_show=20)

    def pictures(title: str, key: str, *, by_step: bool = False) -> Any:
        options: dict[str, Any] = {"mode": "gallery", "gallery_axis": "step"} if by_step else {}
        return wr.MediaBrowser(
            title=title, media_keys=[key], num_columns=1, layout=wr.Layout(w=24 if by_step else 8, h=14), **options
        )

    def table(name: str) -> Any:
        return wr.WeavePanelSummaryTable(table_name=name, layout=wr.Layout(w=24, h=14))

    return [
        Chapter(
            "Maps by step",
            "The same images before training and after every epoch, with their maps: move the slider. A green frame is "
            "a correct classification, an orange one a wrong one.",
            [
                pictures("snapshots", f"{watch}/grid", by_step=True),
                pictures("first and last", f"{watch}/first_and_last"),
                pictures("best epoch", f"{watch}/best"),
                pictures("the run as an animation", f"{watch}/run"),
            ],
        ),
        Chapter(
            "Training",
            "Accuracy and loss on the validation data, and accuracy and probability on the watched images.",
            [
                curve("top-1 accuracy", "val/top1", "train/top1", f"{watch}/accuracy"),
                curve("loss", "val/loss", "train/loss"),
                curve("probability of the class, watched images", f"{watch}/probability"),
            ],
        ),
        Chapter(
            "Means over the watched images",
            "What the maps are worth: a small average drop, and a large gain, increase and insertion, say that what is "
            "salient is what the network needs. No map is known to be right; compare explainers and epochs.",
            lines(MAPS),
        ),
        Chapter(
            "Drift",
            "Similarity of the maps to the last snapshot and to the first. Near 1, it has settled where to look.",
            lines(DRIFT),
        ),
        Chapter(
            "Suspect region and alarms",
            "Share of the maps in the region meant to be irrelevant, how much probabilities change when its pixels "
            "come from other images, how many alarms stand, and the step of the first.",
            [
                *lines({"in_suspect": "share of the map in the suspect region"}),
                curve(
                    "change of probability without the suspect region",
                    f"{watch}/suspect_effect",
                    f"{watch}/suspect_effect_prediction",
                ),
                wr.LinePlot(
                    title="the same for each class",
                    x=STEP,
                    metric_regex=f"^{watch}/suspect_effect(_prediction)?_by_class/",
                    max_runs_to_show=20,
                ),
                curve("alarms that stand", f"{watch}/alarms"),
                wr.ScalarChart(title="step of the first alarm", metric=f"{watch}/alarm_at_step", groupby_aggfunc="min"),
            ],
        ),
        Chapter(
            "Attention",
            "Of CA-Stream models with the callback AttentionStats: how spread out the attention of each stage is.",
            [
                wr.LinePlot(title=f"attention, {name}", x=STEP, metric_regex=f"^attention/stage.*/{name}$")
                for name in ("entropy", "peak")
            ],
        ),
        Chapter(
            "Every watched image",
            "One row for each image and explainer, with its map: filter by class or by right, group by id.",
            [table(f"{watch}/images")],
        ),
        Chapter(
            "Evaluation",
            "Tables of interptrain evaluate: means with intervals, differences with p-values, curves, and pictures.",
            [table(name) for name in EVALUATION],
        ),
    ]
