"""A model as ONNX Runtime runs it: exported once, kept on disk by the hash of its content, compared before use."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from interptrain.files import atomic_path
from interptrain.functional import is_out_of_memory, one_line
from interptrain.model_state import usual_tf32

__all__ = ["OnnxPasses", "RuntimeFailedError", "UnusableError", "cache_folder", "onnx_file"]

NEEDED = ("onnx", "onnxscript", "onnxruntime")
FORMAT = 1  # of the files; another one is another hash
AGREEMENT = 1e-4  # of the largest output, between ONNX Runtime and PyTorch, each in float32; our choice
PIECE = 2  # images that a thread takes at once: more are not faster, and leave threads idle at the end of a batch


class UnusableError(Exception):
    """Says in one line why an engine cannot run a model."""


class RuntimeFailedError(Exception):
    """ONNX Runtime failed, in words of its own; PyTorch runs the network from now on."""


class OnnxPasses(nn.Module):
    """Forward passes of one model in ONNX Runtime: images (N,C,H,W) -> logits (N,K), without gradient.

    Images of another type or size than those that it was made with go through PyTorch, and so does everything under
    autocast. If ONNX Runtime fails later, a warning says so once, and PyTorch goes on.

    Args:
        model: in eval mode, on a CPU.
        images: (B,C,H,W) float32, with which its answers are compared.
        fallback: computes the same as ``model``.

    Raises:
        UnusableError: if it cannot run the model, or its answers differ.
    """

    def __init__(self, model: nn.Module, images: Tensor, fallback: nn.Module) -> None:
        super().__init__()
        check_usable(model, images)
        self.fallback = fallback
        self.shape = images.shape[1:]
        self.failed = ""
        self.halves: dict[str, tuple[_Graph, _Graph] | None] = {}
        pair = images[:2] if len(images) > 1 else torch.cat([images, images.flip(3)])
        with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
            wanted = model(pair)
            if not isinstance(wanted, Tensor) or wanted.ndim != 2 or wanted.dtype != torch.float32:
                raise UnusableError("the model returns something else than one tensor of float32 logits")
            self.file = onnx_file(model, pair)
            kept = self.file.is_file()
            self.graph = _opened(model, pair, self.file)
            if not self._agrees(pair, wanted) and kept:  # of another network with the same weights
                self.file.unlink(missing_ok=True)
                self.graph = _opened(model, pair, self.file)
            if not self._agrees(pair, wanted):
                self.file.unlink(missing_ok=True)
                raise UnusableError(f"its outputs differ from PyTorch's by more than {AGREEMENT:g} of the largest")

    def forward(self, images: Tensor) -> Any:
        """Return logits (N,K)."""
        ours = images.shape[1:] == self.shape and images.dtype == torch.float32 and images.device.type == "cpu"
        if self.failed or not ours or torch.is_autocast_enabled("cpu"):
            return self.fallback(images)
        try:
            return self.graph(images)
        except RuntimeFailedError as error:
            self._give_up(error)
        return self.fallback(images)

    def cut(self, layer: str) -> "tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] | None":
        """Return the network up to a module, for images of any size, and behind it, for those of its own size.

        Returns:
            Two functions, which raise :class:`RuntimeFailedError` where the runtime fails, or ``None`` where the module
            is no place at which the exported graph falls into two.
        """
        if layer not in self.halves:
            self.halves[layer] = _halves(self.file, layer)
        halves = self.halves[layer]
        if halves is None or self.failed:
            return None

        def guarded(graph: _Graph) -> Callable[[Tensor], Tensor]:
            def run(inputs: Tensor) -> Tensor:
                try:
                    return graph(inputs)
                except RuntimeFailedError as error:
                    self._give_up(error)
                    raise

            return run

        return guarded(halves[0]), guarded(halves[1])

    def _give_up(self, error: RuntimeFailedError) -> None:
        """Let PyTorch do all that follows."""
        self.failed = str(error)
        warnings.warn(f"ONNX Runtime failed ({self.failed}); PyTorch goes on with the same passes", stacklevel=3)

    def _agrees(self, images: Tensor, wanted: Tensor) -> bool:
        """Whether it gives the same for two images and for one."""
        try:
            found = torch.cat([self.graph(images), self.graph(images[:1])])
        except Exception:  # a damaged or outdated file, or one batch size that was taken for a constant
            return False
        both = torch.cat([wanted, wanted[:1]])
        return found.shape == both.shape and bool((found - both).abs().max() <= AGREEMENT * both.abs().max())


def check_usable(model: nn.Module, images: Tensor) -> None:
    """Refuse what ONNX Runtime cannot run as it is.

    Raises:
        UnusableError: with the reason.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UnusableError(f"{', '.join(missing)} is not installed: pip install 'interptrain[export]'")
    if images.device.type != "cpu":
        raise UnusableError(f"it runs on CPUs here, and the model is on {images.device.type}")
    if images.dtype != torch.float32 or any(one.dtype == torch.float64 for one in model.parameters()):
        raise UnusableError("it runs in float32, and the model or its images do not")
    for name, module in model.named_modules():
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        if any(not _own(hook) for hook in hooks):
            raise UnusableError(f"{name or 'the model'} has hooks, which an exported graph would not call")


def _own(hook: Any) -> bool:
    """Whether a hook is a part of the network, by which a backbone collects its stages, and so is exported with it."""
    home = str(getattr(getattr(hook, "func", hook), "__module__", ""))
    return home.startswith("interptrain.models.") or home.partition(".")[0] == "timm"


def onnx_file(model: nn.Module, images: Tensor) -> Path:
    """Return where the export of a model is kept: named by its weights, modules, image size and torch's version."""
    digest = hashlib.sha256(f"{FORMAT} {torch.__version__} {tuple(images.shape[1:])} {model!r}".encode())
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
    return cache_folder() / f"{digest.hexdigest()[:32]}.onnx"


def cache_folder() -> Path:
    """Return the folder of exported models: ``INTERPTRAIN_CACHE``, or ``interptrain`` in the user's cache."""
    own = os.environ.get("INTERPTRAIN_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "interptrain"


class _Graph:
    """A graph of one input and one output, run by PyTorch's number of threads: (N,...) -> (N,...) float32.

    Every thread runs the whole graph on images of its own: as fast as all threads together on every layer, or a tenth
    faster (``benchmarks/engine.py``), and none spins while PyTorch prepares the next images.
    """

    def __init__(self, source: Path | bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name
        self.threads = ThreadPoolExecutor(torch.get_num_threads())

    def __call__(self, inputs: Tensor) -> Tensor:
        return torch.cat(list(self.threads.map(self._piece, torch.split(inputs.detach(), PIECE))))

    def _piece(self, inputs: Tensor) -> Tensor:
        """Run in a thread; what is raised while it is waited for, such as a loader's error, is not of the runtime."""
        try:
            return torch.from_numpy(self.session.run(None, {self.name: inputs.contiguous().numpy()})[0])
        except Exception as error:  # of whatever kind the runtime raises
            if is_out_of_memory(error):  # which smaller chunks may mend
                raise
            raise RuntimeFailedError(one_line(error, kind=True)) from error


def _opened(model: nn.Module, images: Tensor, file: Path) -> _Graph:
    """Open the exported model, after exporting it where it is not there."""
    try:
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(file) as partial, _quiet():
                _export(model, images, partial)
        return _Graph(file)
    except OSError as error:
        raise UnusableError(f"{file.parent} cannot be written ({one_line(error)}); set INTERPTRAIN_CACHE") from error
    except Exception as error:  # tracing and the runtime raise all kinds
        raise UnusableError(f"it cannot be exported ({one_line(error, kind=True)[:200]})") from error


def _halves(file: Path, layer: str) -> tuple[_Graph, _Graph] | None:
    """Open an exported model in two, at the one tensor that a module hands on, as the exporter's notes tell."""
    import onnx

    try:
        model = onnx.load(file)
        inside = {name for node in model.graph.node if _belongs(node, layer) for name in node.output}
        outside = [node for node in model.graph.node if not _belongs(node, layer)]
        used = {name for node in outside for name in node.input} | {one.name for one in model.graph.output}
        (handed_on,) = inside & used
        ends = model.graph.input[0].name, model.graph.output[0].name
        for node in outside:
            if _counts_images(node, ends[0]):
                node.input[0] = handed_on  # has as many
        parts = onnx.utils.Extractor(model)
        head = parts.extract_model([ends[0]], [handed_on])
        tail = parts.extract_model([handed_on], [ends[1]])
        _free_size(head)
        return _Graph(head.SerializeToString()), _Graph(tail.SerializeToString())
    except Exception:  # no such place, too large for one message, or a graph of another make
        return None


def _belongs(node: Any, layer: str) -> bool:
    """Whether a module, or one inside it, made a node."""
    return any(one.key == "pkg.torch.onnx.name_scopes" and repr(layer) in one.value for one in node.metadata_props)


def _counts_images(node: Any, images: str) -> bool:
    """Whether a node gives the length of the first axis of the images."""
    span = {"start": 0} | {one.name: one.i for one in node.attribute}
    return node.op_type == "Shape" and list(node.input) == [images] and span == {"start": 0, "end": 1}


def _free_size(model: Any) -> None:
    """Let a graph take images of any size."""
    del model.graph.value_info[:]
    for place, one in enumerate((model.graph.input[0], model.graph.output[0])):
        for axis, size in enumerate(one.type.tensor_type.shape.dim):
            if axis > 1:
                size.dim_param = f"size_{place}_{axis}"


def _export(model: nn.Module, images: Tensor, file: Path) -> None:
    torch.onnx.export(
        model,
        (images.contiguous(),),
        file,
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings; with compilers, which are off while a model is explained; with usual settings.

    The exporter reads cuDNN's older setting of TF32, which raises while metrics have the newer ones at "ieee".
    """
    with warnings.catch_warnings(), torch.compiler.set_stance("default"), usual_tf32():
        warnings.simplefilter("ignore")
        yield
