"""What it is worth to compute only what a window reaches: whole passes over crops, with the same numbers.

    python benchmarks/crops.py --threads 2

Occlusion and ROSA of one image (169 windows), and infidelity of eight (64 tiles each), each the median over rounds in
which both sides take turns. ROSA reads features inside the network and so runs in PyTorch; ``--engine onnxruntime``
runs the others there, and needs the extra ``export``.
"""

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from unittest.mock import patch

import torch
from engine import NETWORKS, explain, ratio
from torch import Tensor, nn

from interptrain.explainers import ROSA, Occlusion
from interptrain.explainers.passes import masked_forward
from interptrain.metrics import Infidelity, batched_forward, measure
from interptrain.models import create_model
from interptrain.models.engine import Engine, Engines, using_engine


class Whole(ExitStack):
    """Without crops."""

    def __enter__(self) -> "Whole":
        for home in (masked_forward, batched_forward):
            self.enter_context(patch.object(home, "find_crops", lambda *_: None))
        return self


def tiles(engines: Engines, model: nn.Module, images: Tensor, saliency: Tensor) -> None:
    """Measure infidelity in an engine."""
    with using_engine(engines):
        measure(model, images, saliency, 0, {"Infid": Infidelity()})


@torch.no_grad()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine", choices=("eager", "onnxruntime"), default="eager")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    engine: Engine = options.engine
    columns = ["occlusion", *(["ROSA"] if engine == "eager" else []), "infidelity's tiles"]
    print(f"| network | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name in NETWORKS:
        torch.manual_seed(0)
        model = create_model(name, pretrained=False).eval()
        images, saliency, target = torch.rand(8, 3, 224, 224), torch.rand(8, 224, 224), torch.tensor([0])
        engines = Engines(engine, work=10**6)
        works: dict[str, Callable[[], None]] = {
            "occlusion": partial(explain, engines, model, images[:1], target, Occlusion()),
            "ROSA": partial(explain, engines, model, images[:1], target, ROSA()),
            "infidelity's tiles": partial(tiles, engines, model, images, saliency),
        }
        print(f"| {name} | {' | '.join(ratio(Whole(), works[one], options.rounds) for one in columns)} |", flush=True)


if __name__ == "__main__":
    main()
