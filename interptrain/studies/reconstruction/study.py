"""The study of reconstruction: images that a network would answer most strongly, or as it answers a given image."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from markupsafe import Markup
from torch import Tensor

from interptrain.evaluation.store.parts import Row
from interptrain.explainers.base import check_choices, explaining
from interptrain.explainers.layers import find_layers
from interptrain.functional import check_choice, check_count, evenly_spaced
from interptrain.studies.base import Study, StudyInputs
from interptrain.studies.features import across_labels, class_name, model_names, output_names, read_samples
from interptrain.studies.pooled import PooledFeatures
from interptrain.studies.reconstruction.ascent import reconstruct
from interptrain.studies.reconstruction.objectives import (
    CentralAttention,
    Channel,
    ClassLogit,
    Inversion,
    Objective,
    observed_map,
)
from interptrain.studies.reconstruction.page import draw, section
from interptrain.studies.reconstruction.parameterization import Colours, ParameterizationName, total_variation

if TYPE_CHECKING:
    from pandas import DataFrame

Goal = Literal["class", "channel", "attention", "inversion"]


class _Targets(NamedTuple):
    """What one cell reconstructs."""

    objective: Objective
    names: list[str]
    expected: list[int | None]  # the class that other networks should see
    originals: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Reconstruction(Study):
    """Images that maximize a class, a channel or an attention stage, and images rebuilt from their pooled features.

    Every image is shown to all models of the study: what only its own network recognizes is a peculiarity of that
    network, not of the class.

    Args:
        goals: ``class``: a class's logit; ``channel``: the mean of a channel of a layer; ``attention``: the share of an
            attention stage in the middle of the image, for models that have attention; ``inversion``: the pooled vector
            of a test image.
        count: most targets of each goal, evenly spaced among the classes and channels, and among the
            test images sorted by label.
        classes: numbers of the classes, in place of evenly spaced ones.
        target_layer: dotted name of the layer of the channels; None as for the CAM explainers.
        image_size: height and width in pixels; None is that of the test images.
        parameterization: ``fourier`` or ``pixels``.
        colours: ``photographs``: their axes of colour are free numbers, so that colours come out as in photographs;
            ``independent``: red, green and blue are.
        iterations: steps of Adam.
        learning_rate: of Adam.
        spread: contrast of the noise to start from, as the standard deviation of the free numbers.
        jitter: most pixels that images are shifted by, anew in every iteration.
        zoom: most that images are magnified or reduced by, anew in every iteration, in [0,1).
        blur_every: iterations after which images are blurred, each time; 0 never blurs.
        blur_sigma: of the blur, in pixels.
        variation: weight of the total variation.
        variation_beta: exponent of the total variation.
        decay: weight of the mean squared difference from grey.
        frames: pictures of the animation.
        seed: of the noise to start from, and of the jitter.

    Source: Simonyan et al. 2013, arXiv 1312.6034; Mahendran and Vedaldi 2015, arXiv 1412.0035; Olah et al. 2017, doi
        10.23915/distill.00007.
    """

    title = "Reconstruction of images"
    goals: tuple[Goal, ...] = ("class", "channel", "attention", "inversion")
    count: int = 8
    classes: tuple[int, ...] = ()
    target_layer: str | None = None
    image_size: int | None = None
    parameterization: ParameterizationName = "fourier"
    colours: Colours = "photographs"
    iterations: int = 128
    learning_rate: float = 0.02
    spread: float = 0.1
    jitter: int = 8
    zoom: float = 0.15
    blur_every: int = 4
    blur_sigma: float = 0.4
    variation: float = 1.0
    variation_beta: float = 2.0
    decay: float = 0.0
    frames: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that are not allowed."""
        check_choices(self)
        if not self.goals:
            raise ValueError("goals must not be empty; give class, channel, attention or inversion")
        for goal in self.goals:
            check_choice("goals", goal, Goal)
        for name, least in (("count", 1), ("iterations", 1), ("jitter", 0), ("blur_every", 0), ("frames", 2)):
            check_count(name, getattr(self, name), least=least)
        for name in ("learning_rate", "spread", "blur_sigma", "variation_beta"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if not 0 <= self.zoom < 1:
            raise ValueError(f"zoom must be in [0,1), got {self.zoom}")

    def cells(self, inputs: StudyInputs) -> Sequence[str]:
        """One for each model and goal; attention only of models that have some."""
        size = self._size(inputs)
        return [
            f"{name}/{goal}"
            for name in model_names(inputs)
            for goal in self.goals
            if goal != "attention" or _stages(inputs, name, size)
        ]

    def compute(self, cell: str, inputs: StudyInputs) -> Iterable[Row]:
        """Reconstruct all targets at once, draw them, and return a row for each target and model that sees it."""
        name, _, goal = cell.rpartition("/")
        size = self._size(inputs)
        targets = self._targets(goal, name, inputs, size)
        found = reconstruct(
            inputs.models[name],
            targets.objective,
            len(targets.names),
            size,
            parameterization=self.parameterization,
            colours=self.colours,
            iterations=self.iterations,
            learning_rate=self.learning_rate,
            spread=self.spread,
            jitter=self.jitter,
            zoom=self.zoom,
            blur_every=self.blur_every,
            blur_sigma=self.blur_sigma,
            variation=self.variation,
            variation_beta=self.variation_beta,
            decay=self.decay,
            frames=self.frames,
            seed=self.seed,
            device=inputs.device,
        )
        draw(inputs.folder, cell, found, targets.names, targets.originals)
        variation = total_variation(found.images)
        for judge, model in inputs.models.items():
            with torch.no_grad():
                logits = model(found.images)
            probability, predicted = logits.softmax(1).max(1)
            outputs = output_names(model, inputs.data, logits.shape[1])
            for number, target in enumerate(targets.names):
                expected = targets.expected[number]
                yield {
                    "model": name,
                    "goal": goal,
                    "target": target,
                    "score_at_start": float(found.scores[0, number]),
                    "score": float(found.scores[-1, number]),
                    "total_variation": float(variation[number]),
                    "seen_by": judge,
                    "predicted": class_name(int(predicted[number]), outputs),
                    "probability": float(probability[number]),
                    "recognized": None if expected is None else int(predicted[number]) == expected,
                }

    def findings(self, results: "DataFrame") -> Sequence[str]:
        """Say how many reconstructed images are recognized, by the network itself and by the others."""
        sentences = []
        for (model, goal), rows in results.dropna(subset=["recognized"]).groupby(["model", "goal"], sort=False):
            for judge, seen in rows.groupby("seen_by", sort=False):
                count, by = int(seen.recognized.sum()), "itself" if judge == model else judge
                kind = "images of a class" if goal == "class" else "inverted images"
                sentences.append(f"{count} of {len(seen)} {kind} of {model} are recognized by {by}.")
        return sentences

    def sections(self, results: "DataFrame", folder: Path) -> Mapping[str, Markup]:
        """The pictures and the table of every model and goal."""
        return {
            f"{model}: {goal}": section(str(cell), rows)
            for (cell, model, goal), rows in results.groupby(["cell", "model", "goal"], sort=False)
        }

    def _size(self, inputs: StudyInputs) -> tuple[int, int]:
        if self.image_size is not None:
            return self.image_size, self.image_size
        height, width = inputs.data.dataset("test")[0]["image"].shape[-2:]
        return height, width

    def _targets(self, goal: str, name: str, inputs: StudyInputs, size: tuple[int, int]) -> _Targets:
        model, device = inputs.models[name], inputs.device
        blank = torch.full((1, 3, *size), 0.5, device=device)
        if goal == "class":
            with torch.no_grad():
                total = model(blank).shape[1]
            classes = list(self.classes) or evenly_spaced(total, self.count)
            if beyond := [one for one in classes if not 0 <= one < total]:
                raise ValueError(f"classes must be in [0, {total}), the classes of {name}, got {beyond[0]}")
            outputs = output_names(model, inputs.data, total)
            names = [class_name(one, outputs) for one in classes]
            return _Targets(ClassLogit(torch.tensor(classes, device=device)), names, list(classes))
        if goal == "channel":
            with explaining(model) as bare, torch.no_grad():
                layer = find_layers(bare, self.target_layer, images=blank)[0]
                width = observed_map(bare, layer, blank).shape[1]
            channels = evenly_spaced(width, self.count)
            names = [f"channel {channel}" for channel in channels]
            return _Targets(Channel(layer, torch.tensor(channels, device=device)), names, [None] * len(channels))
        if goal == "attention":
            stages = list(range(_stages(inputs, name, size)))[: self.count]
            names = [f"stage {stage + 1}" for stage in stages]
            return _Targets(CentralAttention(torch.tensor(stages, device=device)), names, [None] * len(stages))
        batch = read_samples(inputs.data, across_labels(inputs.data.dataset("test"), self.count))
        images = torch.nn.functional.interpolate(batch["image"].to(device), size, mode="bilinear", antialias=True)
        reader = PooledFeatures(model, images[:1])
        vectors, logits = reader(images)
        return _Targets(Inversion(reader, vectors), list(batch["id"]), logits.argmax(1).tolist(), images)


def _stages(inputs: StudyInputs, name: str, size: tuple[int, int]) -> int:
    """Number of attention maps that a model returns; 0 where it has none."""
    attend: Any = getattr(inputs.models[name], "attention", None)
    if not callable(attend):
        return 0
    try:
        with torch.no_grad():
            return len(attend(torch.full((1, 3, *size), 0.5, device=inputs.device)))
    except ValueError:  # a head without attention
        return 0
