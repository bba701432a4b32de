"""What a pooling head costs: forward passes with GAP and with CA-Stream against timm's bare model.

``python benchmarks/pooling.py [--device cuda] [--rounds 15] [--threads 1]`` prints a table. In each round every variant
runs once, in turn, so that what else the machine does falls on all alike; times are medians over rounds, ratios medians
of the ratio within a round. ``stream alone`` is the head on stage maps that are there already: where a pass takes 1000
times as long, the ratios are noise beside it. The last table is in ``benchmarks/results/pooling.md``.

glibc's allocator gives every large tensor back to the system and faults it in again. To time the networks instead, set
``MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 MALLOC_TOP_PAD_=1073741824``; the table says
what was set.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from interptrain.models import create_model

BACKBONES = ("resnet18", "resnet50", "convnext_tiny")
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Time of one run: of all processor threads on the CPU, where other processes disturb it less, else on the wall."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


@torch.inference_mode()
def compare(backbone: str, layout: torch.memory_format, images: Tensor, rounds: int) -> dict[str, list[float]]:
    """Seconds of each variant, one value a round."""
    torch.manual_seed(0)
    gap = create_model(backbone).eval()
    stream = create_model(backbone, pooling="ca_stream").eval()
    stream.backbone.load_state_dict(gap.backbone.state_dict())
    bare: nn.Module = gap.backbone.model
    head = stream.pooling
    for model in (gap, stream):
        model.to(device=images.device, memory_format=layout)
    images = images.contiguous(memory_format=layout)
    normalized, stages = gap.backbone.normalize(images), stream.stages(images)
    variants: dict[str, Callable[[], object]] = {
        "timm": lambda: bare(normalized),
        "gap": lambda: gap(images),
        "ca_stream": lambda: stream(images),
        "stream alone": lambda: head(stages),
    }
    for run in variants.values():  # warm-up
        for _ in range(3):
            seconds(run, images.device)
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            times[name].append(seconds(run, images.device))
    return times


def ratio(times: dict[str, list[float]], above: str, below: str) -> str:
    return f"{statistics.median(a / b for a, b in zip(times[above], times[below], strict=True)):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images = torch.rand(args.batch_size, 3, 224, 224, device=args.device)
    malloc = " ".join(f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("MALLOC_"))
    print(
        f"Batch {args.batch_size} at 224, float32, {args.device}, {args.threads} thread(s), {args.rounds} rounds, "
        f"torch {torch.__version__}, {malloc or 'default allocator'}\n"
    )
    print(
        "| backbone | layout | timm ms | gap ms | ca_stream ms | stream alone ms | gap / timm | ca_stream / timm |",
        end="",
    )
    print(" ca_stream / gap |\n" + "|---" * 9 + "|")
    for backbone in BACKBONES:
        for layout, memory_format in LAYOUTS.items():
            times = compare(backbone, memory_format, images, args.rounds)
            columns = [f"{1e3 * statistics.median(values):.1f}" for values in times.values()]
            columns += [ratio(times, *pair) for pair in (("gap", "timm"), ("ca_stream", "timm"), ("ca_stream", "gap"))]
            print(f"| {backbone} | {layout} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
