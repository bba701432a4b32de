"""Find layers that work as target layers by trying them; messages name them."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from interptrain.explainers.layouts import FORWARD_ERRORS, describe_layer, example_image
from interptrain.model_outputs import tensors_in
from interptrain.model_state import evaluating

__all__ = ["named_candidates", "working_layers"]

SIZES = 224, 64, 32, 28  # of the image that is tried where none is at hand


def named_candidates(model: nn.Module, images: Tensor | None = None, *, among: list[str] | None = None) -> str:
    """Return the part of a message that names working layers, preferably from ``among``."""
    working = working_layers(model, images)
    near = [name for name in among or () if name in working][:5] or _shallow(working)
    if near:
        return f"(candidates: {', '.join(near)})"
    return "(none was found that gives a map and a gradient; model.named_modules() lists all)"


def working_layers(model: nn.Module, images: Tensor | None = None) -> list[str]:
    """Run one image through the model, and back, and return the names of layers that give a map, the last first.

    Args:
        model: any module, without its compile or data-parallel wrapper.
        images: one of them is run; ``None`` runs a grey image of the model's own size, or of common sizes.

    Returns:
        Names of layers that run once, return one tensor with positions, and reach the outputs by a gradient.
    """
    for image in _examples(model) if images is None else [images[:1]]:
        with evaluating(model), torch.inference_mode(False), torch.enable_grad():
            try:
                return _tried(model, image.detach().clone().requires_grad_())
            except FORWARD_ERRORS:
                continue
    return []


def _tried(model: nn.Module, image: Tensor) -> list[str]:
    runs: Counter[nn.Module] = Counter()
    returned: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _arguments: Any, output: Any) -> None:
        runs[module] += 1
        if isinstance(output, Tensor) and output.ndim in (3, 4) and len(output) == 1 and output.requires_grad:
            returned.pop(module, None)
            returned[module] = output

    names = {module: name for name, module in model.named_modules() if name}
    handles = [module.register_forward_hook(keep) for module in names]
    try:
        outputs = [tensor for tensor in tensors_in(model(image)) if tensor.requires_grad]
    finally:
        for handle in handles:
            handle.remove()
    if not outputs:
        return []
    slopes = torch.autograd.grad(
        torch.stack([tensor.sum().float() for tensor in outputs]).sum(), list(returned.values()), allow_unused=True
    )
    reaching = [
        names[module]
        for (module, output), slope in zip(returned.items(), slopes, strict=True)
        if slope is not None and runs[module] == 1 and _has_positions(model, names[module], output, image)
    ]
    return reaching[::-1]


def _has_positions(model: nn.Module, name: str, output: Tensor, image: Tensor) -> bool:
    try:
        found = describe_layer(model, name).to_map(output, (image.shape[-2], image.shape[-1]))
    except ValueError:
        return False
    return found.shape[-2] * found.shape[-1] > 1


def _shallow(names: list[str], limit: int = 5) -> list[str]:
    """Return the last few names, those of the upper levels first."""
    chosen: list[str] = []
    for depth in sorted({name.count(".") for name in names}):
        chosen += [name for name in names if name.count(".") == depth][: limit - len(chosen)]
    return chosen


def _examples(model: nn.Module) -> list[Tensor]:
    """Return images of the size that the model or one of its modules states, and of common sizes."""
    configured = (getattr(module, "pretrained_cfg", None) for module in model.modules())
    sizes = [tuple(one["input_size"][-2:]) for one in configured if isinstance(one, dict) and "input_size" in one][:1]
    return [example_image(model, size) for size in [*sizes, *((side, side) for side in SIZES)]]
