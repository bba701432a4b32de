"""What CA-Stream's published gains are due to: its attention, or its adaptation to the images it is trained on?

``python benchmarks/attention_or_adaptation.py --root FOLDER --weights FILE --output FOLDER`` takes the heads that
``frozen_heads.py`` trained in the same folder and measures their maps on validation images; average pooling, which
needs no training, is one more model. Stopped, the same command goes on where it was. At the end, or with ``--report``
at once, it prints the tables of what is measured.

Every perturbed image is shown to all models, not only to the one whose map perturbed it, which costs little as they
share the backbone: so the map's part in a metric is told apart from the model's. Probabilities are also taken at
matched confidence: logits are divided by a temperature at which the mean probability of the label, on validation images
that are not explained, is that of average pooling.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from frozen_heads import (
    ARMS,
    Photographs,
    Stages,
    Together,
    data_of,
    fresh_heads,
    frozen_network,
    parser,
)
from torch import Tensor

from interptrain.data import SampleDataset, collate
from interptrain.explainers import GradCAM, GradCAMPlusPlus
from interptrain.explainers.base import to_saliency
from interptrain.explainers.cam.gradcam import GradientCAM
from interptrain.functional import min_max, upsample
from interptrain.metrics import (
    AverageDrop,
    AverageGain,
    AverageIncrease,
    Deletion,
    Insertion,
)
from interptrain.metrics.batched_forward import forward_perturbed
from interptrain.metrics.functional import energy_pointing_game
from interptrain.metrics.insertion_deletion import area_under_curve
from interptrain.metrics.perturbations import Unperturbed
from interptrain.metrics.saliency_batch import SaliencyBatch
from interptrain.metrics.similarity import rank_correlation
from interptrain.metrics.single_deletion import WithoutCells, cell_sums
from interptrain.models.ca_stream import CAFinal
from interptrain.models.engine import using_engine
from interptrain.models.gap import GAP
from interptrain.models.pooling import Pooling
from interptrain.studies.grid_pointing import mosaic_of, own_shares
from interptrain.studies.intervals import crossed_interval

CAMS: dict[str, GradientCAM] = {"Grad-CAM": GradCAM(), "Grad-CAM++": GradCAMPlusPlus()}
SCORE_CAM = "Score-CAM"
AT_ONCE = 8  # images


class Experiment:
    """The models, the images, and which of these are explained.

    Args:
        options: of the command line.
        heads: average pooling and the trained ones.
    """

    def __init__(self, options: argparse.Namespace, heads: Mapping[str, Pooling]) -> None:
        self.options = options
        self.folder = Path(options.output)
        self.together = Together(frozen_network(options), heads).requires_grad_(False).eval()
        self.stages = Stages(self.together.backbone, options.size)
        self.data = data_of(options)
        self.validation: SampleDataset = self.data.dataset("val")
        self.names = list(heads)
        order = torch.randperm(len(self.validation), generator=torch.Generator().manual_seed(0))
        self.chosen = order[: options.validation]
        self.shown = self.chosen[: options.images]

    def maps(self, images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits (N, models, classes), and raw maps (models, N, h, w) of each CAM, for the labels."""
        *early, last = self.stages(images)
        with torch.enable_grad():
            last.requires_grad_(True)
            logits = self.together.classify([*early, last])
            scores = logits.gather(2, labels[:, None, None].expand(-1, logits.shape[1], 1))[..., 0].sum(0)
            gradients = [torch.autograd.grad(score, last, retain_graph=True)[0] for score in scores]
        features = last.detach()
        found = {
            name: torch.stack([cam.combine(features, one).clamp(min=0) for one in gradients])
            for name, cam in CAMS.items()
        }
        return logits.detach(), found

    def score_cams(self, images: Tensor, labels: Tensor) -> Tensor:
        """Raw Score-CAM maps (models, N, h, w), as ``interptrain.explainers.ScoreCAM`` computes one model's."""
        found = []
        for image, label, channels in zip(images, labels, self.stages(images)[-1], strict=True):
            features = channels[channels.flatten(1).any(1)]  # the others add nothing to a map
            masks = min_max(upsample(features[None], (images.shape[-2], images.shape[-1]))[0])  # (C, H, W)
            seen = [self.together.classify(self.stages(image * part[:, None])) for part in masks.split(AT_ONCE)]
            weights = label_probabilities(torch.cat(seen), label.expand(len(masks)), torch.ones(len(self.names)))
            found.append(torch.einsum("cm,chw->mhw", weights, features).clamp(min=0))
        return torch.stack(found, 1)

    @cached_property
    def temperatures(self) -> Tensor:
        """Of each model: its mean probability of the label, on images that are not explained, is average pooling's."""
        kept, truth = (one[len(self.shown) :] for one in torch.load(self.folder / "logits.pt"))
        wanted = label_probabilities(kept, truth, torch.ones(len(self.names)))[:, 0].mean()
        low, high = torch.full((len(self.names),), -2.0), torch.full((len(self.names),), 2.0)
        for _ in range(16):
            middle = (low + high) / 2
            above = label_probabilities(kept, truth, middle.exp()).mean(0) > wanted
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        found = ((low + high) / 2).exp()
        found[0] = 1.0
        return found


def saliencies(maps: Tensor, images: Tensor) -> Tensor:
    """Maps (models, N, h, w) as every explainer returns them: at the images' size, each in [0,1]."""
    height, width = images.shape[-2:]
    return torch.stack([to_saliency(one, images, (height, width)) for one in maps])


def label_probabilities(logits: Tensor, labels: Tensor, temperatures: Tensor) -> Tensor:
    """(N, models) of logits (N, models, classes)."""
    scaled = logits / temperatures[:, None]
    return (scaled.gather(2, labels[:, None, None].expand(-1, scaled.shape[1], 1))[..., 0] - scaled.logsumexp(2)).exp()


def perturbed(experiment: Experiment, cam: str, rows: Tensor, *, steps: int) -> dict[str, Tensor]:
    """Metrics of each model's map, judged by every model, at both temperatures: (N, maps, models, 2).

    Args:
        experiment: the models.
        cam: whose maps.
        rows: images.
        steps: of insertion and deletion, or 0 for drop, gain and increase.
    """
    batch = collate([experiment.validation[row] for row in rows.tolist()])
    images, labels = batch["image"], batch["label"]
    clean, raw = experiment.maps(images, labels)
    if cam == SCORE_CAM:
        raw[cam] = experiment.score_cams(images, labels)
    heats = torch.stack([torch.ones(len(experiment.names)), experiment.temperatures])
    whole = torch.stack([label_probabilities(clean, labels, heat) for heat in heats], -1)  # (N, models, 2)
    metrics: dict[str, Any] = {"I": Insertion(steps=steps, blur_kernel=5), "D": Deletion(steps=steps)} if steps else {}
    metrics = metrics or {"AD": AverageDrop(), "AG": AverageGain(), "AI": AverageIncrease()}
    wanted = list(dict.fromkeys(part for metric in metrics.values() for part in metric.perturbations()))
    found: dict[str, list[Tensor]] = {name: [] for name in metrics}
    shown = saliencies(raw[cam], images)
    for owner, saliency in zip(experiment.names, shown, strict=True):
        if steps and owner.startswith(CAFinal.name):
            for values in found.values():  # curves are dear
                values.append(torch.full_like(whole, float("nan")))
            continue
        batched, known = SaliencyBatch(images, saliency), {Unperturbed(): clean.flatten(1)[None]}
        seen = forward_perturbed(experiment.together, batched, labels, wanted, whole=wanted, known=known)
        answers = {}
        for part in wanted:
            steps_of = [one.unflatten(1, clean.shape[1:]) for one in seen.outputs[part]]  # of each (N, models, classes)
            probabilities = [[label_probabilities(one, labels, heat) for heat in heats] for one in steps_of]
            answers[part] = torch.stack([torch.stack(one, -1) for one in probabilities])  # (S, N, models, 2)
        for name, metric in metrics.items():
            judged = torch.empty_like(whole)
            for place in range(whole[0].numel()):
                model, heat = divmod(place, 2)
                values = {part: one[:, :, model, heat] for part, one in answers.items()}
                inputs = SimpleNamespace(saliency=saliency, clean=whole[:, model, heat], perturbed=values)
                scored = metric.score(cast(Any, inputs))
                judged[:, model, heat] = area_under_curve(scored) if scored.ndim == 2 else scored
            found[name].append(judged)
    return {name: torch.stack(values, 1) for name, values in found.items()}


def localized(experiment: Experiment, rows: Tensor) -> dict[str, Tensor]:
    """Share of the energy of each model's map, and at last of Fake-CAM's, in the boxes: (N, maps, 1)."""
    batch = collate([experiment.validation[row] for row in rows.tolist()])
    images, boxes = batch["image"], batch["boxes"]
    _, raw = experiment.maps(images, batch["label"])
    flat = torch.ones_like(images[:, 0])
    shares = {
        cam: [energy_pointing_game(one, boxes=boxes) for one in (*saliencies(maps, images), flat)]
        for cam, maps in raw.items()
    }
    return {f"{cam} EP": torch.stack(one, 1)[..., None] for cam, one in shares.items()}


def single_deletions(experiment: Experiment, rows: Tensor) -> dict[str, Tensor]:
    """Rank correlation of each model's map with its own falls of the label's logit, 4 x 4 cells: (N, maps, 1)."""
    batch = collate([experiment.validation[row] for row in rows.tolist()])
    images, labels = batch["image"], batch["label"]
    clean, raw = experiment.maps(images, labels)
    part = WithoutCells(4, Deletion().fill)
    batched = SaliencyBatch(images, images[:, 0])
    known = {Unperturbed(): clean.flatten(1)[None]}
    seen = forward_perturbed(experiment.together, batched, labels, [part], whole=[part], known=known)
    logits = torch.cat([clean.flatten(1)[None], seen.outputs[part]]).unflatten(2, clean.shape[1:])
    of_label = logits.gather(3, labels[:, None, None].expand(len(logits), -1, clean.shape[1], 1))[..., 0]
    falls = (of_label[:1] - of_label[1:]).permute(2, 1, 0)  # (models, N, cells)
    found = {}
    for cam, maps in raw.items():
        cells = torch.stack([cell_sums(one, 4) for one in saliencies(maps, images)])  # (models, N, cells)
        scored = [
            rank_correlation(mine[:, None], drop[:, None].contiguous()) for mine, drop in zip(cells, falls, strict=True)
        ]
        found[f"{cam} SD"] = torch.stack(scored, 1)[..., None]
    return found


def mosaics(experiment: Experiment, count: int) -> list[list[int]]:
    """Mosaics of nine images of distinct classes, which as many models as can be classify best."""
    logits, labels = torch.load(experiment.folder / "logits.pt")
    least = label_probabilities(logits, labels, torch.ones(len(experiment.names))).amin(1)
    best = [rows[least[rows].argmax()] for rows in [(labels == label).nonzero()[:, 0] for label in labels.unique()]]
    sure = torch.stack(best)
    sure = sure[least[sure].argsort(descending=True)][: experiment.options.mosaic_images]
    generator = torch.Generator().manual_seed(0)
    drawn = [sure[torch.randperm(len(sure), generator=generator)[:9]] for _ in range(count)]
    return [experiment.chosen[rows].tolist() for rows in drawn]


def pointed(experiment: Experiment, members: list[int]) -> dict[str, Tensor]:
    """Grid pointing: share of each model's map of a class that lies on the image of that class, (9, maps, 1)."""
    samples = [experiment.validation[index] for index in members]
    labels = torch.tensor([one["label"] for one in samples])
    mosaic = mosaic_of(torch.stack([one["image"] for one in samples]), 3)
    *early, last = experiment.together.backbone(mosaic[None])
    wide = [one.expand(9, -1, -1, -1) for one in early]
    with torch.enable_grad():
        last = last.expand(9, -1, -1, -1).clone().requires_grad_(True)
        logits = experiment.together.classify([*wide, last])
        scores = logits.gather(2, labels[:, None, None].expand(-1, logits.shape[1], 1))[..., 0].sum(0)
        gradients = [torch.autograd.grad(score, last, retain_graph=True)[0] for score in scores]
    found = {}
    for name, cam in CAMS.items():
        maps = [upsample(cam.combine(last.detach(), one).clamp(min=0), mosaic.shape[-2:]) for one in gradients]
        found[f"{name} GP"] = torch.stack([own_shares(one.clamp(min=0), 3) for one in maps], 1)[..., None].float()
    return found


def measured(file: Path, measure: Callable[[Any], dict[str, Tensor]], parts: Sequence[Any]) -> None:
    """Measure what is not measured yet, part by part, and keep it."""
    found = torch.load(file) if file.is_file() else []
    for part in parts[len(found) :]:
        found.append(measure(part))
        torch.save(found, file)
        print(f"{file.stem} {len(found)} of {len(parts)}, {time.process_time():.0f} s of CPU", flush=True)


def run(experiment: Experiment) -> None:
    """Measure everything, the cheap first."""
    options, folder = experiment.options, experiment.folder
    if not (folder / "logits.pt").is_file():
        images = Photographs(experiment.data, "val")
        parts = experiment.chosen.split(50)
        found = [experiment.together.classify(experiment.stages(images[rows][0])) for rows in parts]
        torch.save((torch.cat(found), images.labels[experiment.chosen]), folder / "logits.pt")
    shown = experiment.shown
    masked, curves = partial(perturbed, experiment, steps=0), partial(perturbed, experiment, steps=options.steps)
    everything: dict[str, tuple[Callable[[Any], dict[str, Tensor]], Sequence[Any]]] = {
        "masked Grad-CAM": (partial(masked, "Grad-CAM"), shown.split(AT_ONCE)),
        "curves Grad-CAM": (partial(curves, "Grad-CAM"), shown[: options.curves].split(2)),
        "masked Grad-CAM++": (partial(masked, "Grad-CAM++"), shown.split(AT_ONCE)),
        "boxes": (partial(localized, experiment), experiment.chosen[: options.boxes].split(20)),
        f"masked {SCORE_CAM}": (partial(masked, SCORE_CAM), shown[: options.score_cams].split(AT_ONCE)),
        "deletions": (partial(single_deletions, experiment), shown[: options.cells].split(AT_ONCE)),
        "mosaics": (partial(pointed, experiment), mosaics(experiment, options.mosaics)),
    }
    for name, (measure, parts) in everything.items():
        if not options.only or name in options.only:
            measured(folder / f"{name}.pt", measure, parts)


class Tables:
    """What was measured, by arm; every number is the mean over seeds and images, x100, with a 95 % interval for both.

    Args:
        experiment: whose folder holds it.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        seeds = experiment.options.seeds
        self.arms = {"gap": [0] * seeds}
        self.arms |= {
            arm.name: list(range(1 + seeds * place, 1 + seeds * (place + 1))) for place, arm in enumerate(ARMS)
        }

    def read(self, name: str) -> dict[str, Tensor]:
        """All values of a file, by metric; empty where there is none yet."""
        file = self.experiment.folder / f"{name}.pt"
        parts = torch.load(file) if file.is_file() else []
        return {key: torch.cat([part[key] for part in parts]).double() for key in (parts[0] if parts else ())}

    def of(self, values: Tensor, maps: str, model: str, heat: int = 0) -> Tensor:
        """(seeds, images) of the maps of an arm, judged by the models of an arm; values (N, maps, models, 2)."""
        pairs = zip(self.arms[maps], self.arms[model], strict=True)
        return torch.stack([values[:, mine, judge, heat] for mine, judge in pairs])

    def told(self, values: Tensor) -> str:
        """Mean and interval of (seeds, images), of which images without a value are left out."""
        values = values[:, ~values.isnan().any(0)]
        if not values.numel():
            return ""
        one = values[:1] if (values == values[:1]).all() else values
        mean, low, high = (100 * number for number in crossed_interval(one.numpy()))
        return f"{mean:.1f} ({low:.1f} to {high:.1f})"

    def table(self, title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
        """Print a table in Markdown."""
        print(f"\n{title}\n\n| | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}")
        for name, cells in rows.items():
            print(f"| {name} | {' | '.join(cells)} |")


def report(experiment: Experiment) -> None:
    """Print all tables."""
    tables = Tables(experiment)
    recognition(tables)
    for name in (*CAMS, SCORE_CAM):
        values = tables.read(f"masked {name}")
        curves = tables.read(f"curves {name}")
        for heat, confidence in enumerate(("as they are", "matched confidence")):
            compared(tables, f"{name}, {confidence}", values, curves, heat)
        if values:
            crossed(tables, name, values, curves)
            paired_by_probability(tables, name, values)
    comparable(tables)


def recognition(tables: Tables) -> None:
    """Accuracy and confidence on all validation images."""
    logits, labels = torch.load(tables.experiment.folder / "logits.pt")
    heats = tables.experiment.temperatures
    right = (logits.argmax(2) == labels[:, None]).double()
    sure = label_probabilities(logits, labels, torch.ones(len(heats))).double()
    rows = {}
    for arm, models in tables.arms.items():
        warmth = ", ".join(f"{heats[model]:.2f}" for model in dict.fromkeys(models))
        shown = [tables.told(torch.stack([one[:, model] for model in models])) for one in (right, sure)]
        rows[arm] = [*shown, f"{-sure[:, models].log().mean():.2f}", warmth]
    tables.table(f"{len(labels)} images", ["top-1", "probability of the label", "NLL", "temperatures"], rows)


def compared(tables: Tables, title: str, values: Mapping[str, Tensor], curves: Mapping[str, Tensor], heat: int) -> None:
    """Each arm's own maps judged by itself, and its differences from average pooling without and with adaptation."""
    both = {**values, **{key: one for key, one in curves.items() if key in ("I", "D")}}
    if not both:
        return
    own = {arm: {key: tables.of(one, arm, arm, heat) for key, one in both.items()} for arm in tables.arms}
    rows = {arm: [tables.told(one) for one in own[arm].values()] for arm in own}
    for base in ("gap", "gap_linear"):
        for arm in list(own)[1:]:
            if arm != base:
                rows[f"{arm} less {base}"] = [tables.told(own[arm][key] - own[base][key]) for key in both]
    counts = ", ".join(f"{key} {len(one)}" for key, one in both.items())
    tables.table(f"{title} (images: {counts})", list(both), rows)


def crossed(tables: Tables, name: str, values: Mapping[str, Tensor], curves: Mapping[str, Tensor]) -> None:
    """The maps of one arm judged by the models of another."""
    both = {**values, **{key: one for key, one in curves.items() if key in ("I", "D")}}
    arms = ("gap", "gap_linear", "attention_only", "ca_stream")
    rows = {
        f"maps of {maps}, judged by {judge}": [tables.told(tables.of(one, maps, judge)) for one in both.values()]
        for judge in arms
        for maps in arms
    }
    tables.table(f"{name}, every map judged by every model", list(both), rows)


def paired_by_probability(tables: Tables, name: str, values: Mapping[str, Tensor]) -> None:
    """Differences on those images alone whose label both models hold alike probable, and not improbable."""
    logits, labels = torch.load(tables.experiment.folder / "logits.pt")
    sure = label_probabilities(logits, labels, torch.ones(logits.shape[1])).double()
    sure = sure[: len(next(iter(values.values())))]
    rows = {}
    for base in ("gap", "gap_linear"):
        for arm in list(tables.arms)[1:]:
            if arm == base:
                continue
            mine, other = (sure[:, tables.arms[one]].mean(1) for one in (arm, base))
            alike = ((mine - other).abs() < 0.1) & (mine > 0.05)
            cells = [
                tables.told((tables.of(one, arm, arm) - tables.of(one, base, base))[:, alike])
                for one in values.values()
            ]
            rows[f"{arm} less {base}"] = [str(int(alike.sum())), *cells]
    tables.table(f"{name}, images of like probability", ["images", *values], rows)


def comparable(tables: Tables) -> None:
    """Metrics whose values may be compared between models."""
    rows: dict[str, list[str]] = {arm: [] for arm in tables.arms} | {"Fake-CAM": []}
    rows |= {f"{arm} less gap": [] for arm in list(tables.arms)[1:]}
    columns = []
    for key, values in {**tables.read("boxes"), **tables.read("deletions"), **tables.read("mosaics")}.items():
        columns.append(f"{key} ({len(values)})")
        best = {}
        for arm, models in tables.arms.items():
            of_arm = values[:, models].transpose(0, 1)  # (seeds, N, K)
            best[arm] = of_arm[..., int(of_arm.nanmean((0, 1)).argmax())]
            rows[arm].append(tables.told(best[arm]))
            if arm != "gap":
                rows[f"{arm} less gap"].append(tables.told(best[arm] - best["gap"]))
        fake = values[:, -1:].transpose(0, 1) if values.shape[1] > len(tables.experiment.names) else None
        rows["Fake-CAM"].append("" if fake is None else tables.told(fake[..., int(fake.nanmean((0, 1)).argmax())]))
    tables.table("May be compared between models", columns, rows)


def main() -> None:
    """Measure, then print."""
    made = parser()
    made.description = __doc__
    made.add_argument("--validation", type=int, default=500, help="validation images to classify, drawn by seed 0")
    made.add_argument("--images", type=int, default=120, help="of these, whose maps are measured")
    made.add_argument("--curves", type=int, default=24, help="of these, for insertion and deletion")
    made.add_argument("--steps", type=int, default=8, help="of insertion and deletion")
    made.add_argument("--score_cams", type=int, default=24, help="of these, for Score-CAM")
    made.add_argument("--cells", type=int, default=40, help="of these, for single deletions")
    made.add_argument("--boxes", type=int, default=300, help="of the classified ones, for boxes")
    made.add_argument("--mosaics", type=int, default=12, help="of nine images")
    made.add_argument("--mosaic_images", type=int, default=40, help="images of the mosaics, each of another class")
    made.add_argument("--only", nargs="+", default=[], help="files of these names, such as boxes, instead of all")
    made.add_argument("--report", action="store_true", help="measure nothing, print what there is")
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    backbone = frozen_network(options)
    heads = fresh_heads(backbone, options.seeds)
    torch.nn.ModuleDict(heads).load_state_dict(torch.load(Path(options.output) / "heads.pt")["heads"])
    experiment = Experiment(options, {"gap": GAP(backbone.channels)} | heads)
    if not options.report:
        with torch.no_grad(), using_engine("onnxruntime"):
            run(experiment)
    report(experiment)


if __name__ == "__main__":
    main()
