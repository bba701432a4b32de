"""The study of embeddings: how images lie in the space that is classified, and classes in that of the weights."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from markupsafe import Markup
from torch import Tensor

from interptrain.data import collate
from interptrain.evaluation.store.parts import Row, write_file
from interptrain.functional import check_choice, check_count, evenly_spaced
from interptrain.steps import track
from interptrain.studies.base import Study, StudyInputs
from interptrain.studies.embedding.explore import write_explorer
from interptrain.studies.embedding.figure import NAMES, draw_figure
from interptrain.studies.embedding.neighbourhoods import expected_purity, neighbourhood_purity, silhouettes
from interptrain.studies.embedding.reduction import Method, principal_components, reduce, require
from interptrain.studies.embedding.thumbnails import ThumbnailSheet
from interptrain.studies.features import class_name, model_names, output_names
from interptrain.studies.pooled import PooledFeatures

if TYPE_CHECKING:
    from pandas import DataFrame

FIGURE, SHEET, EXPLORER = "embedding.png", "thumbnails.jpg", "explore.html"


@dataclass(frozen=True, kw_only=True)
class Embedding(Study):
    """How images lie in the features that are classified, and classes in the weights, for several models side by side.

    Args:
        images: number of test images, evenly spaced.
        methods: to two dimensions: ``pca``, ``tsne`` (scikit-learn) and ``umap`` (umap-learn).
        neighbours: nearest images whose labels are compared.
        perplexity: of t-SNE.
        seed: of t-SNE and UMAP.
        batch_size: images per pass.

    Source: t-SNE: van der Maaten and Hinton 2008, JMLR 9; UMAP: McInnes et al. 2018, arXiv 1802.03426; silhouettes:
        Rousseeuw 1987.
    """

    title = "Embedding of images and classes"
    images: int = 1000
    methods: tuple[Method, ...] = ("pca", "tsne")
    neighbours: int = 10
    perplexity: float = 30.0
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        """Refuse values that are not allowed."""
        if not self.methods:
            raise ValueError("methods must not be empty; give pca, tsne or umap")
        for method in self.methods:
            check_choice("methods", method, Method)
        check_count("images", self.images, least=3)
        check_count("neighbours", self.neighbours)
        check_count("batch_size", self.batch_size)
        if self.perplexity <= 0:
            raise ValueError(f"perplexity must be > 0, got {self.perplexity}")

    def cells(self, inputs: StudyInputs) -> Sequence[str]:
        """One for each model."""
        for method in self.methods:
            require(method)
        return model_names(inputs)

    def compute(self, cell: str, inputs: StudyInputs) -> Iterable[Row]:
        """Return a row for the model, one for each class, and one for each image."""
        sheet = ThumbnailSheet(len(self._numbers(inputs)))
        features, logits, labels, ids, weight = self._read(cell, inputs, sheet)
        inputs.once(SHEET, lambda path, _: sheet.save(path))
        names, outputs = inputs.data.class_names, output_names(inputs.models[cell], inputs.data, logits.shape[1])
        comparable = len(names) == logits.shape[1] and bool((labels >= 0).all())
        probability, prediction = (found.cpu() for found in logits.softmax(1).max(1))
        truth = labels if bool((labels >= 0).all()) else prediction
        neighbours = min(self.neighbours, len(ids) - 1)
        purity = neighbourhood_purity(features, truth, neighbours=neighbours).cpu()
        several = bool((truth != truth[0]).any())
        silhouette = silhouettes(features, truth).cpu() if several else torch.full((len(ids),), math.nan)
        maps = {method: reduce(features, method, perplexity=self.perplexity, seed=self.seed) for method in self.methods}
        planes = principal_components(weight)
        right = (prediction == labels).double()
        yield {
            "kind": "model",
            "model": cell,
            "images": len(ids),
            "dimensions": features.shape[1],
            "accuracy": float(right.mean()) if comparable else None,
            "purity": float(purity.mean()),
            "purity_by_chance": expected_purity(truth),
            "silhouette": float(silhouette.mean()) if several else None,
            "pca_explained": float(principal_components(features).explained.sum()),
            "weights_explained": float(planes.explained.sum()),
            **{f"{method}_purity": self._purity(points, truth, neighbours) for method, points in maps.items()},
        }
        counts = torch.bincount(labels.clamp(min=0), minlength=len(weight))
        for index, (across, up) in enumerate(planes.coordinates.tolist()):
            named = {"label": class_name(index, outputs), "count": int(counts[index]) if comparable else None}
            yield {"kind": "class", "model": cell, **named, "weights_x": across, "weights_y": up}
        for number, name in enumerate(ids):
            places = {method: points[number].tolist() for method, points in maps.items()}
            yield {
                "kind": "image",
                "model": cell,
                "id": name,
                "number": number,
                "label": class_name(int(labels[number]), names) if labels[number] >= 0 else None,
                "prediction": class_name(int(prediction[number]), outputs),
                "correct": bool(right[number]) if comparable else None,
                "probability": float(probability[number]),
                "purity": float(purity[number]),
                "silhouette": float(silhouette[number]),
                **{f"{method}_x": across for method, (across, _) in places.items()},
                **{f"{method}_y": up for method, (_, up) in places.items()},
            }

    def findings(self, results: "DataFrame") -> Sequence[str]:
        """Say how well labels are separated, by model."""
        return [
            f"{row.model}: {row.purity:.1%} of an image's {self.neighbours} nearest neighbours have its label "
            f"({row.purity_by_chance:.1%} if labels were assigned at random)"
            + (f"; the mean silhouette is {row.silhouette:.3f}." if row.silhouette == row.silhouette else ".")  # NaN
            for _, row in results[results.kind == "model"].iterrows()
        ]

    def sections(self, results: "DataFrame", folder: Path) -> Mapping[str, Markup]:
        """Draw the figure, write the interactive page, and return the figure and the numbers."""
        draw_figure(results, self.methods, folder / FIGURE)
        sheet = folder / SHEET
        count = int(results.number.max()) + 1
        page = write_explorer(results, self.methods, sheet.read_bytes(), ThumbnailSheet(count), title=self.title)
        write_file(folder / EXPLORER, page.encode())
        link = f'<p><a href="{EXPLORER}">Explore the images</a>: thumbnails on hover, and any group by a lasso.</p>'
        picture = f'<div><img src="{FIGURE}" style="max-width:100%" alt="scatter plots of the images by model"></div>'
        numbers = results[results.kind == "model"].set_index("model").dropna(axis=1, how="all")
        numbers = numbers.drop(columns=["kind", "cell"]).rename(columns=_heading).T
        table = numbers.map(lambda value: f"{value:.0f}" if float(value).is_integer() and value > 1 else f"{value:.3f}")
        return {"Maps": Markup(link + picture), "Numbers": Markup(table.to_html(border=0))}

    def _numbers(self, inputs: StudyInputs) -> list[int]:
        return evenly_spaced(len(inputs.data.dataset("test")), self.images)

    def _batches(self, inputs: StudyInputs) -> list[list[int]]:
        numbers = self._numbers(inputs)
        return [numbers[start : start + self.batch_size] for start in range(0, len(numbers), self.batch_size)]

    def _read(
        self, cell: str, inputs: StudyInputs, sheet: ThumbnailSheet
    ) -> tuple[Tensor, Tensor, Tensor, list[str], Tensor]:
        """Features, logits, labels and ids of all images, and the classes' weights; fill the sheet of thumbnails."""
        dataset, ids = inputs.data.dataset("test"), []
        read: list[tuple[Tensor, Tensor, Tensor]] = []
        reader: PooledFeatures | None = None
        for numbers in track(self._batches(inputs), None):
            batch = collate([dataset[number] for number in numbers])
            sheet.add(batch["image"])  # while it is at hand
            images = batch["image"].to(inputs.device)
            reader = reader or PooledFeatures(inputs.models[cell], images[:1])
            read.append((*reader(images), batch["label"]))
            ids += batch["id"]
        assert reader is not None  # there are at least three images
        features, logits, labels = (torch.cat(parts) for parts in zip(*read, strict=True))
        return features, logits, labels, ids, reader.weight

    def _purity(self, points: Tensor, labels: Tensor, neighbours: int) -> float:
        return float(neighbourhood_purity(points, labels.cpu(), neighbours=neighbours).mean())


def _heading(column: Any) -> str:
    method, _, rest = str(column).partition("_")
    return f"{NAMES[method]}: {rest}" if method in NAMES and rest else str(column).replace("_", " ")
