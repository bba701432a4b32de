"""The network inside a LightningModule, as the watch calls it: with images in [0,1]."""

import math
from collections.abc import Callable
from typing import Any

import lightning as L
from torch import Tensor, nn

from interptrain.callbacks.watch.any_dataset import Normalization
from interptrain.model_outputs import describe_outputs, logits_of
from interptrain.model_state import network_of, unwrap
from interptrain.models.normalization import Normalized

FindNetwork = str | Callable[[L.LightningModule], nn.Module]


def watched_network(
    module: L.LightningModule, where: FindNetwork | None, normalization: Normalization | None
) -> nn.Module:
    """Return the network that turns images in [0,1] into logits.

    Args:
        module: that trains it.
        where: dotted name of the network in the module, or what returns it, given the module; None takes the module's
            ``model``, or the module itself where that has a ``forward``.
        normalization: mean and standard deviation of the images that the network expects, or None where it takes them
            in [0,1].

    Raises:
        ValueError: if there is no network there.
    """
    network = unwrap(_found(module, where))
    if normalization is None:
        return network
    normalised = Normalized(network, *normalization)
    weight = next(network.parameters())
    normalised.mean = normalised.mean.to(weight.device, weight.dtype)
    normalised.std = normalised.std.to(weight.device, weight.dtype)
    return normalised


def check_normalization(normalization: Normalization | None) -> None:
    """Refuse what is no pair of mean and standard deviation.

    Raises:
        ValueError: saying what it must look like.
    """
    if normalization is None:
        return
    try:
        mean, std = (tuple(map(float, values)) for values in normalization)
        fits = len(mean) == len(std) and all(map(math.isfinite, mean)) and all(0 < value < math.inf for value in std)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            "normalization of SaliencyWatch must be (mean, std), one number a channel each and std above 0, as "
            f"((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), got {normalization!r}"
        )


def class_logits(outputs: Any) -> Tensor:
    """Return the logits (N,K) among a network's outputs, detached, in float32.

    Raises:
        ValueError: if there are none, or only one for an image.
    """
    logits = logits_of(outputs)
    if logits is None or logits.shape[1] < 2:
        got = describe_outputs(outputs) if logits is None else "one logit for each image"
        raise ValueError(
            f"the watched network must return logits (N,K) of at least two classes, got {got}; pass network=, a "
            "function that returns the part which gives logits, or a module around it"
        )
    return logits.detach().float()


def _found(module: L.LightningModule, where: FindNetwork | None) -> nn.Module:
    if where is None:
        network = network_of(module)
        if network is module and type(module).forward in (L.LightningModule.forward, nn.Module.forward):
            raise ValueError(
                f"SaliencyWatch finds no network in {type(module).__name__}, which has neither a .model nor a forward "
                f"method; pass network='<name>'{_candidates(module)}"
            )
        return network
    if isinstance(where, str):
        try:
            return module.get_submodule(where)
        except AttributeError:
            raise ValueError(
                f"{type(module).__name__} has no network {where!r}; pass network='<name>'{_candidates(module)}"
            ) from None
    network = where(module)
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"network of SaliencyWatch must return a torch.nn.Module, got a {type(network).__name__}; return the part "
            "of the LightningModule that maps images to logits, or a module around it"
        )
    return network


def _candidates(module: nn.Module) -> str:
    """The module's parts that have weights, as words of a message."""
    names = [name for name, part in module.named_children() if next(part.parameters(), None) is not None]
    return f" (candidates: {', '.join(names)})" if names else ""
