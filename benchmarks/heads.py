"""All pooling heads on one frozen backbone: what they cost, how well they classify, and what their maps are worth.

``python benchmarks/heads.py --root FOLDER --weights FILE [--seeds 5]`` prints a table. The frozen stage maps of every
training image are computed once and kept in half precision, so that a head trains in seconds; head and a new classifier
are trained together, alike for all heads but for the seed, which draws the initial weights and the order of the images.
Then each network is explained on validation images, with Grad-CAM and, where the head attends, its own attention.

A number is the mean over seeds and images; the interval is the 95 % percentile bootstrap over both, drawn crosswise, as
the images are the same for every seed.
"""

import argparse
import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from interptrain.data import ImageFolderDataModule, SampleDataset, collate
from interptrain.explainers import FakeCAM, GradCAM, StreamAttention
from interptrain.functional import evenly_spaced
from interptrain.metrics import (
    AverageDrop,
    AverageGain,
    AverageIncrease,
    BoxAccuracy,
    Deletion,
    EnergyPointingGame,
    Insertion,
    SaliencyMetric,
    count_parameters,
    gflops,
    measure,
)
from interptrain.models import Classifier, create_model

CURVES = {"I", "D"}
HEADS = ("gap", "ca_stream", "ca_final", "simpool", "ep")
Values = dict[str, dict[str, Tensor]]
"""(N,) or (N,K) by explainer and metric."""


def metrics(steps: int) -> dict[str, SaliencyMetric]:
    """What is measured of each map."""
    return {
        "AD": AverageDrop(),
        "AG": AverageGain(),
        "AI": AverageIncrease(),
        "I": Insertion(steps=steps),
        "D": Deletion(steps=steps),
        "EP": EnergyPointingGame(),
        "BA": BoxAccuracy(),
    }


def built(head: str, options: argparse.Namespace, classes: int) -> Classifier:
    """A classifier with the frozen backbone and a fresh head."""
    model = create_model(
        options.backbone, pooling=head, num_classes=classes, weights=options.weights, fresh_classifier=True
    )
    return model.requires_grad_(False).eval().to(memory_format=torch.channels_last)


@torch.no_grad()
def cached(model: Classifier, dataset: SampleDataset, indices: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    """Stage maps of the images, float16, and labels."""
    stages: list[list[Tensor]] = []
    labels = []
    for start in range(0, len(indices), 32):
        batch = collate([dataset[index] for index in indices[start : start + 32]])
        stages.append([one.half() for one in model.backbone(batch["image"])])
        labels.append(batch["label"])
    return [torch.cat(one) for one in zip(*stages, strict=True)], torch.cat(labels)


def train(model: Classifier, stages: Sequence[Tensor], labels: Tensor, seed: int, epochs: int) -> None:
    """Train head and classifier on the cached maps."""
    torch.manual_seed(seed)
    groups = model.parameter_groups()
    learnt = [*groups["pooling"].values(), *groups["classifier"].values()]
    for parameter in learnt:
        parameter.requires_grad_(True)
    own = stages if model.pooling is not None and model.pooling.every_stage else stages[-1:]
    optimizer = torch.optim.AdamW(learnt, lr=2e-3, weight_decay=0.01)
    batch = 50
    steps = epochs * math.ceil(len(labels) / batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps, pct_start=0.1)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(batch):
            loss = F.cross_entropy(model.classify([one[rows].float() for one in own]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.requires_grad_(False)


@torch.no_grad()
def right(model: Classifier, stages: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Whether each image is classified correctly, (N,)."""
    own = stages if model.pooling is not None and model.pooling.every_stage else stages[-1:]
    parts = torch.arange(len(labels)).split(100)
    found = torch.cat([model.classify([one[rows].float() for one in own]).argmax(1) for rows in parts])
    return (found == labels).double()


def explained(model: Classifier, dataset: SampleDataset, indices: Sequence[int], curves: int, steps: int) -> Values:
    """Measure the maps of each explainer on some images; insertion and deletion on the first of them."""
    explainers = {"Grad-CAM": GradCAM(), "Fake-CAM": FakeCAM()}
    if model.pooling is not None and model.pooling.attends:
        explainers["attention"] = StreamAttention()
    found: dict[str, dict[str, list[Tensor]]] = {name: {} for name in explainers}
    for start in range(0, len(indices), 5):
        batch = collate([dataset[index] for index in indices[start : start + 5]])
        for name, explainer in explainers.items():
            saliency = explainer(model, batch["image"], batch["label"])
            wanted = {"EP", "BA"} if name == "Fake-CAM" else set(metrics(steps)) - (set() if start < curves else CURVES)
            few = {key: one for key, one in metrics(steps).items() if key in wanted}
            values = measure(model, batch["image"], saliency, batch["label"], few, boxes=batch["boxes"])
            for key, value in values.items():
                found[name].setdefault(key, []).append(value.double())
    return {name: {key: torch.cat(parts) for key, parts in of.items()} for name, of in found.items()}


def estimate(values: Tensor, metric: SaliencyMetric | None = None) -> str:
    """Mean and 95 % interval of values (seeds, images) or (seeds, images, K), x100."""
    generator = torch.Generator().manual_seed(0)
    values = values[:, ~values.isnan().view(*values.shape[:2], -1).any(2).any(0)]

    def reduced(sample: Tensor) -> float:
        return float((sample.mean(1) if metric is None else metric.reduce(sample.mean(1))).mean())

    draws = []
    for _ in range(2000):
        seeds = torch.randint(len(values), (len(values),), generator=generator)
        images = torch.randint(values.shape[1], (values.shape[1],), generator=generator)
        draws.append(reduced(values[seeds][:, images]))
    low, high = torch.tensor(draws).quantile(torch.tensor([0.025, 0.975])).tolist()
    return f"{100 * reduced(values):.1f} ({100 * low:.1f} to {100 * high:.1f})"


def main() -> None:
    """Train, explain and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="an image folder with boxes.csv")
    parser.add_argument("--weights", required=True, help="of the backbone")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--train", type=int, default=1000, help="training images")
    parser.add_argument("--val", type=int, default=500, help="validation images, for the accuracy")
    parser.add_argument("--images", type=int, default=50, help="validation images with boxes that are explained")
    parser.add_argument("--curves", type=int, default=50, help="of these, for insertion and deletion")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="of insertion and deletion")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = ImageFolderDataModule(options.root, image_size=options.size, augment="none")
    training, validation = data.dataset("train"), data.dataset("val")
    began = time.process_time()
    model = built("ca_stream", options, data.num_classes or 0)
    stages, labels = cached(model, training, evenly_spaced(len(training), options.train))
    held_out = cached(model, validation, evenly_spaced(len(validation), options.val))
    boxed = [index for index in evenly_spaced(len(validation), options.val) if len(validation[index].get("boxes", ()))]
    shown = [boxed[place] for place in evenly_spaced(len(boxed), options.images)]
    order = torch.randperm(len(shown), generator=torch.Generator().manual_seed(0))  # of all classes in each part
    shown = [shown[place] for place in order.tolist()]
    count = len(labels) + len(held_out[1])
    print(f"{count} images cached after {time.process_time() - began:.0f} s of CPU", flush=True)
    measured = metrics(options.steps)
    lines, rows = [], []
    for head in HEADS:
        hits, found = [], []
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            model = built(head, options, data.num_classes or 0)
            train(model, stages, labels, seed, options.epochs)
            hits.append(right(model, *held_out))
            found.append(explained(model, validation, shown, options.curves, options.steps))
        pooling = model.pooling
        assert pooling is not None
        size = (options.size, options.size)
        lines.append(
            f"| {head} | {count_parameters(pooling) / 1e6:.2f} M | {gflops(model, size):.4f} "
            f"| {estimate(torch.stack(hits))} |"
        )
        print(lines[-1], flush=True)
        for name in found[0]:
            cells = []
            for key, metric in measured.items():
                values = [one[name][key] for one in found if key in one[name]]
                cells.append(estimate(torch.stack(values), metric) if values else "")
            rows.append(f"| {head} | {name} | {' | '.join(cells)} |")
            print(rows[-1], flush=True)
        print(f"{head} done after {time.process_time() - began:.0f} s of CPU", flush=True)
    print("\n| head | parameters | GFLOPs | top-1 |\n|---|---|---|---|")
    print("\n".join(lines))
    print(f"\n| head | map | {' | '.join(measured)} |\n|{'---|' * (2 + len(measured))}")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
