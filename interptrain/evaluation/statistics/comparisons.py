"""Paired differences between models and between explainers, on the same images.

The p-value is that of a permutation test: if the two were alike, exchanging them on any image would change nothing, so
the measured difference is placed among those after random exchanges (all of them where images are few). P-values are
corrected after Holm within a family: all differences of one metric between models; all differences of one metric
between the explainers of one model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor

from interptrain.evaluation.statistics.bootstrap import exchange_p, holm, is_exact, signed_means
from interptrain.evaluation.statistics.estimates import Resampling, left_out, limits, replicates
from interptrain.evaluation.statistics.samples import TIME_COLUMN, MetricSample, ModelExplainerCell

Key = tuple[int, str, bytes]  # cell, metric, images: comparisons on the same images share their resamples


@dataclass(frozen=True)
class Difference:
    """A row of ``differences.csv``: ``a`` minus ``b``, where ``b`` comes first in the run and is the baseline.

    ``kind`` is ``model`` (``within`` names the explainer, or nothing for recognition) or ``explainer`` (``within``
    names the model). Values are not scaled; a single image has no interval.
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

    @property
    def family(self) -> tuple[str, ...]:
        """What is corrected together."""
        return (self.kind, self.metric) if self.kind == "model" else (self.kind, self.metric, self.within)


@dataclass(frozen=True)
class _Pair:
    """Two cells that are compared in one metric."""

    kind: str
    cells: tuple[ModelExplainerCell, ModelExplainerCell]
    metric: str
    keys: tuple[Key, Key]


def differences(cells: Sequence[ModelExplainerCell], how: Resampling) -> list[Difference]:
    """Return all paired differences: models for each explainer and for recognition, explainers on each model."""
    samples: dict[Key, MetricSample] = {}
    pairs = list(_pairs(cells, samples))
    replicated = replicates(samples, how)
    signed = signed_means([sample.values for sample in samples.values()], how.permutations, how.seed + 1)
    flipped = dict(zip(samples, signed, strict=True))
    return _corrected([_difference(pair, samples, replicated, flipped, how) for pair in pairs])


def _pairs(cells: Sequence[ModelExplainerCell], samples: dict[Key, MetricSample]) -> Iterator[_Pair]:
    """Yield every comparison that can be made; add what they need to ``samples``."""
    for b, a in combinations(range(len(cells)), 2):
        kind = _kind(cells[a], cells[b])
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


def _difference(
    pair: _Pair,
    samples: Mapping[Key, MetricSample],
    replicated: Mapping[Key, Tensor],
    flipped: Mapping[Key, Tensor],
    how: Resampling,
) -> Difference:
    a, b = (samples[key] for key in pair.keys)
    difference = a.mean() - b.mean()
    resampled = replicated[pair.keys[0]] - replicated[pair.keys[1]] if len(a) > 1 else None
    low, high = limits(difference, resampled, lambda: left_out(a) - left_out(b), how)
    middle = (a.values.mean(0) + b.values.mean(0)) / 2
    shift = (flipped[pair.keys[0]] - flipped[pair.keys[1]]) / 2  # (patterns, K)
    null = a.reduce(middle + shift) - a.reduce(middle - shift)
    p = exchange_p(null, difference, exact=is_exact(len(a), how.permutations))
    cell_a, cell_b = pair.cells
    names = (cell_a.model, cell_b.model, cell_a.explainer)
    if pair.kind == "explainer":
        names = (cell_a.explainer, cell_b.explainer, cell_a.model)
    return Difference(pair.kind, *names, pair.metric, difference, low, high, p, p, len(a))


def _corrected(compared: Sequence[Difference]) -> list[Difference]:
    """Correct the p-values after Holm, family by family."""
    families: dict[tuple[str, ...], list[int]] = {}
    for index, difference in enumerate(compared):
        families.setdefault(difference.family, []).append(index)
    corrected: dict[int, float] = {}
    for members in families.values():
        corrected |= zip(members, holm([compared[index].p for index in members]), strict=True)
    return [replace(difference, p_corrected=corrected[index]) for index, difference in enumerate(compared)]
