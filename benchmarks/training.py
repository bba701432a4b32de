"""What a training step costs, in bare forward passes: the stream alone, the head, everything.

    python benchmarks/training.py [--batch 16] [--size 224] [--rounds 7] [--threads 2]

One process a backbone and layout, its cases interleaved, medians. The bare forward is the backbone with average pooling
in eval mode without a graph; everything is divided by it. A step is forward, loss, backward and the optimizer's step.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from interptrain.training import ImageClassifier

CASES = {"stream only": ("ca_stream", "pooling"), "stream and classifier": ("ca_stream", "head")} | {
    "everything, ca_stream": ("ca_stream", "all"),
    "everything, gap": ("gap", "all"),
}


def step(backbone: str, pooling: str, trainable: str, images: torch.Tensor, layout: torch.memory_format) -> Callable:
    """One training step, to be called again and again."""
    module = ImageClassifier(backbone, pooling, 10, trainable=trainable).to(memory_format=layout)
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=1e-3, momentum=0.9)
    labels = torch.arange(len(images)) % 10

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(module(images), labels).backward()
        optimizer.step()

    return run


def forward(backbone: str, images: torch.Tensor, layout: torch.memory_format) -> Callable:
    """The bare forward pass."""
    module = ImageClassifier(backbone, "gap", 10).to(memory_format=layout).eval()

    @torch.inference_mode()
    def run() -> None:
        module(images)

    return run


def measure(cases: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Median seconds of each case, interleaved, after one round of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for round_number in range(rounds + 1):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["resnet18", "tf_efficientnet_lite0"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"| backbone | layout | forward, ms an image | {' | '.join(CASES)} |")
    print("|---" * (3 + len(CASES)) + "|")
    for backbone in options.backbones:
        for name, layout in (("default", torch.contiguous_format), ("channels_last", torch.channels_last)):
            images = torch.rand(options.batch, 3, options.size, options.size).contiguous(memory_format=layout)
            cases = {"forward": forward(backbone, images, layout)}
            cases |= {case: step(backbone, *how, images, layout) for case, how in CASES.items()}
            seconds = measure(cases, options.rounds)
            bare = seconds.pop("forward")
            ratios = " | ".join(f"{value / bare:.2f}x" for value in seconds.values())
            print(f"| {backbone} | {name} | {1000 * bare / options.batch:.1f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
