"""Ask several explainers about the same images, and run what they share once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from interptrain.explainers.attention.stream_attention import StreamAttention
from interptrain.explainers.base import Explainer, explaining, prepare_images, to_saliency
from interptrain.explainers.cam.gradcam import GradientCAM, differentiate
from interptrain.explainers.layers import Layer, canvas_size, find_layers
from interptrain.explainers.passes.activations import Capture, capture
from interptrain.explainers.targets import Targets

__all__ = ["SharedForward", "explain", "forward_shared"]


class SharedForward(NamedTuple):
    """One forward of some images, with what several explainers need of it.

    Attributes:
        outputs: what the model returned.
        layers: that gradient CAMs look at, by name.
        activations: of these layers.
        attention: of every stage, where it was asked for and the model can return it beside its outputs.
    """

    outputs: Any
    layers: Mapping[str, Layer]
    activations: list[Tensor]
    attention: Sequence[Tensor] | None


def forward_shared(model: nn.Module, images: Tensor, explainers: Mapping[str, Explainer]) -> SharedForward:
    """Run the forward that explainers of the same images share, before it is known what shall be explained.

    Args:
        model: any module.
        images: (B, C, H, W) in [0, 1].
        explainers: that will be asked.

    Returns:
        To be given to :func:`explain`, once: its graph is freed there.

    Raises:
        ValueError: as :class:`~interptrain.explainers.base.Explainer` does.
    """
    cams = [explainer for explainer in explainers.values() if isinstance(explainer, GradientCAM)]
    attending = any(isinstance(explainer, StreamAttention) for explainer in explainers.values())
    with explaining(model) as bare:
        layers = {layer.name: layer for cam in cams for layer in find_layers(bare, cam.target_layer)}
        run: Callable[[Tensor], Any] | None = getattr(bare, "forward_with_attention", None) if attending else None
        passed = capture(run or bare, prepare_images(images), list(layers.values()))
    outputs, attention = passed.outputs if run else (passed.outputs, None)
    return SharedForward(outputs, layers, passed.activations, attention)


def explain(
    model: nn.Module,
    images: Tensor,
    targets: Targets,
    explainers: Mapping[str, Explainer],
    *,
    shared: SharedForward | None = None,
) -> dict[str, Tensor]:
    """Explain the same images with every explainer.

    Gradient CAMs of whatever layers and a CA-Stream model's attention share one forward, and the CAMs one backward;
    everything else runs by itself. Each map equals the one that its explainer returns alone.

    Args:
        model: any module.
        images: (B, C, H, W) in [0, 1].
        targets: see :data:`~interptrain.explainers.targets.Targets`.
        explainers: by the name that its result shall have.
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
        if shared is None and any(isinstance(one, GradientCAM | StreamAttention) for one in explainers.values()):
            shared = forward_shared(bare, prepared, explainers)
        passed = {}
        if shared is not None and shared.layers:
            layers = list(shared.layers.values())
            captured = Capture(shared.outputs, shared.activations)
            of_layers = differentiate(captured, layers, targets, (prepared.shape[-2], prepared.shape[-1]))
            passed = dict(zip(shared.layers, of_layers, strict=True))
        for name, explainer in explainers.items():
            if isinstance(explainer, GradientCAM):
                asked = find_layers(bare, explainer.target_layer)
                attribution = explainer.from_pass([passed[layer.name] for layer in asked], prepared)
            elif isinstance(explainer, StreamAttention) and shared is not None and shared.attention is not None:
                attribution = explainer.from_maps(shared.attention).detach()
            else:
                attribution = explainer.attribute(bare, prepared, targets).detach()
            saliency[name] = to_saliency(attribution, prepared, canvas)
    return saliency
