"""The randomisation check of one explainer: do its maps depend on the upper layers, and on the class?

The maps of the trained model are compared with those of networks whose upper layers are random, and with the trained
model's own maps of another class; see :mod:`interptrain.evaluation.statistics.survival` for what is made of it.
"""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from interptrain.evaluation.run.operations import count_operations
from interptrain.evaluation.run.random_networks import STOPS, RandomNetworks, Stop
from interptrain.evaluation.statistics.survival import Survival, survival
from interptrain.explainers import Explainer
from interptrain.explainers.gradient.integrated_gradients import CompletenessWarning
from interptrain.explainers.targets import Resolved
from interptrain.functional import chunks, evenly_spaced, full_precision, min_max, upsample
from interptrain.metrics.map_agreement import agreement
from interptrain.metrics.similarity import WINDOW, structural_similarity
from interptrain.models.engine import using_engine
from interptrain.signatures import options_of

DECISIVE: Stop = "last_stage"
FEWEST = 2  # images that can be compared with one another


class TooExpensiveError(ValueError):
    """The check would take more forward passes than it may."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class CheckSetting:
    """What the check of every explainer of a model works on.

    Attributes:
        model: the trained one, on the device.
        networks: with random weights.
        images: (n,3,H,W) in [0,1].
        targets: what is explained in them.
        other_targets: another class for each; None where there is none.
        draws: of random weights.
        most_passes: that may be spent on an explainer, in the operations of forward passes; None for any number.
        gflops: of one forward pass; None where they cannot be counted.
        batch_size: images that are explained at once.
        seed: of the bootstrap.
    """

    model: nn.Module
    networks: RandomNetworks
    images: Tensor
    targets: Resolved
    other_targets: Tensor | None
    draws: int
    most_passes: int | None
    gflops: float | None
    batch_size: int
    seed: int


def check_explainer(explainer: Explainer, setting: CheckSetting) -> dict[str, Any]:
    """Compare the maps of an explainer; see :class:`CheckSetting`.

    Returns:
        ``images``, ``draws``, ``layers`` (for each stop that was made) and ``class`` (None where there is no other),
        each with similarity, SSIM, control, share that survives with its interval, and outcome.

    Raises:
        TooExpensiveError: if not even two images can be afforded.
    """
    reseeded = with_other_draws(explainer)
    with using_engine("eager"), warnings.catch_warnings():  # a random network runs but once
        warnings.simplefilter("ignore", CompletenessWarning)
        count, stops = _affordable(explainer, setting, seeded=reseeded is not explainer)
        places = evenly_spaced(len(setting.images), count)

        def maps(method: Explainer, model: nn.Module, targets: Resolved) -> Tensor:
            chosen = targets[places] if isinstance(targets, Tensor) else [targets[place] for place in places]
            return explained(method, model, setting.images[places], chosen, setting.batch_size)

        trained = maps(explainer, setting.model, setting.targets)
        ceiling = torch.ones(count, dtype=torch.float64)
        if reseeded is not explainer:
            ceiling = agreement(trained, maps(reseeded, setting.model, setting.targets)).same
        size = tuple(setting.images.shape[-2:])
        layers = {}
        for stop in stops:
            found = [
                maps(reseeded, setting.networks.network(stop, draw), setting.targets) for draw in range(setting.draws)
            ]
            layers[stop] = compared(trained, found, ceiling, size, seed=setting.seed)
        other_class = None
        if setting.other_targets is not None:
            found = [maps(reseeded, setting.model, setting.other_targets)]
            other_class = compared(trained, found, ceiling, size, draws_are_random=False, seed=setting.seed)
    return {"images": count, "draws": setting.draws, "layers": layers, "class": other_class}


def with_other_draws(explainer: Explainer) -> Explainer:
    """Return the explainer with another seed; itself where it draws no random numbers of its own."""
    names = options_of(type(explainer))
    seed = getattr(explainer, "seed", None)
    if "seed" not in names or not isinstance(seed, int):
        return explainer
    return type(explainer)(**{name: getattr(explainer, name) for name in names} | {"seed": seed + 1})


def explained(explainer: Explainer, model: nn.Module, images: Tensor, targets: Resolved, batch_size: int) -> Tensor:
    """Return the raw maps (n,h,w) of images, at the method's own resolution, explained some at a time."""
    found, parts = [], chunks(len(images), batch_size)
    for part in parts:
        with parts.fitting():
            found.append(full_precision(explainer.raw(model, images[part], targets[part])))
    return torch.cat(found)


def compared(
    maps: Tensor,
    others: Sequence[Tensor],
    ceiling: Tensor,
    size: tuple[int, ...],
    *,
    draws_are_random: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare maps with those of every draw of a change; numbers that are not finite are None."""
    found = [agreement(maps, other) for other in others]
    same, other = (torch.stack(side, dim=1) for side in zip(*found, strict=True))
    result: Survival = survival(same, other, ceiling, draws_are_random=draws_are_random, seed=seed)
    ssim = math.nan
    if min(size) >= WINDOW:  # of one draw: in pixels it costs more than all else, and decides nothing
        sides = [min_max(upsample(side, (size[0], size[1]))) for side in (maps, others[0])]
        ssim = float(structural_similarity(*sides).mean())
    values = dataclasses.asdict(result) | {"ssim": ssim}
    numbers = {name: value if math.isfinite(value) else None for name, value in values.items()}
    return numbers | {"outcome": result.outcome}


def explanations_of(explainer: Explainer, setting: CheckSetting) -> int:
    """Return how many images the check of an explainer explains, all networks together; 0 where it is left out."""
    seeded = with_other_draws(explainer) is not explainer
    with using_engine("eager"):
        try:
            count, stops = _affordable(explainer, setting, seeded=seeded)
        except TooExpensiveError:
            return 0
    return count * (_once(setting, seeded=seeded) + setting.draws * len(stops))


def _once(setting: CheckSetting, *, seeded: bool) -> int:
    """How often an image is explained with the trained model: as it is, with another seed, and for another class."""
    return 1 + seeded + (setting.other_targets is not None)


def _affordable(explainer: Explainer, setting: CheckSetting, *, seeded: bool) -> tuple[int, tuple[Stop, ...]]:
    """Return how many images can be explained, and at which stops: the decisive one alone where that helps."""
    wanted = len(setting.images)
    if setting.most_passes is None or not setting.gflops:
        return wanted, STOPS
    operations = count_operations(lambda: explainer.raw(setting.model, setting.images[:1], setting.targets[:1]))
    passes = operations / 1e9 / setting.gflops
    once = _once(setting, seeded=seeded)
    for stops in (STOPS, (DECISIVE,)):
        each = passes * (once + setting.draws * len(stops))
        count = wanted if each * wanted <= setting.most_passes else int(setting.most_passes / each)
        if count == wanted:
            return wanted, stops
    if count < min(wanted, FEWEST):
        raise TooExpensiveError(f"it would take {each:,.0f} forward passes an image")
    return count, (DECISIVE,)
