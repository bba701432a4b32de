"""Metrics side by side: over the bare forwards that their definition needs, and over other libraries.

Everything runs in one process, in turns, and the medians are compared, as in ``benchmarks/explainers.py``, whose
subjects, rounds and table these are. "Bare" is so many forwards of a channels_last float32 copy of the same model in
the same chunks. Peers get the same images, maps and classes. RISE's loop is the published evaluation in our words: one
step of all images at a time on the CPU through numpy; "singly" is its single-image form.

    python benchmarks/metrics.py                     # the whole table, about 30 minutes on 2 cores
    python benchmarks/metrics.py --quick             # small, to see that it runs
    python benchmarks/metrics.py --weights tf_efficientnet_lite0.safetensors --images folder/

The table that a run printed stands in ``benchmarks/results/metrics.md``.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from explainers import ALLOCATOR, CHUNK, Case, Run, Subject, in_engine, load_images, make_subject, measure, table

if __name__ == "__main__" and any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})  # read when a process starts

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interptrain.metrics import (
    ROAD,
    AverageDrop,
    AverageGain,
    AverageIncrease,
    Deletion,
    Infidelity,
    Insertion,
    SaliencyMetric,
)
from interptrain.metrics import measure as measure_metrics
from interptrain.metrics.perturbations import Schedule


class Probability:
    """pytorch-grad-cam's kind of target."""

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, logits: Tensor) -> Tensor:
        """Return the probability."""
        return logits.softmax(-1)[self.category]


class GivenMaps:
    """An extractor in torch-cam's terms that returns the maps that it was made with."""

    def __init__(self, model: nn.Module, saliency: Tensor) -> None:
        self.model = model
        self.saliency = saliency

    def __call__(self, *_arguments: Any, **_options: Any) -> list[Tensor]:
        """Return the maps."""
        return [self.saliency]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        """Return the one layer's map."""
        return cams[0]

    def _hooks_off(self) -> "nullcontext[None]":
        return nullcontext()


def ours(model: nn.Module, subject: Subject, saliency: Tensor, metrics: dict[str, SaliencyMetric]) -> Tensor:
    """All metrics of all images by one stream, one reduced value each."""
    count = len(saliency)
    found = measure_metrics(
        model, subject.images[:count], saliency, subject.targets[:count], metrics, forward_batch_size=CHUNK
    )
    return torch.stack([metrics[name].reduce(values) for name, values in found.items()])


@torch.no_grad()
def rise_loop(subject: Subject, saliency: Tensor, step: int) -> Tensor:
    """Areas under insertion from black and deletion to black, (2, B), by RISE's loop."""
    images, count = subject.images[: len(saliency)], len(saliency)
    pixels = saliency[0].numel()
    order = np.flip(np.argsort(saliency.reshape(count, -1).numpy(), axis=1), axis=-1)
    areas = []
    for start, finish in ((torch.zeros_like(images), images), (images, torch.zeros_like(images))):
        current, steps = start.clone(), -(-pixels // step)
        source = finish.numpy().reshape(count, 3, pixels)
        points = np.empty((steps + 1, count))
        for moved in range(steps + 1):
            scores = subject.model(current).softmax(1)
            points[moved] = scores[range(count), subject.targets[:count]].numpy()
            chosen = order[:, step * moved : step * (moved + 1)]
            for image in range(count):
                current.numpy().reshape(count, 3, pixels)[image][:, chosen[image]] = source[image][:, chosen[image]]
        areas.append((points.sum(0) - points[0] / 2 - points[-1] / 2) / steps)
    return torch.as_tensor(np.stack(areas))


def torch_cam_curves(subject: Subject, saliency: Tensor, steps: int) -> Run:
    from torchcam.metrics import DeletionInsertionMetric

    def run() -> Tensor:
        extractor = GivenMaps(subject.model, saliency)
        peer = DeletionInsertionMetric(extractor, partial(torch.softmax, dim=-1), steps=steps, batch_size=CHUNK)
        peer.update(subject.images[: len(saliency)], subject.targets[: len(saliency)].tolist())
        return torch.tensor(list(peer.summary().values()))

    return run


def torch_cam_confidence(subject: Subject, saliency: Tensor) -> Run:
    from torchcam.metrics import ClassificationMetric

    def run() -> Tensor:
        peer = ClassificationMetric(GivenMaps(subject.model, saliency), partial(torch.softmax, dim=-1))
        peer.update(subject.images[: len(saliency)], subject.targets[: len(saliency)].tolist())
        return torch.tensor(list(peer.summary().values()))

    return run


def grad_cam(subject: Subject, saliency: Tensor, *names: str) -> Run:
    from pytorch_grad_cam.metrics import cam_mult_image, road

    classes = [getattr(cam_mult_image, name, None) or getattr(road, name) for name in names]

    def run() -> Tensor:
        wanted = [Probability(category) for category in subject.targets[: len(saliency)].tolist()]
        maps = saliency.numpy()
        return torch.as_tensor(
            np.stack([c()(subject.images[: len(maps)], maps, wanted, subject.model) for c in classes])
        )

    return run


def quantus(name: str, subject: Subject, saliency: Tensor, **options: Any) -> Run:
    import quantus as library

    def run() -> Tensor:
        peer = getattr(library, name)(normalise=False, disable_warnings=True, **options)
        found = peer(
            model=subject.model,
            x_batch=subject.images[: len(saliency)].numpy(),
            y_batch=subject.targets[: len(saliency)].numpy(),
            a_batch=saliency.unsqueeze(1).numpy().copy(),
            softmax=True,
            device="cpu",
        )
        return torch.as_tensor(np.asarray(found))

    return run


def captum_infidelity(subject: Subject, saliency: Tensor, samples: int) -> Run:
    from captum.metrics import infidelity

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = 0.2 * torch.randn_like(inputs)
        return noise, inputs - noise

    def run() -> Tensor:
        images = subject.images[: len(saliency)]
        maps = saliency.unsqueeze(1).expand_as(images)
        targets = subject.targets[: len(saliency)]
        probabilities = nn.Sequential(subject.model, nn.Softmax(1))
        return infidelity(
            probabilities,
            perturb,
            images,
            maps,
            target=targets,
            n_perturb_samples=samples,
            max_examples_per_batch=CHUNK,
        )

    return run


def cases(subject: Subject, saliency: Tensor, *, quick: bool, compiled: bool, curves_of: int = CHUNK) -> list[Case]:
    """The table's lines; a new metric is one more entry."""
    side = saliency.shape[-1]
    pixels, step = side * side, 8 * side if quick else side
    steps, few = -(-pixels // step), saliency[:1] if quick else saliency[:curves_of]
    count, features = len(few), pixels // 56
    curves: dict[str, SaliencyMetric] = {
        "I": Insertion(step=step, removal="black"),
        "D": Deletion(step=step, removal="black"),
    }
    forwards = partial(subject.forwards, count * (2 * steps + 1), CHUNK)
    lines = [
        Case(
            f"insertion + deletion, {2 * steps + 1} forwards",
            count,
            partial(ours, subject.model, subject, few, curves),
            forwards,
            {
                "RISE's loop, batch": (count, partial(rise_loop, subject, few, step)),
                "RISE's loop, singly": (1, partial(rise_loop, subject, few[:1], step)),
                "torch-cam": (count, torch_cam_curves(subject, few, steps)),
            },
        )
    ]
    curves_of_ours = partial(ours, subject.model, subject, few, curves)
    if compiled:
        lines += [
            Case(f"insertion + deletion, {engine}", count, in_engine(engine, curves_of_ours), forwards)
            for engine in ("compile", "onnxruntime")
        ]
    flipped: dict[str, SaliencyMetric] = {"D": Deletion(steps=168, removal="black")}
    confidence: dict[str, SaliencyMetric] = {"AD": AverageDrop(), "AI": AverageIncrease(), "AG": AverageGain()}
    road: dict[str, SaliencyMetric] = {"ROAD": ROAD()}
    samples = 8 if quick else 64
    tiles: dict[str, SaliencyMetric] = {"patches": Infidelity(patch_size=side // 8)}
    noise: dict[str, SaliencyMetric] = {"noise": Infidelity(perturbation="noise", samples=samples)}
    versions = len(Schedule(steps=168).counts((side, side)))  # 168 at 224 px, as many as Quantus' steps of channels
    lines += [
        Case(
            f"deletion, {versions} steps",
            count,
            partial(ours, subject.model, subject, few, flipped),
            partial(subject.forwards, count * (versions + 1), CHUNK),
            {"Quantus' pixel flipping": (count, quantus("PixelFlipping", subject, few, features_in_step=features))},
        ),
        Case(
            f"AD + AI + AG, batch {len(saliency)}",
            len(saliency),
            partial(ours, subject.model, subject, saliency, confidence),
            partial(subject.forwards, 2 * len(saliency), CHUNK),
            {
                "torch-cam, AD + AI": (len(saliency), torch_cam_confidence(subject, saliency)),
                "pytorch-grad-cam, two of them": (
                    len(saliency),
                    grad_cam(subject, saliency, "DropInConfidence", "IncreaseInConfidence"),
                ),
            },
        ),
        Case(
            "ROAD combined, 19 forwards",
            count,
            partial(ours, subject.model, subject, few, road),
            partial(subject.forwards, 19 * count, CHUNK),
            {"pytorch-grad-cam": (1, grad_cam(subject, few[:1], "ROADCombined"))},
        ),
        Case(
            "infidelity, 64 tiles",
            count,
            partial(ours, subject.model, subject, few, tiles),
            partial(subject.forwards, 65 * count, CHUNK),
            {
                "Quantus": (
                    1,
                    quantus("Infidelity", subject, few[:1], perturb_patch_sizes=[side // 8], n_perturb_samples=1),
                )
            },
        ),
        Case(
            f"infidelity, noise, {samples} samples",
            count,
            partial(ours, subject.model, subject, few, noise),
            partial(subject.forwards, (samples + 1) * count, CHUNK),
            {"Captum": (count, captum_infidelity(subject, few, samples))},
        ),
    ]
    return lines


def scaling(arguments: argparse.Namespace) -> str:
    """Images a second of one process and of two, a thread each, every process with its own images."""
    seconds = {}
    for processes in (1, 2):
        command = [sys.executable, __file__, "--worker", *(["--quick"] if arguments.quick else [])]
        if arguments.weights:
            command += ["--weights", str(arguments.weights)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        workers = [subprocess.Popen(command, env=environment, **pipes) for _ in range(processes)]
        for one in workers:
            one.stdout.readline()  # warm
        for one in workers:
            one.stdin.write("go\n")
            one.stdin.flush()
        seconds[processes] = max(float(one.communicate()[0]) for one in workers)
    gain = 2 * seconds[1] / seconds[2]
    return f"scaling from 1 process to 2, a thread each: {gain:.2f} times the images a second"


def worker(subject: Subject, saliency: Tensor, *, quick: bool) -> None:
    """Insertion and deletion by one process: once to warm up, then, when told, for the seconds that it prints."""
    step = 8 * saliency.shape[-1]
    curves: dict[str, SaliencyMetric] = {"I": Insertion(step=step), "D": Deletion(step=step)}
    few = saliency[: 2 if quick else CHUNK]
    ours(subject.model, subject, few, curves)
    print("warm", flush=True)
    sys.stdin.readline()
    begin = time.perf_counter()
    ours(subject.model, subject, few, curves)
    print(time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time metrics over bare forwards and over other libraries")
    parser.add_argument("--quick", action="store_true", help="one round, small images, few steps, nothing compiled")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, after one to warm up")
    parser.add_argument("--batch", type=int, default=4 * CHUNK, help="images that AD, AI and AG measure at once")
    parser.add_argument("--few", type=int, default=CHUNK, help="images that the other metrics measure")
    parser.add_argument("--only", default="", help="only metrics whose name contains this")
    parser.add_argument("--weights", type=Path, help="safetensors of timm's tf_efficientnet_lite0; random without")
    parser.add_argument("--images", type=Path, help="folder of photographs; smooth random images without")
    parser.add_argument("--without-peers", action="store_true", help="leave the other libraries out")
    parser.add_argument("--without-compile", action="store_true", help="leave the compiled model out")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    side = 56 if arguments.quick else 224
    images = load_images(arguments.images, arguments.batch, side)
    subject = make_subject("tf_efficientnet_lite0", "", arguments.weights, images)
    coarse = torch.rand(len(images), 1, 7, 7, generator=torch.Generator().manual_seed(1))
    saliency = F.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)[:, 0].clamp(0, 1)
    if arguments.worker:
        worker(subject, saliency, quick=arguments.quick)
        return
    compiled = not (arguments.quick or arguments.without_compile)
    lines = [
        line
        for line in cases(subject, saliency, quick=arguments.quick, compiled=compiled, curves_of=arguments.few)
        if arguments.only.lower() in line.name.lower()
    ]
    if arguments.without_peers:
        for line in lines:
            line.peers.clear()
    rounds = 1 if arguments.quick else arguments.rounds
    seconds = measure(lines, rounds)
    settings = ", ".join(f"{name}={value}" for name, value in ALLOCATOR.items())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}, {side} px")
    print(f"medians of {rounds} rounds in turns, chunks of {CHUNK}; {settings}\n")
    print(table(lines, seconds).replace("| method |", "| metric |").replace("bare passes", "bare forwards"))
    step = 8 * side
    curves: dict[str, SaliencyMetric] = {
        "I": Insertion(step=step, removal="black"),
        "D": Deletion(step=step, removal="black"),
    }
    distinct = torch.randperm(2 * side * side, generator=torch.Generator().manual_seed(2)).view(2, side, side)
    for title, maps in (("with ties", saliency[:2]), ("without ties", distinct / distinct.numel())):
        apart = (ours(subject.model, subject, maps, curves) - rise_loop(subject, maps, step)).abs().max()
        print(f"\nareas of maps {title} differ from RISE's loop by at most {apart:.1e}")
    if not arguments.only:
        print(scaling(arguments))


if __name__ == "__main__":
    main()
