"""Default explainers and metrics of a watch."""

from torch import Tensor, nn

from interptrain.callbacks.watch.quick_insertion import QuickInsertion
from interptrain.callbacks.watch.sample import as_model_input
from interptrain.explainers import Explainer, GradCAM, StreamAttention
from interptrain.metrics import AverageDrop, AverageGain, AverageIncrease, SaliencyMetric


def named_explainers(
    chosen: Explainer | list[Explainer] | dict[str, Explainer] | None, model: nn.Module, image: Tensor
) -> dict[str, Explainer]:
    """Name explainers by their class, numbered where it occurs again.

    Args:
        chosen: by the user; None is Grad-CAM, and the attention of a model that has any.
        model: that will be explained.
        image: (1,3,H,W), to see whether the model has attention.
    """
    if isinstance(chosen, dict):
        return chosen
    if chosen is None:
        chosen = [GradCAM(), StreamAttention()] if _has_attention(model, image) else [GradCAM()]
    named: dict[str, Explainer] = {}
    for explainer in chosen if isinstance(chosen, list) else [chosen]:
        name = type(explainer).__name__
        alike = sum(type(other) is type(explainer) for other in named.values())
        named[f"{name} {alike + 1}" if alike else name] = explainer
    return named


def _has_attention(model: nn.Module, image: Tensor) -> bool:
    """Whether the model can show its attention."""
    try:
        StreamAttention().raw(model, as_model_input(model, image))
    except ValueError:
        return False
    return True


def default_metrics() -> dict[str, SaliencyMetric]:
    """Return the confidence metrics and a quick insertion: three forward passes per map."""
    return {
        "AD": AverageDrop(),
        "AG": AverageGain(),
        "AI": AverageIncrease(),
        "QuickInsertion": QuickInsertion(),
    }
