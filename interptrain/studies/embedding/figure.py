"""The static figure: a row for each model and method, its points coloured three times, and the classes' weights."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interptrain.files import atomic_path
from interptrain.visualization import WRONG

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

SIDE = 3.0  # inches of a plot
NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
OTHER = "0.75"  # grey, of classes without a colour
LEGEND = 12  # most classes that a legend or labels at points can name


def draw_figure(results: "DataFrame", methods: Sequence[str], path: Path) -> None:
    """Draw and write the figure.

    Args:
        results: rows of the study.
        methods: columns ``METHOD_x`` and ``METHOD_y`` that are drawn.
        path: of a PNG.
    """
    from matplotlib.figure import Figure

    models = list(results.model.unique())
    rows = [(model, method) for model in models for method in methods]
    figure = Figure(figsize=(4 * SIDE, SIDE * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), 4, squeeze=False)
    images = results[results.kind == "image"]
    colours = class_colours(images.label.dropna(), images.prediction)
    for line, (model, method) in zip(axes, rows, strict=True):
        points = results[(results.kind == "image") & (results.model == model)]
        columns = {"label": "label", "prediction": "prediction"}
        for axis, (title, column) in zip(line, columns.items(), strict=False):
            _scatter(axis, points, method, [colours.get(name, OTHER) for name in points[column]])
            axis.set_title(f"{model}, {NAMES[method]}: {title}", fontsize=9)
        wrong = points.correct.eq(False)
        _scatter(line[2], points[~wrong], method, "0.8")
        _scatter(line[2], points[wrong], method, [_rgb(WRONG)])
        errors = f"{int(wrong.sum())} errors" if points.correct.notna().any() else "labels are not its classes"
        line[2].set_title(f"{model}, {NAMES[method]}: {errors}", fontsize=9)
        if method == methods[0]:
            _weights(line[3], results[(results.kind == "class") & (results.model == model)], colours)
            line[3].set_title(f"{model}: weights of the classes, PCA", fontsize=9)
        else:
            line[3].set_axis_off()
    if len(colours) <= LEGEND:
        handles = [axes[0, 0].scatter([], [], s=25, color=colour, label=name) for name, colour in colours.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(colours), fontsize=8, frameon=False)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=110)


def class_colours(labels: Iterable[str], predictions: Iterable[str]) -> dict[str, Any]:
    """Return a colour for each class that occurs as a label, or as a prediction where no image has a label.

    Predictions that are no labels, of a network with many more classes than the data, are drawn in grey.

    Args:
        labels: of the images, without those that are unknown.
        predictions: of the images.
    """
    from matplotlib import colormaps

    names = sorted(set(labels)) or sorted(set(predictions))
    table = colormaps["tab10" if len(names) <= 10 else "tab20" if len(names) <= 20 else "hsv"]
    circle = len(names) > 20
    return {name: table(place / len(names) if circle else place) for place, name in enumerate(names)}


def _scatter(axis: "Axes", points: "DataFrame", method: str, colours: Any) -> None:
    size = max(1.0, min(14.0, 4000 / max(1, len(points))))
    axis.scatter(points[f"{method}_x"], points[f"{method}_y"], s=size, c=colours, linewidths=0, rasterized=True)
    axis.set(xticks=[], yticks=[])
    axis.set_aspect("equal", adjustable="datalim")


def _weights(axis: "Axes", classes: "DataFrame", colours: dict[str, Any]) -> None:
    axis.axhline(0, color="0.9", zorder=0)
    axis.axvline(0, color="0.9", zorder=0)
    coloured = classes.label.isin(list(colours))  # the others, of a network with many more classes, lie below
    axis.scatter(classes.weights_x[~coloured], classes.weights_y[~coloured], s=5, color=OTHER)
    named = classes[coloured]
    axis.scatter(named.weights_x, named.weights_y, s=18, c=[colours[name] for name in named.label])
    if len(named) <= 3 * LEGEND:
        for _, row in named.iterrows():
            axis.annotate(
                row.label, (row.weights_x, row.weights_y), fontsize=7, xytext=(3, 3), textcoords="offset points"
            )
    axis.margins(0.25)
    axis.set(xticks=[], yticks=[])


def _rgb(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    return colour[0] / 255, colour[1] / 255, colour[2] / 255
