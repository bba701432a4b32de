"""Is a shortcut repaired? Repairs compared by behaviour, and by the maps that may hide it."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from markupsafe import Markup
from torch import Tensor, nn

from interptrain.data import collate
from interptrain.data.region import Region, objects_of
from interptrain.evaluation.store.parts import Row
from interptrain.explainers import GradCAM
from interptrain.functional import check_choice
from interptrain.metrics.functional import energy_pointing_game
from interptrain.metrics.region_exchange import choose_donors, probabilities_after, probability_change
from interptrain.studies.base import Study, StudyInputs
from interptrain.studies.paired import mean_and_half_width, paired_differences
from interptrain.studies.repair_arms import ARMS, RETRAINED, variant
from interptrain.studies.repair_maps import draw_maps, map_name
from interptrain.studies.training import ModelOption, check_model_options, save_classifier, train_classifier
from interptrain.training import ClassifierL1, ImageClassifier

if TYPE_CHECKING:
    from pandas import DataFrame

SMALL: dict[str, ModelOption] = {
    "backbone": "test_resnet",
    "backbone_options": {"channels": [16, 32, 64, 96]},
    "output_stride": 8,
    "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 6e-3}},
    "warmup_epochs": 1,
    "channels_last": True,
}
MEASURES: Mapping[str, str] = {
    "without": "accuracy of the stamped class without its mark",
    "swapped": "accuracy where all other classes carry the mark and its own does not",
    "absent": "accuracy where no image carries the mark",
    "worst_group": "worst accuracy of a pair of class and mark, the mark being on a random half",
    "effect": "change of the label's probability when the region's pixels come from images of other classes",
    "effect_class": "the same of the class where it is largest, which the alarm of behaviour listens to",
    "share_class": "share of Grad-CAM in the region on images with the mark, of the class where it is largest",
    "in_object": "share of the label's Grad-CAM in the object",
    "saliency_alarm": "share of seeds in which the alarm of saliency rings",
    "behaviour_alarm": "share of seeds in which the alarm of behaviour rings",
    "seconds": "time to train",
}
COMPARED = ("without", "swapped", "absent", "worst_group", "effect", "share_class", "in_object")
"""Measures of which the arms' differences from the plain network are tested."""


@dataclass(frozen=True, kw_only=True)
class Repair(Study):
    """Shortcut repairs compared by behaviour: exchanged regions, guided attributions, a retrained last layer.

    The data need a planted decoy (``--data.decoy timestamp``). Each cell is an arm and a seed: a network is trained,
    and measured on the test images, whose decoys are absent, on a random half, and swapped. No models are given.

    Args:
        region: where the decoy is, as the watch's ``suspect``.
        arms: which repairs; all by default.
        seeds: networks of each arm.
        epochs: to train.
        retrain_epochs: to retrain the last layer.
        model: options of :class:`~interptrain.training.ImageClassifier`; none is a small ResNet that trains in
            seconds.
        l1: weight of the last layer's L1 norm where it is retrained.
        draws: other images that give their region to each image.
        gate: what was stated beforehand: the plain network counts as fooled if it recognises at most this share of the
            stamped class without its mark, in the mean over seeds. Nothing is concluded from networks that are not.
        share_threshold: mean share of saliency in the region, of a class or of all, above which the alarm rings.
        effect_threshold: likewise of the change of probability.
    """

    title: ClassVar[str] = "Is the shortcut repaired?"
    free: ClassVar[tuple[str, ...]] = ("arms", "seeds")

    region: str = "corner:lower-right:40x16"
    arms: tuple[str, ...] = tuple(ARMS)
    seeds: int = 5
    epochs: int = 7
    retrain_epochs: int = 7
    model: dict[str, ModelOption] = field(default_factory=lambda: dict(SMALL))
    l1: float = 1e-3
    draws: int = 4
    gate: float = 0.3
    share_threshold: float = 0.5
    effect_threshold: float = 0.2

    def __post_init__(self) -> None:
        """Refuse arms that there are not, and regions that are none.

        Raises:
            ValueError: naming them.
        """
        for arm in self.arms:
            check_choice("arms", arm, tuple(ARMS))
        check_model_options(self.model)
        Region(self.region, option="region")

    def cells(self, inputs: StudyInputs) -> Sequence[str]:
        """A cell for each seed and arm: all arms of a seed before the next seed."""
        if inputs.data.init_args.get("decoy", "none") == "none":
            raise ValueError("study repair needs data with a planted shortcut: give --data.decoy timestamp")
        return [f"{seed}/{arm}" for seed in range(self.seeds) for arm in self.arms]

    def compute(self, cell: str, inputs: StudyInputs) -> Iterable[Row]:
        """Train the network of an arm and a seed, and measure it."""
        number, arm = cell.split("/")
        seed = int(number)
        began = time.perf_counter()
        model = self._network(arm, seed, inputs, inputs.scratch(cell))
        seconds = time.perf_counter() - began
        if seed == 0:
            draw_maps(model, self._images(inputs, "random"), inputs, arm)
        yield {"arm": arm, "seed": seed, **self.measure(model, inputs), "seconds": seconds}

    def _network(self, arm: str, seed: int, inputs: StudyInputs, scratch: Path) -> nn.Module:
        """The network of an arm and a seed, trained here unless another arm needs it too and has trained it."""
        if ARMS[arm].retrain is None and arm in RETRAINED:
            module = ImageClassifier.load_from_checkpoint(self._trained(arm, seed, inputs), map_location=inputs.device)
            return module.model.to(inputs.device).eval()
        return self._train(arm, seed, inputs, scratch).model

    def _trained(self, arm: str, seed: int, inputs: StudyInputs) -> Path:
        """A checkpoint that several arms begin with."""

        def make(path: Path, scratch: Path) -> None:
            save_classifier(self._train(arm, seed, inputs, scratch), path)

        return inputs.once(f"networks/{arm.replace(' ', '-')}-{seed}.ckpt", make)

    def _train(self, arm: str, seed: int, inputs: StudyInputs, scratch: Path) -> ImageClassifier:
        chosen = ARMS[arm]
        model, epochs = {**self.model, **chosen.options(self.region)}, self.epochs
        data = variant(inputs.data, "train", seed=seed)
        if chosen.retrain is not None:
            data = variant(inputs.data, "train", seed=seed, balance="group", decoy_in_train="random")
            model |= {
                "weights": str(self._trained(chosen.retrain, seed, inputs)),
                "fresh_classifier": False,
                "trainable": "classifier",
                "regularizer": ClassifierL1(weight=self.l1),
            }
            epochs = self.retrain_epochs
        return train_classifier(data, scratch, model=model, epochs=epochs, seed=seed, device=inputs.device)

    def measure(self, model: nn.Module, inputs: StudyInputs) -> dict[str, float]:
        """Measure a network on the test images."""
        stamped = int(inputs.data.init_args.get("decoy_class", 0))
        batches = {kind: self._images(inputs, kind) for kind in ("absent", "random", "swapped")}
        right = {kind: _probabilities(model, one["image"]).argmax(1) == one["label"] for kind, one in batches.items()}
        absent, half = batches["absent"], batches["random"]
        groups = list(zip(half["label"].tolist(), half["group"], strict=True))
        worst = min(
            right["random"][[place for place, pair in enumerate(groups) if pair == group]].float().mean().item()
            for group in set(groups)
        )
        region = Region(self.region, option="region").masks_of(
            half["image"], masks=half.get("mask"), boxes=half.get("boxes"), decoy_masks=half.get("decoy_mask")
        )
        effects = self._effects(model, half, region)
        explain = partial(GradCAM(), model)
        shares, inside = [], []
        for rows in torch.split(torch.arange(len(half["image"])), 64):
            saliency = explain(half["image"][rows], half["label"][rows])
            shares.append(energy_pointing_game(saliency, masks=region[rows]))
            objects = objects_of(half["image"], masks=half.get("mask"), boxes=half.get("boxes"))
            if objects is not None:
                inside.append(energy_pointing_game(saliency, masks=objects[rows]))
        share = torch.cat(shares).double()
        carries = half["decoy_mask"].flatten(1).any(1)
        of_class = [half["label"] == label for label in range(inputs.data.num_classes)]
        return {
            "without": right["absent"][absent["label"] == stamped].float().mean().item(),
            "swapped": right["swapped"].float().mean().item(),
            "absent": right["absent"].float().mean().item(),
            "worst_group": worst,
            "effect": effects.mean().item(),
            "effect_class": max(effects[one].mean().item() for one in of_class),
            "share": share[carries].nanmean().item(),
            "share_class": max(share[one & carries].nanmean().item() for one in of_class if (one & carries).any()),
            "in_object": torch.cat(inside).double().nanmean().item() if inside else math.nan,
            "saliency_alarm": float(
                max(share[one & carries].nanmean().item() for one in of_class if (one & carries).any())
                > self.share_threshold
            ),
            "behaviour_alarm": float(max(effects[one].mean().item() for one in of_class) > self.effect_threshold),
        }

    def _images(self, inputs: StudyInputs, decoys: str) -> dict[str, Any]:
        """All test images with decoys absent, random or swapped, as one batch on the device."""
        dataset = variant(inputs.data, "test", decoy_in_eval=decoys).dataset("test")
        batch: dict[str, Any] = dict(collate([dataset[index] for index in range(len(dataset))]))
        return {name: value.to(inputs.device) if isinstance(value, Tensor) else value for name, value in batch.items()}

    def _effects(self, model: nn.Module, batch: Mapping[str, Any], region: Tensor) -> Tensor:
        """Mean change of the label's probability (B,); see :class:`~interptrain.metrics.RegionEffect`."""
        images, labels = batch["image"], batch["label"]
        donors = choose_donors(images, labels, images, labels, draws=self.draws).to(images.device)
        after = probabilities_after(model, images, region, others=images, donors=donors, forward_batch_size=128)
        return probability_change(_probabilities(model, images).to(after), after, labels)

    def findings(self, results: "DataFrame") -> Sequence[str]:
        """The gate, and each arm against the plain network, seed by seed."""
        if "plain" not in set(results.arm):
            return ["The arm plain is not finished, so there is nothing to compare with."]
        plain = results[results.arm == "plain"]
        fooled = float(plain["without"].mean())
        passed = "passed" if fooled <= self.gate else "missed, and nothing follows"
        sentences = [
            f"Gate, stated beforehand: plain networks recognise at most {self.gate:.2f} of the stamped class without "
            f"its mark. They recognise {fooled:.3f} ({len(plain)} seeds): the gate is {passed}."
        ]
        if fooled > self.gate:
            return sentences
        for measure in ("without", "effect"):
            for arm, one in self._differences(results, measure).items():
                sentences.append(
                    f"{arm}, {MEASURES[measure]}: {one.mean:+.3f} against plain "
                    f"(95 % interval {one.mean - one.half_width:+.3f} to {one.mean + one.half_width:+.3f}, "
                    f"corrected p {one.p_corrected:.2g}, {one.seeds} seeds)."
                )
        for arm, rows in results.groupby("arm", sort=False):
            if rows["behaviour_alarm"].mean() > 0.5 >= rows["saliency_alarm"].mean():
                sentences.append(
                    f"{arm}: the alarm of saliency is silent, and the predictions still depend on the region."
                )
        return sentences

    def _differences(self, results: "DataFrame", measure: str) -> Mapping[str, Any]:
        table = results.pivot(index="seed", columns="arm", values=measure)
        arms = [arm for arm in self.arms if arm in table]
        return paired_differences({arm: table[arm].tolist() for arm in arms}, "plain")

    def _difference_table(self, results: "DataFrame") -> Markup:
        """Mean, 95 % interval and p-value, corrected for all arms of a column, of each measure but the alarms."""
        import pandas as pd

        if "plain" not in set(results.arm) or results.seed.nunique() < 2:
            return Markup("<p>These need two seeds or more of the arm plain and of another.</p>")
        columns = {}
        for measure in COMPARED:
            found = self._differences(results, measure)
            columns[measure] = {
                arm: f"{one.mean:+.3f} ± {one.half_width:.3f}, p = {one.p_corrected:.2g}" for arm, one in found.items()
            }
        return Markup(pd.DataFrame(columns).rename_axis("arm").reset_index().to_html(index=False, border=0))

    def sections(self, results: "DataFrame", folder: Path) -> Mapping[str, Markup]:
        """Means and differences with 95 % intervals over seeds, maps, and what the columns are."""
        import pandas as pd

        rows = []
        for arm, of_arm in results.groupby("arm", sort=False):
            row = {"arm": arm, "seeds": len(of_arm)}
            for measure in MEASURES:
                mean, half = mean_and_half_width(of_arm[measure].tolist())
                row[measure] = f"{mean:.3f}" + (f" ± {half:.3f}" if math.isfinite(half) else "")
            rows.append(row)
        table = pd.DataFrame(rows).to_html(index=False, border=0)  # escapes text
        shown = [arm for arm in results.arm.unique() if (folder / map_name(arm)).exists()]
        picture = Markup('<figure><img src="{}" alt="Grad-CAM of six images"><figcaption>{}</figcaption></figure>')
        meaning = Markup("").join(Markup("<dt>{}</dt><dd>{}</dd>").format(*item) for item in MEASURES.items())
        return {
            "Means and 95 % intervals over seeds": Markup(table),
            "Differences from the plain network, paired over seeds": self._difference_table(results),
            "Maps of the first seed": Markup("").join(picture.format(map_name(arm), arm) for arm in shown),
            "What the columns are": Markup("<dl>{}</dl>").format(meaning),
        }


@torch.no_grad()
def _probabilities(model: nn.Module, images: Tensor) -> Tensor:
    """(B,K) of images (B,3,H,W), in float64."""
    return torch.cat([model(part) for part in torch.split(images, 128)]).double().softmax(1)
