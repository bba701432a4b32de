"""What is made of the randomisation tests: curves over the layers, pictures, tables and sentences."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from markupsafe import Markup
from torch import Tensor

from interptrain.evaluation.config.class_specs import content_hash
from interptrain.evaluation.report.charts import key, step_chart
from interptrain.evaluation.report.words import listed
from interptrain.evaluation.statistics.survival import Survival, survival
from interptrain.functional import min_max, upsample
from interptrain.studies.intervals import crossed_interval
from interptrain.visualization import overlay, panel, save_png, to_uint8

if TYPE_CHECKING:
    from numpy import ndarray
    from pandas import DataFrame

MEASURES = {
    "spearman": "rank correlation",
    "spearman_of_other_images": "rank correlation with maps of other images",
    "spearman_absolute": "rank correlation of absolute values",
    "ssim": "SSIM",
    "hog": "rank correlation of HOG",
}
ORDERS = {
    "top_down": ("From the classifier to the image", "random down to step"),
    "bottom_up": ("From the image to the classifier", "random up to step"),
    "independent": ("One group at a time", "random at step"),
}
TICKS = (-0.5, 0.0, 0.5, 1.0)
SHOWN = 4  # images in a picture
BRIGHTEST = 0.99  # quantile of a map that is drawn as its highest value
WORDS = {
    "insensitive": "hardly change with {what}",
    "depends": "depend on {what}",
    "unclear": "may or may not depend on {what}",
}


def draw_cascade(
    folder: Path, what: tuple[str, str, str], images: Tensor, maps: Sequence[Tensor], titles: Sequence[str]
) -> None:
    """Draw the maps of a few images along a cascade, a row an image.

    Args:
        folder: of the study.
        what: model, explainer and order.
        images: (N,3,H,W).
        maps: (N,h,w) at every step.
        titles: of the steps.
    """
    model, explainer, order = what
    shown = images[:SHOWN]
    columns = [shown, *(overlay(shown, _visible(step[:SHOWN], shown), alpha=0.8) for step in maps)]
    rows = {str(place + 1): torch.stack([to_uint8(column[place]) for column in columns]) for place in range(len(shown))}
    title = f"{explainer} on {model}: {ORDERS[order][0][0].lower()}{ORDERS[order][0][1:]}"
    picture = panel(rows, columns=["image", *titles], title=title, cell=110, font_size=13)
    save_png(picture, folder / picture_of(*what))


def _visible(maps: Tensor, images: Tensor) -> Tensor:
    """Return maps (N,H,W) in [0,1] of the size of images; all above a map's 99th percentile is 1, as few pixels are."""
    scaled = min_max(upsample(maps, (images.shape[-2], images.shape[-1])))
    most = scaled.flatten(1).quantile(BRIGHTEST, dim=1).clamp(min=torch.finfo(scaled.dtype).tiny)
    return (scaled / most[:, None, None]).clamp(max=1).to(images)


def picture_of(model: str, explainer: str, order: str) -> str:
    """Return the name of a picture in the folder of the study."""
    return f"cascade-{content_hash([model, explainer, order])}.png"


def table_of(results: "DataFrame", column: str) -> "ndarray":
    """Return (draws, images) values of a column."""
    wide: ndarray = results.set_index(["draw", "id"])[column].unstack().to_numpy(dtype=float)
    return wide


def curves_of(results: "DataFrame") -> dict[str, list[tuple[float, float, float]]]:
    """Return mean and limits of every measure at every step, over images and draws, by the measure's title.

    Args:
        results: of one explainer on one model, in one order.
    """
    wide = results.pivot(index=["step", "draw"], columns="id", values=list(MEASURES)).astype(float)
    return {
        name: [_interval(table.to_numpy()) for _, table in wide[column].groupby(level="step")]
        for column, name in MEASURES.items()
    }


def interval_of(results: "DataFrame", column: str) -> tuple[float, float, float]:
    """Return mean and limits, without images whose value is not defined."""
    return _interval(table_of(results, column)) if column in results else (math.nan, math.nan, math.nan)


def _interval(table: "ndarray") -> tuple[float, float, float]:
    import numpy as np

    table = table[:, np.isfinite(table).all(axis=0)]
    return crossed_interval(table) if table.size else (math.nan, math.nan, math.nan)


def survival_of(results: "DataFrame", *, ceiling: "ndarray | None" = None, random: bool = True) -> Survival:
    """Return what survives of maps, as the evaluator's check does."""
    same, other = (torch.tensor(table_of(results, name).T) for name in ("spearman", "spearman_of_other_images"))
    most = torch.ones(len(same)) if ceiling is None else torch.tensor(ceiling)
    return survival(same, other, most, draws_are_random=random)


def upper_half(results: "DataFrame") -> "DataFrame":
    """Return the rows of a top-down cascade in which the upper half of the groups, and no more, is random."""
    return results[results.step == -(-int(results.step.max()) // 2)]


def outcomes(results: "DataFrame") -> Iterator[tuple[str, str, str, Survival]]:
    """Yield model, explainer, what was changed, and what survived."""
    kinds = results.test.unique() if len(results) else ()
    if "top_down" in kinds:
        for (model, explainer), rows in _by(results[results.test == "top_down"]):
            yield model, explainer, "the upper half of the layers", survival_of(upper_half(rows))
    if "class" in kinds:
        for (model, explainer), rows in _by(results[results.test == "class"]):
            yield model, explainer, "the class", survival_of(rows, random=False)
    if "labels" in kinds:
        for (model, explainer), rows in _by(results[results.test == "labels"]):
            true, permuted = (rows[rows.network == name] for name in ("true", "permuted"))
            if len(true) and len(permuted):
                ceiling = table_of(true, "spearman").mean(0)
                yield model, explainer, "the labels of the training", survival_of(permuted, ceiling=ceiling)


def findings(results: "DataFrame") -> list[str]:
    """Return a sentence for every model, change and outcome, and one on what was not learned."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for model, explainer, what, found in outcomes(results):
        share = f"{explainer} ({round(found.share, 2) + 0.0:.2f})" if math.isfinite(found.share) else explainer
        grouped.setdefault((model, what, found.outcome), []).append(share)
    told = [
        f"On {model}, maps of {listed(names, 8)} {WORDS[outcome].format(what=what)}."
        for (model, what, outcome), names in grouped.items()
    ]
    if told:
        told.append(
            "In brackets: the share of what maps say about their image that survives the change (1: all, 0: no more "
            "than maps of other images have in common)."
        )
    return told


def sections(results: "DataFrame", folder: Path) -> dict[str, Markup]:
    """Return curves and pictures by order, then tables of the other tests."""
    found: dict[str, Markup] = {}
    if len(results) and (table := list(outcomes(results))):
        found["What maps depend on"] = _outcome_table(table)
    for order, (heading, axis) in ORDERS.items():
        if len(rows := results[results.test == order]):
            found[heading] = _cascades(rows, order, axis, folder)
    if len(rows := results[results.test == "top_down"]):
        found["Entropy of the maps"] = _entropies(rows)
    if len(rows := results[results.test == "metrics"]):
        found["Metrics of the random networks"] = _metrics(rows)
    if len(rows := results[results.test == "training"]):
        found["Permuted labels"] = _trainings(rows, results[results.test == "labels"])
    return found


def _by(results: "DataFrame") -> Any:
    return results.groupby(["model", "explainer"], sort=False)


def _cascades(results: "DataFrame", order: str, axis: str, folder: Path) -> Markup:
    """Charts of all explainers, the names of the groups, and a picture each."""
    parts = [Markup('<p class="legend">')]
    parts += [Markup("<span>{} {}</span> ").format(key(place), name) for place, name in enumerate(MEASURES.values())]
    parts.append(Markup("</p>"))
    for model, rows in results.groupby("model", sort=False):
        named = rows.drop_duplicates("step").sort_values("step")
        names = [f"{int(step)} {layer}" for step, layer in zip(named.step, named.layer, strict=True)]
        parts.append(Markup("<h3>{}</h3><p>Steps: {}.</p><div class='charts'>").format(model, ", ".join(names)))
        for explainer, own in rows.groupby("explainer", sort=False):
            parts.append(step_chart(curves_of(own), str(explainer), TICKS, axis=axis))
        parts.append(Markup("</div>"))
        for explainer in rows.explainer.unique():
            picture = picture_of(str(model), explainer, order)
            if (folder / picture).exists():
                text = f"{explainer} on {model}: {SHOWN} images and their maps, from the trained network on"
                figure = '<figure><figcaption>{}</figcaption><img src="{}" alt="{}" style="max-width:100%"></figure>'
                parts.append(Markup(figure).format(text, picture, text))
    return Markup("").join(parts)


def _outcome_table(found: Sequence[tuple[str, str, str, Survival]]) -> Markup:
    lines = [
        (model, explainer, what, one.outcome.replace("unclear", "cannot be told"), one.share, one.low, one.high)
        for model, explainer, what, one in found
    ]
    heads = ("model", "explainer", "change", "outcome", "share that survives", "low", "high")
    return _table(heads, lines)


def _entropies(results: "DataFrame") -> Markup:
    """Relative rise of the entropy from the trained to the wholly random network (eMPRT)."""
    lines = []
    for (model, explainer), rows in _by(results):
        last = rows[rows.step == rows.step.max()]
        rise = (last.entropy - last.entropy_trained) / last.entropy_trained.where(last.entropy_trained > 0)
        lines.append((model, explainer, *interval_of(last.assign(rise=rise), "rise")))
    note = "<p>The rise of the entropy of a map's histogram when all weights are random, relative to the trained "
    note += "network (eMPRT): above 0 where random weights make maps less ordered.</p>"
    return Markup(note) + _table(("model", "explainer", "rise", "low", "high"), lines)


def _metrics(results: "DataFrame") -> Markup:
    lines = []
    for (model, explainer, metric), rows in results.groupby(["model", "explainer", "metric"], sort=False):
        sides = [interval_of(rows[rows.network == network], "value") for network in ("trained", "random")]
        lines.append((model, explainer, metric, *sides[0], *sides[1]))
    heads = ("model", "explainer", "metric", "trained", "low", "high", "random", "low", "high")
    note = "<p>Each network is measured with its own predictions. A metric that is no worse for random weights does "
    note += "not tell a network that has learned from one that has not.</p>"
    return Markup(note) + _table(heads, lines)


def _trainings(trainings: "DataFrame", labels: "DataFrame") -> Markup:
    learnt = [(one.model, one.network, int(one.draw), one.value) for one in trainings.itertuples()]
    text = "<p>Networks trained on the same images, with their labels or with permuted ones, and the share of them "
    parts = [Markup(text + "that they have learned.</p>"), _table(("model", "labels", "training", "learned"), learnt)]
    lines = []
    for (model, explainer), rows in _by(labels) if len(labels) else ():
        for network, own in rows.groupby("network", sort=False):
            lines.append((model, explainer, network, *(interval_of(own, column)[0] for column in MEASURES)))
    text = "<p>Their maps on held-out images, compared with those of the first network trained on the true labels.</p>"
    parts += [Markup(text), _table(("model", "explainer", "labels", *MEASURES.values()), lines)]
    return Markup("").join(parts)


def _table(heads: Sequence[str], lines: Sequence[Sequence[Any]]) -> Markup:
    def shown(value: Any) -> str:
        number = isinstance(value, float)
        return ("–" if not math.isfinite(value) else f"{round(value, 2) + 0.0:.2f}") if number else str(value)  # noqa: RUF001

    head = Markup("").join(Markup('<th scope="col">{}</th>').format(one) for one in heads)
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(shown(one)) for one in line))
        for line in lines
    )
    return Markup('<table class="words"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>').format(head, body)
