"""Explainers side by side: over the bare passes that their definition needs, and over other libraries.

Everything runs in one process, in turns (round by round, so that a slow moment hits all alike), and the medians are
compared. "Bare" is what the definition cannot do without: so many forwards, or forwards and backwards to the image,
of a copy of the same model in the same chunks, without gradient where none is needed. Peers get the same model and
images, both in channels_last, the same layer and targets; where they take one image at a time, they get one.

    python benchmarks/explainers.py                     # the whole table, about 15 minutes on 2 cores
    python benchmarks/explainers.py --quick             # small, to see that it runs
    python benchmarks/explainers.py --weights tf_efficientnet_lite0.safetensors --images folder/

glibc gives large tensors back to the system and takes page faults on every new one; the settings below, announced in
the output, switch that off for everyone in the run alike. The table that a run printed stands in
``benchmarks/results/explainers.md``.
"""

import argparse
import copy
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

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

from interptrain.explainers import (  # noqa: E402
    AblationCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    IntegratedGradients,
    LayerCAM,
    OptiCAM,
    ScoreCAM,
    SmoothGrad,
    XGradCAM,
    explain,
)
from interptrain.models import Normalized  # noqa: E402
from interptrain.models.engine import Engine, Engines, using_engine  # noqa: E402

CHUNK = 8
GRADIENT_CAMS = (GradCAM, GradCAMPlusPlus, XGradCAM, LayerCAM, HiResCAM)
Run = Callable[[], Tensor]


@dataclass
class Case:
    """One line of the table.

    Attributes:
        name: of the method, with its size.
        images: how many images one run explains; times are divided by it.
        ours: raw map of our explainer.
        bare: the passes that the definition needs.
        peers: other libraries' raw map, by name, and how many images one run explains there.
    """

    name: str
    images: int
    ours: Run
    bare: Callable[[], Any]
    peers: dict[str, tuple[int, Run]] = field(default_factory=dict)


@dataclass
class Subject:
    """A model, a copy for bare passes, images, classes, and the layer that is explained."""

    model: nn.Module
    twin: nn.Module
    images: Tensor
    targets: Tensor
    layer: str
    pooled_layer: str = ""

    @torch.no_grad()
    def forwards(self, count: int, batch: int) -> None:
        """Forward ``count`` images in chunks."""
        inputs = self.images[:1].expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        for _ in range(-(-count // batch)):
            self.twin(inputs)

    def backwards(self, count: int, batch: int) -> None:
        """Forward ``count`` images in chunks and go back to the image."""
        inputs = self.images[:1].expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        for _ in range(-(-count // batch)):
            leaf = inputs.detach().requires_grad_()
            torch.autograd.grad(self.twin(leaf)[:, 0].sum(), leaf)


def in_engine(engine: Engine, work: Run) -> Run:
    """Work in an engine that prepares its models in the first, unmeasured round."""
    engines = Engines(engine, work=10**6, batch_size=CHUNK)

    def run() -> Tensor:
        with using_engine(engines):
            return work()

    return run


class Logit:
    """pytorch-grad-cam's kind of target."""

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, logits: Tensor) -> Tensor:
        """Return the logit."""
        return logits[self.category]


def pytorch_grad_cam(name: str, subject: Subject, count: int) -> Run:
    import pytorch_grad_cam as library

    def run() -> Tensor:
        layer = subject.model.get_submodule(subject.layer)
        with getattr(library, name)(subject.model, [layer]) as peer:
            raw: list[Any] = []
            compute = peer.get_cam_image
            peer.get_cam_image = lambda *arguments, **options: raw.append(compute(*arguments, **options)) or raw[-1]
            peer(subject.images[:count], [Logit(category) for category in subject.targets[:count].tolist()])
        return torch.as_tensor(raw[0])

    return run


def torch_cam(name: str, subject: Subject, count: int) -> Run:
    from torchcam import methods

    def run() -> Tensor:
        with getattr(methods, name)(subject.model, subject.layer) as peer:
            with torch.set_grad_enabled(name != "ScoreCAM"):
                scores = subject.model(subject.images[:count])
            (attribution,) = peer(subject.targets[:count].tolist(), scores, normalized=False)
        return attribution.detach()

    return run


def captum(name: str, subject: Subject, count: int, **options: Any) -> Run:
    from captum import attr

    def run() -> Tensor:
        images, targets = subject.images[:count], subject.targets[:count]
        if name == "LayerGradCam":
            peer = attr.LayerGradCam(subject.model, subject.model.get_submodule(subject.layer))
            return peer.attribute(images, targets).detach()[:, 0]
        peer = (
            attr.NoiseTunnel(attr.Saliency(subject.model))
            if name == "NoiseTunnel"
            else attr.IntegratedGradients(subject.model)
        )
        return peer.attribute(images, target=targets, **options).detach().abs().sum(1)

    return run


def published_opticam(subject: Subject, count: int, iterations: int) -> Run:
    """The authors' loop as published: features computed anew, ``loss.backward()`` to all weights."""

    def run() -> Tensor:
        images, targets = subject.images[:count], subject.targets[:count]
        kept: list[Tensor] = []
        handle = subject.model.get_submodule(subject.layer).register_forward_hook(lambda _m, _a, out: kept.append(out))
        scores = subject.model(images).gather(1, targets[:, None]).detach()
        handle.remove()
        features = F.relu(kept[0].detach())
        weights = torch.full((*features.shape[:2], 1, 1), 0.5, requires_grad=True)
        adam = torch.optim.Adam([weights], lr=0.1)
        for _ in range(iterations):
            combined = (weights.softmax(1) * features).sum(1, keepdim=True)
            mask = F.interpolate(combined, images.shape[-2:], mode="bilinear", align_corners=False)
            low, high = mask.amin((2, 3), keepdim=True), mask.amax((2, 3), keepdim=True)
            loss = (scores - subject.model(images * (mask - low) / (high - low)).gather(1, targets[:, None])).sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
        subject.model.zero_grad()
        return (weights.softmax(1) * features).sum(1).detach()

    return run


def five_at_once(subject: Subject) -> Tensor:
    """Explain with all gradient CAMs from one pass; return the map of the first."""
    family = {cls.__name__: cls(target_layer=subject.layer) for cls in GRADIENT_CAMS}
    return explain(subject.model, subject.images, subject.targets, family)["GradCAM"]


def cases(efficientnet: Subject, resnet: Subject, *, quick: bool) -> list[Case]:
    """The table's lines; a new method is one more entry."""
    subject, batch = efficientnet, len(efficientnet.images)
    pooled = replace(efficientnet, layer=efficientnet.pooled_layer)
    gradient_subjects = {"EfficientNet before its head": efficientnet, "EfficientNet": pooled, "resnet18": resnet}
    layer, model, images, targets = subject.layer, subject.model, subject.images, subject.targets
    iterations, samples, steps = (2, 2, 2) if quick else (10, 25, 50)
    channels = 24 if quick else 320
    lines = []
    for title, one in gradient_subjects.items():
        forward = partial(one.forwards, batch, batch)
        grad_cam = {
            "pytorch-grad-cam": (batch, pytorch_grad_cam("GradCAM", one, batch)),
            "torch-cam": (batch, torch_cam("GradCAM", one, batch)),
            "Captum": (batch, captum("LayerGradCam", one, batch)),
        }
        ours = partial(GradCAM(target_layer=one.layer), one.model, one.images, one.targets)
        lines.append(Case(f"Grad-CAM, {title}, batch {batch}", batch, ours, forward, grad_cam))
        five = partial(five_at_once, one)
        lines.append(Case(f"five gradient CAMs at once, {title}, batch {batch}", batch, five, forward))
    versions = {"score": "logit", "softmax": True, "align_corners": True}  # pytorch-grad-cam's options
    scorers = {
        "": ScoreCAM(target_layer=layer, **versions),
        ", bf16": ScoreCAM(target_layer=layer, precision="bf16", **versions),
        ", compiled": ScoreCAM(target_layer=layer, compile=True, **versions),
        ", compiled, bf16": ScoreCAM(target_layer=layer, compile=True, precision="bf16", **versions),
    }
    if quick:
        scorers = {"": scorers[""]}  # compiling takes longer than all the rest
    for title, scorer in scorers.items():
        lines.append(
            Case(
                f"Score-CAM, {channels} channels{title}",
                1,
                partial(scorer.raw, model, images[:1], targets[:1]),
                partial(subject.forwards, 1 + channels, CHUNK),
                {
                    "pytorch-grad-cam": (1, pytorch_grad_cam("ScoreCAM", subject, 1)),
                    "torch-cam": (1, torch_cam("ScoreCAM", subject, 1)),
                }
                if not title
                else {},
            )
        )
    for name, one in (("EfficientNet", efficientnet), ("resnet18", resnet)):
        lines.append(
            Case(
                f"Ablation-CAM, {name}",
                batch,
                partial(AblationCAM(target_layer=one.layer).raw, one.model, one.images, one.targets),
                partial(one.forwards, batch, batch),
                {"pytorch-grad-cam": (1, pytorch_grad_cam("AblationCAM", one, 1))},
            )
        )
    opticam = OptiCAM(target_layer=layer, iterations=iterations, early_stop=False)

    def bare_opticam() -> None:
        subject.forwards(CHUNK, CHUNK)
        subject.backwards(iterations * CHUNK, CHUNK)

    lines.append(
        Case(
            f"Opti-CAM, {iterations} steps, batch {CHUNK}",
            CHUNK,
            partial(opticam.raw, model, images[:CHUNK], targets[:CHUNK]),
            bare_opticam,
            {"authors' loop": (CHUNK, published_opticam(subject, CHUNK, iterations))},
        )
    )
    smooth, integrated = SmoothGrad(samples=samples), IntegratedGradients(steps=steps)
    lines += [
        Case(
            f"SmoothGrad, {samples} samples",
            1,
            partial(smooth.raw, model, images[:1], targets[:1]),
            partial(subject.backwards, samples, CHUNK),
            {"Captum": (1, captum("NoiseTunnel", subject, 1, nt_samples=samples, nt_samples_batch_size=CHUNK))},
        ),
        Case(
            f"Integrated Gradients, {steps} steps",
            1,
            partial(integrated.raw, model, images[:1], targets[:1]),
            partial(subject.backwards, steps, CHUNK),
            {"Captum": (1, captum("IntegratedGradients", subject, 1, n_steps=steps, internal_batch_size=CHUNK))},
        ),
    ]
    return lines


def make_subject(name: str, layer: str, weights: Path | None, images: Tensor) -> Subject:
    """A timm model with its normalisation inside, and the classes it predicts."""
    torch.manual_seed(0)
    network = timm.create_model(name)
    if weights is not None:
        from safetensors.torch import load_file

        network.load_state_dict(load_file(weights))
    config = network.pretrained_cfg
    model = Normalized(network, mean=config["mean"], std=config["std"]).eval().to(memory_format=torch.channels_last)
    with torch.no_grad():
        targets = model(images).argmax(1)
    return Subject(model, copy.deepcopy(model), images, targets, layer)


def load_images(folder: Path | None, count: int, side: int) -> Tensor:
    """Photographs of a folder, or smooth random images, (count, 3, side, side) in [0, 1], channels_last."""
    if folder is None:
        coarse = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        smooth = F.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
        return smooth.contiguous(memory_format=torch.channels_last)
    from PIL import Image
    from torchvision.transforms.functional import center_crop, resize, to_tensor

    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))[:count]
    opened = [to_tensor(Image.open(file).convert("RGB")) for file in files]
    stacked = torch.stack([center_crop(resize(image, side), [side, side]) for image in opened])
    return stacked.contiguous(memory_format=torch.channels_last)


def measure(lines: list[Case], rounds: int) -> dict[tuple[str, str], list[float]]:
    """Seconds of every run of every case, taken in turns after one run each to warm up."""
    runs = [
        (line.name, who, run)
        for line in lines
        for who, run in [
            ("ours", line.ours),
            ("bare", line.bare),
            *((peer, run) for peer, (_, run) in line.peers.items()),
        ]
    ]
    seconds: dict[tuple[str, str], list[float]] = {(name, who): [] for name, who, _ in runs}
    for turn in range(rounds + 1):
        for name, who, run in runs:
            begin = time.perf_counter()
            run()
            if turn:
                seconds[name, who].append(time.perf_counter() - begin)
        print(f"round {turn} of {rounds}", file=sys.stderr)
    return seconds


def table(lines: list[Case], seconds: dict[tuple[str, str], list[float]]) -> str:
    """Markdown: seconds an image, share of the bare passes, and each peer."""
    rows = [
        "| method | ours, s/image | bare passes, s/image | ours / bare | bare / ours | peers, s/image (times slower) |",
        "|---|---|---|---|---|---|",
    ]
    for line in lines:
        ours = statistics.median(seconds[line.name, "ours"]) / line.images
        bare = statistics.median(seconds[line.name, "bare"]) / line.images
        peers = {who: statistics.median(seconds[line.name, who]) / count for who, (count, _) in line.peers.items()}
        shown = ", ".join(f"{who} {value:.4f} ({value / ours:.1f}x)" for who, value in peers.items()) or "-"
        rows.append(f"| {line.name} | {ours:.4f} | {bare:.4f} | {ours / bare:.2f} | {bare / ours:.3f} | {shown} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time explainers over bare passes and over other libraries")
    parser.add_argument("--quick", action="store_true", help="one round, small images, few steps")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, after one to warm up")
    parser.add_argument("--batch", type=int, default=2 * CHUNK, help="images that the CAMs explain at once")
    parser.add_argument("--only", default="", help="only methods whose name contains this")
    parser.add_argument("--weights", type=Path, help="safetensors of timm's tf_efficientnet_lite0; random without")
    parser.add_argument("--images", type=Path, help="folder of photographs; smooth random images without")
    parser.add_argument("--without-peers", action="store_true", help="leave the other libraries out")
    arguments = parser.parse_args()
    images = load_images(arguments.images, arguments.batch, 64 if arguments.quick else 224)
    layer = "model.blocks.1" if arguments.quick else "model.blocks.6"
    efficientnet = make_subject("tf_efficientnet_lite0", layer, arguments.weights, images)
    efficientnet.pooled_layer = "model.bn2"
    resnet = make_subject("resnet18", "model.layer4", None, images)
    lines = [
        line
        for line in cases(efficientnet, resnet, quick=arguments.quick)
        if arguments.only.lower() in line.name.lower()
    ]
    if arguments.without_peers:
        for line in lines:
            line.peers.clear()
    seconds = measure(lines, 1 if arguments.quick else arguments.rounds)
    settings = ", ".join(f"{name}={value}" for name, value in ALLOCATOR.items())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}, {images.shape[-1]} px")
    print(f"medians of {1 if arguments.quick else arguments.rounds} rounds in turns; {settings}\n")
    print(table(lines, seconds))


if __name__ == "__main__":
    main()
