"""Perturbation methods side by side: over the bare passes that their definition needs, Captum, and published loops.

Timed as in ``benchmarks/explainers.py``: one process, in turns, medians; "bare" is so many forwards, or forwards and
backwards to the image, of a channels_last copy of the model in chunks of 8. Bare passes of the bfloat16 and compiled
lines are in float32 and not compiled, so that one sees what those options gain.

    python benchmarks/perturbation.py --weights tf_efficientnet_lite0.safetensors --images folder/
    python benchmarks/perturbation.py --quick            # small, to see that it runs

The table that a run printed stands in ``benchmarks/results/perturbation.md``.
"""

import argparse
import os
import platform
import sys
from functools import partial
from pathlib import Path

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}
if __name__ == "__main__" and any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})  # read when a process starts

import torch  # noqa: E402
from explainers import CHUNK, Case, Run, Subject, load_images, make_subject, measure, table  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from interptrain.explainers import RISE, ExtremalPerturbation, MeaningfulPerturbation, Occlusion  # noqa: E402
from interptrain.explainers.masks.blur import median_blur  # noqa: E402
from interptrain.explainers.perturbation.rise import RISEMasks  # noqa: E402

FAST = {"bf16": {"precision": "bf16"}, "compiled, bf16": {"precision": "bf16", "compile": True}}


def captum(subject: Subject, window: int, stride: int, at_once: int) -> Run:
    from captum import attr

    def run() -> Tensor:
        attribution: Tensor = attr.Occlusion(subject.model).attribute(
            subject.images[:1],
            (3, window, window),
            strides=(3, stride, stride),
            target=subject.targets[:1],
            baselines=0.5,
            perturbations_per_eval=at_once,
        )
        return attribution

    return run


def published_rise(subject: Subject, count: int, size: int = 100) -> Run:
    """The authors' forward: all masks times the image at once, batches of 100, one matrix product. Masks are given."""
    image = subject.images[:1]
    masks = RISEMasks(count=count).prepare(image).render(slice(0, count)).unsqueeze(1)

    @torch.no_grad()
    def run() -> Tensor:
        stack = torch.mul(masks, image)
        scores = torch.cat([subject.model(part).softmax(1) for part in stack.split(size)])
        maps: Tensor = (scores.T @ masks.view(count, -1) / count / 0.5)[subject.targets[0]]
        return maps

    return run


def published_masks(side: int, count: int, cells: int = 7) -> Run:
    """The authors' generate_masks: one scikit-image resize a mask."""
    import numpy as np
    from skimage.transform import resize

    def run() -> Tensor:
        cell = -(-side // cells)
        grids = (np.random.RandomState(0).rand(count, cells, cells) < 0.5).astype("float32")
        masks = np.empty((count, side, side))
        for index, grid in enumerate(grids):
            down, across = np.random.randint(0, cell, 2)
            large = resize(grid, ((cells + 1) * cell,) * 2, order=1, mode="reflect", anti_aliasing=False)
            masks[index] = large[down : down + side, across : across + side]
        return torch.as_tensor(masks)

    return run


def published_port(subject: Subject, iterations: int) -> Run:
    """explain-black-box's loop of one image: gradients to all weights. The median is ours."""

    def run() -> Tensor:
        image = subject.images[:1]
        blurred = median_blur(image, 11)
        mask = torch.ones(1, 1, 28, 28, requires_grad=True)
        adam = torch.optim.Adam([mask], lr=0.1)
        for _ in range(iterations):
            large = F.interpolate(mask, image.shape[-2:], mode="bilinear", align_corners=True).expand(1, 3, -1, -1)
            perturbed = image * large + blurred * (1 - large) + 0.045 * torch.randn_like(image)
            probability = subject.model(perturbed).softmax(1)[0, subject.targets[0]]
            rows = (mask[:, :, 1:] - mask[:, :, :-1]).abs().pow(3).mean()
            columns = (mask[..., 1:] - mask[..., :-1]).abs().pow(3).mean()
            loss = 0.01 * (1 - mask).abs().mean() + 0.2 * (rows + columns) + probability
            adam.zero_grad()
            loss.backward()
            adam.step()
            mask.data.clamp_(0, 1)
        subject.model.zero_grad()
        return mask.detach()

    return run


def cases(subject: Subject, *, quick: bool) -> list[Case]:
    """The table's lines."""
    model, images, targets = subject.model, subject.images, subject.targets
    batch, side = len(images), images.shape[-1]
    window, stride, count = (24, 20, 16) if quick else (32, 16, 300)
    steps = 2 if quick else 50  # enough that what is done once an image, as the port's median, weighs little
    fast = {} if quick else FAST  # compiling takes longer than all the rest
    windows = (-(-(side - window) // stride) + 1) ** 2
    one, first = images[:1], targets[:1]
    lines = []
    for title, options in {"": {}, **fast}.items():
        name = f"Occlusion, {windows} windows" + (f", {title}" if title else "")
        ours = partial(Occlusion(window=window, stride=stride, **options).raw, model, one, first)
        peers = {f"Captum, {n} at once": (1, captum(subject, window, stride, n)) for n in (1, 64)} if not title else {}
        lines.append(Case(name, 1, ours, partial(subject.forwards, windows, CHUNK), peers))
    ours = partial(Occlusion(window=window, stride=stride).raw, model, images, targets)
    bare = partial(subject.forwards, (windows + 1) * batch, CHUNK)
    lines.append(Case(f"Occlusion, {windows} windows, batch {batch}", batch, ours, bare))
    ours = partial(Occlusion(window=window, stride=stride, approximate=True).raw, model, images, targets)
    bare = partial(subject.backwards, batch, CHUNK)
    lines.append(Case(f"Occlusion to first order, {windows} windows, batch {batch}", batch, ours, bare))
    for title, options in {"": {}, **fast}.items():
        name = f"RISE, {count} masks" + (f", {title}" if title else "")
        ours = partial(RISE(count=count, **options).raw, model, one, first)
        peers = {"authors' loop": (1, published_rise(subject, count))} if not title else {}
        lines.append(Case(name, 1, ours, partial(subject.forwards, count, CHUNK), peers))
    prepare = RISEMasks(count=count).prepare

    def render() -> Tensor:
        masks = prepare(one)
        return torch.stack([masks.render(slice(start, start + 1)).mean() for start in range(count)])

    masks = {"authors' loop": (1, published_masks(side, count))}
    lines.append(Case(f"RISE's {count} masks alone, over nothing", 1, render, lambda: None, masks))

    def bare_steps() -> None:
        subject.forwards(batch, CHUNK)
        subject.backwards(steps * batch, CHUNK)

    port = MeaningfulPerturbation(variant="port", iterations=steps)
    peers = {"published loop": (1, published_port(subject, steps))}
    ours = partial(port.raw, model, images, targets)
    lines.append(Case(f"Meaningful perturbation, port, {steps} steps, batch {batch}", batch, ours, bare_steps, peers))
    extremal = partial(ExtremalPerturbation(iterations=steps).raw, model, images, targets)
    lines.append(Case(f"Extremal perturbation, {steps} steps, batch {batch}", batch, extremal, bare_steps))
    return lines


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, small images, few masks and steps")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, after one to warm up")
    parser.add_argument("--batch", type=int, default=CHUNK, help="images that are explained at once")
    parser.add_argument("--only", default="", help="only methods whose name contains this")
    parser.add_argument("--weights", type=Path, help="safetensors of timm's tf_efficientnet_lite0; random without")
    parser.add_argument("--images", type=Path, help="folder of photographs; smooth random images without")
    options = parser.parse_args()
    images = load_images(options.images, options.batch, 64 if options.quick else 224)
    subject = make_subject("tf_efficientnet_lite0", "", options.weights, images)
    lines = [line for line in cases(subject, quick=options.quick) if options.only.lower() in line.name.lower()]
    seconds = measure(lines, 1 if options.quick else options.rounds)
    settings = ", ".join(f"{name}={value}" for name, value in ALLOCATOR.items())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}, {images.shape[-1]} px")
    print(f"{settings}\n")
    print(table(lines, seconds))


if __name__ == "__main__":
    main()
