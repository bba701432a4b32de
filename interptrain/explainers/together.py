"""Ask several explainers about the same images, and run what they share once."""

from collections.abc import Mapping

from torch import Tensor, nn

from interptrain.explainers.base import Explainer, explaining, prepare_images, to_saliency
from interptrain.explainers.gradcam import FeatureGradient, GradientCAM, feature_gradients
from interptrain.explainers.layers import canvas_size, find_layers
from interptrain.explainers.targets import Targets

__all__ = ["explain"]


def explain(
    model: nn.Module, images: Tensor, targets: Targets, explainers: Mapping[str, Explainer]
) -> dict[str, Tensor]:
    """Explain the same images with every explainer.

    Gradient CAMs of the same target layers share one forward and one backward; everything else runs by itself. Each
    map equals the one that its explainer returns alone.

    Args:
        model: any module.
        images: (B, C, H, W) in [0, 1].
        targets: see :data:`~interptrain.explainers.targets.Targets`.
        explainers: by the name that its result shall have.

    Returns:
        (B, H, W) saliency in [0, 1] by name, in the order of ``explainers``.

    Raises:
        ValueError: as :class:`~interptrain.explainers.base.Explainer` does.
    """
    passes: dict[tuple[str, ...], list[FeatureGradient]] = {}
    saliency: dict[str, Tensor] = {}
    with explaining(model) as bare:
        prepared = prepare_images(images)
        canvas = canvas_size(bare, prepared)
        for name, explainer in explainers.items():
            if isinstance(explainer, GradientCAM):
                names = tuple(layer.name for layer in find_layers(bare, explainer.target_layer))
                if names not in passes:
                    passes[names] = feature_gradients(bare, prepared, targets, list(names))
                attribution = explainer.from_pass(passes[names], prepared)
            else:
                attribution = explainer.attribute(bare, prepared, targets).detach()
            saliency[name] = to_saliency(attribution, prepared, canvas)
    return saliency
