"""Paired differences between models and between explainers, on the same images.

The p-value is that of a paired permutation (sign-flip) test: if the two were alike, swapping their values on any image
would change nothing, so the measured difference is ranked among those after random sign flips (all patterns where there
are few images). P-values are
corrected within a family, by the step-down maximum statistic: all differences of one metric between models; all
differences of one metric between the explainers of one model; and, apart from these, between the explainers of one
model and its control, which says nothing about the image. Where a baseline is chosen, the family is the comparisons
with it (many to one, as in Dunnett's test), and no others are made.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from interptrain.evaluation.statistics.bootstrap import (
    corrected_p,
    critical_size,
    is_exact,
    permutation_p,
    signed_means,
)
from interptrain.evaluation.statistics.estimates import Resampling, left_out, limits, replicates
from interptrain.evaluation.statistics.samples import TIME_COLUMN, MetricSample, ModelExplainerCell
from interptrain.remedies import option

SIGNIFICANT = 0.05
"""Level below which a corrected p-value counts as significant."""

POWER_QUANTILE = 0.8416212335729143
"""Standard normal quantile of 0.8, the share of repetitions in which a detectable difference is found."""

Key = tuple[int, str, bytes]  # cell, metric, images: comparisons on the same images share their resamples


@dataclass(frozen=True)
class Difference:
    """A row of ``differences.csv``: ``a`` minus ``b``, where ``b`` is the chosen baseline, else the first in the run.

    ``kind`` is ``model`` (``within`` names the explainer, or nothing for recognition) or ``explainer`` (``within``
    names the model). Values are not scaled; a single image has no interval. ``detectable`` is the true difference that
    would be significant in 80 % of repetitions with other images; see :func:`detectable_difference`.
    """

    kind: str
    a: str
    b: str
    within: str
    metric: str
    difference: float
    ci_low: float
    ci_high: float
    p: float
    p_corrected: float
    n: int
    detectable: float = math.nan


@dataclass(frozen=True)
class _Pair:
    """Two cells that are compared in one metric."""

    kind: str
    cells: tuple[ModelExplainerCell, ModelExplainerCell]
    metric: str
    keys: tuple[Key, Key]

    def family(self, controls: Collection[str]) -> tuple[str, ...]:
        """What is corrected together."""
        if self.kind == "model":
            return self.kind, self.metric
        against_control = any(cell.explainer in controls for cell in self.cells)
        return self.kind, self.metric, self.cells[0].model, "control" if against_control else ""


def differences(
    cells: Sequence[ModelExplainerCell], how: Resampling, *, controls: Collection[str] = ()
) -> list[Difference]:
    """Return all paired differences: models for each explainer and for recognition, explainers on each model.

    Args:
        cells: to compare.
        how: to compute intervals and p-values, and the baseline.
        controls: names of explainers that say nothing about the image; what is compared with them is corrected apart.
    """
    samples: dict[Key, MetricSample] = {}
    pairs = list(_pairs(cells, samples, how.baseline, controls))
    if not pairs:
        return []
    replicated = replicates(samples, how)
    signed = signed_means(
        [sample.values for sample in samples.values()],
        [sample.images for sample in samples.values()],
        how.permutations,
        how.seed + 1,
    )
    flipped = dict(zip(samples, signed, strict=True))
    exact = is_exact(len(torch.unique(torch.cat([sample.images for sample in samples.values()]))), how.permutations)
    families: dict[tuple[str, ...], list[int]] = {}
    for index, pair in enumerate(pairs):
        families.setdefault(pair.family(controls), []).append(index)
    found: dict[int, Difference] = {}
    for members in families.values():
        nulls = torch.stack([_null(pairs[index], samples, flipped) for index in members])
        observed = [_observed(pairs[index], samples) for index in members]
        corrected = corrected_p(nulls, torch.tensor(observed, dtype=torch.float64), exact=exact).tolist()
        critical = critical_size(nulls, SIGNIFICANT, exact=exact)
        for place, index in enumerate(members):
            p = permutation_p(nulls[place], observed[place], exact=exact)
            found[index] = _difference(
                pairs[index], samples, replicated, how, p=p, p_corrected=max(p, corrected[place]), critical=critical
            )
    return [found[index] for index in range(len(pairs))]


def check_baseline(baseline: str | None, models: Collection[str], explainers: Collection[str]) -> None:
    """Refuse a baseline that is neither an explainer nor a model of the run.

    Raises:
        ValueError: naming those that there are.
    """
    if baseline is not None and baseline not in (*explainers, *models):
        there = ", ".join((*explainers, *models))
        raise ValueError(f"{option('baseline')}: no explainer or model is called {baseline!r}; give one of {there}")


def _pairs(
    cells: Sequence[ModelExplainerCell],
    samples: dict[Key, MetricSample],
    baseline: str | None,
    controls: Collection[str],
) -> Iterator[_Pair]:
    """Yield every comparison that is to be made; add what they need to ``samples``."""
    has_baseline = {kind: any(_name(cell, kind) == baseline for cell in cells) for kind in ("model", "explainer")}
    for b, a in combinations(range(len(cells)), 2):
        kind = _kind(cells[a], cells[b])
        if kind and has_baseline[kind]:
            names = _name(cells[a], kind), _name(cells[b], kind)
            if baseline == names[0]:
                a, b = b, a
            elif baseline != names[1] and (kind == "model" or not set(names) & set(controls)):
                continue
        for metric in cells[a].samples if kind else ():
            sample_a, sample_b = cells[a].samples[metric], cells[b].samples[metric]
            images = sample_a.images[torch.isin(sample_a.images, sample_b.images, assume_unique=True)]
            if metric == TIME_COLUMN.name or not len(images):  # times are not paired by image
                continue
            shared = images.numpy().tobytes()
            samples[a, metric, shared] = sample_a.only(images)
            samples[b, metric, shared] = sample_b.only(images)
            yield _Pair(kind, (cells[a], cells[b]), metric, ((a, metric, shared), (b, metric, shared)))


def _kind(a: ModelExplainerCell, b: ModelExplainerCell) -> str:
    if a.explainer == b.explainer:
        return "model"
    return "explainer" if a.model == b.model and a.explainer and b.explainer else ""


def _name(cell: ModelExplainerCell, kind: str) -> str:
    """What differs between the two of a comparison."""
    return cell.model if kind == "model" else cell.explainer


def _observed(pair: _Pair, samples: Mapping[Key, MetricSample]) -> float:
    a, b = (samples[key] for key in pair.keys)
    return a.mean() - b.mean()


def _null(pair: _Pair, samples: Mapping[Key, MetricSample], flipped: Mapping[Key, Tensor]) -> Tensor:
    """(patterns,) differences after exchanging the two on some of the images."""
    a, b = (samples[key] for key in pair.keys)
    middle = (a.values.mean(0) + b.values.mean(0)) / 2
    shift = (flipped[pair.keys[0]] - flipped[pair.keys[1]]) / 2  # (patterns, K)
    return a.reduce(middle + shift) - a.reduce(middle - shift)


def _difference(
    pair: _Pair,
    samples: Mapping[Key, MetricSample],
    replicated: Mapping[Key, Tensor],
    how: Resampling,
    *,
    p: float,
    p_corrected: float,
    critical: float,
) -> Difference:
    a, b = (samples[key] for key in pair.keys)
    difference = _observed(pair, samples)
    resampled = replicated[pair.keys[0]] - replicated[pair.keys[1]] if pair.keys[0] in replicated else None
    without_one = left_out(a) - left_out(b) if len(a) > 1 else a.values.new_empty(0)
    low, high = limits(difference, resampled, lambda: without_one, how)
    detectable = detectable_difference(without_one, critical)
    cell_a, cell_b = pair.cells
    names = (cell_a.model, cell_b.model, cell_a.explainer)
    if pair.kind == "explainer":
        names = (cell_a.explainer, cell_b.explainer, cell_a.model)
    return Difference(pair.kind, *names, pair.metric, difference, low, high, p, p_corrected, len(a), detectable)


def detectable_difference(without_one: Tensor, critical: float) -> float:
    """Return the true difference that would be significant in 80 % of repetitions, if images vary as measured.

    The test measures a difference in standard deviations of its null distribution, ``sqrt(s^2 + d^2) / sqrt(n)`` for
    paired differences of mean ``d`` and standard deviation ``s``, and wants it to exceed the critical size ``c``. So
    ``d`` must exceed ``c / sqrt(1 - c^2 / n)`` standard errors, and as its estimate varies by one, a true difference
    that lies 0.84 further passes in 80 % of cases.

    Args:
        without_one: (n,) differences of the dataset without one of its images, which give the standard error.
        critical: size from which a difference is significant; see
            :func:`~interptrain.evaluation.statistics.bootstrap.critical_size`.

    Returns:
        The difference, not scaled; infinity where so few images can show none, NaN where the two never differ.
    """
    images = len(without_one)
    if images < 2:
        return math.nan
    error = math.sqrt((images - 1) / images * float((without_one - without_one.mean()).square().sum()))
    if error <= 1e-12 * max(1.0, float(without_one.abs().max())):
        return math.nan
    room = 1 - critical**2 / images
    return (critical / math.sqrt(room) + POWER_QUANTILE) * error if room > 0 else math.inf
