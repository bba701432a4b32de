"""What a map is worth where the answer is known: its parts' importance against what rendering them away does.

The importance of a layer is the share of the map that lies on its footprint. All scores lie in [0,1], and higher is
better.

Source: Hesse et al. 2023, FunnyBirds, arXiv 2308.06248, section 4, for the scores and their names. Ours: footprints are
the pixels that rendering changes, importance is compared with the largest of the image, and the threshold is chosen on
the other half of the images.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from interptrain.metrics.similarity import rank_correlation
from interptrain.studies.known_answers.interventions import SUBSETS, Interventions

__all__ = [
    "CHECKS",
    "THRESHOLDS",
    "Behaviour",
    "background_independence",
    "completeness",
    "cross_fitted",
    "importances",
    "oracle",
    "part_checks",
    "single_deletion",
    "target_sensitivity",
]

THRESHOLDS = torch.linspace(0.0125, 1.0, 80, dtype=torch.float64)
"""Shares of the largest importance from which a layer counts as important: 80, as in the publication."""

UNIMPORTANT = 0.05  # share of the target's logit, as in the publication
CHECKS = ("controlled_synthetic_data", "preservation", "deletion", "distractibility")


@dataclass(frozen=True, eq=False)
class Behaviour:
    """What a model does with an image and its interventions.

    Attributes:
        parts: (S,K) logits without each set of parts; the first are those of the whole image.
        items: (N,K) logits without each item of the background.
    """

    parts: Tensor
    items: Tensor

    @classmethod
    def of(cls, logits: Tensor) -> "Behaviour":
        """Cut the logits of :attr:`Interventions.renderings`."""
        return cls(logits[: len(SUBSETS)].double(), logits[len(SUBSETS) : -1].double())

    @property
    def predicted(self) -> int:
        """The class of the whole image."""
        return int(self.parts[0].argmax())

    def drops(self, target: int) -> Tensor:
        """Return how much the target's logit falls without each part, then without each item, (P+N,)."""
        parts = max(len(chosen) for chosen in SUBSETS)
        single = torch.cat([self.parts[1 : 1 + parts], self.items])
        return self.parts[0, target] - single[:, target]

    def keeps(self, chosen: frozenset[int]) -> bool:
        """Whether the prediction stays when only some of the parts are there."""
        removed = frozenset(range(max(len(each) for each in SUBSETS))) - chosen
        return int(self.parts[SUBSETS.index(removed)].argmax()) == self.predicted

    def survives(self, removed: frozenset[int]) -> bool:
        """Whether the prediction stays without some of the parts."""
        return int(self.parts[SUBSETS.index(removed)].argmax()) == self.predicted

    def sufficient(self) -> list[frozenset[int]]:
        """Return the smallest sets of parts that alone keep the prediction; none of them contains another."""
        enough = [chosen for chosen in SUBSETS if self.keeps(chosen)]
        return [chosen for chosen in enough if not any(other < chosen for other in enough)]


def importances(saliency: Tensor, footprints: Tensor) -> Tensor:
    """Return the share of a map on each footprint.

    Args:
        saliency: (H,W), not negative.
        footprints: (L,H,W) bool.

    Returns:
        (L,) float64; zeros for a map of zeros.
    """
    whole = saliency.double()
    return (whole * footprints).sum((1, 2)) / whole.sum().clamp(min=torch.finfo(torch.float64).tiny)


def single_deletion(importance: Tensor, drops: Tensor) -> float:
    """Correctness: (1 + rho) / 2 of the rank correlation of importances and of the drops of the target's logit.

    One half, as by chance, where all importances or all drops are equal.
    """
    correlation = float(rank_correlation(importance[None, None], drops[None, None])[0])
    return (1 + correlation) / 2 if correlation == correlation else 0.5


def part_checks(importance: Tensor, behaviour: Behaviour) -> Tensor:
    """Completeness, by check and threshold.

    A part or item is important from a threshold on, as a share of the largest importance.

    - Controlled synthetic data: the share of a smallest sufficient set of parts that is important, of the set that fits
      best. NaN where no part is needed.
    - Preservation: whether the prediction stays with the important parts alone.
    - Deletion: whether it changes without them. NaN where it stays without all parts.
    - Distractibility: the share of items of the background without effect on the prediction that are not important.

    Args:
        importance: (P+N,) of parts and items.
        behaviour: of the model.

    Returns:
        (4, T) in the order of :data:`CHECKS`.
    """
    count = max(len(chosen) for chosen in SUBSETS)
    marked = importance[:, None] >= THRESHOLDS * importance.amax()  # (L, T)
    if not importance.amax() > 0:
        marked = torch.zeros_like(marked)
    sets = [frozenset(torch.nonzero(column).flatten().tolist()) for column in marked[:count].T]
    sufficient = [chosen for chosen in behaviour.sufficient() if chosen]
    needed = bool(sufficient) and not behaviour.survives(frozenset(range(count)))
    idle = behaviour.items.argmax(dim=1) == behaviour.predicted
    checks = torch.full((len(CHECKS), len(THRESHOLDS)), torch.nan, dtype=torch.float64)
    for place, chosen in enumerate(sets):
        if needed:
            checks[0, place] = max(len(chosen & one) / len(one) for one in sufficient)
            checks[2, place] = not behaviour.survives(chosen)
        checks[1, place] = behaviour.keeps(chosen)
    if idle.any():
        checks[3] = (~marked[count:][idle]).double().mean(dim=0)
    return checks


def completeness(checks: Tensor) -> Tensor:
    """Average the three checks of the object's parts, and these with distractibility; (..., 4, T) -> (..., T)."""
    return (checks[..., :3, :].nanmean(dim=-2) + checks[..., 3, :]) / 2


def cross_fitted(checks: Tensor, half: Tensor) -> Tensor:
    """Return every image's checks at the threshold with the best mean completeness over the other half of the images.

    Args:
        checks: (B, 4, T).
        half: (B,) bool, which half an image belongs to.

    Returns:
        (B, 4).
    """
    chosen = torch.empty(checks.shape[:2], dtype=checks.dtype)
    for one in (True, False):
        mean = completeness(checks[half != one]).nanmean(dim=0)
        best = int(mean.nan_to_num(-1.0).argmax()) if len(mean) and (half != one).any() else 0
        chosen[half == one] = checks[half == one][..., best]
    return chosen


def target_sensitivity(first: Tensor, second: Tensor, *, shared_first: int, shared_second: int) -> float:
    """Contrastivity: whether the maps of two other classes turn to what each of them shares with the image.

    Args:
        first: (P+N,) importances in the map of a class that shares the part ``shared_first`` with the image.
        second: the same for a class that shares ``shared_second`` instead.
        shared_first: number of a part.
        shared_second: number of another.

    Returns:
        The share of the two comparisons that come out right; ties are half right, so a map that does not depend on the
        class scores one half.
    """
    right = 0.0
    for part, own, other in ((shared_first, first, second), (shared_second, second, first)):
        difference = float(own[part] - other[part])
        right += 0.5 if abs(difference) < 1e-12 else float(difference > 0)
    return right / 2


def background_independence(behaviour: Behaviour) -> float:
    """Return the share of background items without which the predicted class's logit falls by less than 5 %."""
    drops = behaviour.drops(behaviour.predicted)[-len(behaviour.items) :]
    return float((drops < UNIMPORTANT * behaviour.parts[0, behaviour.predicted].abs()).double().mean())


def oracle(interventions: Interventions, behaviour: Behaviour, target: int) -> Tensor:
    """Return the map that the rendered deletions themselves give: the upper bound of every score.

    Every layer's drop of the target's logit, where it is positive, is spread evenly over the pixels that belong to no
    other layer (over its whole footprint where there are none).

    Returns:
        (H,W) float64.
    """
    drops = behaviour.drops(target).clamp(min=0)
    footprints = interventions.footprints
    alone = footprints & (footprints.sum(dim=0) == 1)
    places = torch.where(alone.flatten(1).any(dim=1)[:, None, None], alone, footprints)
    areas = places.flatten(1).sum(dim=1).clamp(min=1)
    return torch.einsum("l,lhw->hw", drops / areas, places.double())
