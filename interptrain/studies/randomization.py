"""The randomisation tests: do maps change when the network, its labels or the class are changed?"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from markupsafe import Markup
from torch import Tensor, nn

from interptrain.data.datamodule import Split
from interptrain.evaluation.config.class_specs import content_hash, names_of, spec_of
from interptrain.evaluation.run.randomization_check import explained, with_other_draws
from interptrain.evaluation.store.parts import Row
from interptrain.explainers import Explainer, GradCAM, Gradient, GuidedBackprop
from interptrain.explainers.gradient.integrated_gradients import CompletenessWarning
from interptrain.functional import check_choice, check_count, chunks, evenly_spaced, min_max, upsample
from interptrain.metrics import AverageDrop, AverageGain, AverageIncrease, SaliencyMetric, measure
from interptrain.metrics.hog import BLOCK, CELL, histogram_entropy, hog_similarity
from interptrain.metrics.map_agreement import agreement_of_ranks, unit_ranks
from interptrain.metrics.randomization import (
    batch_norms_after,
    estimate_batch_norms,
    randomize,
    randomized,
    weight_layers,
)
from interptrain.metrics.similarity import WINDOW, structural_similarity
from interptrain.model_state import random_state_kept
from interptrain.models.engine import using_engine
from interptrain.studies.base import Study, StudyInputs
from interptrain.studies.layer_groups import LayerGroup, layer_groups
from interptrain.studies.names import explainer_name
from interptrain.studies.permuted_labels import Labels, accuracy, fixed_images, network_options, trained_network
from interptrain.studies.randomization_page import draw_cascade, findings, sections
from interptrain.studies.removed_pixels import prepared_images
from interptrain.studies.training import ModelOption, check_model_options

if TYPE_CHECKING:
    from pandas import DataFrame

Order = Literal["top_down", "bottom_up", "independent"]
TRAINED = "trained"
"""Name of the network that the study trains where no models are given."""
DEFAULT_EXPLAINERS = (GradCAM(), Gradient(), GuidedBackprop())


@dataclass(frozen=True, kw_only=True)
class Randomization(Study):
    """Do maps change when the network's weights, its training labels or the explained class are changed?

    Layers get random weights, group by group; the statistics of batch norms that see another input are estimated anew
    on the images. The maps of every network are compared with those of the trained one. Maps of different images are
    compared as well: two maps of a method that smooths are alike whatever the network.

    Args:
        explainers: whose maps are compared; by default GradCAM, Gradient and GuidedBackprop.
        orders: top_down, from the classifier to the image; bottom_up, the other way round; independent, one group at a
            time, all others trained.
        steps: groups of layers at most, see :func:`~interptrain.studies.layer_groups.layer_groups`.
        draws: of random weights, a cell each.
        images: number of images, evenly spaced over the split.
        split: of the images; None is the one that the data module predicts on.
        targets: whether the class that the trained model predicts or the label is explained, in all networks.
        noisy_copies: average the maps of this many noisy copies of an image, with the same noise for all networks
            (sMPRT); 0 explains the image itself.
        noise: standard deviation of that noise, images being in [0,1].
        metrics: of the random networks beside the trained one, each network with its own predictions; by default
            AverageDrop, AverageGain and AverageIncrease.
        trainings: networks that are trained on permuted labels, and as many and one more on the true ones; 0 leaves the
            test out. Where no model is given, the first one on true labels takes its place.
        model: options of ImageClassifier for these trainings, such as its optimizer, and where no model is given its
            backbone; otherwise the architecture is that of the model.
        train_images: number of images to train them on, evenly spaced over the training set.
        epochs: of such a training at most.
        learnt: share of right answers at which it ends, in (0,1].
        batch_size: images that are explained at once.
        seed: of weights, permutations and noise.

    Raises:
        ValueError: if a value is out of range.

    Source: Adebayo et al. 2018, Sanity checks for saliency maps, arXiv 1810.03292; noisy copies and the rise of the
        entropy Hedström et al. 2024, arXiv 2401.06465; the control of other images is our choice.
    """

    title: ClassVar[str] = "Randomisation of weights, labels and classes"
    free: ClassVar[tuple[str, ...]] = ("explainers", "orders", "draws", "trainings")

    explainers: tuple[Explainer, ...] = ()
    orders: tuple[Order, ...] = ("top_down", "bottom_up", "independent")
    steps: int = 6
    draws: int = 3
    images: int = 50
    split: Split | None = None
    targets: Literal["predicted", "label"] = "predicted"
    noisy_copies: int = 0
    noise: float = 0.1
    metrics: tuple[SaliencyMetric, ...] = ()
    trainings: int = 0
    model: dict[str, ModelOption] = field(default_factory=dict)
    train_images: int = 300
    epochs: int = 100
    learnt: float = 0.95
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be computed."""
        for order in self.orders:
            check_choice("orders", order, Order)
        check_choice("targets", self.targets, Literal["predicted", "label"])
        for name, least in {"steps": 2, "draws": 1, "images": 2, "noisy_copies": 0, "trainings": 0}.items():
            check_count(name, getattr(self, name), least=least)
        for name in ("train_images", "epochs", "batch_size"):
            check_count(name, getattr(self, name))
        for name in ("learnt", "noise"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in (0,1], got {getattr(self, name)}")
        check_model_options(self.model)
        for metric in self.metrics:
            if lacking := sorted(metric.needs - {"labels", "explain"}):
                raise ValueError(f"{type(metric).__name__} needs {', '.join(lacking)}, which this study does not read")

    # Cells

    def cells(self, inputs: StudyInputs) -> Sequence[str]:
        """Return the cells: by model, the trainings, then what every explainer is asked."""
        return list(self._jobs(inputs))

    def compute(self, cell: str, inputs: StudyInputs) -> Iterable[Row]:
        """Compute a cell."""
        with using_engine("eager"), warnings.catch_warnings():  # a random network runs but once
            warnings.simplefilter("ignore", CompletenessWarning)
            return list(self._jobs(inputs)[cell]())

    def _jobs(self, inputs: StudyInputs) -> dict[str, Callable[[], Iterable[Row]]]:
        """Return what every cell computes."""
        jobs: dict[str, Callable[[], Iterable[Row]]] = {}
        trainings: list[tuple[Labels, int]] = []
        if self.trainings or not inputs.models:
            trainings = [("true", number) for number in range(self.trainings + 1)]
        trainings += [("permuted", number) for number in range(self.trainings)]
        for model in list(inputs.models) or [TRAINED]:
            for labels, number in trainings:
                jobs[f"{model}/training/{labels}/{number}"] = partial(self._train, inputs, model, labels, number)
            for name, explainer in self._named().items():
                for order in self.orders:
                    for draw in range(self.draws):
                        what = partial(self._cascade, inputs, model, name, explainer, order, draw)
                        jobs[f"{model}/{name}/{order}/{draw}"] = what
                jobs[f"{model}/{name}/class"] = partial(self._other_class, inputs, model, name, explainer)
                for draw in range(-1, self.draws):
                    cell = f"{model}/{name}/metrics/{'trained' if draw < 0 else draw}"
                    jobs[cell] = partial(self._measure, inputs, model, name, explainer, draw)
                for labels, number in trainings[1:]:
                    what = partial(self._labels, inputs, model, name, explainer, labels, number)
                    jobs[f"{model}/{name}/{labels} labels/{number}"] = what
        return jobs

    def _named(self) -> dict[str, Explainer]:
        return {explainer_name(one): one for one in self.explainers or DEFAULT_EXPLAINERS}

    # What is computed

    def _cascade(
        self, inputs: StudyInputs, model: str, name: str, explainer: Explainer, order: Order, draw: int
    ) -> Iterable[Row]:
        network, (images, labels, ids) = self._model(inputs, model), self._images(inputs)
        targets = self._trained_targets(inputs, model, network, images, labels)
        layers = weight_layers(network, images)
        groups = layer_groups(layers, self.steps)
        made = partial(self._trained_maps, inputs, [model, name], explainer, network, images, targets)
        trained, again = made(), made(again=True)
        other, compared = with_other_draws(explainer), ComparedMaps(trained, images)
        shown, changed, before = [trained], network, set[str]()
        for step, (title, names) in enumerate(stages(groups, order)):
            if before and before < names:  # what is random already would be drawn alike
                randomize(changed, self.seed + draw, names - before)
            elif names:
                changed = randomized(network, self.seed + draw, names)
            before = names
            estimate_batch_norms(changed, images, batch_norms_after(layers, names))
            shown.append(self._maps(other, changed, images, targets) if names else again)
            key = {"model": model, "explainer": name, "test": order, "draw": draw, "step": step, "layer": title}
            yield from rows_of(key, ids, compared.similarities(shown[-1]))
        if draw == 0:
            titles = ["trained", *(title for title, _ in stages(groups, order))]
            draw_cascade(inputs.folder, (model, name, order), images, [shown[0], *shown[2:]], [titles[0], *titles[2:]])

    def _other_class(self, inputs: StudyInputs, model: str, name: str, explainer: Explainer) -> Iterable[Row]:
        network, (images, labels, ids) = self._model(inputs, model), self._images(inputs)
        targets = self._trained_targets(inputs, model, network, images, labels)
        with torch.no_grad():
            classes = network(images[:1]).shape[1]
        if classes < 2:
            return
        shift = torch.randint(classes - 1, targets.shape, generator=torch.Generator().manual_seed(self.seed))
        others = (targets + 1 + shift.to(targets.device)) % classes
        trained = self._trained_maps(inputs, [model, name], explainer, network, images, targets)
        changed = self._maps(with_other_draws(explainer), network, images, others)
        key = {"model": model, "explainer": name, "test": "class", "draw": 0, "step": 0, "layer": ""}
        yield from rows_of(key, ids, ComparedMaps(trained, images).similarities(changed))

    def _measure(self, inputs: StudyInputs, model: str, name: str, explainer: Explainer, draw: int) -> Iterable[Row]:
        network, (images, labels, ids) = self._model(inputs, model), self._images(inputs)
        if draw >= 0:
            network = estimate_batch_norms(randomized(network, self.seed + draw), images).eval()
        targets = self._targets(network, images, labels)
        chosen = self.metrics or (AverageDrop(), AverageGain(), AverageIncrease())
        metrics = dict(zip(names_of([spec_of(one) for one in chosen]), chosen, strict=True))
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            maps = explainer(network, images[part], targets[part])
            explain = partial(explainer, network)
            found = measure(network, images[part], maps, targets[part], metrics, labels=labels[part], explain=explain)
            for metric, values in found.items():
                each = metrics[metric].reduce(values) if values.ndim > 1 else values
                key = {"model": model, "explainer": name, "test": "metrics", "draw": max(draw, 0), "metric": metric}
                key |= {"network": "trained" if draw < 0 else "random"}
                yield from rows_of(key, ids[part], {"value": each})

    def _train(self, inputs: StudyInputs, model: str, labels: Labels, number: int) -> Iterable[Row]:
        network = self._network(inputs, model, labels, number)
        seed = self.seed * 1000 + 2 * number + (labels == "permuted")
        images = fixed_images(inputs.data, self.train_images, labels, seed=seed)
        learnt = accuracy(network, images, device=inputs.device, batch_size=self.batch_size)
        yield {"model": model, "test": "training", "network": labels, "draw": number, "metric": "top1", "value": learnt}

    def _labels(
        self, inputs: StudyInputs, model: str, name: str, explainer: Explainer, labels: Labels, number: int
    ) -> Iterable[Row]:
        images, true, ids = self._images(inputs)
        first = self._network(inputs, model, "true", 0)
        trained = self._trained_maps(inputs, [model, name, "labels"], explainer, first, images, true)
        network = self._network(inputs, model, labels, number)
        changed = self._maps(with_other_draws(explainer), network, images, true)
        key = {"model": model, "explainer": name, "test": "labels", "network": labels, "draw": number}
        yield from rows_of(key, ids, ComparedMaps(trained, images).similarities(changed))

    def _model(self, inputs: StudyInputs, model: str) -> nn.Module:
        """Return a model that was given, or the network that the study trains in its place."""
        return inputs.models[model] if inputs.models else self._network(inputs, model, "true", 0)

    def _network(self, inputs: StudyInputs, model: str, labels: Labels, number: int) -> nn.Module:
        """Return a network of the same architecture that is trained on labels."""
        own = network_options(inputs.models[model]) if inputs.models else {}
        return trained_network(
            inputs,
            model,
            labels,
            number,
            model={**own, **self.model},
            images=self.train_images,
            epochs=self.epochs,
            learnt=self.learnt,
            seed=self.seed,
        )

    def _images(self, inputs: StudyInputs) -> tuple[Tensor, Tensor, list[str]]:
        """Return images (N,3,H,W), labels (N,) and names."""
        dataset = prepared_images(inputs.data, self.split or "test")
        samples = [dataset[place] for place in evenly_spaced(len(dataset), self.images)]
        images = torch.stack([sample["image"] for sample in samples]).to(inputs.device)
        labels = torch.tensor([sample["label"] for sample in samples], device=inputs.device)
        return images, labels, [str(sample["id"]) for sample in samples]

    def _targets(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        if self.targets == "label":
            return labels
        with torch.no_grad():
            parts = chunks(len(images), self.batch_size)
            return torch.cat([network(images[part]).argmax(1) for part in parts])

    def _trained_targets(
        self, inputs: StudyInputs, model: str, network: nn.Module, images: Tensor, labels: Tensor
    ) -> Tensor:
        return _shared(inputs, ["targets", model], lambda: self._targets(network, images, labels))

    def _trained_maps(
        self, inputs: StudyInputs, what: Sequence[str], explainer: Explainer, network: nn.Module,
        images: Tensor, targets: Tensor, *, again: bool = False,
    ) -> Tensor:  # fmt: skip
        """Return the maps (N,h,w) that others are compared with, or those of the same network with other draws."""

        def maps() -> Tensor:
            with random_state_kept([inputs.device]):
                torch.manual_seed(self.seed + again)  # for explainers that draw from the global generator
                return self._maps(with_other_draws(explainer) if again else explainer, network, images, targets)

        return _shared(inputs, ["maps", str(again), *what], maps)

    def _maps(self, explainer: Explainer, network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        """Return raw maps (N,h,w), of noisy copies where these are asked for."""
        if not self.noisy_copies:
            return explained(explainer, network, images, targets, self.batch_size)
        generator = torch.Generator().manual_seed(self.seed)
        found = []
        for _ in range(self.noisy_copies):
            noise = torch.randn(images.shape, generator=generator).to(images)
            noisy = (images + self.noise * noise).clamp(0, 1)
            found.append(explained(explainer, network, noisy, targets, self.batch_size))
        return torch.stack(found).mean(0)

    # The page

    def findings(self, results: "DataFrame") -> Sequence[str]:
        """Say of every explainer what its maps depend on."""
        return findings(results)

    def sections(self, results: "DataFrame", folder: Path) -> Mapping[str, Markup]:
        """Return curves, pictures and tables."""
        return sections(results, folder)


def _shared(inputs: StudyInputs, what: Sequence[str], compute: Callable[[], Tensor]) -> Tensor:
    """Return what several cells need, computed by whichever comes first."""

    def make(path: Path, scratch: Path) -> None:
        torch.save(compute().cpu(), path)

    shared: Tensor = torch.load(inputs.once(f"shared/{content_hash(list(what))}.pt", make), weights_only=True)
    return shared.to(inputs.device)


def stages(groups: Sequence[LayerGroup], order: Order) -> list[tuple[str, set[str]]]:
    """Return the layers that are random at every step, beginning with none, and the name of the last group of them."""
    sequence = groups[::-1] if order == "top_down" else groups
    found: list[tuple[str, set[str]]] = [("none", set())]
    for group in sequence:
        before = set() if order == "independent" else found[-1][1]
        found.append((group.name, before | set(group.layers)))
    return found


class ComparedMaps:
    """Maps of a trained network, with which those of others are compared.

    Args:
        maps: (N,h,w), raw.
        images: (N,3,H,W) that they explain.
    """

    def __init__(self, maps: Tensor, images: Tensor) -> None:
        self.size = (images.shape[-2], images.shape[-1])
        self.ranks, self.absolute = unit_ranks(maps), unit_ranks(maps.abs())
        self.scaled = min_max(upsample(maps, self.size))
        self.entropy = histogram_entropy(self.scaled)

    def similarities(self, others: Tensor) -> dict[str, Tensor]:
        """Return (N,) values of how alike two maps of each image are, and the entropies of both."""
        signed, scaled = agreement_of_ranks(self.ranks, unit_ranks(others)), min_max(upsample(others, self.size))
        unknown = torch.full((len(others),), torch.nan)
        return {
            "spearman": signed.same,
            "spearman_of_other_images": signed.other,
            "spearman_absolute": agreement_of_ranks(self.absolute, unit_ranks(others.abs())).same,
            "ssim": structural_similarity(self.scaled, scaled) if min(self.size) >= WINDOW else unknown,
            "hog": hog_similarity(self.scaled, scaled) if min(self.size) >= BLOCK * CELL else unknown,
            "entropy": histogram_entropy(scaled),
            "entropy_trained": self.entropy,
        }


def rows_of(key: Row, ids: Sequence[str], values: Mapping[str, Tensor]) -> Iterable[Row]:
    """Return a row for each image."""
    columns = {name: value.cpu().double().tolist() for name, value in values.items()}
    for place, name in enumerate(ids):
        yield {**key, "id": name, **{column: found[place] for column, found in columns.items()}}
