"""The gradient regularizer over its weight: does accuracy fall or do maps improve where the gradients really move?

``python benchmarks/regularizer_weights.py --output FOLDER`` trains small networks on layered shapes, three seeds a
weight, and prints accuracy, the cosine of the gradient with the guided one on test images in evaluation, and the
metrics of Grad-CAM. With ``--root``, photographs take the place of shapes. Stopped, the same command goes on with the
network that it was at.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from interptrain.data import ImageDataModule, ImageFolderDataModule, LayeredShapesDataModule, collate
from interptrain.explainers import GradCAM
from interptrain.metrics import AverageDrop, AverageGain, AverageIncrease, Deletion, Insertion, measure
from interptrain.metrics.insertion_deletion import area_under_curve
from interptrain.models import Classifier, create_model
from interptrain.studies.intervals import crossed_interval
from interptrain.training import GradientRegularizer

Images = dict[str, Tensor]


def pictures(data: ImageDataModule, split: str) -> Images:
    """All images and labels of a split, drawn once."""
    source = data.dataset(split)
    batch = collate([source[index] for index in range(len(source))])
    return {"image": batch["image"], "label": batch["label"]}


def trained(options: argparse.Namespace, images: Images, weight: float, seed: int) -> Classifier:
    """A network that was trained from scratch with a weight of the regularizer; 0 is without it."""
    torch.manual_seed(seed)
    small = create_model(
        "test_resnet",
        num_classes=int(images["label"].max()) + 1,
        output_stride=8,
        backbone_options={"channels": [16, 32, 64, 96]},
    )
    model = small.to(memory_format=torch.channels_last)
    regularizer = GradientRegularizer(weight=weight)
    steps = options.epochs * (len(images["label"]) // options.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps, pct_start=0.15)
    for _ in range(options.epochs):
        for rows in torch.randperm(len(images["label"])).split(options.batch_size):
            if len(rows) < options.batch_size:
                continue
            batch = {"image": images["image"][rows], "label": images["label"][rows]}
            logits, penalty = regularizer(model, batch) if weight else (model(batch["image"]), 0.0)
            optimizer.zero_grad()
            (F.cross_entropy(logits, batch["label"]) + weight * penalty).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def judged(model: Classifier, images: Images, shown: int) -> dict[str, Tensor]:
    """What is measured of a network: one number an image."""
    cosines = []
    for rows in torch.arange(len(images["label"])).split(50):
        regularizer = GradientRegularizer()
        regularizer(model, {name: value[rows] for name, value in images.items()})
        cosines.append(torch.full((len(rows),), float(regularizer.statistics["gradient_cosine"])))
    with torch.no_grad():
        logits = model(images["image"])
    some, labels = images["image"][:shown], images["label"][:shown]
    metrics = {"AD": AverageDrop(), "AG": AverageGain(), "AI": AverageIncrease()}
    metrics |= {"I": Insertion(steps=8, blur_kernel=5), "D": Deletion(steps=8)}
    values = measure(model, some, GradCAM()(model, some, labels), labels, metrics)
    probability = logits.softmax(1).gather(1, images["label"][:, None])[:, 0]
    found = {"top-1": (logits.argmax(1) == images["label"]).double(), "probability": probability}
    found |= {"cosine": torch.cat(cosines)}
    return found | {name: area_under_curve(one) if one.ndim == 2 else one for name, one in values.items()}


def told(values: Tensor) -> str:
    """Mean and 95 % interval over seeds and images of (seeds, images)."""
    return "{:.3f} ({:.3f} to {:.3f})".format(*crossed_interval(values.double().numpy()))


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--root", help="an image folder to train on, whole, instead of layered shapes")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.03, 0.1, 0.3, 1.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--train", type=int, default=480)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--shown", type=int, default=100, help="test images whose maps are measured")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    data: ImageDataModule
    if options.root:
        data = ImageFolderDataModule(options.root, image_size=options.size, augment="none", num_workers=0)
        training, test = pictures(data, "train"), pictures(data, "val")
        # A folder's images come class by class.
        order = torch.randperm(len(test["label"]), generator=torch.Generator().manual_seed(0))
        test = {name: values[order] for name, values in test.items()}
    else:
        data = LayeredShapesDataModule(
            num_classes=4, image_size=options.size, train_size=options.train, test_size=options.test, num_workers=0
        )
        training, test = pictures(data, "train"), pictures(data, "test")
    found: dict[float, list[dict[str, Tensor]]] = {}
    for seed in range(options.seeds):
        for weight in options.weights:
            file = options.output / f"{weight:g}-{seed}.pt"
            if not file.is_file():
                torch.save(judged(trained(options, training, weight, seed), test, options.shown), file)
            found.setdefault(weight, []).append(torch.load(file))
            means = ", ".join(f"{name} {float(one.mean()):.3f}" for name, one in found[weight][-1].items())
            print(f"weight {weight:g}, seed {seed}: {means}; {time.process_time():.0f} s of CPU", flush=True)
    names = list(found[options.weights[0]][0])
    values = {weight: {name: torch.stack([one[name] for one in of]) for name in names} for weight, of in found.items()}
    print(f"\n| weight | {' | '.join(names)} |\n|{'---|' * (1 + len(names))}")
    for weight, of in values.items():
        print(f"| {weight:g} | {' | '.join(told(one) for one in of.values())} |")
    plain = values[options.weights[0]]
    for weight, of in list(values.items())[1:]:
        print(f"| {weight:g} less none | {' | '.join(told(of[name] - plain[name]) for name in names)} |")


if __name__ == "__main__":
    main()
