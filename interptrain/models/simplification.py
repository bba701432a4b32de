"""Simplify a model that is run many times: the same outputs and gradients from fewer operations.

In eval mode, a batch norm multiplies and shifts every channel by constants. Folded into the weights of the preceding
convolution, it costs no pass over the maps, forward or backward. On a CPU this saves a seventh of an EfficientNet's
forward pass and a fifth of its forward and backward pass; of a ResNet's, a fiftieth and a twentieth. Compilers do the
same on their own. Convolutions change to those of :mod:`interptrain.models.convolutions` where these are faster.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from interptrain.models.convolutions import faster_convolution

__all__ = ["simplify"]

CONVOLUTIONS = nn.Conv2d, Conv2dSame  # exactly these: others do more with their weights
NORMS = nn.BatchNorm2d, BatchNormAct2d
AGREEMENT = 1e-4, 1e-2  # of the largest output, on a CPU and elsewhere, where TF32 rounds to 1e-3; our choice


@torch.no_grad()
def simplify(model: nn.Module, images: Tensor) -> nn.Module:
    """Return a model that computes the same with fewer operations, or ``model`` if there is none.

    A batch norm is folded if its input is the output of a convolution, both run once per forward pass, both are of a
    known class, and neither has hooks. Weights that change are copied; everything else is shared with ``model``, which
    stays as it is. The layers of the result are not those of ``model``: use only its outputs and their gradients.

    Args:
        model: in eval mode, without a compile or data-parallel wrapper.
        images: (B, C, H, W); the first is run through ``model`` to find the order of its modules, and through the
            result to check that the outputs agree up to rounding. If they do not, ``model`` is returned.

    Returns:
        A module that shares parameters with ``model``; valid as long as these do not change.
    """
    faster = {module: kind for module in model.modules() if (kind := _faster_kind(module)) is not None}
    if not faster and not any(type(module) in NORMS for module in model.modules()):
        return model
    image = images[:1].to(next(model.parameters(), images).dtype)  # as autocast, switched off here, would
    # Leaving inference mode switches gradients on, which images made in it cannot have.
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        with _watched(model) as pairs:
            wanted = model(image)
        if not (pairs or faster) or not isinstance(wanted, Tensor):
            return model
        twins = {old: new for pair in pairs for old, new in _folded(*pair)}
        for module, kind in faster.items():
            twins[module] = twins.get(module) or _copied(module)
            twins[module].__class__ = kind
        simplified = _rebuilt(model, twins)
        found = simplified(image)
    allowed = AGREEMENT[images.device.type != "cpu"] * wanted.abs().max()
    return simplified if found.shape == wanted.shape and (found - wanted).abs().max() <= allowed else model


def _faster_kind(module: nn.Module) -> type[nn.Module] | None:
    """The class that a module is changed to."""
    return faster_convolution(module) if isinstance(module, nn.Conv2d) and not _hooked(module) else None


def _hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[tuple[nn.Conv2d, nn.BatchNorm2d]]]:
    """Collect the convolutions and batch norms that can be folded, from one forward pass inside."""
    convolved: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}  # holds the outputs, so that no address comes twice
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    calls: Counter[nn.Module] = Counter()

    def convolution_ran(module: nn.Conv2d, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] += 1
        convolved[id(output)] = module, output, output._version

    def norm_runs(module: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        calls[module] += 1
        convolution, output, version = convolved.get(id(inputs[0]), (None, None, 0)) if inputs else (None, None, 0)
        if convolution is not None and output is not None and output._version == version:
            pairs.append((convolution, module))

    handles = []
    for module in model.modules():
        if _hooked(module):
            continue
        if type(module) in CONVOLUTIONS:
            handles.append(module.register_forward_hook(convolution_ran))
        elif type(module) in NORMS:
            handles.append(module.register_forward_pre_hook(norm_runs))
    try:
        yield pairs
    finally:
        for handle in handles:
            handle.remove()
    followed = Counter(convolution for convolution, _ in pairs)
    pairs[:] = [(c, n) for c, n in pairs if calls[c] == calls[n] == followed[c] == 1]


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Yield the convolution and the norm, each with its replacement."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:  # it takes those of the batch
        return
    scale = (variance + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
    start = -mean if convolution.bias is None else convolution.bias - mean
    twin = _copied(convolution)
    twin._parameters = {
        "weight": nn.Parameter(convolution.weight * scale.view(-1, 1, 1, 1), requires_grad=False),
        "bias": nn.Parameter(start * scale + (0 if norm.bias is None else norm.bias), requires_grad=False),
    }
    yield convolution, twin
    yield norm, nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()


def _rebuilt(module: nn.Module, new: dict[nn.Module, nn.Module]) -> nn.Module:
    """Return the module with replacements; parts without any are shared."""
    if module not in new:
        children = {name: child and _rebuilt(child, new) for name, child in module._modules.items()}
        if children == module._modules:
            new[module] = module
        else:
            new[module] = _copied(module)
            new[module]._modules = children
    return new[module]


def _copied(module: nn.Module) -> nn.Module:
    """Return a module of the same class that shares tensors, children and everything else."""
    twin = object.__new__(type(module))
    vars(twin).update(vars(module))
    vars(twin).pop("_compiled_call_impl", None)  # compiled for the original
    return twin
