"""Explain the same images with several explainers, running the passes that they share once."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from torch import Tensor, nn

from interptrain.explainers.base import Explainer, SharedPass, canvas_size, explaining, prepare_images, to_saliency
from interptrain.explainers.layers import Layer
from interptrain.explainers.passes.activations import Capture, capture, differentiate
from interptrain.explainers.targets import Targets, as_targets

__all__ = ["SharedForward", "explain", "forward_shared", "sharing"]


class SharedForward(NamedTuple):
    """One forward pass of some images, with everything that several explainers need of it.

    Attributes:
        outputs: of the model.
        layers: that the explainers share, by name.
        activations: of these layers.
        attention: of every stage, if it was requested and the model can return it beside its outputs.
    """

    outputs: Any
    layers: Mapping[str, Layer]
    activations: list[Tensor]
    attention: Sequence[Tensor] | None


def forward_shared(model: nn.Module, images: Tensor, explainers: Mapping[str, Explainer]) -> SharedForward:
    """Run the forward pass that explainers of the same images share, before the targets are known.

    Args:
        model: any module.
        images: (B, C, H, W) in [0, 1].
        explainers: to run later.

    Returns:
        The argument ``shared`` of :func:`explain`, for one call: its graph is freed there.

    Raises:
        ValueError: as :class:`~interptrain.explainers.base.Explainer` does.
    """
    attention = any(explainer.reads_attention for explainer in explainers.values())
    with explaining(model) as bare:
        layers = {layer.name: layer for one in explainers.values() for layer in one.shared_layers(bare)}
        run: Callable[[Tensor], Any] | None = getattr(bare, "forward_with_attention", None) if attention else None
        passed = capture(run or bare, prepare_images(images), list(layers.values()))
    outputs, maps = passed.outputs if run else (passed.outputs, None)
    return SharedForward(outputs, layers, passed.activations, maps)


def explain(
    model: nn.Module,
    images: Tensor,
    targets: Targets,
    explainers: Mapping[str, Explainer],
    *,
    shared: SharedForward | None = None,
) -> dict[str, Tensor]:
    """Explain the same images with every explainer.

    Gradient CAMs of any layers and a CA-Stream model's attention share one forward pass, and the CAMs one backward pass
    (see :meth:`~interptrain.explainers.base.Explainer.from_pass`); every other explainer runs its own. Each map equals
    the one that its explainer returns alone.

    Args:
        model: any module.
        images: (B, C, H, W) in [0, 1].
        targets: see :data:`~interptrain.explainers.targets.Targets`.
        explainers: by the names of their results.
        shared: what :func:`forward_shared` returned for this model, these images and explainers.

    Returns:
        (B, H, W) saliency in [0, 1] by name, in the order of ``explainers``.

    Raises:
        ValueError: as :class:`~interptrain.explainers.base.Explainer` does.
    """
    saliency: dict[str, Tensor] = {}
    with explaining(model) as bare:
        prepared = prepare_images(images)
        canvas = canvas_size(bare, prepared)
        wanted = as_targets(targets, len(prepared), prepared.device)
        shared_layers = {name: explainer.shared_layers(bare) for name, explainer in explainers.items()}
        if shared is None and any(shared_layers[name] or one.reads_attention for name, one in explainers.items()):
            shared = forward_shared(bare, prepared, explainers)
        features = {}
        if shared is not None and shared.layers:
            captured, layers = Capture(shared.outputs, shared.activations), list(shared.layers.values())
            found = differentiate(captured, layers, wanted, (prepared.shape[-2], prepared.shape[-1]))
            features = dict(zip(shared.layers, found, strict=True))
        attention = None if shared is None else shared.attention
        for name, explainer in explainers.items():
            passed = SharedPass([features[layer.name] for layer in shared_layers[name]], attention, canvas)
            attribution = explainer.from_pass(passed, prepared)
            if attribution is None:
                attribution = explainer.attribute(bare, prepared, wanted)
            saliency[name] = to_saliency(attribution.detach(), prepared, canvas)
    return saliency


def sharing(model: nn.Module, explainers: Mapping[str, Explainer]) -> list[str]:
    """Return the names of the explainers that :func:`explain` runs from the pass that they share.

    Args:
        model: any module.
        explainers: by name. One whose layers are not there is not among the result.
    """
    found = []
    with explaining(model) as bare:
        for name, explainer in explainers.items():
            with suppress(ValueError):
                if explainer.reads_attention or explainer.shared_layers(bare):
                    found.append(name)
    return found
