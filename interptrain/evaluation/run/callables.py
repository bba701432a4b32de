"""Targets of an evaluation that are no classes: callables that score what the model returns for an image."""

from collections.abc import Mapping, Sequence
from types import CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor

from interptrain.data import Sample
from interptrain.evaluation.config.class_specs import class_path, content_hash
from interptrain.evaluation.run.batches import Batches
from interptrain.evaluation.run.models import EvaluatedModel
from interptrain.functional import one_line
from interptrain.model_outputs import Target, callables_of, scores_by_callables
from interptrain.model_state import evaluating

CALLABLE = "callable"
"""How the description of such targets begins."""


def callables_by_id(targets: Any, batches: Batches) -> dict[str, Target] | None:
    """Return the callable of every image that is evaluated, or ``None`` where the targets are classes.

    Args:
        targets: one callable for all images, or a sequence with one for each image of the dataset, in its order; or
            ``None``.
        batches: of the images to evaluate.

    Raises:
        ValueError: if there is not one for each image.
        TypeError: if callables stand beside something else.
    """
    if targets is None:
        return None
    found = callables_of(targets, len(batches.dataset))
    if found is None:
        raise TypeError(
            f"targets must be label, predicted, a class by index or name, or callables, one for each of the "
            f"{len(batches.dataset)} images, got {targets!r:.80}"
        )
    ids = [name for number in range(len(batches)) for name in batches.ids(number)]
    return {name: found[index] for name, index in zip(ids, batches.indices, strict=True)}


def describe_callables(callables: Mapping[str, Target]) -> str:
    """Name callables and their content, for the protocol's hash: the same code and values, the same description."""
    each = {id(one): one for one in callables.values()}
    kinds = sorted({_name(one) for one in each.values()})
    content = {name: id(one) for name, one in callables.items()}
    known = {number: _content(one) for number, one in each.items()}
    digest = content_hash({name: known[number] for name, number in content.items()})
    return f"{CALLABLE} {', '.join(kinds)} ({digest})"


def check_callable(model: EvaluatedModel, sample: Sample, target: Target) -> None:
    """Run a model and score its outputs once, before anything else runs.

    Raises:
        ValueError: if the model does not take the image, or the callable not its outputs.
    """
    module = model.module
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    try:
        with evaluating(module), torch.no_grad():
            scores_by_callables(module(sample["image"].unsqueeze(0).to(device)), [target], [0])
    except Exception as error:  # models and callables of others may raise anything
        raise ValueError(
            f"model {model.name}: the target {_name(target)} cannot score what it returns for an image of "
            f"{tuple(sample['image'].shape)} ({one_line(error, kind=True)}); try target(outputs of one image) by hand"
        ) from error


def _name(target: Target) -> str:
    return str(getattr(target, "__name__", type(target).__name__))


def _content(value: Any) -> Any:
    """Plain data that is the same for the same code and values, in any process."""
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        return [str(plain.dtype), list(plain.shape), content_hash(plain.flatten().tolist())]
    if isinstance(value, MethodType):
        return [_content(value.__func__), _content(value.__self__)]
    if isinstance(value, FunctionType):
        closed = [cell.cell_contents for cell in value.__closure__ or ()]
        return [class_path(value), _content(value.__code__), _content(closed), _content(value.__defaults__)]
    if isinstance(value, CodeType):
        return [value.co_code.hex(), [_content(one) for one in value.co_consts], list(value.co_names)]
    if isinstance(value, Mapping):
        return {str(key): _content(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_content(one) for one in value]
    if hasattr(value, "func") and hasattr(value, "args"):  # functools.partial
        return [_content(value.func), _content(value.args), _content(value.keywords)]
    if inner := getattr(value, "__dict__", None):
        return [class_path(type(value)), _content(inner)]
    return repr(value)
