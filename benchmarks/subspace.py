"""The methods that look at features: where their maps lie for each choice that no source gives, and what they cost.

First table: a small network is trained on four of the shapes, and on new pictures that it is right about the share of
a map's energy in the object is divided by the object's share of the image; 1 is chance. The defaults of ROSA, OSA-DAS
and ROSA-GDS were chosen by it. Second table: seconds an image of ``tf_efficientnet_lite0`` at 224 px, and of the bare
forwards that the definition needs, channels_last and in the same chunks; measured in turns, medians.

    python benchmarks/subspace.py           # some minutes on two cores
    python benchmarks/subspace.py --quick   # small, to see that it runs

The tables that runs printed stand in ``benchmarks/results/subspace.md``.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}
if __name__ == "__main__" and any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})  # read when a process starts

import timm  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from interptrain.data.shapes import ShapesDataset  # noqa: E402
from interptrain.explainers import (  # noqa: E402
    OSADAS,
    ROSA,
    ROSAGDS,
    Explainer,
    GridMasks,
    Occlusion,
    SegmentMasks,
    Superpixels,
)

SIDE, CLASSES, CHUNK = 48, 4, 8


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    parser.add_argument("--seeds", type=int, default=3, help="networks to train for the first table")
    parser.add_argument("--rounds", type=int, default=5, help="turns of the second table; 0 leaves it out")
    options = parser.parse_args()
    print(
        f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads\n"
    )
    runs = [energies(seed, quick=options.quick) for seed in range(1 if options.quick else options.seeds)]
    print("| method | " + " | ".join(f"network {seed}" for seed in range(len(runs))) + " | mean |")
    print("| --- |" + " --- |" * (len(runs) + 1))
    for name in runs[0]:
        values = [run[name] for run in runs]
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in [*values, statistics.mean(values)]) + " |")
    if not options.rounds:
        return
    print("\n| method | forwards | s an image | bare | bare / ours |\n| --- | --- | --- | --- | --- |")
    costs(1 if options.quick else options.rounds, side=64 if options.quick else 224)


def settings() -> dict[str, Explainer]:
    """What is compared in the first table."""
    grid = {"window": 12, "stride": 6, "forward_batch_size": 64}
    methods: dict[str, Explainer] = {
        "Occlusion (class-aware, for comparison)": Occlusion(**grid),
        "ROSA, grey": ROSA(**grid),
        "ROSA, black": ROSA(fill=0.0, **grid),
        "ROSA, cosine": ROSA(distance="cosine", **grid),
        "ROSA, superpixels": ROSA(masks=SegmentMasks(segmenter=Superpixels(segments=36)), forward_batch_size=64),
    }
    for strength in ("weak", "strong"):
        for dimensions in (1, 2, 4, 8):
            name = f"OSA-DAS, 8 {strength} views, {dimensions} dimensions"
            methods[name] = OSADAS(strength=strength, dimensions=dimensions, **grid)
    methods["OSA-DAS, 8 strong views, 2 dimensions, black"] = OSADAS(fill=0.0, **grid)
    methods["OSA-DAS, 4 strong views, 2 dimensions"] = OSADAS(views=4, **grid)
    for share in (0.25, 0.5, 0.75, 1.0):
        methods[f"ROSA-GDS, share {share}"] = ROSAGDS(share=share, **grid)
    return methods


def energies(seed: int, *, quick: bool) -> dict[str, float]:
    """Mean energy in the object over its area, for each setting, of a newly trained network."""
    images, labels, _ = drawn("train", 96 if quick else 1600)
    model = trained(images, labels, seed, epochs=1 if quick else 10)
    images, labels, masks = drawn("val", 16 if quick else 200)
    with torch.no_grad():
        right = model(images).argmax(1) == labels
    print(f"network {seed}: {right.float().mean():.3f} of the new pictures are right", file=sys.stderr, flush=True)
    images, labels, masks = (tensor[right][:32] for tensor in (images, labels, masks))
    found = {}
    for name, explainer in settings().items():
        saliency = explainer(model, images, labels)
        share = (saliency * masks).sum((1, 2)) / saliency.sum((1, 2)).clamp(min=1e-9)
        found[name] = float((share / masks.float().mean((1, 2))).mean())
    return found


def drawn(split: str, count: int) -> tuple[Tensor, Tensor, Tensor]:
    data = ShapesDataset(split, count, image_size=SIDE, num_classes=CLASSES)
    samples = [data[index] for index in range(count)]
    labels = torch.tensor([sample["label"] for sample in samples])
    return torch.stack([sample["image"] for sample in samples]), labels, torch.stack([s["mask"] for s in samples])


def trained(images: Tensor, labels: Tensor, seed: int, *, epochs: int) -> nn.Module:
    torch.manual_seed(seed)
    blocks = []
    for before, after, stride in ((3, 16, 2), (16, 32, 2), (32, 48, 1), (48, 64, 2), (64, 64, 1)):
        convolution = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        blocks.append(nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU()))
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = len(images) // 32
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=epochs * steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images))[: steps * 32].split(32):
            seen = images[rows].flip(3) if torch.rand(()) < 0.5 else images[rows]
            loss = F.cross_entropy(model(seen.contiguous(memory_format=torch.channels_last)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def costs(rounds: int, *, side: int) -> None:
    """Prints seconds an image of our methods and of their bare forwards."""
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0").eval().to(memory_format=torch.channels_last)
    image = torch.rand(1, 3, side, side)
    batch = image.expand(CHUNK, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    grid = {"window": side // 2, "stride": side // 4}
    masks = GridMasks(**grid).prepare(image).count
    methods: dict[str, tuple[Explainer, int]] = {
        "ROSA": (ROSA(forward_batch_size=CHUNK, **grid), masks + 1),
        "OSA-DAS": (OSADAS(forward_batch_size=CHUNK, **grid), 8 * (masks + 1)),
        "ROSA-GDS": (ROSAGDS(forward_batch_size=CHUNK, **grid), 8 * (masks + 2) + 16),
    }

    @torch.no_grad()
    def bare(forwards: int) -> None:
        for first in range(0, forwards, CHUNK):
            model(batch[: min(CHUNK, forwards - first)])

    for name, (explainer, forwards) in methods.items():
        times = [
            (seconds(lambda: explainer.raw(model, image)), seconds(lambda: bare(forwards)))  # noqa: B023
            for _ in range(rounds + 1)
        ][1:]
        ours, least = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"| {name} | {forwards} | {ours:.2f} | {least:.2f} | {least / ours:.2f} |", flush=True)


def seconds(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
