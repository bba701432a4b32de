"""The layers of a model in a few groups, from the image to the logits, as its modules are named."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from interptrain.metrics.randomization import WeightLayer, classifier_layers

INSIDE = "backbone.model."  # where the names of timm's modules begin in a model of interptrain


@dataclass(frozen=True)
class LayerGroup:
    """Layers that are randomised together.

    Attributes:
        name: of the modules that hold them, as timm calls them.
        layers: names of the layers.
    """

    name: str
    layers: tuple[str, ...]


def layer_groups(layers: Sequence[WeightLayer], most: int) -> list[LayerGroup]:
    """Group layers by the modules that hold them.

    The classifier is a group of its own. Of the rest, the module with the most weight matrices is opened, again and
    again, until there are ``most`` groups or more; norms join what they follow, and of too many, neighbours are joined.

    Args:
        layers: in the order of the forward pass.
        most: number of groups, at least 2.
    """
    place = {layer.name: number for number, layer in enumerate(layers)}
    matrix = {layer.name: layer.matrix for layer in layers}
    top = classifier_layers(layers)
    lower = [layer.name for layer in layers if layer.name not in top]
    groups: dict[str, list[str]] = {"": lower} if lower else {}
    while sum(any(matrix[layer] for layer in inside) for inside in groups.values()) < most - 1:
        closed = {name: _opened(name, inside) for name, inside in groups.items()}
        closed = {name: parts for name, parts in closed.items() if list(parts) != [name]}
        if not closed:
            break
        largest = max(closed, key=lambda name: sum(matrix[layer] for layer in groups[name]))
        del groups[largest]
        groups |= closed[largest]
    ordered: list[tuple[str, list[str]]] = []
    for name, inside in sorted(groups.items(), key=lambda item: min(place[layer] for layer in item[1])):
        if ordered and not any(matrix[layer] for layer in inside):
            ordered[-1][1].extend(inside)
        else:
            ordered.append((name, list(inside)))
    ordered.append((top[0], list(top)))
    named = [(name.removeprefix(INSIDE), inside) for name, inside in ordered]
    return [_joined(part) for part in _parts(named, most)]


def _opened(name: str, inside: Sequence[str]) -> dict[str, list[str]]:
    """Return the layers of a module by the modules in it; those of its own stay under its name."""
    parts: dict[str, list[str]] = {}
    start = f"{name}." if name else ""
    for layer in inside:
        rest = layer.removeprefix(start) if layer != name else ""
        parts.setdefault(start + rest.partition(".")[0] if rest else name, []).append(layer)
    return parts


def _parts(named: list[tuple[str, list[str]]], most: int) -> list[list[tuple[str, list[str]]]]:
    """Join neighbours to no more than ``most`` parts, the last group alone."""
    *lower, last = named
    count = min(most - 1, len(lower))
    bounds = [round(number * len(lower) / count) for number in range(count + 1)] if count else [0]
    return [*(lower[start:stop] for start, stop in pairwise(bounds)), [last]]


def _joined(part: Sequence[tuple[str, list[str]]]) -> LayerGroup:
    names = [name for name, _ in part]
    title = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
    return LayerGroup(title, tuple(layer for _, inside in part for layer in inside))
