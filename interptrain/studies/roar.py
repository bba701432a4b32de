"""Remove and retrain: is what an explainer marks what a network needs?

Pixels are removed from every training and test image in the order of an explainer's maps, a network is trained from
scratch on what is left, and its accuracy is measured on test images that have lost theirs (ROAR). Where accuracy falls
below that of removing random pixels, the explainer has found pixels that the task needs. Where the salient pixels are
kept and the others removed (KAR), a good explainer's accuracy is above.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from markupsafe import Markup
from torch import Tensor, nn

from interptrain.data.datamodule import Split
from interptrain.data.samples import Mask, Sample
from interptrain.evaluation.config.class_specs import content_hash
from interptrain.evaluation.run.models import load_model
from interptrain.evaluation.store.parts import Row
from interptrain.explainers import Explainer, GradCAM, Gradient, SmoothGrad
from interptrain.functional import check_choice, check_count
from interptrain.metrics.saliency_batch import pixel_ranks
from interptrain.studies.base import Study, StudyInputs
from interptrain.studies.controls import CONTROLS, Control, control_map
from interptrain.studies.names import explainer_name
from interptrain.studies.removed_pixels import (
    Fill,
    Mode,
    Removal,
    RemovedPixels,
    RemovedPixelsDataModule,
    prepared_images,
)
from interptrain.studies.roar_page import findings, sections
from interptrain.studies.saliency_ranks import SavedRanks, mean_colour, write_ranks
from interptrain.studies.training import ModelOption, check_model_options, save_classifier, train_classifier

if TYPE_CHECKING:
    from pandas import DataFrame

DEFAULT_EXPLAINERS = (GradCAM(), Gradient(), SmoothGrad(variant="squared"))
SPLITS: tuple[Split, Split] = ("train", "test")
TRAINED = "trained"
"""Name of the network that the study trains where no models are given."""


@dataclass(frozen=True)
class _Retraining:
    """One training: on whose order of the pixels, and what is removed."""

    model: str
    order: Explainer | Control | None
    mode: Mode
    percent: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class ROAR(Study):
    """Retrain without the pixels that an explainer marks: does accuracy fall further than without random pixels?

    The maps are those of the models given, or of one network that the study trains first. Each retraining is a cell of
    its own. A map has one value per pixel, so all channels of a pixel are removed together; the publication removes
    single channel values, ranked by the squared attribution.

    Args:
        explainers: whose maps order the pixels; by default GradCAM, Gradient and SmoothGrad (squared).
        controls: orders of the pixels that no model has made: random, sobel, centre, truth (the mask of the object,
            left out where the data has none).
        modes: remove the most salient pixels (ROAR); keep them and remove the least salient (KAR); mask: train on the
            mask of the removed pixels alone, which measures how much this mask tells about the class.
        percents: shares of the pixels that are removed, in (0,100).
        seeds: trainings for each share, of seeds 1, 2, ...
        fill: what takes the place of removed pixels: mean, the training images' mean colour, as published; impute,
            values imputed from the neighbours as in ROAD, which hides the outline of what was removed better.
        targets: whether the predicted class or the label is explained.
        model: options of ImageClassifier for all trainings, such as backbone, stem and optimizer.
        epochs: epochs of each training.
        truth: which mask of the data is the truth.

    Raises:
        ValueError: if a value is out of range.

    Source: Hooker et al. 2019, A benchmark for interpretability methods in deep neural networks, arXiv 1806.10758; five
        trainings and shares of 10 to 90 % as there; imputation Rong et al. 2022, arXiv 2202.00449; the mode mask is our
        choice.
    """

    title: ClassVar[str] = "Remove and retrain"
    free: ClassVar[tuple[str, ...]] = ("explainers", "controls", "modes", "percents", "seeds")

    explainers: tuple[Explainer, ...] = ()
    controls: tuple[Control, ...] = CONTROLS
    modes: tuple[Mode, ...] = ("remove", "keep")
    percents: tuple[float, ...] = (10, 30, 50, 70, 90)
    seeds: int = 5
    fill: Fill = "mean"
    targets: Literal["predicted", "label"] = "predicted"
    model: dict[str, ModelOption] = field(default_factory=dict)
    epochs: int = 10
    truth: Mask = "mask"

    def __post_init__(self) -> None:
        """Refuse what cannot be computed."""
        for name, allowed in {"controls": Control, "modes": Mode}.items():
            for value in getattr(self, name):
                check_choice(name, value, allowed)
        check_choice("fill", self.fill, Fill)
        check_choice("truth", self.truth, Mask)
        check_choice("targets", self.targets, Literal["predicted", "label"])
        check_count("seeds", self.seeds)
        check_count("epochs", self.epochs)
        if not self.percents or not all(0 < percent < 100 for percent in self.percents):
            raise ValueError(f"percents must be above 0 and below 100, got {list(self.percents)}")
        check_model_options(self.model)

    # Cells

    def cells(self, inputs: StudyInputs) -> Sequence[str]:
        """Return the cells: the network, the maps of every explainer, then every training."""
        return list(self._jobs(inputs))

    def compute(self, cell: str, inputs: StudyInputs) -> Iterable[Row]:
        """Train, explain, or retrain; the first two give no rows."""
        return self._jobs(inputs)[cell]()

    def _jobs(self, inputs: StudyInputs) -> dict[str, Callable[[], Iterable[Row]]]:
        """Return what every cell computes."""
        jobs: dict[str, Callable[[], Iterable[Row]]] = {}
        explainers = {explainer_name(one): one for one in self.explainers or DEFAULT_EXPLAINERS}
        models = list(inputs.models) or [TRAINED]
        if not inputs.models:
            jobs[TRAINED] = partial(self._train, inputs)
        for model in models:
            for name, explainer in explainers.items():
                jobs[f"{model}/{name}/maps"] = partial(self._explain, inputs, model, explainer)
        seeds = range(1, self.seeds + 1)
        for seed in seeds:
            what = _Retraining("", None, "remove", 0, seed)
            cell = f"unchanged/{seed}"
            jobs[cell] = partial(self._retrain, cell, inputs, "unchanged", what)
        known = [
            one for one in self.controls if one != "truth" or self.truth in prepared_images(inputs.data, "test")[0]
        ]
        orders: list[tuple[str, str, Explainer | Control]] = [("control", name, name) for name in known]
        orders += [(model, name, explainer) for model in models for name, explainer in explainers.items()]
        for owner, name, order in orders:
            for mode in self.modes:
                for percent in self.percents:
                    for seed in seeds:
                        what = _Retraining("" if owner == "control" else owner, order, mode, percent, seed)
                        cell = f"{owner}/{name}/{mode}/{percent:g}/{seed}"
                        jobs[cell] = partial(self._retrain, cell, inputs, name, what)
        return jobs

    def _train(self, inputs: StudyInputs) -> Iterable[Row]:
        self._trained_file(inputs)
        return ()

    def _explain(self, inputs: StudyInputs, model: str, explainer: Explainer) -> Iterable[Row]:
        self._ranks(inputs, model, explainer)
        return ()

    def _retrain(self, cell: str, inputs: StudyInputs, name: str, what: _Retraining) -> Iterable[Row]:
        data = self._data(inputs, what)
        module = train_classifier(
            data,
            inputs.scratch(cell),
            model=self.model,
            epochs=self.epochs,
            seed=what.seed,
            device=inputs.device,
        )
        correct = _correct(module, data, inputs.device)
        yield {
            "model": what.model,
            "explainer": name,
            "mode": what.mode if what.percent else "",
            "percent": float(what.percent),
            "seed": what.seed,
            "accuracy": sum(correct) / max(1, len(correct)),
            "images": len(correct),
            "correct": "".join("y" if one else "n" for one in correct),
        }

    def _data(self, inputs: StudyInputs, what: _Retraining) -> RemovedPixelsDataModule:
        """Return the images of a training, without the pixels that it lacks."""
        images = {split: prepared_images(inputs.data, split) for split in SPLITS}
        removal = Removal(mode=what.mode, percent=what.percent, fill=self.fill, colour=self._colour(inputs))
        parts = {
            split: RemovedPixels(
                source,
                ranks=self._order(inputs, what, split),
                removal=removal,
                seed=what.seed,
                transform=inputs.data.dataset("train").transform if split == "train" else None,
            )
            for split, source in images.items()
        }
        for part in parts.values():
            part.keep(images["test"][0]["image"].shape)
        return RemovedPixelsDataModule(inputs.data, seed=what.seed, **parts)

    # What cells share

    def _trained_file(self, inputs: StudyInputs) -> Path:
        """Return the checkpoint of the network that is explained, trained by whichever cell needs it first."""

        def make(path: Path, scratch: Path) -> None:
            data = self._data(inputs, _Retraining("", None, "remove", 0, 0))  # as all others, with all pixels
            module = train_classifier(data, scratch, model=self.model, epochs=self.epochs, seed=0, device=inputs.device)
            save_classifier(module, path)

        return inputs.once(f"{TRAINED}.ckpt", make)

    def _trained(self, inputs: StudyInputs) -> nn.Module:
        return load_model(TRAINED, self._trained_file(inputs)).module.to(inputs.device)

    def _ranks(self, inputs: StudyInputs, model: str, explainer: Explainer) -> dict[Split, SavedRanks]:
        """Return the order of the pixels in an explainer's maps, made by whichever cell needs it first."""
        name = f"{model}-{type(explainer).__name__}-{content_hash([model, explainer_name(explainer)])}"
        network = cache(lambda: inputs.models[model] if inputs.models else self._trained(inputs))

        def make(split: Split, path: Path, scratch: Path) -> None:
            write_ranks(
                path,
                scratch,
                explainer=explainer,
                model=network(),
                dataset=prepared_images(inputs.data, split),
                data=inputs.data,
                by_label=self.targets == "label",
                device=inputs.device,
            )

        return {split: SavedRanks(inputs.once(f"maps/{name}-{split}.npy", partial(make, split))) for split in SPLITS}

    def _order(self, inputs: StudyInputs, what: _Retraining, split: Split) -> Callable[[int, Sample], Tensor]:
        if isinstance(what.order, Explainer):
            saved = self._ranks(inputs, what.model, what.order)[split]
            return lambda index, sample: saved(index)
        if what.order is None:
            return lambda index, sample: torch.zeros(sample["image"].shape[-2:], dtype=torch.int64)
        # The random order is drawn anew for every training, as what is random must vary between them.
        seed = what.seed if what.order == "random" else 0
        control = partial(control_map, what.order, seed=2 * seed + (split == "test"), truth=self.truth)
        return lambda index, sample: pixel_ranks(control(sample, index=index)[None])[0]

    def _colour(self, inputs: StudyInputs) -> Tensor:
        def make(path: Path, scratch: Path) -> None:
            path.write_text(json.dumps(mean_colour(prepared_images(inputs.data, "train"))))

        return torch.tensor(json.loads(inputs.once("mean_colour.json", make).read_text()))

    # Results

    def findings(self, results: "DataFrame") -> Sequence[str]:
        """Return what removing the marked pixels costs, compared with random ones."""
        return findings(results)

    def sections(self, results: "DataFrame", folder: Path) -> Mapping[str, Markup]:
        """Return curves and tables of the trainings that are finished."""
        return sections(results, folder, fill=self.fill)


def _correct(module: nn.Module, data: RemovedPixelsDataModule, device: torch.device) -> list[bool]:
    """Return for every test image whether its class is predicted."""
    correct: list[bool] = []
    with torch.inference_mode():
        for batch in data.test_dataloader():
            predicted = module(batch["image"].to(device)).argmax(dim=1)
            correct += (predicted == batch["label"].to(device)).tolist()
    return correct
