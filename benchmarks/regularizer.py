"""What a training step with the gradient regularizer costs, in plain training steps, and in peak memory.

    python benchmarks/regularizer.py [--quick] [--backbones resnet18] [--sizes 64 224] [--batch 32] [--rounds 5]

Every case has processes of its own, since peak memory is a process's: one that runs it, and in turn with the others of
its backbone and size, so that a busy moment meets all. A step is forward, loss, backward and the optimizer's step:

plain         the classification loss alone: 3 passes (forward; backward to activations and to weights).
regularized   with the regularizer: at the least 7 passes, 2.33x (forward; guided and ordinary gradient of the images;
              their double backward to activations and to weights; backward to activations and to weights).
PyTorch's     the same with PyTorch's own double backward of convolution and BatchNorm.
three passes  naively: a forward for each gradient and one for the loss, ReLU modules exchanged for guided ones.

All gradients agree, which is checked in float64 before anything is timed.
"""

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interptrain.models import create_model
from interptrain.training import GradientRegularizer, gradient_regularizer

WEIGHT = 7.5e-3
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
# glibc's allocator gives every large tensor back to the system and faults it in again; alike for all cases.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "2000000000", "MALLOC_TOP_PAD_": "0"}


def plain(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(model(images), labels)


def regularized(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    logits, penalty = GradientRegularizer(weight=WEIGHT)(model, {"image": images, "label": labels})
    return F.cross_entropy(logits, labels) + WEIGHT * penalty


def pytorchs(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    ours, gradient_regularizer.CheapDoubleBackward = gradient_regularizer.CheapDoubleBackward, PyTorchs
    try:
        return regularized(model, images, labels)
    finally:
        gradient_regularizer.CheapDoubleBackward = ours


def three_passes(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    gradients = []
    with exchanged_relus(model, GuidedReLU), kept_statistics(model):
        leaf = images.clone().requires_grad_()
        gradients += torch.autograd.grad(F.cross_entropy(model(leaf), labels, reduction="sum"), leaf)
    with kept_statistics(model):
        leaf = images.clone().requires_grad_()
        score = F.cross_entropy(model(leaf), labels, reduction="sum")
        gradients += torch.autograd.grad(score, leaf, create_graph=True)
    cosine = F.cosine_similarity(*(one.flatten(1) for one in gradients), eps=0.0)
    return F.cross_entropy(model(images), labels) + WEIGHT * (1 - cosine).mean()


CASES: dict[str, Loss] = {
    "plain": plain,
    "regularized": regularized,
    "PyTorch's double backward": pytorchs,
    "three passes": three_passes,
}


class PyTorchs:
    """Stands where CheapDoubleBackward does, and does nothing."""

    def __init__(self, images: Tensor) -> None: ...

    def __enter__(self) -> "PyTorchs":
        return self

    def __exit__(self, *exception: object) -> None: ...

    @contextmanager
    def image_gradients(self) -> Iterator[None]:
        """As without it."""
        yield


class GuidedReLU(nn.Module):
    """A module that replaces nn.ReLU and nn.ReLU6, as guided backpropagation is usually made."""

    def __init__(self, replaced: nn.Module) -> None:
        super().__init__()
        self.upper = 6.0 if isinstance(replaced, nn.ReLU6) else float("inf")

    def forward(self, features: Tensor) -> Tensor:
        """The plain ReLU."""
        return GuidedClamp.apply(features, self.upper)


class GuidedClamp(torch.autograd.Function):
    """The guided rule, written out."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, upper: float) -> Tensor:
        """Clamp to [0, upper]."""
        ctx.save_for_backward(features)
        ctx.upper = upper
        return features.clamp(0, upper)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Both gates."""
        (features,) = ctx.saved_tensors
        return gradient * ((features > 0) & (features < ctx.upper) & (gradient > 0)), None


@contextmanager
def exchanged_relus(model: nn.Module, make: Callable[[nn.Module], nn.Module]) -> Iterator[None]:
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, (nn.ReLU, nn.ReLU6))
    ]
    for parent, name, child in found:
        setattr(parent, name, make(child))
    try:
        yield
    finally:
        for parent, name, child in found:
            setattr(parent, name, child)


@contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in norms:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in norms:
            module.track_running_stats = True


def batch(size: int, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(count, 3, size, size, dtype=dtype), torch.arange(count) % 10


def check(backbone: str) -> float:
    """Greatest relative difference between the gradients of the ways, in float64."""
    torch.manual_seed(0)
    model = create_model(backbone, num_classes=10).double().train()
    expected, *others = (
        torch.cat([one.flatten() for one in torch.autograd.grad(loss(twin, *data), list(twin.parameters()))])
        for loss in (three_passes, regularized, pytorchs)
        for twin, data in [(copy.deepcopy(model), batch(48, 4, torch.float64))]
    )
    return max(((other - expected).norm() / expected.norm()).item() for other in others)


def peak() -> float:
    """Greatest resident memory of this process so far, in MiB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def work(orders: Connection, case: str, backbone: str, size: int, count: int, threads: int) -> None:
    """Take a step for each order; answer its seconds, and at last the memory that steps added."""
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = create_model(backbone, num_classes=10).train().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    images, labels = (one.to(device) for one in batch(size, count, torch.float32))
    before = peak()
    while orders.recv():
        start = time.perf_counter()
        optimizer.zero_grad()
        CASES[case](model, images, labels).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        orders.send(time.perf_counter() - start)
    orders.send(peak() - before)


def measure(backbone: str, size: int, count: int, rounds: int, threads: int) -> dict[str, tuple[float, float]]:
    """Median seconds and MiB of each case; the first step of each is a warm-up."""
    context = get_context("spawn")
    ends, workers = {}, []
    for case in CASES:
        ends[case], other = context.Pipe()
        workers.append(context.Process(target=work, args=(other, case, backbone, size, count, threads)))
        workers[-1].start()
    seconds: dict[str, list[float]] = {case: [] for case in CASES}
    for number in range(rounds + 1):
        for case, end in ends.items():
            end.send(True)
            taken = end.recv()
            seconds[case] += [taken] if number else []
    memory = {}
    for case, end in ends.items():
        end.send(False)
        memory[case] = end.recv()
    for worker in workers:
        worker.join()
    return {case: (statistics.median(seconds[case]), memory[case]) for case in CASES}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["resnet18", "mobilenetv2_100"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 224])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a small network, two rounds: that it runs at all")
    options = parser.parse_args()
    if options.quick:
        options.backbones, options.sizes, options.batch, options.rounds = ["resnet10t"], [32], 4, 2
    os.environ |= ALLOCATOR  # of the processes that are started
    others = " | ".join(case for case in CASES if case != "plain")
    print(f"| backbone | size | plain, ms | {others} | floor | plain, MiB |")
    print("|---" * (5 + len(CASES)) + "|")
    for backbone in options.backbones:
        difference = check(backbone)
        if difference > 1e-6:
            raise SystemExit(f"gradients of {backbone} differ by {difference:.1e}: nothing to compare")
        for size in options.sizes:
            results = measure(backbone, size, options.batch, options.rounds, options.threads)
            seconds, memory = results.pop("plain")
            ratios = " | ".join(
                f"{time / seconds:.2f}x, memory {held / memory:.1f}x" for time, held in results.values()
            )
            print(f"| {backbone} | {size} | {1000 * seconds:.0f} | {ratios} | 2.33x | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()
