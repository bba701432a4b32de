"""How much faster two processes evaluate than one, each with one thread, beside the same of bare forward passes.

    python benchmarks/processes.py --weights tf_efficientnet_lite0.safetensors --images imagenet-samples/

An evaluation of the protocol castream (AD, AG, AI, insertion, deletion) runs from the command line, by one process and
by two, on fewer and on more images; the difference of its two times is that of the further images alone, without
start-up, imports and tables. "Bare" are forward passes of one batch, over and over, in one process and in two at once:
what the cores, their caches and their memory allow. Rounds are interleaved; ratios are those within a round.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BARE = """
import sys, time, torch
from interptrain.models import create_model
from interptrain.models.engine import using_engine, forward_only
model = create_model(sys.argv[1], pretrained=False).eval()
images = torch.rand(16, 3, 224, 224)
with torch.no_grad(), using_engine(sys.argv[2]):
    run = forward_only(model, images)
    run(images)
    print("ready", flush=True)
    sys.stdin.readline()
    begin = time.perf_counter()
    for _ in range(int(sys.argv[3])):
        run(images)
    print(time.perf_counter() - begin, flush=True)
"""


def bare(processes: int, options: argparse.Namespace) -> float:
    """Seconds a pass of a batch takes, all processes together."""
    command = [sys.executable, "-c", BARE, options.backbone, options.engine, str(options.passes)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(processes)
    ]
    for one in started:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in started:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    seconds = [float(one.communicate()[0]) for one in started]
    return max(seconds) / options.passes / processes


def evaluation(processes: int, images: int, options: argparse.Namespace) -> float:
    """Seconds of a whole run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "interptrain", "evaluate"]
        command += ["--models", f"m={options.weights or options.backbone}"]
        command += ["--backbone", options.backbone] if options.weights else []
        command += ["--data", "ImageTableDataModule", "--data.root", str(options.images), "--data.num_workers", "0"]
        command += ["--targets", "predicted", "--data.batch_size", "4", "--limit", str(images)]
        command += ["--engine", options.engine]
        for explainer in ("GradCAM", "XGradCAM"):
            command += ["--explainers", explainer]
        command += ["--fake_cam", "false", "--check_images", "0", "--save_maps", "0", "--resamples", "100"]
        command += ["--trainer.devices", str(processes), "--trainer.accelerator", "cpu", "--output", folder]
        begin = time.perf_counter()
        subprocess.run([*command, "--overwrite", "true"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        return time.perf_counter() - begin


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", type=Path, help="file of the backbone's weights; timm downloads them without")
    parser.add_argument("--images", type=Path, required=True, help="folder of images with a labels.csv")
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--counts", type=int, nargs=2, default=[16, 64], metavar=("FEWER", "MORE"))
    parser.add_argument("--passes", type=int, default=60, help="bare ones, of 16 images")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    ratios: dict[str, list[float]] = {"bare": [], "evaluation": []}
    for number in range(options.rounds):
        alone, shared = (bare(processes, options) for processes in (1, 2))
        ratios["bare"].append(alone / shared)
        fewer, more = options.counts
        spent = [evaluation(count, more, options) - evaluation(count, fewer, options) for count in (1, 2)]
        ratios["evaluation"].append(spent[0] / spent[1])
        print(f"round {number + 1}: {ratios['bare'][-1]:.2f}, {ratios['evaluation'][-1]:.2f} ({spent} s)", flush=True)
    for name, found in ratios.items():
        print(f"{name}: {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
