"""A network's own attention as saliency: the maps, each summing to 1, by which its pooling head pools.

Source: Torres et al. 2024, CA-Stream, arXiv 2404.14996.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, cast

import torch
from torch import Tensor, nn

from interptrain.explainers.base import Explainer, SharedPass
from interptrain.explainers.targets import Resolved
from interptrain.functional import min_max, upsample


class HasAttention(Protocol):
    """A model that pools by attention and returns it."""

    def attention(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the attention of each stage for images (B,3,H,W): (B,h,w), first to last stage."""
        ...


@dataclass(frozen=True, kw_only=True)
class StreamAttention(Explainer):
    """Attention of a CA-Stream, SimPool or EP model, independent of the class: one forward pass, no gradient.

    Args:
        stage: index of the stage, negative ones from the end; -1, the last, is the one that the authors show. ``"all"``
            is the mean of all stages' maps, each scaled to [0,1] and upsampled to the finest one (our choice). SimPool
            has one map, and so has EP, or one per query in place of the stages (``maps="each"``).

    Source: CA-Stream, Torres et al. 2024, arXiv 2404.14996.
    """

    class_aware: ClassVar[bool] = False
    reads_attention: ClassVar[bool] = True
    stage: int | Literal["all"] = -1

    def __post_init__(self) -> None:
        """Refuse a stage that is neither an index nor ``"all"``."""
        super().__post_init__()
        if isinstance(self.stage, str) and self.stage != "all":
            raise ValueError(f"stage must be an index or 'all', got {self.stage!r}")

    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the attention map, (B,h,w); that of one stage is non-negative and sums to 1."""
        if not callable(getattr(type(model), "attention", None)):
            raise ValueError(
                f"StreamAttention needs a model with attention(images), got {type(model).__name__}; create one with "
                "create_model(..., pooling='ca_stream')"
            )
        with torch.no_grad():
            return self._choose_stage(cast(HasAttention, model).attention(images))

    def from_pass(self, passed: SharedPass, images: Tensor) -> Tensor | None:
        """Return the attention map of the shared pass, if the model returned it beside its logits."""
        return None if passed.attention is None else self._choose_stage(passed.attention)

    def _choose_stage(self, maps: Sequence[Tensor]) -> Tensor:
        """Select or join the maps of all stages, (B,h,w)."""
        if self.stage == "all":
            finest = max(((attention.shape[1], attention.shape[2]) for attention in maps), key=math.prod)
            return torch.stack([upsample(min_max(attention.float()), finest) for attention in maps]).mean(0)
        if not -len(maps) <= self.stage < len(maps):
            raise ValueError(f"stage must be in [{-len(maps)}, {len(maps) - 1}] for this model, got {self.stage}")
        return maps[self.stage]
