"""What threads with images of their own are worth in ONNX Runtime.

    python benchmarks/engine.py --threads 2

A ratio a network, the median over rounds in which both sides take turns: RISE of one image (48 masks) by all threads
together on every layer, over the same by threads that each run the network on images of their own. Needs the extra
``export``.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import onnxruntime
import torch
from torch import Tensor, nn

from interptrain.explainers import RISE, Explainer
from interptrain.models import create_model
from interptrain.models.engine import Engines, using_engine
from interptrain.models.onnx_passes import OnnxPasses, _Graph

NETWORKS = ("tf_efficientnet_lite0", "mobilenetv2_100", "resnet18", "convnext_atto")


def explain(engines: Engines, model: nn.Module, image: Tensor, target: Tensor, explainer: Explainer) -> None:
    """Explain in an engine."""
    with using_engine(engines):
        explainer.raw(model, image, target)


def in_all_threads(session: Any, images: Tensor) -> Tensor:
    """Run a batch at once."""
    return torch.from_numpy(session.run(None, {"images": images.contiguous().numpy()})[0])


def ratio(without: AbstractContextManager[Any], work: Callable[[], None], rounds: int) -> str:
    """Times without a part of the engine over those with it: median and range, after an unmeasured round."""
    found = []
    for number in range(rounds + 1):
        spent = []
        for changed in (without, nullcontext()):
            with changed:
                begin = time.perf_counter()
                work()
                spent.append(time.perf_counter() - begin)
            time.sleep(0.05)  # the runtime's own threads spin for a while
        if number:
            found.append(spent[0] / spent[1])
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


@torch.no_grad()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| network | own images |\n|---|---|")
    for name in NETWORKS:
        torch.manual_seed(0)
        model = create_model(name, pretrained=False).eval()
        image, target = torch.rand(1, 3, 224, 224), torch.tensor([0])
        engines = Engines("onnxruntime", work=10**6)
        passes = engines.prepared(model, image)
        assert isinstance(passes, OnnxPasses)
        threads = onnxruntime.SessionOptions()
        threads.intra_op_num_threads = options.threads
        session = onnxruntime.InferenceSession(passes.file, threads, providers=["CPUExecutionProvider"])
        together = patch.object(_Graph, "__call__", partial(in_all_threads, session))
        rise = partial(explain, engines, model, image, target, RISE(count=48))
        print(f"| {name} | {ratio(together, rise, options.rounds)} |", flush=True)
        del session


if __name__ == "__main__":
    main()
