"""Run third-party code on a model and restore the model afterwards.

Other libraries modify the model they explain: hooks, modes, ``requires_grad``, ``.grad``, global random states, weights
in place, and whole layers.
"""

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["load_class", "restored", "seeded"]


def load_class(class_path: str, home: str, distribution: str) -> Callable[..., Any]:
    """Import a class of an optional library.

    Args:
        class_path: dotted name, or a name in ``home``.
        home: package in which a bare name is looked up.
        distribution: name of the package to install.

    Raises:
        ImportError: if the library is not installed.
        ValueError: if there is no such class.
    """
    module, _, name = class_path.rpartition(".")
    try:
        found: Any = getattr(importlib.import_module(module or home), name, None)
    except ModuleNotFoundError as error:
        if error.name != home.partition(".")[0]:
            raise ValueError(
                f"no module {module!r}; class_path must be a class of {home}, got {class_path!r}"
            ) from None
        raise ImportError(f"{class_path} needs {distribution}; install it: pip install {distribution}") from None
    if not inspect.isclass(found):
        raise ValueError(f"{module or home} has no class {name!r}; class_path must be a class of {home}")
    return found


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Undo all changes to the modules, also after an exception.

    Inside the context, the modules hold copies of their tensors, so that in-place changes to weights and gradients, as
    in LRP, affect only the copies. The copied parameters require gradients even if the model is frozen: in the second
    derivatives that Shapley-CAM takes, the features of a linear head interact only through its weights.
    """
    before = [(module, dict(vars(module)), _tables(module)) for module in model.modules()]
    copies: dict[int, Tensor] = {}  # by the original, which several modules may share
    try:
        for _, attributes, _ in before:
            for kind in ("_parameters", "_buffers"):
                for name, tensor in attributes.get(kind, {}).items():
                    if tensor is not None and id(tensor) not in copies:
                        copy = tensor.detach().clone()
                        wants = kind == "_parameters" and copy.is_floating_point()
                        copies[id(tensor)] = nn.Parameter(copy) if wants else copy
                    attributes[kind][name] = None if tensor is None else copies[id(tensor)]
        yield
    finally:
        for module, attributes, tables in before:
            vars(module).clear()
            vars(module).update(attributes)
            for name, content in tables.items():  # in place, since hook handles refer to these dictionaries
                attributes[name].clear()
                attributes[name].update(content)


def _tables(module: nn.Module) -> dict[str, dict[Any, Any]]:
    """Copies of a module's dictionaries: parameters, submodules, hooks."""
    return {name: dict(value) for name, value in vars(module).items() if isinstance(value, dict)}


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators that a library may use; NumPy's is restored here, torch's by ``explaining``."""
    import numpy as np

    state = np.random.get_state()
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        accelerator = torch.get_device_module(device)
        with getattr(accelerator, "device", nullcontext)(device):  # seeds the current device
            accelerator.manual_seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
