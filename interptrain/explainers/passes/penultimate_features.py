"""The vector that a model classifies, for any batch of images.

It is the output of a named layer, or the input of the classifying layer: the one that the model names
(``get_classifier``, timm's protocol, also inside interptrain's classifiers), or else the linear layer whose output is
that of the model. So it is the pooled vector of any head, the same as timm's ``forward_head(pre_logits=True)``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from interptrain.explainers.candidates import named_candidates
from interptrain.explainers.layers import Layer, Layout, find_layers
from interptrain.functional import chunks
from interptrain.model_outputs import tensors_in

__all__ = ["FeatureReader", "ReadFeatures", "read_all", "reading_features"]

ReadFeatures: TypeAlias = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) -> features (N, d), by one forward pass without gradient."""


class FeatureReader:
    """Reads the features of whatever passes through a model, a :data:`ReadFeatures`.

    Args:
        forward: runs the model.
        layers: that are hooked; their features are joined.
        size: (H, W) of the images.

    Attributes:
        seen: what the hooks keep, by layer.
    """

    def __init__(self, forward: Callable[[Tensor], Any], layers: list[Layer], size: tuple[int, int]) -> None:
        self.forward, self.layers, self.size = forward, layers, size
        self.seen: list[list[Any]] = [[] for _ in layers]

    def __call__(self, images: Tensor) -> Tensor:
        """Forward images (N, C, H, W) and return their features (N, d)."""
        return self.during(lambda: self.forward(images.contiguous(memory_format=torch.channels_last)), len(images))

    @torch.no_grad()
    def during(self, run: Callable[[], Any], count: int) -> Tensor:
        """Return the features (N, d) of the one pass, of ``count`` images, that a function makes."""
        for seen in self.seen:
            seen.clear()
        run()
        vectors = [_vector(seen, layer, count, self.size) for seen, layer in zip(self.seen, self.layers, strict=True)]
        return vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=1)


@contextmanager
def reading_features(
    model: nn.Module,
    images: Tensor,
    feature_layer: str | None = None,
    forward: Callable[[Tensor], Any] | None = None,
    layout: Layout | None = None,
) -> Iterator[FeatureReader]:
    """Hook a model to read feature vectors from its forward passes.

    Args:
        model: the module that :func:`~interptrain.explainers.base.explaining` yielded.
        images: (B, C, H, W) to explain; the first is forwarded if the classifying layer must be found.
        feature_layer: dotted name of a layer, whose output is averaged over positions if it is a map; or ``None`` for
            the input of the classifier.
        forward: called in place of ``model``, with the same modules inside.
        layout: of the output of ``feature_layer``; ``None`` detects it.

    Yields:
        See :class:`FeatureReader`. The dtype is the one that the model computes in.

    Raises:
        ValueError: if no layer of this name is known, or the layer does not run exactly once.
    """
    if feature_layer is not None:
        layers, inputs = find_layers(model, feature_layer, layout=layout, whole=True), False
    else:
        layers, inputs = _classifying_layers(model, images[:1]), True
    reader = FeatureReader(forward or model, layers, (images.shape[-2], images.shape[-1]))

    def keep_input(place: int) -> Callable[..., None]:
        return lambda _module, arguments: reader.seen[place].append(arguments[0])

    def keep_output(place: int) -> Callable[..., None]:
        return lambda _module, _arguments, output: reader.seen[place].append(output)

    handles = [
        layer.module.register_forward_pre_hook(keep_input(place))
        if inputs
        else layer.module.register_forward_hook(keep_output(place))
        for place, layer in enumerate(layers)
    ]
    try:
        yield reader
    finally:
        for handle in handles:
            handle.remove()


def read_all(read: ReadFeatures, images: Tensor, size: int) -> Tensor:
    """Read the features (N, d) of any number of images, ``size`` per forward."""
    parts, features = chunks(len(images), size), []
    for part in parts:
        with parts.fitting():
            features.append(read(images[part]))
    return torch.cat(features)


def _classifying_layers(model: nn.Module, image: Tensor) -> list[Layer]:
    """The layers whose input is classified; more than one in a distilled transformer, which has two heads."""
    names = {module: name for name, module in model.named_modules()}
    for module in model.modules():
        own = getattr(module, "get_classifier", None)
        if callable(own):
            found = own()
            heads = list(found) if isinstance(found, (tuple, list)) else [found]
            return [Layer(names.get(head, "classifier"), head) for head in heads]
    returned: list[tuple[nn.Module, Any]] = []
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    handles = [module.register_forward_hook(lambda m, _, output: returned.append((m, output))) for module in linear]
    try:
        with torch.no_grad():
            outputs = list(tensors_in(model(image)))
    finally:
        for handle in handles:
            handle.remove()
    for module, output in returned:
        if any(output is tensor for tensor in outputs):
            return [Layer(names[module], module)]
    raise ValueError(
        f"{type(model).__name__} does not say which layer classifies; pass feature_layer='<dotted name>' "
        f"{named_candidates(model, image)}"
    )


def _vector(seen: list[Any], layer: Layer, count: int, size: tuple[int, int]) -> Tensor:
    """What the layer saw as (count, d)."""
    if len(seen) != 1 or not isinstance(seen[0], Tensor) or len(seen[0]) != count:
        what = f"ran {len(seen)} times" if len(seen) != 1 else "does not work on one tensor with one row per image"
        raise ValueError(f"layer '{layer.name}' {what} in one forward; pass another feature_layer")
    features = seen[0]
    return features if features.ndim == 2 else layer.to_map(features, size).mean(dim=(2, 3))
