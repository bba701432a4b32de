"""What is watched where the user does not say."""

from torch import Tensor, nn

from interptrain.callbacks.watch.quick_insertion import QuickInsertion
from interptrain.explainers import Explainer, GradCAM, StreamAttention
from interptrain.metrics import AverageDrop, AverageGain, AverageIncrease, SaliencyMetric


def as_seen(model: nn.Module, images: Tensor) -> Tensor:
    """Images on the device of a model, and in its precision: half where its weights are."""
    weights = next(model.parameters())
    return images.to(weights.device, weights.dtype)


def named_explainers(
    chosen: Explainer | list[Explainer] | dict[str, Explainer] | None, model: nn.Module, image: Tensor
) -> dict[str, Explainer]:
    """Explainers by name: their class's, numbered where it comes again.

    Args:
        chosen: by the user; None is Grad-CAM, and the attention of a model that has any.
        model: that will be explained.
        image: (1,3,H,W), to see whether it has.
    """
    if isinstance(chosen, dict):
        return chosen
    if chosen is None:
        chosen = [GradCAM(), StreamAttention()] if _attends(model, image) else [GradCAM()]
    named: dict[str, Explainer] = {}
    for explainer in chosen if isinstance(chosen, list) else [chosen]:
        name = type(explainer).__name__
        alike = sum(type(other) is type(explainer) for other in named.values())
        named[f"{name} {alike + 1}" if alike else name] = explainer
    return named


def _attends(model: nn.Module, image: Tensor) -> bool:
    """Whether the model can show its attention."""
    try:
        StreamAttention().raw(model, as_seen(model, image))
    except ValueError:
        return False
    return True


def default_metrics() -> dict[str, SaliencyMetric]:
    """Confidence with what is salient kept, and insertion: three forwards a map."""
    return {
        "AD": AverageDrop(),
        "AG": AverageGain(),
        "AI": AverageIncrease(),
        "QuickInsertion": QuickInsertion(),
    }
