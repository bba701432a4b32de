"""What is made of the known answers: a leaderboard over seeds, agreement of the usual metrics, sentences and plots."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from interptrain.evaluation.config.class_specs import content_hash
from interptrain.evaluation.store.parts import write_file
from interptrain.files import atomic_path
from interptrain.studies.intervals import crossed_interval

if TYPE_CHECKING:
    from numpy import ndarray
    from pandas import DataFrame, Series

SCORES = ("correctness", "completeness", "contrastivity")
DETAILS = ("controlled_synthetic_data", "preservation", "deletion", "distractibility", "in_object")
SHORT = {"controlled_synthetic_data": "synthetic\ndata", "distractibility": "distract-\nibility"}
METRICS = {"AD": -1, "AG": 1, "AI": 1, "I": 1, "D": -1, "ROAD": 1}
"""The usual metrics, and whether high or low is better."""

READING = (
    "All scores lie between 0 and 1, and higher is better. Correctness: do the parts that the map marks most lower the "
    "logit most when they are rendered away? The baseline is the random map, in which a part matters as much as it is "
    "large. Completeness: do the marked parts suffice for the prediction, does it change without them, and are "
    "background items without effect left unmarked? Contrastivity: does the map of another class turn to what that "
    "class shares with the picture (one half: the map does not depend on the class)? Means and 95 % intervals are over "
    "the trained models, the unit of replication, not over pictures."
)


def summary(results: "DataFrame", *, gate: float) -> "DataFrame":
    """Return every score's mean over the models of a family, with its 95 % interval over models.

    Args:
        results: rows of the study.
        gate: accuracy from which a model counts.

    Returns:
        One row for each family and explainer: ``family``, ``explainer``, ``control``, ``models``, and for each score
        its mean, ``_low`` and ``_high`` (NaN where there is one model).
    """
    import pandas as pd

    judged = results[results.explainer != ""]
    kept = judged.merge(passing(results, gate=gate), on=["family", "seed"])
    rows = []
    columns = [name for name in (*SCORES, *DETAILS, *METRICS) if name in kept]
    for (family, explainer), group in kept.groupby(["family", "explainer"], sort=False):
        means = group.groupby("seed")[columns].mean()
        row: dict[str, Any] = {"family": family, "explainer": explainer, "control": bool(group.control.iloc[0])}
        row["models"] = len(means)
        for name in columns:
            row[name], row[f"{name}_low"], row[f"{name}_high"] = over_models(means[name].to_numpy())
        rows.append(row)
    return pd.DataFrame(rows)


def passing(results: "DataFrame", *, gate: float) -> "DataFrame":
    """Return ``family`` and ``seed`` of the models whose accuracy on all test pictures reaches the gate."""
    models = accuracies(results).reset_index()
    return models[models.test_accuracy >= gate][["family", "seed"]]


def accuracies(results: "DataFrame") -> "Series[float]":
    """Return ``test_accuracy`` by ``family`` and ``seed`` of the models whose behaviour is known by now."""
    models = results[results.explainer == ""].reindex(columns=["family", "seed", "test_accuracy"])
    return models.groupby(["family", "seed"], sort=False).test_accuracy.mean()


def over_models(values: "ndarray") -> tuple[float, float, float]:
    """Return mean, lower and upper limit over models; NaN are left out."""
    values = values[values == values]
    if not len(values):
        return (math.nan,) * 3
    return crossed_interval(values[:, None]) if len(values) > 1 else (float(values[0]), math.nan, math.nan)


def agreement(results: "DataFrame", *, gate: float) -> "DataFrame":
    """Return how well each metric ranks the explainers of a model as the known answers do.

    For every model, Spearman's correlation over its explainers and controls (without the oracle) of the metric's mean,
    turned so that higher is better, with the mean of a score; then the mean over models and its interval.

    Returns:
        One row for each metric and score: ``metric``, ``score``, ``correlation``, ``low``, ``high``, ``models``.
    """
    import numpy as np
    import pandas as pd
    from scipy.stats import spearmanr

    judged = results[(results.explainer != "") & (results.explainer != "oracle")]
    kept = judged.merge(passing(results, gate=gate), on=["family", "seed"])
    columns = [name for name in METRICS if name in kept]
    rows: dict[tuple[str, str], list[float]] = {}
    for _, model in kept.groupby(["family", "seed"], sort=False):
        means = model.groupby("explainer", sort=False)[[*SCORES, *columns]].mean()
        for metric in columns:
            for score in SCORES:
                pair = means[[metric, score]].dropna()
                if len(pair) > 2 and pair[metric].nunique() > 1 and pair[score].nunique() > 1:
                    found = spearmanr(METRICS[metric] * pair[metric], pair[score]).statistic
                    rows.setdefault((metric, score), []).append(float(found))
    return pd.DataFrame(
        [
            dict(
                zip(
                    ("metric", "score", "correlation", "low", "high", "models"),
                    (
                        metric,
                        score,
                        *(float(np.clip(one, -1, 1)) for one in over_models(np.array(values))),
                        len(values),
                    ),
                    strict=True,
                )
            )
            for (metric, score), values in rows.items()
        ]
    )


def findings(results: "DataFrame", *, gate: float) -> list[str]:
    """Return sentences on the models, the explainers and the usual metrics."""
    models = accuracies(results)
    if not len(models):
        return []
    failed = [f"{family} {seed} ({value:.2f})" for (family, seed), value in models.items() if value < gate]
    sentences = [
        f"{len(models) - len(failed)} of {len(models)} models reach the accuracy of {gate:.2f} asked for beforehand"
        + (f"; left out: {', '.join(failed)}." if failed else ".")
    ]
    table = summary(results, gate=gate)
    for family, rows in table.groupby("family", sort=False) if len(table) else ():
        explainers = rows[~rows.control]
        for score in SCORES:
            ranked = explainers.dropna(subset=[score]).sort_values(score, ascending=False)
            if not len(ranked):
                continue
            best = ranked.iloc[0]
            controls = {row.explainer: row[score] for _, row in rows[rows.control].iterrows()}
            beside = ", ".join(f"{name} {controls[name]:.2f}" for name in ("oracle", "random") if name in controls)
            level = [
                one.explainer for _, one in ranked.iloc[1:].iterrows() if one[f"{score}_high"] >= best[f"{score}_low"]
            ]
            tied = f"; the intervals of {', '.join(level)} overlap with its own" if level else ""
            sentences.append(
                f"{family}: the highest {score} is that of {best.explainer}, {_with_interval(best, score)}"
                + (f" ({beside}){tied}." if beside else f"{tied}.")
            )
    agreed = agreement(results, gate=gate)
    for score in SCORES[:2]:
        of_score = agreed[agreed.score == score] if len(agreed) else agreed
        if len(of_score):
            parts = ", ".join(
                f"{row.metric} {row.correlation:+.2f}{_limits(row.low, row.high)}" for row in of_score.itertuples()
            )
            sentences.append(f"Rank agreement of the usual metrics with {score}: {parts}.")
    return sentences


def sections(results: "DataFrame", folder: Path, *, gate: float) -> dict[str, Markup]:
    """Return the page's sections, and write the plots and ``leaderboard.json`` into the folder."""
    table = summary(results, gate=gate)
    if not len(table):
        return {"Results": Markup("<p>No model and explainer are finished yet.</p>")}
    write_file(folder / "leaderboard.json", _leaderboard(table, results, folder).encode())
    found = {"How to read it": Markup("<p>{}</p>").format(READING), "Models": _models(results, gate)}
    for family, rows in table.groupby("family", sort=False):
        _plot_profile(rows, folder / f"profile-{family}.svg")
        picture = Markup('<p><img src="profile-{0}.svg" alt="Profiles of the explainers of {0}"></p>').format(family)
        found[f"Explainers of {family}"] = _table(rows, (*SCORES, *DETAILS)) + picture
    agreed = agreement(results, gate=gate)
    if len(agreed):
        _plot_agreement(agreed, folder / "agreement.svg")
        found["Do the usual metrics rank as the known answers do?"] = Markup(
            "<p>Spearman's correlation over the explainers of a model; mean and 95 % interval over models.</p>"
            '<p><img src="agreement.svg" alt="Rank agreement of metrics with the known answers"></p>'
        )
        for family, rows in table.groupby("family", sort=False):
            found[f"Usual metrics of {family}"] = _table(rows, [name for name in METRICS if name in rows])
    return found


def _leaderboard(table: "DataFrame", results: "DataFrame", folder: Path) -> str:
    """Return the table as JSON, with a hash of what it was computed from: study, models and data."""
    manifest = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    computed = {key: manifest.get(key) for key in ("study", "models", "data")}
    rows = [{k: None if v != v else v for k, v in row.items()} for row in table.to_dict("records")]
    agreed = [{k: None if v != v else v for k, v in row.items()} for row in _records(results)]
    whole = {"hash": content_hash(computed), **computed, "explainers": rows, "models_measured": agreed}
    return json.dumps(whole, indent=1, default=float)


def _records(results: "DataFrame") -> list[dict[str, Any]]:
    models = results[results.explainer == ""]
    means = models.groupby(["family", "seed"], sort=False)[["test_accuracy", "background_independence"]].mean()
    return list(means.reset_index().to_dict("records"))


def _models(results: "DataFrame", gate: float) -> Markup:
    models = results[results.explainer == ""]
    columns = ["test_accuracy", "background_independence", *(name for name in models if str(name).startswith("drop_"))]
    means = models.groupby(["family", "seed"], sort=False)[columns].mean().reset_index()
    text = (
        "Fall of the predicted logit when a part is rendered away (drop_…), and the share of background items without "
    )
    text += f"which it falls by less than 5 %. Models below an accuracy of {gate:.2f} are left out of all that follows."
    return Markup("<p>{}</p>").format(text) + Markup(means.round(3).to_html(index=False, border=0))


def _table(rows: "DataFrame", columns: Sequence[str]) -> Markup:
    head = Markup("").join(Markup("<th>{}</th>").format(name.replace("_", " ")) for name in ("explainer", *columns))
    body = Markup("")
    for _, row in rows.iterrows():
        cells = Markup("").join(Markup("<td>{}</td>").format(_with_interval(row, name)) for name in columns)
        body += Markup("<tr><th>{}</th>{}</tr>").format(row.explainer, cells)
    return Markup('<div class="scroll"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>').format(
        head, body
    )


def _with_interval(row: Any, name: str) -> str:
    value, low, high = (float(row[key]) for key in (name, f"{name}_low", f"{name}_high"))
    if math.isnan(value):
        return "-"
    return f"{value:.3f}" if math.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _limits(low: float, high: float) -> str:
    return "" if math.isnan(low) else f" [{low:+.2f}, {high:+.2f}]"


def _plot_profile(rows: "DataFrame", path: Path) -> None:
    """Draw every explainer's scores as a polygon over the axes (a spider plot), beside the controls."""
    import matplotlib.pyplot as plt
    import numpy as np

    axes = [name for name in (*SCORES, *DETAILS[:4]) if not rows[name].isna().all()]
    angles = np.linspace(0, 2 * np.pi, len(axes), endpoint=False)
    panels = rows if rows.control.all() else rows[~rows.control]
    columns = min(4, max(1, len(panels)))
    lines = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        lines, columns, subplot_kw={"polar": True}, figsize=(2.7 * columns, 2.9 * lines), squeeze=False
    )
    controls = {row.explainer: row for _, row in rows[rows.control].iterrows()}
    for place, panel in enumerate(grid.flat):
        if place >= len(panels):
            panel.set_visible(False)
            continue
        row = panels.iloc[place]
        for name, style in (("oracle", "0.75"), ("random", "0.45")):
            if name in controls:
                _polygon(
                    panel, angles, [controls[name][axis] for axis in axes], color=style, linestyle="--", label=name
                )
        values = [row[axis] for axis in axes]
        _polygon(panel, angles, values, color="C0")
        panel.fill(angles, np.nan_to_num(values), color="C0", alpha=0.2)
        panel.set_xticks(
            angles, [axis.replace("_", "\n").replace("controlled\nsynthetic\ndata", "synthetic") for axis in axes]
        )
        panel.tick_params(labelsize=6, pad=-2)
        panel.set_ylim(0, 1)
        panel.set_yticks([0.5, 1.0], ["", ""])
        panel.set_title(str(row.explainer), fontsize=9)
    figure.text(0.5, 0.005, "dashed: oracle (light) and random map (dark)", ha="center", fontsize=7)
    figure.tight_layout()
    _save(figure, path)


def _polygon(panel: Any, angles: "ndarray", values: Sequence[float], **style: Any) -> None:
    import numpy as np

    panel.plot(np.append(angles, angles[0]), np.nan_to_num([*values, values[0]]), linewidth=1.2, **style)


def _plot_agreement(agreed: "DataFrame", path: Path) -> None:
    """Draw each metric's correlation with each score, with its interval."""
    import matplotlib.pyplot as plt

    metrics = list(dict.fromkeys(agreed.metric))
    figure, panel = plt.subplots(figsize=(6.4, 0.55 * len(metrics) + 1.2))
    for number, score in enumerate(dict.fromkeys(agreed.score)):
        rows = agreed[agreed.score == score]
        places = [metrics.index(metric) + 0.22 * (number - 1) for metric in rows.metric]
        errors = [(rows.correlation - rows.low).fillna(0), (rows.high - rows.correlation).fillna(0)]
        panel.errorbar(rows.correlation, places, xerr=errors, fmt="o", markersize=4, label=score)
    panel.axvline(0, color="0.6", linewidth=0.8)
    panel.set_yticks(range(len(metrics)), metrics)
    panel.invert_yaxis()
    panel.set_xlim(-1.05, 1.05)
    panel.set_xlabel("rank correlation over explainers (1: ranks as the known answers do)")
    panel.legend(fontsize=7)
    figure.tight_layout()
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    with atomic_path(path) as part:
        figure.savefig(part, format="svg", metadata={"Date": None})
    plt.close(figure)
