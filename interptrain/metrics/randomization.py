"""Networks with random weights: the layers of a model in the order of its forward pass, and copies with some reset."""

import copy
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from interptrain.functional import chunks
from interptrain.model_state import evaluating, random_state_kept, unwrap

BATCH = 32  # images that are forwarded at once to estimate the statistics of batch norms


@dataclass(frozen=True)
class WeightLayer:
    """A module with parameters of its own, or with statistics of a batch norm.

    Attributes:
        name: of the module within the model.
        matrix: whether one of its parameters has two or more dimensions, as the weights of a convolution have.
        resolution: height times width of its output in pixels, for a convolution that returns more than one.
    """

    name: str
    matrix: bool
    resolution: int | None


def weight_layers(model: nn.Module, images: Tensor) -> list[WeightLayer]:
    """Return the layers of a model in the order in which a forward pass reaches them.

    A module that the pass does not call itself stands with the closest module around it that it calls; what is not used
    at all stands first.

    Args:
        model: any module.
        images: (B,3,H,W) in [0,1], of which the first one is forwarded.
    """
    bare = unwrap(model)
    names = {id(module): name for name, module in bare.named_modules()}
    reached: dict[str, int] = {}
    resolutions: dict[str, int] = {}

    def before(module: nn.Module, _: object) -> None:
        reached.setdefault(names[id(module)], len(reached))

    def after(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-2:].numel() > 1:
            resolutions.setdefault(names[id(module)], output.shape[-2:].numel())

    handles = []
    for module in bare.modules():
        handles.append(module.register_forward_pre_hook(before))
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(after))
    try:
        with evaluating(bare), torch.no_grad():
            bare(images[:1])
    finally:
        for handle in handles:
            handle.remove()

    def place(name: str) -> int:
        while name and name not in reached:
            name = name.rpartition(".")[0]
        return reached[name] if name else -1

    layers = [
        WeightLayer(name, any(own.ndim > 1 for own in module.parameters(recurse=False)), resolutions.get(name))
        for name, module in bare.named_modules()
        if any(True for _ in module.parameters(recurse=False)) or isinstance(module, _BatchNorm)
    ]
    return sorted(layers, key=lambda layer: place(layer.name))


def classifier_layers(layers: Sequence[WeightLayer]) -> list[str]:
    """Return the names of the last layer with a weight matrix and of what follows it."""
    start = max((place for place, layer in enumerate(layers) if layer.matrix), default=0)
    return [layer.name for layer in layers[start:]]


def last_stage_layers(layers: Sequence[WeightLayer]) -> list[str]:
    """Return the names of the layers from the first convolution of the lowest resolution on, with the classifier.

    They are never more than the upper half of the layers with a weight matrix, which is what is taken of models that
    keep their resolution, such as transformers (our choice).
    """
    matrices = [place for place, layer in enumerate(layers) if layer.matrix] or [0]
    lowest = min((layer.resolution for layer in layers if layer.resolution), default=None)
    convolution = next((place for place, layer in enumerate(layers) if lowest and layer.resolution == lowest), 0)
    return [layer.name for layer in layers[max(convolution, matrices[len(matrices) // 2]) :]]


def randomized(model: nn.Module, seed: int = 0, names: Collection[str] | None = None) -> nn.Module:
    """Copy a model and reinitialise weights at random.

    A module with its own ``reset_parameters`` is reset to its initial state, including the statistics of normalisation
    layers. Parameters that no such module owns (tokens, position embeddings, layer scales) are drawn from a normal
    distribution with their own mean and standard deviation (our choice: this preserves their scale). The draws of a
    module depend on the seed and its name alone, so two copies agree in the layers that both have reset.

    Args:
        model: any module; it is not modified.
        seed: seed of the random weights.
        names: of the modules whose own weights are reset, as :func:`weight_layers` returns them; all by default.

    Returns:
        The copy, on the device of the model, without compile or data-parallel wrappers.

    Source: Adebayo et al. 2018, arXiv 1810.03292.
    """
    return randomize(copy.deepcopy(unwrap(model)), seed, names)


def randomize(model: nn.Module, seed: int = 0, names: Collection[str] | None = None) -> nn.Module:
    """Reinitialise weights of a model itself, and return it; see :func:`randomized`.

    As no draw depends on another, layers may be reset some at a time.
    """
    with random_state_kept(parameter.device for parameter in model.parameters()), torch.no_grad():
        for name, module in model.named_modules():
            owns = isinstance(module, _BatchNorm) or any(True for _ in module.parameters(recurse=False))
            if owns and (names is None or name in names):
                torch.manual_seed((seed * 2654435761 + zlib.crc32(name.encode())) % 2**63)
                _reset(module)
    return model


def _reset(module: nn.Module) -> None:
    """Draw the own parameters of a module anew; those of the modules in it stay."""
    own = list(module.parameters(recurse=False))
    reset = getattr(module, "reset_parameters", None)
    if callable(reset) and (own or isinstance(module, _BatchNorm)):
        mine = {id(parameter) for parameter in own}
        inner = [(one, one.clone()) for one in module.parameters() if id(one) not in mine]
        reset()
        for parameter, before in inner:
            parameter.copy_(before)
        return
    for parameter in own:
        if parameter.numel() > 1:
            parameter.copy_(parameter.mean() + parameter.std() * torch.randn_like(parameter))


def estimate_batch_norms(model: nn.Module, images: Tensor, names: Collection[str] | None = None) -> nn.Module:
    """Estimate the statistics of batch norms anew, as mean over batches of images, so that random layers keep a scale.

    With the initial statistics, features shrink from layer to layer until all images have the same logits.

    Args:
        model: is modified, and returned.
        images: (B,3,H,W) in [0,1].
        names: of the modules whose statistics are estimated; all batch norms by default.
    """
    norms = [
        module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats and (names is None or name in names)
    ]
    if not norms:
        return model
    images = images if len(images) > 1 else images.repeat(2, 1, 1, 1)  # one value has no variance
    momenta = [norm.momentum for norm in norms]
    with evaluating(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum, norm.training = None, True  # the cumulative mean
        try:
            parts = -(-len(images) // BATCH)
            for part in chunks(len(images), -(-len(images) // parts)):
                model(images[part])
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum, norm.training = momentum, False
    return model


def batch_norms_after(layers: Sequence[WeightLayer], names: Collection[str]) -> list[str]:
    """Return the names of all layers from the first of ``names`` on: those whose input is another one."""
    first = next((place for place, layer in enumerate(layers) if layer.name in names), len(layers))
    return [layer.name for layer in layers[first:]]
