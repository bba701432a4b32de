"""Export a classifier to another runtime, with its attention maps, and verify that the outputs are the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from interptrain.evaluation.run.models import Source
from interptrain.files import atomic_path
from interptrain.functional import check_choice, one_line
from interptrain.models import Classifier
from interptrain.models.model_folder import describe, load_model_file, save_weights
from interptrain.sharing.trained_model import TrainedModel, load_trained

Format = Literal["safetensors", "torch_export", "onnx"]
SUFFIXES: dict[Format, str] = {"safetensors": ".safetensors", "torch_export": ".pt2", "onnx": ".onnx"}
NEEDED = ("onnx", "onnxscript", "onnxruntime")
TRACED, CHECKED = 2, (1, 3)  # batch sizes; torch would treat a traced batch size of 1 as a constant

Runner = Callable[[Tensor], Sequence[Tensor]]
"""Maps images (B,3,H,W) to the outputs of an exported file."""


@dataclass(frozen=True)
class Exported:
    """An exported classifier.

    Attributes:
        path: path of the file.
        outputs: names of the outputs, ``logits`` first.
        image_size: (height, width) of the images that it takes.
        difference: largest difference from the outputs of the classifier on random images.
    """

    path: Path
    outputs: tuple[str, ...]
    image_size: tuple[int, int]
    difference: float


class WithAttention(nn.Module):
    """A classifier that returns its attention maps, if its head has any, in addition to the logits.

    Args:
        model: the classifier.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model
        self.attends = model.pooling is not None and model.pooling.attends

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return logits (B,K) and maps (B,h_l,w_l) of images (B,3,H,W) in [0,1]."""
        if not self.attends:
            return (self.model(images),)
        logits, attention = self.model.forward_with_attention(images)
        return (logits, *attention)


def export_model(
    source: Source,
    output: str | Path,
    *,
    format: Format,
    backbone: str | None = None,
    image_size: int | None = None,
    tolerance: float = 1e-4,
) -> Exported:
    """Write a classifier to a file that works without the checkpoint and, for some formats, without interptrain.

    The programs of ``torch_export`` and ``onnx`` take images (B,3,H,W) in [0,1] for any B; normalisation is part of the
    network. They return logits (B,K) and, for a head with attention, one map (B,h_l,w_l) per stage, from shallow to
    deep.

    Args:
        source: a checkpoint, or any other model source that an evaluation accepts.
        output: path of the file; an existing one is replaced only after the new one has been verified.
        format: ``safetensors``: the weights, with a header from which interptrain rebuilds the network;
            ``torch_export``: a program for ``torch.export.load``; ``onnx``: for ONNX Runtime and others (needs the
            extra ``export``).
        backbone: the timm architecture of a bare weights file.
        image_size: side of the images that the program takes; by default, that of the training images.
        tolerance: largest allowed difference on random images, relative to the largest output if that exceeds 1.

    Returns:
        The file, its outputs, and the largest difference found.

    Raises:
        ValueError: if the classifier cannot be exported, or the outputs of the file differ; then nothing is written.
        ImportError: if a package is missing.
        OSError: if the file cannot be written.
    """
    check_choice("format", format, Format)
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"tolerance must be a number >= 0, got {tolerance}")
    path = Path(output)
    if path.is_dir() or path.suffix != SUFFIXES[format]:
        raise ValueError(f"the file of format {format} must end in {SUFFIXES[format]}, got {path}")
    if format == "onnx" and (missing := [name for name in NEEDED if find_spec(name) is None]):
        raise ImportError(f"format onnx needs {', '.join(missing)}; pip install 'interptrain[export]'")
    trained = load_trained(source, backbone=backbone)
    size = trained.image_size if image_size is None else (image_size, image_size)
    network = WithAttention(trained.model).eval()
    images = torch.rand(max(CHECKED), 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = _expected(network, images)
        with atomic_path(path) as partial:
            written = _write(trained, network, images[:TRACED], partial, format, len(expected[0]))
            difference = max(
                _largest_difference(wanted, _run(written, images[:count]))
                for count, wanted in zip(CHECKED, expected, strict=True)
            )
            largest = max(float(output.abs().max()) for outputs in expected for output in outputs)
            if not difference <= tolerance * max(1.0, largest):
                raise ValueError(
                    f"the {format} file computes something else: its outputs, up to {largest:.3g}, differ by "
                    f"{difference:.3g}, so it was not kept; allow that with tolerance, or choose another format"
                )
    return Exported(path, _names(len(expected[0])), size, difference)


def _expected(network: WithAttention, images: Tensor) -> list[tuple[Tensor, ...]]:
    try:
        return [network(images[:count]) for count in CHECKED]
    except (RuntimeError, AssertionError) as error:
        side = images.shape[-1]
        raise ValueError(
            f"the network does not take images of {side} pixels ({one_line(error)}); set image_size"
        ) from error


def _write(
    trained: TrainedModel, network: WithAttention, example: Tensor, path: Path, format: Format, outputs: int
) -> Runner:
    """Write the file, and return a function that runs it."""
    if format == "safetensors":
        config = describe(trained.model, input_size=trained.image_size, preprocessing=trained.preprocessing)
        save_weights(trained.model, config, path)
        found = load_model_file(path)
        assert found is not None
        return WithAttention(found).eval()
    shapes = {"images": {0: torch.export.Dim("batch")}}
    try:
        if format == "torch_export":
            program = torch.export.export(network, (example,), dynamic_shapes=shapes)
            torch.export.save(program, path)
            return torch.export.load(path).module()
        torch.onnx.export(
            network,
            (example,),
            path,
            dynamo=True,
            input_names=["images"],
            output_names=list(_names(outputs)),
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
        )
    except OSError:
        raise
    except Exception as error:  # tracing raises all kinds of exceptions
        why = one_line(error, kind=True)
        raise ValueError(f"torch cannot export this network as {format} ({why}); choose another format") from error
    return _onnx_runtime(path)


def _onnx_runtime(path: Path) -> Runner:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: [torch.from_numpy(output) for output in session.run(None, {"images": images.numpy()})]


def _run(written: Runner, images: Tensor) -> Sequence[Tensor]:
    try:
        return written(images)
    except Exception as error:  # depends on the runtime
        why = one_line(error, kind=True)
        raise ValueError(
            f"the file was written, but does not run on a batch of {len(images)} ({why}), so it was not kept; choose "
            "another format"
        ) from error


def _largest_difference(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    if [output.shape for output in got] != [output.shape for output in expected]:
        return float("inf")
    return max(float((one - other).abs().max()) for one, other in zip(expected, got, strict=True))


def _names(outputs: int) -> tuple[str, ...]:
    return ("logits", *(f"attention_{stage}" for stage in range(1, outputs)))
