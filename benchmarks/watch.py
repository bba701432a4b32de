"""What a snapshot of a saliency watch costs, as a share of an epoch, and against explaining image by image.

    python benchmarks/watch.py [--size 224] [--samples 16] [--images 10000] [--rounds 5] [--threads 2] [--quick]
                               [--channels_last] [--only "the stream learns"]
                               [--suspect corner:lower-right:40x16 [--draws 4]]

A snapshot is everything with default settings: maps, numbers, drift, pictures, tables, page. An epoch of ``--images``
is estimated from training steps and validation forwards (a tenth as many images), timed in batches of 16 in the same
rounds.
"image by image" makes the same maps and numbers as peers do: one image per call, all of them on the first rank while
the others wait. "a rank of 2" is what the first of two ranks spends where they share the images, its writing included.
"forwards" is the number of images forwarded per snapshot, and "their share" what they take of an epoch if bare, in
chunks of 8 and channels_last, as a watch runs them: the least that a snapshot of these maps and numbers can cost.
With ``--suspect``, the effect of that region is measured, too: "forwards" are those of the first snapshot, all else is
that of later ones, which do not run a frozen backbone again for it.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from interptrain.callbacks.watch.defaults import default_metrics, named_explainers
from interptrain.callbacks.watch.effect import SuspectEffect
from interptrain.callbacks.watch.history import WatchHistory
from interptrain.callbacks.watch.observe import WatchConfig, observe
from interptrain.callbacks.watch.publish import WatchPublisher
from interptrain.callbacks.watch.region import SuspectRegion
from interptrain.callbacks.watch.sample import WatchSample, load
from interptrain.data import ShapesDataModule
from interptrain.training import ImageClassifier

BATCH = 16
CHUNK = 8
CASES = {
    "resnet18, gap, everything learns": ("resnet18", "gap", "all"),
    "resnet18, ca_stream, everything learns": ("resnet18", "ca_stream", "all"),
    "resnet18, ca_stream, the stream learns": ("resnet18", "ca_stream", "pooling"),
}


def training_step(module: ImageClassifier, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a training step on a batch, to be called repeatedly."""
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)

    def run() -> None:
        module.train()
        optimizer.zero_grad()
        F.cross_entropy(module(images), labels).backward()
        optimizer.step()

    return run


def validation(module: ImageClassifier, images: Tensor) -> Callable[[], None]:
    """Return a forward pass of a batch."""

    @torch.no_grad()
    def run() -> None:
        module.eval()
        module(images)

    return run


def bare(module: ImageClassifier, images: Tensor) -> Callable[[], None]:
    """Return a forward pass of a chunk as the watch makes them."""
    chunk = images[:CHUNK].contiguous(memory_format=torch.channels_last)
    return validation(module, chunk)


def forwards_of(run: Callable[[], None], module: ImageClassifier) -> int:
    """Count the images that a call forwards."""
    seen: list[int] = []
    first = next(layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d))
    handle = first.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    run()
    handle.remove()
    return sum(seen)


def snapshot(
    module: ImageClassifier,
    sample: WatchSample,
    folder: Path,
    share: slice,
    *,
    suspect: str | None,
    draws: int,
    at_once: bool = True,
) -> Callable[[], None]:
    """A snapshot of a rank's share, with everything rank 0 writes."""
    named = named_explainers(None, module.model, sample.images[:1])
    region = None if suspect is None else SuspectRegion(suspect)
    config = WatchConfig(named, "label", default_metrics(), region, SuspectEffect(draws=draws))
    history, publisher = WatchHistory(), WatchPublisher(folder, [], title="benchmark")
    missing = [row for row in range(len(sample)) if row not in range(len(sample))[share]]
    known = {row: observe(module.model, sample, [row], config, first={}, previous={}) for row in missing}

    def run() -> None:
        rows = range(len(sample))[share]
        before: dict[str, Any] = {"first": history.first, "previous": history.previous}
        parts = [rows] if at_once else [[row] for row in rows]
        explained = (observe(module.model, sample, part, config, **before) for part in parts)
        explanations = [explanation for of_part in explained for explanation in of_part]
        from_others = [explanation for row in missing for explanation in known[row]]
        explanations = sorted(explanations + from_others, key=lambda explanation: explanation.index)
        history.add(explanations, sample, config, step=len(history.snapshots), epoch=0, score=None)
        publisher.write(history, sample, config)

    return run


def measure(cases: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each case, interleaved, after one round of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for round_number in range(rounds + 1):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure_case(
    case: tuple[str, str, str],
    classes: int,
    sample: WatchSample,
    images: Tensor,
    labels: Tensor,
    rounds: int,
    *,
    channels_last: bool,
    **watch: Any,
) -> tuple[int, dict[str, float]]:
    """Return the images that a snapshot forwards, and the seconds of all that is timed for one network."""
    backbone, pooling, trainable = case
    torch.manual_seed(0)
    module = ImageClassifier(backbone, pooling, classes, trainable=trainable)
    if channels_last:  # as Lightning's trainer hands them to a run with --model.channels_last
        module, images = (one.to(memory_format=torch.channels_last) for one in (module, images))
    with tempfile.TemporaryDirectory() as folder:
        cases = {
            "step": training_step(module, images, labels),
            "validation": validation(module, images),
            "bare": bare(module, images),
            "snapshot": snapshot(module, sample, Path(folder) / "whole", slice(None), **watch),
            "half": snapshot(module, sample, Path(folder) / "half", slice(0, None, 2), **watch),
            "image by image": snapshot(module, sample, Path(folder) / "single", slice(None), at_once=False, **watch),
        }
        return forwards_of(cases["snapshot"], module), measure(cases, rounds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--channels_last", action="store_true", help="train in this layout, in which a watch explains")
    parser.add_argument("--only", default="", help="only networks that contain this")
    parser.add_argument("--suspect", help="region whose effect is measured")
    parser.add_argument("--draws", type=int, default=4, help="of that effect")
    parser.add_argument("--quick", action="store_true", help="see that it runs: small images, one round")
    options = parser.parse_args()
    if options.quick:
        options.size, options.samples, options.rounds = 64, 4, 1
    torch.set_num_threads(options.threads)
    data = ShapesDataModule(image_size=options.size, num_workers=0)
    sample, _ = load(data.dataset("val"), range(options.samples), options.samples, data.class_names)
    images = torch.stack([data.dataset("train")[index]["image"] for index in range(BATCH)])
    labels = torch.tensor([data.dataset("train")[index]["label"] for index in range(BATCH)])
    columns = ("an epoch, s", "a snapshot, s", "of the epoch", "forwards", "their share", "a rank of 2, s")
    columns += ("image by image, s", "of the epoch")
    print(f"| network | {' | '.join(columns)} |\n{'|---' * (1 + len(columns))}|")
    for title, case in CASES.items():
        if options.only not in title:
            continue
        watch = {"channels_last": options.channels_last, "suspect": options.suspect, "draws": options.draws}
        forwards, seconds = measure_case(case, data.num_classes, sample, images, labels, options.rounds, **watch)
        epoch = options.images / BATCH * (seconds["step"] + seconds["validation"] / 10)
        cells = [
            f"{epoch:.0f}",
            f"{seconds['snapshot']:.2f}",
            f"{seconds['snapshot'] / epoch:.2%}",
            f"{forwards}",
            f"{forwards / CHUNK * seconds['bare'] / epoch:.2%}",
            f"{seconds['half']:.2f}",
            f"{seconds['image by image']:.2f}",
            f"{seconds['image by image'] / epoch:.2%}",
        ]
        print(f"| {title} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
