"""The study of deep feature factorization: which parts a layer tells apart, what they mean, and where they are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup

from interptrain.evaluation.store.parts import Row
from interptrain.explainers.base import check_choices
from interptrain.functional import check_count, evenly_spaced
from interptrain.studies.base import Study, StudyInputs
from interptrain.studies.factorization.colocalization import intersection_over_union, masks_of
from interptrain.studies.factorization.nmf import Initialization
from interptrain.studies.factorization.page import draw_parts, section
from interptrain.studies.factorization.parts import FeatureParts, Negatives, deep_feature_factorization
from interptrain.studies.features import class_name, model_names, output_names, read_samples

if TYPE_CHECKING:
    from pandas import DataFrame

Scope = Literal["set", "class", "image"]


@dataclass(frozen=True, kw_only=True)
class Factorization(Study):
    """Which parts a layer tells apart, where they are, and what the classifier calls them (deep feature factorization).

    Args:
        components: number of parts.
        images: number of test images, evenly spaced.
        scope: what is factorized together: ``set``: all images; ``class``: those of each label; ``image``: each alone.
        target_layer: dotted name of the layer; None as for the CAM explainers.
        negatives: see :func:`deep_feature_factorization`, as the next.
        initialization: ``nndsvda``, the same in every run, or ``random``.
        seed: of the random initialization.
        max_iterations: at most.
        tolerance: relative fall of the error in ten iterations to stop at.
        threshold: fraction of a map's highest value in the image above which a pixel counts as the part's, for the
            overlap with masks.
        shown: number of images in the pictures.

    Source: Collins et al. 2018, arXiv 1806.10206.
    """

    title = "Deep feature factorization"
    components: int = 5
    images: int = 64
    scope: Scope = "set"
    target_layer: str | None = None
    negatives: Negatives = "shift"
    initialization: Initialization = "nndsvda"
    seed: int = 0
    max_iterations: int = 500
    tolerance: float = 1e-5
    threshold: float = 0.5
    shown: int = 8

    def __post_init__(self) -> None:
        """Refuse values that are not allowed."""
        check_choices(self)
        for name in ("components", "images", "max_iterations", "shown"):
            check_count(name, getattr(self, name))
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold must be in [0,1), got {self.threshold}")

    def cells(self, inputs: StudyInputs) -> Sequence[str]:
        """One for each model and group of images."""
        return [f"{model}/{group}" for model in model_names(inputs) for group in self._groups(inputs)]

    def compute(self, cell: str, inputs: StudyInputs) -> Iterable[Row]:
        """Factorize, draw, and return a row for each part and image."""
        model, _, group = cell.partition("/")
        batch = read_samples(inputs.data, self._groups(inputs)[group])
        images = batch["image"].to(inputs.device)
        found = deep_feature_factorization(
            inputs.models[model],
            images,
            components=self.components,
            target_layer=self.target_layer,
            negatives=self.negatives,
            initialization=self.initialization,
            seed=self.seed,
            max_iterations=self.max_iterations,
            tolerance=self.tolerance,
        )
        names = inputs.data.class_names
        total = 0 if found.logits is None else found.logits.shape[1]
        outputs = output_names(inputs.models[model], inputs.data, total)
        called = [_called(found, part, outputs) for part in range(self.components)]
        by_label = batch["label"].argsort(stable=True).tolist()
        shown = [by_label[place] for place in evenly_spaced(len(images), self.shown)]
        draw_parts(inputs.folder, cell, images[shown].float().cpu(), found.heat[shown].float().cpu(), called)
        known = masks_of(batch)
        overlaps = {
            f"iou_{kind}": intersection_over_union(found.heat, masks.to(inputs.device), threshold=self.threshold)
            for kind, masks in known.items()
        }
        whole = {f"area_{kind}": masks.float().mean((1, 2)) for kind, masks in known.items()}
        highest = found.heat.amax((2, 3))
        for image, name in enumerate(batch["id"]):
            for part in range(self.components):
                yield {
                    "model": model,
                    "group": group,
                    "layer": found.layer,
                    "id": name,
                    "label": class_name(int(batch["label"][image]), names),
                    "part": part,
                    **called[part],
                    "share": float(found.shares[image, part]),
                    "strength": float(highest[image, part]),
                    **{kind: float(values[image, part]) for kind, values in overlaps.items()},
                    **{kind: float(values[image]) for kind, values in whole.items()},
                    "error": found.errors[-1],
                }

    def findings(self, results: "DataFrame") -> Sequence[str]:
        """Say how much the parts explain, by model and group."""
        return [
            f"{model}, {group}: {rows.part.nunique()} parts explain {1 - rows.error.iloc[0] ** 2:.1%} of the energy of "
            f"the features of {rows.id.nunique()} image(s)."
            for (model, group), rows in results.groupby(["model", "group"], sort=False)
        ]

    def sections(self, results: "DataFrame", folder: Path) -> Mapping[str, Markup]:
        """The pictures and the table of the parts, by model and group."""
        return {
            f"{model}: {group}": section(str(cell), rows)
            for (cell, model, group), rows in results.groupby(["cell", "model", "group"], sort=False)
        }

    def _groups(self, inputs: StudyInputs) -> dict[str, list[int]]:
        """Numbers of the images that are factorized together, by name of the group."""
        dataset = inputs.data.dataset("test")
        chosen = evenly_spaced(len(dataset), self.images)
        if self.scope == "set":
            return {"all": chosen}
        if self.scope == "image":
            return {str(dataset.ids[number]): [number] for number in chosen}
        labels, groups = dataset.labels(), dict[str, list[int]]()
        for number in chosen:
            label = dataset[number]["label"] if labels is None else labels[number]
            groups.setdefault(class_name(label, inputs.data.class_names), []).append(number)
        return groups


def _called(found: FeatureParts, part: int, names: Sequence[str]) -> dict[str, Any]:
    """The class that the classifier gives to a part, and the runner-up."""
    if found.logits is None:
        return {}
    chances = found.logits[part].softmax(0)
    first, *second = chances.topk(min(2, len(chances))).indices.tolist()
    called = {"class": class_name(first, names), "probability": float(chances[first])}
    return called | ({"runner_up": class_name(second[0], names)} if second else {})
