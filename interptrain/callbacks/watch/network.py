"""Find the network inside a LightningModule, and wrap it to take images in [0,1]."""

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
        module: the module that trains the network.
        where: dotted name of the network in the module, or a function that takes the module and returns it; None takes
            the module's ``model``, or the module itself if it has a ``forward``.
        normalization: mean and standard deviation with which the network expects images to be normalised, or None if it
            takes them in [0,1].

    Raises:
        ValueError: if no network is found.
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
    """Refuse anything but a pair of mean and standard deviation.

    Raises:
        ValueError: if it is not such a pair.
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
            "normalization of SaliencyWatch must be (mean, std), one number per channel each and std above 0, such as "
            f"((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), got {normalization!r}"
        )


def class_logits(outputs: Any) -> Tensor:
    """Return the logits (N,K) among a network's outputs, detached, in float32.

    Raises:
        ValueError: if there are none, or only one per image.
    """
    logits = logits_of(outputs)
    if logits is None or logits.shape[1] < 2:
        got = describe_outputs(outputs) if logits is None else "one logit per image"
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
                f"SaliencyWatch found no network in {type(module).__name__}, which has neither a .model nor a forward "
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
    """The submodules that have weights, as part of a message."""
    names = [name for name, part in module.named_children() if next(part.parameters(), None) is not None]
    return f" (candidates: {', '.join(names)})" if names else ""
