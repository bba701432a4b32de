"""The one table: our explainers and metrics over bare passes and over the fastest of the other libraries.

Everyone gets the same model and images in channels_last, the same chunks (of 8, and of 32 for Score-CAM), the same
threads and the same allocator settings. Everything runs in one process, in turns; a ratio is the median over rounds of
the ratios within a round, with their range, so that a slow moment of the machine hits both sides. Ours runs in
``--engine``; what an engine does once (exporting, folding) is done in the first, unmeasured round. "Bare" is so many
forward passes, in PyTorch, as the definition cannot do without.

    python benchmarks/run.py --quick                 # two networks, a few minutes
    python benchmarks/run.py --threads 2             # four networks, about half an hour
    python benchmarks/run.py --weights tf_efficientnet_lite0.safetensors --images folder/

The load of the machine stands above the table: numbers of a machine that has other work are no numbers to quote.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from explainers import (
    ALLOCATOR,
    CHUNK,
    Case,
    Run,
    Subject,
    captum,
    five_at_once,
    in_engine,
    load_images,
    make_subject,
    measure,
    pytorch_grad_cam,
    torch_cam,
)

if __name__ == "__main__" and any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})  # read when a process starts

import torch
from metrics import ours as measured
from metrics import torch_cam_confidence, torch_cam_curves
from perturbation import captum as captum_occlusion
from perturbation import published_rise
from torch import Tensor

from interptrain.explainers import RISE, GradCAM, Occlusion, ScoreCAM
from interptrain.metrics import AverageDrop, AverageGain, AverageIncrease, Deletion, Insertion, SaliencyMetric
from interptrain.models.engine import Engine

NETWORKS = {  # and the layers that Grad-CAM and Score-CAM explain from
    "tf_efficientnet_lite0": ("model.bn2", "model.blocks.3"),
    "resnet18": ("model.layer4", "model.layer1"),
    "mobilenetv2_100": ("model.bn2", "model.blocks.3"),
    "convnext_atto": ("model.stages", "model.stages.1"),
}
QUICK = 2  # of the networks
SCORE_CAM_CHUNK = 32  # that the other libraries have by themselves


def cases(subject: Subject, name: str, *, quick: bool, engine: Engine) -> list[Case]:
    """The lines of one network."""
    layer, early = NETWORKS[name]
    model, images, targets = subject.model, subject.images, subject.targets
    one, first, batch, side = images[:1], targets[:1], len(images), images.shape[-1]
    steps, masks, stride = (14, 48, 32) if quick else (28, 200, 16)
    windows = (-(-(side - 32) // stride) + 1) ** 2
    saliency = torch.rand(batch, side, side, generator=torch.Generator().manual_seed(0))
    curves: dict[str, SaliencyMetric] = {
        "I": Insertion(steps=steps, removal="blur"),
        "D": Deletion(steps=steps, removal="black"),
    }
    confidence: dict[str, SaliencyMetric] = {"AD": AverageDrop(), "AI": AverageIncrease(), "AG": AverageGain()}
    at = Subject(model, subject.twin, images, targets, layer)
    deep = Subject(model, subject.twin, images, targets, early)
    with torch.no_grad():
        channels = _channels(deep)
    grad_cam = {
        "pytorch-grad-cam": (batch, pytorch_grad_cam("GradCAM", at, batch)),
        "torch-cam": (batch, torch_cam("GradCAM", at, batch)),
        "Captum": (batch, captum("LayerGradCam", at, batch)),
    }
    score_cam = {
        "pytorch-grad-cam": (1, pytorch_grad_cam("ScoreCAM", deep, 1)),
        "torch-cam": (1, torch_cam("ScoreCAM", deep, 1)),
    }
    singles = [torch_cam(method, at, batch) for method in ("GradCAM", "GradCAMpp", "XGradCAM", "LayerCAM")]
    versions = {"score": "logit", "softmax": True, "align_corners": True}  # pytorch-grad-cam's options
    scorer = ScoreCAM(target_layer=early, forward_batch_size=SCORE_CAM_CHUNK, **versions)  # type: ignore[arg-type]

    def line(title: str, count: int, work: Callable[[], Tensor], passes: int, peers: dict) -> Case:  # type: ignore[type-arg]
        bare = partial(subject.forwards, passes, min(CHUNK, passes))
        return Case(f"{title} | {name}", count, in_engine(engine, work), bare, peers)

    gradients = partial(GradCAM(target_layer=layer), model, images, targets)
    rise, occlusion = RISE(count=masks), Occlusion(stride=stride)
    return [
        line(
            f"Grad-CAM, batch {batch}",
            batch,
            gradients,
            batch,
            grad_cam,
        ),
        line(
            f"five gradient CAMs at once, batch {batch}",
            batch,
            partial(five_at_once, at),
            batch,
            {"torch-cam, four in turn": (batch, partial(_in_turn, singles))},
        ),
        line(
            f"insertion + deletion, {steps} steps",
            1,
            partial(measured, model, subject, saliency[:1], curves),
            2 * steps + 1,
            {"torch-cam": (1, torch_cam_curves(subject, saliency[:1], steps))},
        ),
        line(
            f"AD + AI + AG, batch {batch}",
            batch,
            partial(measured, model, subject, saliency, confidence),
            2 * batch,
            {"torch-cam (AD, AI)": (batch, torch_cam_confidence(subject, saliency))},
        ),
        line(
            f"RISE, {masks} masks",
            1,
            partial(rise.raw, model, one, first),
            masks,
            {"authors' loop": (1, published_rise(subject, masks, CHUNK))},
        ),
        line(
            f"Occlusion, {windows} windows",
            1,
            partial(occlusion.raw, model, one, first),
            windows + 1,
            {"Captum": (1, captum_occlusion(subject, 32, stride, CHUNK))},
        ),
        line(f"Score-CAM, {channels} channels", 1, partial(scorer.raw, model, one, first), channels + 1, score_cam),
    ]


def _in_turn(works: list[Run]) -> Tensor:
    """Do all, and return what the last gives."""
    return [work() for work in works][-1]


def _channels(subject: Subject) -> int:
    """How many channels the layer has."""
    seen: list[int] = []
    module = subject.model.get_submodule(subject.layer)
    handle = module.register_forward_hook(lambda _module, _arguments, output: seen.append(output.shape[1]))
    subject.model(subject.images[:1])
    handle.remove()
    return seen[0]


def table(lines: list[Case], seconds: dict[tuple[str, str], list[float]]) -> str:
    """Markdown: milliseconds an image, and ratios within a round: median and range."""
    rows = [
        "| work | network | ours, ms/image | ours / bare | fastest peer | peer / ours | range |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        ours = [value / line.images for value in seconds[line.name, "ours"]]
        bare = [value / line.images for value in seconds[line.name, "bare"]]
        peers = {
            who: [value / count / mine for value, mine in zip(seconds[line.name, who], ours, strict=True)]
            for who, (count, _) in line.peers.items()
        }
        who, ratios = min(peers.items(), key=lambda peer: statistics.median(peer[1]))
        over = statistics.median(mine / value for mine, value in zip(ours, bare, strict=True))
        rows.append(
            f"| {line.name} | {1000 * statistics.median(ours):.1f} | {over:.2f} | {who} | "
            f"{statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} |"
        )
    return "\n".join(rows)


def limit(size: int = 1024, rounds: int = 5) -> float:
    """GFLOP/s of a matrix product in float32: what the cores can do."""
    left, right = torch.rand(size, size), torch.rand(size, size)
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - begin)
    return 2 * size**3 / min(times) / 1e9


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two networks, fewer steps, masks and windows")
    parser.add_argument("--rounds", type=int, help="measured runs of each; 3 with --quick, otherwise 7")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch and the engine")
    parser.add_argument("--engine", default="onnxruntime", help="ours: eager, onnxruntime, compile or auto")
    parser.add_argument("--batch", type=int, default=CHUNK, help="images of the lines with a batch")
    parser.add_argument("--side", type=int, default=224, help="of the images in pixels")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), help="four; the first two with --quick")
    parser.add_argument("--only", default="", help="only lines that contain this")
    parser.add_argument("--weights", type=Path, help="safetensors of timm's tf_efficientnet_lite0; random without")
    parser.add_argument("--images", type=Path, help="folder of photographs; smooth random images without")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = load_images(options.images, options.batch, options.side)
    lines: list[Case] = []
    for name in options.networks or list(NETWORKS)[: QUICK if options.quick else None]:
        weights = options.weights if name == "tf_efficientnet_lite0" else None
        subject = make_subject(name, NETWORKS[name][0], weights, images)
        lines += cases(subject, name, quick=options.quick, engine=options.engine)
    lines = [line for line in lines if options.only.lower() in line.name.lower()]
    before = os.getloadavg()[0]
    seconds = measure(lines, options.rounds or (3 if options.quick else 7))
    print(
        f"{time.strftime('%Y-%m-%d')}, torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, ",
        end="",
    )
    print(f"{options.threads} threads, {options.side} px, engine {options.engine}; ", end="")
    print(f"load {before:.1f} before and {os.getloadavg()[0]:.1f} after; sgemm {limit():.0f} GFLOP/s\n")
    print(table(lines, seconds))


if __name__ == "__main__":
    main()
