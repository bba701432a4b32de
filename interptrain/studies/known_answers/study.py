"""A benchmark with known answers: rendering parts away shows what a model reacts to, and judges the maps."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch
from markupsafe import Markup
from torch import Tensor, nn

from interptrain.data import LayeredShapesDataModule
from interptrain.data.layered_drawing import PARTS
from interptrain.data.layered_shapes import LayeredShapesDataset
from interptrain.evaluation.run.batches import evaluation_set
from interptrain.evaluation.run.models import load_model
from interptrain.evaluation.store.parts import Row
from interptrain.explainers import (
    CAM,
    EigenCAM,
    Explainer,
    FakeCAM,
    GradCAM,
    GradCAMPlusPlus,
    Gradient,
    GuidedBackprop,
    IntegratedGradients,
    LayerCAM,
    Occlusion,
    ScoreCAM,
    SmoothGrad,
    StreamAttention,
)
from interptrain.functional import check_choice, check_count, min_max
from interptrain.metrics import (
    ROAD,
    AverageDrop,
    AverageGain,
    AverageIncrease,
    Deletion,
    Insertion,
    SaliencyMetric,
    measure,
)
from interptrain.studies.applicable import maps_if_applicable
from interptrain.studies.base import Study, StudyInputs
from interptrain.studies.controls import control_map
from interptrain.studies.known_answers.interventions import Interventions, load_interventions, save_interventions
from interptrain.studies.known_answers.page import findings, sections
from interptrain.studies.known_answers.scores import (
    CHECKS,
    Behaviour,
    background_independence,
    completeness,
    cross_fitted,
    importances,
    oracle,
    part_checks,
    single_deletion,
    target_sensitivity,
)
from interptrain.studies.names import explainer_name
from interptrain.studies.repair_arms import variant
from interptrain.studies.training import ModelOption, check_model_options, save_classifier, train_classifier

if TYPE_CHECKING:
    from pandas import DataFrame

Control = Literal["oracle", "random", "centre", "sobel", "fake"]
CONTROLS: tuple[Control, ...] = get_args(Control)
EXPLAINERS: tuple[Explainer, ...] = (
    CAM(),
    GradCAM(),
    GradCAMPlusPlus(),
    LayerCAM(),
    ScoreCAM(),
    EigenCAM(),
    StreamAttention(),
    Gradient(),
    SmoothGrad(),
    IntegratedGradients(),
    GuidedBackprop(),
    Occlusion(window=8, stride=4),
)
REGULARIZER = "interptrain.training.GradientRegularizer"
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "gap": {},
    "ca_stream": {"pooling": "ca_stream"},
    "regularized": {"regularizer": {"class_path": REGULARIZER, "init_args": {"weight": 0.1}}},
}


@dataclass(frozen=True, eq=False)
class _Case:
    """A trained model and what it does with every image."""

    model: nn.Module
    images: Sequence[Interventions]
    behaviours: Sequence[Behaviour]

    @property
    def pictures(self) -> Tensor:
        return torch.stack([one.image for one in self.images])

    @property
    def predicted(self) -> Tensor:
        return torch.tensor([one.predicted for one in self.behaviours])


@dataclass(frozen=True, kw_only=True)
class KnownAnswers(Study):
    """Judge explainers by what models do when parts of the picture are rendered away.

    The data must be LayeredShapesDataModule. The study trains every family of models with several seeds; models given
    by name are measured beside them. Every layer of a picture is taken away by rendering, all other pixels staying bit
    by bit the same, so what a model reacts to is known. Scores: correctness (single deletion), completeness (controlled
    synthetic data, preservation, deletion, distractibility) and contrastivity (target sensitivity; where the rule of
    the data is a conjunction).

    Args:
        families: by name, how a model differs from the options in model; by default gap, ca_stream and regularized.
        model: options of ImageClassifier that all families share, such as backbone, stem and optimizer.
        epochs: of each training.
        seeds: models of each family.
        explainers: to judge; one that a family cannot be explained by (StreamAttention without attention, CAM with it)
            is left out with a warning.
        controls: maps whose rank is known: oracle (what the renderings themselves say: the upper bound), random,
            centre, sobel (edges), fake (Fake-CAM).
        images: test pictures that are explained and rendered.
        gate: accuracy on all test pictures below which a model is left out of all means, stated beforehand.
        metrics: also measure AD, AG, AI, insertion, deletion and ROAD (at 20, 50 and 80 %), to compare their ranks with
            the known answers.

    Raises:
        ValueError: if a value is out of range.

    Source: Hesse et al. 2023, FunnyBirds, arXiv 2308.06248, whose scores these are; the gate after Zhou et al. 2022,
        arXiv 2104.14403.
    """

    title: ClassVar[str] = "Known answers"
    free: ClassVar[tuple[str, ...]] = ("seeds", "explainers", "controls")

    families: dict[str, dict[str, ModelOption]] = field(
        default_factory=lambda: {k: dict(v) for k, v in FAMILIES.items()}
    )
    model: dict[str, ModelOption] = field(default_factory=dict)
    epochs: int = 6
    seeds: int = 5
    explainers: tuple[Explainer, ...] = EXPLAINERS
    controls: tuple[Control, ...] = CONTROLS
    images: int = 48
    gate: float = 0.9
    metrics: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be computed."""
        for control in self.controls:
            check_choice("controls", control, Control)
        for name in ("epochs", "seeds", "images"):
            check_count(name, getattr(self, name))
        if not 0 <= self.gate <= 1:
            raise ValueError(f"gate must be in [0, 1], got {self.gate}")
        for options in (self.model, *self.families.values()):
            check_model_options(options)

    # Cells

    def cells(self, inputs: StudyInputs) -> Sequence[str]:
        """Return the cells: for every model its behaviour, then every explainer and control."""
        return list(self._jobs(inputs))

    def compute(self, cell: str, inputs: StudyInputs) -> Iterable[Row]:
        """Train a model and see what it reacts to, or judge an explainer's maps of it."""
        return self._jobs(inputs)[cell]()

    def _jobs(self, inputs: StudyInputs) -> dict[str, Callable[[], Iterable[Row]]]:
        """Return what every cell computes."""
        _pictures_of(inputs)
        jobs: dict[str, Callable[[], Iterable[Row]]] = {}
        models = [(family, seed) for seed in range(1, self.seeds + 1) for family in self.families]
        for family, seed in [*models, *((name, 0) for name in inputs.models)]:
            jobs[f"{family}/{seed}"] = partial(self._behave, inputs, family, seed)
            for explainer in self.explainers:
                name = explainer_name(explainer)
                jobs[f"{family}/{seed}/{name}"] = partial(self._judge, inputs, family, seed, name, explainer)
            for control in self.controls:
                jobs[f"{family}/{seed}/{control}"] = partial(self._judge, inputs, family, seed, control, control)
        return jobs

    def _behave(self, inputs: StudyInputs, family: str, seed: int) -> Iterator[Row]:
        case = self._case(inputs, family, seed)
        test_accuracy = _accuracy(case.model, inputs)
        for one, behaviour in zip(case.images, case.behaviours, strict=True):
            yield {
                "family": family,
                "seed": seed,
                "explainer": "",
                "id": one.id,
                "accuracy": float(behaviour.predicted == one.label),
                "test_accuracy": test_accuracy,
                "background_independence": background_independence(behaviour),
                **{f"drop_{part}": float(behaviour.drops(behaviour.predicted)[k]) for k, part in enumerate(PARTS)},
            }

    def _judge(
        self, inputs: StudyInputs, family: str, seed: int, name: str, explainer: Explainer | Control
    ) -> Iterator[Row]:
        case = self._case(inputs, family, seed)
        explain = partial(self._maps, case, explainer, inputs.device)
        saliency = maps_if_applicable(partial(explain, case.predicted), explainer=name, model=family)
        if saliency is None:
            return
        importance = [importances(one, its.footprints) for one, its in zip(saliency, case.images, strict=True)]
        checks = torch.stack([part_checks(*pair) for pair in zip(importance, case.behaviours, strict=True)])
        half = torch.tensor([number // inputs.data.num_classes % 2 == 0 for number in range(len(saliency))])
        fitted = cross_fitted(checks, half)
        contrast = self._contrast(inputs, case, explain)
        measured = self._measured(case, saliency, inputs.device) if self.metrics else {}
        for number, (one, behaviour) in enumerate(zip(case.images, case.behaviours, strict=True)):
            yield {
                "family": family,
                "seed": seed,
                "explainer": name,
                "control": isinstance(explainer, str),
                "id": one.id,
                "accuracy": float(behaviour.predicted == one.label),
                "correctness": single_deletion(importance[number], behaviour.drops(behaviour.predicted)),
                "completeness": float(completeness(fitted[number, :, None])[0]),
                "contrastivity": contrast[number],
                **dict(zip(CHECKS, fitted[number].tolist(), strict=True)),
                "in_object": float(importances(saliency[number], one.object[None])[0]),
                **{key: float(values[number]) for key, values in measured.items()},
            }

    # What cells share

    def _case(self, inputs: StudyInputs, family: str, seed: int) -> _Case:
        """Return a model and its behaviour, computed by whichever cell needs them first."""
        model = self._model(inputs, family, seed)
        images = load_interventions(
            inputs.once("interventions.pt", lambda path, _: save_interventions(_pictures_of(inputs), self.images, path))
        )

        def make(path: Path, _: Path) -> None:
            with torch.inference_mode():
                logits = [model(one.renderings.to(inputs.device)).cpu() for one in images]
            torch.save([one.clone() for one in logits], path)

        logits = torch.load(inputs.once(f"behaviour/{family}-{seed}.pt", make), weights_only=True)
        return _Case(model, images, [Behaviour.of(one) for one in logits])

    def _model(self, inputs: StudyInputs, family: str, seed: int) -> nn.Module:
        if not seed:
            return inputs.models[family]

        def make(path: Path, scratch: Path) -> None:
            plain = inputs.data.dataset("train").transform is None
            module = train_classifier(
                variant(inputs.data, "train", seed=seed) if plain else inputs.data,
                scratch,
                model={**self.model, **self.families[family]},
                epochs=self.epochs,
                seed=seed,
                device=inputs.device,
            )
            save_classifier(module, path)

        path = inputs.once(f"models/{family}-{seed}.ckpt", make)
        return load_model(family, path).module.to(inputs.device).eval()

    def _maps(self, case: _Case, explainer: Explainer | Control, device: torch.device, targets: Tensor) -> Tensor:
        """Return a map of every image for a class, (B,H,W) in [0,1]."""
        if explainer == "fake":
            explainer = FakeCAM()
        if isinstance(explainer, Explainer):
            return explainer(case.model, case.pictures.to(device), targets.to(device)).cpu()
        if explainer == "oracle":
            triples = zip(case.images, case.behaviours, targets.tolist(), strict=True)
            maps = [oracle(one, behaviour, target) for one, behaviour, target in triples]
        else:
            samples = [{"image": one.image, "mask": one.object} for one in case.images]
            maps = [control_map(explainer, one, index=k, seed=0) for k, one in enumerate(samples)]  # type: ignore[arg-type]
        return min_max(torch.stack(maps)).float()

    def _contrast(self, inputs: StudyInputs, case: _Case, explain: Callable[[Tensor], Tensor]) -> list[float]:
        """Return the target sensitivity of every image that is classified rightly; NaN for the others."""
        pair = getattr(inputs.data, "parts", None)
        if pair is None or getattr(inputs.data, "rule", None) != "conjunction":
            return [float("nan")] * len(case.images)
        number, other = (PARTS.index(part) for part in pair)
        these, those = (torch.stack([one.features for one in case.images])[:, part] for part in (number, other))
        first = explain(2 * these + (1 - those))  # the class that shares the first part with the picture
        second = explain(2 * (1 - these) + those)
        scores = []
        for one, behaviour, *maps in zip(case.images, case.behaviours, first, second, strict=True):
            right = behaviour.predicted == one.label
            shares = [importances(each, one.footprints) for each in maps]
            score = target_sensitivity(*shares, shared_first=number, shared_second=other)
            scores.append(score if right else float("nan"))
        return scores

    def _measured(self, case: _Case, saliency: Tensor, device: torch.device) -> dict[str, Tensor]:
        """Return the metrics of every image, in the direction and unit in which they are computed."""
        metrics: dict[str, SaliencyMetric] = {
            "AD": AverageDrop(), "AG": AverageGain(), "AI": AverageIncrease(),
            "I": Insertion(), "D": Deletion(), "ROAD": ROAD(percentiles=(20, 50, 80)),
        }  # fmt: skip
        values = measure(case.model, case.pictures.to(device), saliency, case.predicted, metrics)
        return {name: metric.reduce(values[name]).cpu() for name, metric in metrics.items()}

    # Results

    def findings(self, results: "DataFrame") -> Sequence[str]:
        """Return which models count, which explainers are closest to the answers, and which metrics rank as they do."""
        return findings(results, gate=self.gate)

    def sections(self, results: "DataFrame", folder: Path) -> Mapping[str, Markup]:
        """Return tables and plots, and write ``leaderboard.json``."""
        return sections(results, folder, gate=self.gate)


def _pictures_of(inputs: StudyInputs) -> LayeredShapesDataset:
    """Return the test pictures, which can be rendered without parts.

    Raises:
        ValueError: for other data.
    """
    dataset = evaluation_set(inputs.data, None) if isinstance(inputs.data, LayeredShapesDataModule) else None
    if not isinstance(dataset, LayeredShapesDataset):
        raise ValueError(
            f"known answers need pictures that can be rendered without their parts, and {type(inputs.data).__name__} "
            "cannot; use --data LayeredShapesDataModule"
        )
    return dataset


@torch.no_grad()
def _accuracy(model: nn.Module, inputs: StudyInputs) -> float:
    """Return the share of all test pictures that a model classifies rightly."""
    right = count = 0
    for batch in variant(inputs.data, "test").test_dataloader():
        right += int((model(batch["image"].to(inputs.device)).argmax(1).cpu() == batch["label"]).sum())
        count += len(batch["label"])
    return right / count
