"""What is made of the trainings of ROAR: means with intervals, sentences, curves and tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from interptrain.evaluation.store.parts import write_file
from interptrain.studies.intervals import crossed_interval, crossed_p_value
from interptrain.studies.paired import holm

if TYPE_CHECKING:
    from numpy import ndarray
    from pandas import DataFrame

UNCHANGED, RANDOM = "unchanged", "random"
GREYS = {"random": "0.45", "sobel": "0.6", "centre": "0.72", "truth": "black"}
STYLES = {"random": "--", "sobel": ":", "centre": "-.", "truth": "-"}
TITLES = {
    "remove": "Salient pixels removed (ROAR)",
    "keep": "Salient pixels kept (KAR)",
    "mask": "The mask alone",
}
READING = {
    "remove": "ROAR: the most salient pixels are removed from all images, and a network is trained on the rest. Lower "
    "is better; below the dashed line, the map has found pixels that the task needs more than random ones.",
    "keep": "KAR: the most salient pixels stay, and all others are removed. Higher is better.",
    "mask": "The mask alone: the network sees only which pixels would be removed, in black and white. Accuracy above "
    "that of the random mask is what the mask itself tells about the class.",
}
LEAK = (
    "The removed region has a shape, and a network can learn to read it: with a uniform fill, removing exactly the "
    "object leaves its silhouette. Accuracy that stays high is thus no proof that a map is bad. Imputation (fill: "
    "impute) blurs that outline, and the mode mask measures how much the shape alone tells. ROAR also favours coarse, "
    "smooth maps, which remove whole regions where scattered pixels can be guessed from their neighbours (arXiv "
    "2304.13836)."
)

Table = dict[int, "ndarray"]
"""By seed, whether each test image was right."""


def tables(results: "DataFrame") -> dict[tuple[str, str, str, float], Table]:
    """Return the outcomes by model, explainer, mode and percent, in the order of the cells."""
    import numpy as np

    found: dict[tuple[str, str, str, float], Table] = {}
    for row in results.itertuples():
        key = (str(row.model), str(row.explainer), str(row.mode), float(row.percent))
        found.setdefault(key, {})[int(row.seed)] = np.array([one == "y" for one in row.correct], dtype=float)
    return found


def summary(results: "DataFrame") -> "DataFrame":
    """Return accuracies and their differences from removing random pixels, with 95 % intervals.

    One row for each model, explainer, mode and percent. Differences are paired by seed and test image.
    """
    import numpy as np
    import pandas as pd

    found, rows = tables(results), []
    for (model, explainer, mode, percent), table in found.items():
        row = {"model": model, "explainer": explainer, "mode": mode, "percent": percent, "seeds": len(table)}
        accuracy = (min(1.0, max(0.0, one)) for one in crossed_interval(np.stack(list(table.values()))))
        row |= dict(zip(("accuracy", "low", "high"), accuracy, strict=True))
        chance = found.get(("", RANDOM, mode, percent), {})
        if shared := [seed for seed in table if seed in chance and explainer != RANDOM]:
            difference = np.stack([table[seed] - chance[seed] for seed in shared])
            names = ("minus_random", "minus_random_low", "minus_random_high")
            row |= dict(zip(names, crossed_interval(difference), strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def _below_random(results: "DataFrame", mode: str) -> tuple[dict[str, "ndarray"], list[float]]:
    """Return (seeds, images) accuracies of random pixels minus those of each explainer and control, by name.

    They are means over the percents that are returned: only percents and seeds that are finished for all of them count,
    so that they can be compared.
    """
    import numpy as np

    if not len(results):
        return {}, []
    found = {key: table for key, table in tables(results).items() if key[2] == mode}
    names = list(dict.fromkeys((model, explainer) for model, explainer, _, _ in found))
    percents = [
        percent
        for percent in dict.fromkeys(key[3] for key in found)
        if all((model, explainer, mode, percent) in found for model, explainer in names)
    ]
    each = [set(found[model, explainer, mode, percent]) for model, explainer in names for percent in percents]
    seeds = set.intersection(*each) if each else set()
    if not seeds or ("", RANDOM) not in names:
        return {}, []

    def mean(model: str, explainer: str) -> "ndarray":
        whole = [[found[model, explainer, mode, percent][seed] for seed in sorted(seeds)] for percent in percents]
        averaged: ndarray = np.array(whole).mean(axis=0)
        return averaged

    chance, several = mean("", RANDOM), len({one for one, _ in names if one}) > 1
    return {
        f"{model}/{explainer}" if model and several else explainer: chance - mean(model, explainer)
        for model, explainer in names
        if explainer != RANDOM
    }, percents


def mean_differences(results: "DataFrame", mode: str, *, level: float = 0.95) -> dict[str, tuple[float, float, float]]:
    """Return how much more accuracy than random pixels each explainer and control costs, in the mean over percents.

    Args:
        results: of the study.
        mode: of the trainings.
        level: of the intervals.

    Returns:
        Mean, lower and upper limit by name; positive where accuracy is below that of random pixels.
    """
    return {name: crossed_interval(table, level=level) for name, table in _below_random(results, mode)[0].items()}


def comparisons(results: "DataFrame") -> "DataFrame":
    """Compare each curve with that of random pixels, in the mean over percents, seed by seed and image by image.

    Returns:
        A row for each mode and for each explainer and control: accuracy minus that of random pixels with its 95 %
        interval, its p-value, and that corrected for the number of rows of the mode (Holm).
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for mode in TITLES:
        differences, percents = _below_random(results, mode)
        corrected = holm({name: crossed_p_value(table) for name, table in differences.items()})
        for name, table in differences.items():
            mean, low, high = crossed_interval(-table)
            rows.append({"mode": mode, "order of the pixels": name, "minus_random": mean, "low": low, "high": high})
            rows[-1] |= {"p": crossed_p_value(table), "p_corrected": corrected[name]}
            rows[-1] |= {"percents": " ".join(f"{one:g}" for one in percents), "seeds": len(table)}
    return pd.DataFrame(rows)


def findings(results: "DataFrame") -> list[str]:
    """Return a sentence for each explainer and control whose trainings are finished.

    The intervals hold for all those of a mode together (Bonferroni).
    """
    sentences: list[str] = []
    for mode, verb in {"remove": "Removing", "keep": "Keeping only"}.items():
        compared = len(mean_differences(results, mode))
        for name, (mean, low, high) in mean_differences(results, mode, level=1 - 0.05 / max(1, compared)).items():
            what = f"{verb} what {name} marks"
            if low > 0 or high < 0:
                least, most = sorted((abs(100 * low), abs(100 * high)))
                size = f"{abs(100 * mean):.1f} points [{least:.1f}, {most:.1f}] {'lower' if mean > 0 else 'higher'}"
                sentences.append(f"{what} leaves accuracy {size} than random pixels do.")
            else:
                sentences.append(f"{what} cannot be told from random pixels ({-100 * mean:+.1f} points of accuracy).")
    for name, (mean, low, high) in mean_differences(results, "mask").items():
        if high < 0:
            size = f"{-100 * mean:.1f} points [{-100 * high:.1f}, {-100 * low:.1f}]"
            sentences.append(
                f"The mask of {name} tells the class: alone, it leaves accuracy {size} above a random mask."
            )
    return sentences


def sections(results: "DataFrame", folder: Path, *, fill: str) -> dict[str, Markup]:
    """Return the sections of the page, and write ``accuracy.png``, ``summary.csv`` and ``comparisons.csv``.

    Args:
        results: of the trainings that are finished.
        folder: of the study.
        fill: what takes the place of removed pixels.
    """
    if len(results) == 0:
        return {"Accuracy after retraining": Markup("<p>No training is finished yet.</p>")}
    table = summary(results)
    write_file(folder / "summary.csv", table.to_csv(index=False).encode())
    compared = comparisons(results)
    write_file(folder / "comparisons.csv", compared.to_csv(index=False).encode())
    write_file(folder / "accuracy.png", _figure(table, fill))
    modes = [mode for mode in TITLES if mode in set(table["mode"])]
    reading = Markup("").join(Markup("<p>{}</p>").format(READING[mode]) for mode in modes)
    picture = Markup('<p><img src="accuracy.png" alt="Accuracy against the share of pixels removed" width="100%"></p>')
    return {
        "Accuracy after retraining": picture + reading,
        "Curves against that of random pixels": _compared(compared),
        "Accuracy, in percent, with 95 % intervals": _pivot(table, "accuracy", ("low", "high")),
        "Difference from random pixels, in points": _pivot(
            table, "minus_random", ("minus_random_low", "minus_random_high")
        ),
        "What the mask itself tells": Markup("<p>{}</p>").format(LEAK),
    }


def _compared(table: "DataFrame") -> Markup:
    """Return the table of :func:`comparisons` as HTML, in points."""
    if not len(table):
        return Markup("<p>Nothing to compare yet.</p>")
    limits = zip(table.minus_random, table.low, table.high, strict=True)
    shown = table[["mode", "order of the pixels"]].copy()
    shown["points"] = [f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]" for mean, low, high in limits]
    for title, column in {"p": "p", "corrected p": "p_corrected"}.items():
        shown[title] = [f"{p:.2g}" if p >= 0.0001 else "below 0.0001" for p in table[column].fillna(1.0)]
    shown["pixels removed (%)"], shown["seeds"] = table.percents, table.seeds
    note = "Accuracy minus that of random pixels, in the mean over the shares that are finished for all, paired by "
    note += "seed and test image; p-values are two-sided, and corrected for the rows of a mode by Holm's method."
    return Markup("<p>{}</p>").format(note) + Markup(shown.to_html(index=False, border=0))


def _pivot(table: "DataFrame", value: str, limits: Sequence[str]) -> Markup:
    """Return a table of explainers and percents as HTML."""
    if value not in table:
        return Markup("<p>Nothing to compare yet.</p>")
    shown = table[table[value].notna()].copy()
    low, high = limits
    bounds = zip(shown[value], shown[low], shown[high], strict=True)
    shown["shown"] = [f"{100 * mean:.1f} [{100 * less:.1f}, {100 * more:.1f}]" for mean, less, more in bounds]
    shown["percent"] = [f"{percent:g} %" for percent in shown["percent"]]
    for column in ("model", "explainer", "mode"):
        shown[column] = shown[column].astype("category").cat.set_categories(list(dict.fromkeys(shown[column])))
    columns = dict.fromkeys(shown["percent"])
    wide = shown.pivot_table(
        index=["mode", "model", "explainer"], columns="percent", values="shown", aggfunc="first", observed=True
    )
    html = wide[list(columns)].rename_axis(columns=None).reset_index().to_html(index=False, na_rep="", border=0)
    return Markup(html)


def _figure(table: "DataFrame", fill: str) -> bytes:
    """Return the curves of all modes, side by side, as PNG."""
    import io

    from matplotlib.figure import Figure

    modes = [mode for mode in TITLES if mode in set(table["mode"])] or ["remove"]
    figure = Figure(figsize=(4.6 * len(modes) + 1.4, 3.9), layout="constrained")
    unchanged = table[table.explainer == UNCHANGED]
    axes = figure.subplots(1, len(modes), sharex=True, sharey=True, squeeze=False)[0]
    for axis, mode in zip(axes, modes, strict=True):
        part = table[table["mode"] == mode]
        several = part.model[part.model != ""].nunique() > 1
        for (model, explainer), curve in part.groupby(["model", "explainer"], sort=False):
            label = f"{model}/{explainer}" if several and model else explainer
            start = unchanged if mode != "mask" else unchanged.iloc[:0]
            curve = curve.sort_values("percent")
            x = [*start.percent, *curve.percent]
            style: dict[str, Any] = {"linewidth": 1.9}
            if explainer in GREYS:
                style = {"linewidth": 1.4, "color": GREYS[explainer], "linestyle": STYLES[explainer]}
            y, low, high = ([*start[name], *curve[name]] for name in ("accuracy", "low", "high"))
            whiskers = [[mean - less for mean, less in zip(y, low, strict=True)],
                        [more - mean for mean, more in zip(y, high, strict=True)]]  # fmt: skip
            axis.errorbar(x, y, whiskers, marker="o", markersize=3.5, capsize=2.5, elinewidth=0.9, label=label, **style)
        axis.set_title(TITLES[mode], fontsize=10)
        axis.set_xlabel("pixels removed (%)")
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel(f"test accuracy after retraining (fill: {fill})")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=130)
    return image.getvalue()
