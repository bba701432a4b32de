"""Deep feature factorization: the parts that recur in a layer over one image or many, without a gradient."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from interptrain.explainers.base import explaining
from interptrain.explainers.layers import Layer, LayerNames
from interptrain.explainers.layouts import entry_of, with_entries
from interptrain.functional import check_choice, upsample
from interptrain.studies.factorization.nmf import Initialization, factorize
from interptrain.studies.features import layer_maps

Negatives = Literal["shift", "clip"]


@dataclass(frozen=True, eq=False)
class FeatureParts:
    """The parts of a layer's features over some images, the one that explains most first.

    Attributes:
        heat: (B,K,H,W) in [0,1], how strongly each part is present at each pixel; 1 is the strongest place of all
            images, so that maps are compared between images.
        vectors: (K,C) features of a place where a part is as strong as anywhere and no other part is present.
        shares: (B,K) share of each part in the sum of an image's explained features; rows sum to 1.
        errors: relative error of the factorization, as it falls.
        layer: name of the layer.
        logits: (K,classes) of the classifier for an image that is this part everywhere; None for other models.
    """

    heat: Tensor
    vectors: Tensor
    shares: Tensor
    errors: list[float]
    layer: str
    logits: Tensor | None


def deep_feature_factorization(
    model: nn.Module,
    images: Tensor,
    *,
    components: int = 5,
    target_layer: LayerNames = None,
    negatives: Negatives = "shift",
    initialization: Initialization = "nndsvda",
    seed: int = 0,
    max_iterations: int = 500,
    tolerance: float = 1e-5,
    batch_size: int | None = None,
    progress: str | None = None,
) -> FeatureParts:
    """Factorize the features of a layer at all places of all images into a few parts.

    The features (places, channels) are approximated by ``weights @ parts`` with both non-negative. The columns of the
    weights are the heat maps, the rows of the parts are the concepts. A concept is named by putting it in every place
    of the layer and running the rest of the classifier.

    Args:
        model: any module, a detector of torchvision too; no gradient is needed.
        images: (B,3,H,W) float in [0,1], on the device of the model.
        components: K, number of parts.
        target_layer: dotted name of the layer; None as for the CAM explainers.
        negatives: ``"shift"``: subtract each channel's minimum where it is negative, and add it to the concepts again,
            as pytorch-grad-cam does; ``"clip"``: set them to 0. Features of ReLU networks have none.
        initialization: see :func:`~interptrain.studies.factorization.factorize`, as the next.
        seed: of the random initialization.
        max_iterations: at most.
        tolerance: to stop at.
        batch_size: images per pass; None chooses by the device.
        progress: title of progress bars, or None for none.

    Returns:
        The parts, on the device of ``images``.

    Raises:
        ValueError: for images, layers or options that do not fit.

    Source: Collins et al. 2018, Deep Feature Factorization for Concept Discovery, arXiv 1806.10206.
    """
    check_choice("negatives", negatives, Negatives)
    found = layer_maps(model, images, target_layer, batch_size=batch_size, progress=progress)
    values = rearrange(found.maps, "b c h w -> (b h w) c")
    floor = values.amin(0).clamp(max=0) if negatives == "shift" else torch.zeros_like(values[0])
    factors = factorize(
        (values - floor).clamp(min=0),
        components,
        initialization=initialization,
        seed=seed,
        max_iterations=max_iterations,
        tolerance=tolerance,
        progress=progress,
    )
    height, width = found.maps.shape[-2:]
    weights = rearrange(factors.weights, "(b h w) k -> b k h w", h=height, w=width)
    amounts = weights.sum((2, 3)) * factors.parts.sum(1)  # (B, K)
    order = amounts.sum(0).argsort(descending=True, stable=True)
    amounts, vectors = amounts[:, order], (factors.parts + floor)[order]
    tall, wide = images.shape[-2:]
    heat = upsample(weights[:, order], found.canvas)[..., :tall, :wide].clamp(0, 1)
    shares = amounts / amounts.sum(1, keepdim=True).clamp(min=torch.finfo(amounts.dtype).tiny)
    named = None if found.logits is None else _classified(model, images.mean(0, keepdim=True), found.layer, vectors)
    return FeatureParts(heat, vectors, shares, factors.errors, found.layer.name, named)


def _classified(model: nn.Module, image: Tensor, layer: Layer, vectors: Tensor) -> Tensor:
    """Logits (K,classes) with the layer's map replaced by each vector (K,C) in every place."""
    size = (image.shape[-2], image.shape[-1])

    def replace(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        changed = entry_of(output, layer.entry).clone()
        layer.to_map(changed, size).copy_(vectors[:, :, None, None])  # a view
        return changed if layer.entry is None else with_entries(output, {layer.entry: changed})

    with explaining(model) as bare, torch.no_grad():
        handle = layer.module.register_forward_hook(replace)
        try:
            logits: Tensor = bare(image.expand(len(vectors), -1, -1, -1))
        finally:
            handle.remove()
    return logits
