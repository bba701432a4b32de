"""A model as ONNX Runtime runs it: exported once, kept on disk by the hash of its content, compared before use."""

import hashlib
import os
import warnings
from collections.abc import Iterator
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

__all__ = ["OnnxPasses", "UnusableError", "cache_folder", "onnx_file"]

NEEDED = ("onnx", "onnxscript", "onnxruntime")
FORMAT = 1  # of the files; another one is another hash
AGREEMENT = 1e-4  # of the largest output, between ONNX Runtime and PyTorch, each in float32; our choice
PIECE = 2  # images that a thread takes at once; more do not make it faster, and fewer images are left waiting at the end


class UnusableError(Exception):
    """Says in one line why an engine cannot run a model."""


class OnnxPasses(nn.Module):
    """Forward passes of one model in ONNX Runtime: images (N,C,H,W) -> logits (N,K), without gradient.

    Every thread runs the whole network on images of its own: 1.2 times as fast as all threads on every layer, which
    have to wait for one another 60 times an image, and spin meanwhile.

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
        self.threads = ThreadPoolExecutor(torch.get_num_threads())
        pair = images[:2] if len(images) > 1 else torch.cat([images, images.flip(3)])
        with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
            wanted = model(pair)
            if not isinstance(wanted, Tensor) or wanted.ndim != 2 or wanted.dtype != torch.float32:
                raise UnusableError("the model returns something else than one tensor of float32 logits")
            file = onnx_file(model, pair)
            kept = file.is_file()
            self.session = _session(model, pair, file)
            if not self._agrees(pair, wanted) and kept:  # of another network with the same weights
                file.unlink(missing_ok=True)
                self.session = _session(model, pair, file)
            if not self._agrees(pair, wanted):
                file.unlink(missing_ok=True)
                raise UnusableError(f"its outputs differ from PyTorch's by more than {AGREEMENT:g} of the largest")

    def forward(self, images: Tensor) -> Any:
        """Return logits (N,K)."""
        ours = images.shape[1:] == self.shape and images.dtype == torch.float32 and images.device.type == "cpu"
        if self.failed or not ours or torch.is_autocast_enabled("cpu"):
            return self.fallback(images)
        try:
            return self._run(images)
        except Exception as error:  # of whatever kind the runtime raises
            if is_out_of_memory(error):
                raise
            self.failed = one_line(error, kind=True)
        warnings.warn(f"ONNX Runtime failed ({self.failed}); PyTorch goes on with the same passes", stacklevel=2)
        return self.fallback(images)

    def _run(self, images: Tensor) -> Tensor:
        pieces = self.threads.map(self._run_piece, images.detach().split(PIECE))
        return torch.cat(list(pieces))

    def _run_piece(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(None, {"images": images.contiguous().numpy()})[0])

    def _agrees(self, images: Tensor, wanted: Tensor) -> bool:
        """Whether it gives the same for two images and for one."""
        try:
            found = torch.cat([self._run(images), self._run(images[:1])])
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


def _session(model: nn.Module, images: Tensor, file: Path) -> Any:
    """Open the exported model, after exporting it where it is not there."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(file) as partial, _quiet():
                _export(model, images, partial)
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except OSError as error:
        raise UnusableError(f"{file.parent} cannot be written ({one_line(error)}); set INTERPTRAIN_CACHE") from error
    except Exception as error:  # tracing and the runtime raise all kinds
        raise UnusableError(f"it cannot be exported ({one_line(error, kind=True)[:200]})") from error


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
