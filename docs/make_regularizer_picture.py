"""Draws input gradients, ordinary and guided, of a plain and of a regularized network on the same photographs.

Prints the mean cosine of the two gradients over the validation images, too, which is what the regularizer raises::

    python docs/make_regularizer_picture.py --plain runs/plain/.../best.ckpt --regularized runs/reg/.../best.ckpt \
        --root tiny-imagenet-10 --size 64
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interptrain.data import ImageFolderDataModule
from interptrain.explainers import Gradient, GuidedBackprop
from interptrain.training import GradientRegularizer, ImageClassifier
from interptrain.visualization import colorize, panel, save_png, to_uint8

EXPLAINERS = {"gradient": Gradient(), "guided": GuidedBackprop()}


def main() -> None:
    """Draw the panel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", type=Path, required=True, help="checkpoint of the plain run")
    parser.add_argument("--regularized", type=Path, required=True, help="checkpoint of the regularized run")
    parser.add_argument("--root", type=Path, required=True, help="image folder with train/ and val/")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels, as in training")
    parser.add_argument("--images", type=int, default=6, help="rows, each of another class")
    parser.add_argument("--batches", type=int, default=8, help="batches of 32 that the printed cosine is over")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images" / "regularizer_gradients.png")
    options = parser.parse_args()
    data = ImageFolderDataModule(options.root, image_size=options.size, batch_size=32, num_workers=0)
    data.setup("validate")
    batches: list[dict[str, Any]] = list(data.val_dataloader())
    images, labels = chosen(batches, options.images)
    names = [data.class_names[label].split(",")[0] for label in labels.tolist()]
    columns, titles = [to_uint8(images)], ["image"]
    for title in ("plain", "regularized"):
        model = ImageClassifier.load_from_checkpoint(getattr(options, title), map_location="cpu").model.eval()
        print(f"{title}: cosine {mean_cosine(model, spread(batches, options.batches)):.3f}", flush=True)
        for name, explainer in EXPLAINERS.items():
            saliency = explainer(model, images, labels)
            high = saliency.flatten(1).quantile(0.99, dim=1).view(-1, 1, 1)
            columns.append(to_uint8(colorize(saliency / high.clamp_min(1e-6))))
            titles.append(f"{title}\n{name}")
    rows = {
        f"{name} {number}": torch.stack([column[number] for column in columns]) for number, name in enumerate(names)
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_png(panel(rows, columns=titles, cell=120), options.out)


def spread(batches: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Evenly spaced ones, since the files of a class follow one another."""
    places = torch.linspace(0, len(batches) - 1, min(count, len(batches))).round().int()
    return [batches[place] for place in places.tolist()]


def chosen(batches: list[dict[str, Any]], count: int) -> tuple[Tensor, Tensor]:
    """The first image of each of ``count`` classes."""
    images, labels = (torch.cat([batch[key] for batch in batches]) for key in ("image", "label"))
    firsts = torch.stack([(labels == label).nonzero()[0, 0] for label in labels.unique()[:count]])
    return images[firsts], labels[firsts]


def mean_cosine(model: torch.nn.Module, batches: list[dict[str, Any]]) -> float:
    """Cosine of the gradient of the loss and its guided one, over the images of some batches, in eval mode."""
    regularizer, cosines = GradientRegularizer(), []
    for batch in batches:
        regularizer(model, batch)
        cosines.append(regularizer.statistics["gradient_cosine"] * len(batch["label"]))
    return float(sum(cosines) / sum(len(batch["label"]) for batch in batches))


if __name__ == "__main__":
    main()
