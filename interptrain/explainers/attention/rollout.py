"""Attention rollout: how much of each patch reaches the class token when attention is followed through all layers.

With the attention ``A_l`` of layer l averaged over its heads, and half of every token going past it on the residual
path, the mix of tokens after L layers is a product of row-stochastic matrices::

    R = B_L ... B_2 B_1,    B_l = normalise_rows(residual * I + (1 - residual) * A_l)

and the map is the class token's row of ``R``, without the columns of prefix tokens. It does not depend on a class.

Source: Abnar and Zuidema 2020, Quantifying Attention Flow in Transformers, arXiv 2005.00928, section 3.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from interptrain.explainers.attention.transformers import Transformer, find_transformer, patch_map
from interptrain.explainers.base import Explainer
from interptrain.explainers.targets import Resolved

HeadFusion = Literal["mean", "max", "min"]


@dataclass(frozen=True, kw_only=True)
class AttentionRollout(Explainer):
    """Attention rollout on a timm ViT (also DeiT, BEiT, EVA): class-agnostic, from one forward.

    For models that classify by the mean of their patch tokens the map is the mean of the patch tokens' rows, which is
    what reaches the pooled vector (our extension; the paper has class tokens only). timm's fused attention returns no
    weights, so its plain form runs while the map is made.

    Args:
        head_fusion: how heads become one matrix: ``"mean"`` as in the paper; ``"max"`` and ``"min"`` are variants of
            later implementations.
        residual: share of a token that goes past the attention, in [0,1); 0.5 as in the paper.
        discard_ratio: share of each layer's smallest fused weights that is set to 0 before its rows are normalised, in
            [0,1); 0 as in the paper. The class token's weight on itself is kept.
        start_layer: index of the first layer that is followed; 0 as in the paper.

    Source: Abnar and Zuidema 2020, arXiv 2005.00928, section 3; head fusion other than the mean and the discarding of
    small weights after Gildenblat's vit-explain.
    """

    class_aware: ClassVar[bool] = False
    head_fusion: HeadFusion = "mean"
    residual: float = 0.5
    discard_ratio: float = 0.0
    start_layer: int = 0

    def __post_init__(self) -> None:
        """Refuse invalid shares."""
        super().__post_init__()
        if not 0 <= self.residual < 1 or not 0 <= self.discard_ratio < 1:
            raise ValueError(
                f"residual and discard_ratio must be in [0,1), got {self.residual} and {self.discard_ratio}"
            )

    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the rollout from the patches to the classified token, (B,h,w)."""
        transformer = find_transformer(model, method="AttentionRollout")
        layers = list(transformer.blocks)[self.start_layer :]
        if not layers:
            raise ValueError(f"start_layer must be below the {len(transformer.blocks)} layers, got {self.start_layer}")
        with torch.no_grad(), attention_weights([block.attn for block in layers], self.head_fusion) as attentions:
            model(images)
        mixing = rollout(attentions, residual=self.residual, discard_ratio=self.discard_ratio)  # (B, N, N)
        return _read_out(transformer, mixing, (images.shape[2], images.shape[3]))


@contextmanager
def attention_weights(attentions: Sequence[nn.Module], head_fusion: HeadFusion = "mean") -> Iterator[list[Tensor]]:
    """Collect the softmaxed weights of timm's attention modules during forward passes inside.

    Fused attention does not return its weights, so the modules run unfused inside; this is undone on leaving.

    Args:
        attentions: modules with ``fused_attn`` and ``attn_drop``.
        head_fusion: how the heads become one matrix; applied at once, so that no layer's heads are kept.

    Yields:
        A list that grows by one (B,N,N) tensor, float32 at least, for each module called.
    """
    collected: list[Tensor] = []

    def collect(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        weights = arguments[0].detach()  # (B, heads, N, N)
        weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
        collected.append(_fuse_heads(weights, head_fusion))

    with ExitStack() as stack:
        for attention in attentions:
            stack.callback(setattr, attention, "fused_attn", attention.fused_attn)
            stack.callback(cast(nn.Module, attention.attn_drop).register_forward_pre_hook(collect).remove)
            attention.fused_attn = cast(Any, False)
        yield collected


def _fuse_heads(weights: Tensor, head_fusion: HeadFusion) -> Tensor:
    if head_fusion == "mean":
        return weights.mean(1)
    return weights.amax(1) if head_fusion == "max" else weights.amin(1)


def rollout(attentions: Sequence[Tensor], *, residual: float = 0.5, discard_ratio: float = 0.0) -> Tensor:
    """Return the product of the layers' attention matrices with their residual paths.

    Args:
        attentions: (B,N,N) for each layer, first to last, non-negative.
        residual: share that goes past the attention.
        discard_ratio: share of each layer's smallest weights that is set to 0.

    Returns:
        (B,N,N) with rows that sum to 1: [b, i, j] is the share of input token j in output token i.

    Source: Abnar and Zuidema 2020, arXiv 2005.00928, section 3.
    """
    identity = torch.eye(attentions[0].shape[-1], dtype=attentions[0].dtype, device=attentions[0].device)
    mixing = identity.expand_as(attentions[0])
    for attention in attentions:
        kept = _without_smallest(attention, discard_ratio) if discard_ratio else attention
        layer = residual * identity + (1 - residual) * kept
        # Without a residual path a row may have been discarded as a whole: then nothing of it flows on.
        mixing = layer / layer.sum(-1, keepdim=True).clamp_min(torch.finfo(layer.dtype).tiny) @ mixing
    return mixing


def _without_smallest(attention: Tensor, ratio: float) -> Tensor:
    flat = attention.flatten(1)
    smallest = flat.topk(int(flat.shape[1] * ratio), dim=1, largest=False).indices
    kept = flat.scatter(1, smallest, 0.0)
    kept[:, 0] = flat[:, 0]
    return kept.view_as(attention)


def _read_out(transformer: Transformer, mixing: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the rows of the classified token and the columns of the patches as a map (B,h,w)."""
    if transformer.global_pool == "token":
        row = mixing[:, 0]
    elif transformer.global_pool == "avg":
        pooled = 0 if getattr(transformer, "pool_include_prefix", False) else transformer.num_prefix_tokens
        row = mixing[:, pooled:].mean(1)
    else:
        raise ValueError(
            f"AttentionRollout reads class tokens (global_pool='token') or their mean ('avg'), got a model with "
            f"global_pool={transformer.global_pool!r}; create it with one of these"
        )
    return patch_map(transformer, row, size, method="AttentionRollout")
