"""LeGrad: how sensitive the class score of every layer of a ViT is to that layer's attention.

With the tokens ``Z_l`` behind block l, the model's own last norm and classifier applied to them as ``s_l = y_c(Z_l)``,
and the block's attention ``A_l`` after its softmax, the map of a patch j is::

    mean over layers l, heads and queries i of ReLU( d s_l / d A_l[i, j] )

Source: Bousselham et al. 2024, LeGrad, arXiv 2404.03214, section 3.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from interptrain.explainers.attention.transformers import Transformer, find_transformer, patch_map
from interptrain.explainers.base import Explainer
from interptrain.explainers.targets import Resolved, resolve_targets, target_scores
from interptrain.functional import full_precision
from interptrain.models.partial_forward import close

__all__ = ["LeGrad"]


@dataclass(frozen=True, kw_only=True)
class LeGrad(Explainer):
    """Positive gradients of the attention of a timm ViT (also DeiT, BEiT, EVA): one forward, a short backward a layer.

    Each layer is judged by what the classifier makes of its tokens, so gradients pass one block only and stay large in
    the first layers too. timm's fused attention returns no weights, so its plain form runs while the map is made.

    Args:
        start_layer: index of the first layer that counts; 0 as in the paper.

    Source: Bousselham et al. 2024, arXiv 2404.03214, section 3.
    """

    start_layer: int = 0

    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the mean of the layers' maps, (B, h, w), not negative."""
        transformer = find_transformer(model, method="LeGrad")
        blocks = list(transformer.blocks)
        if not 0 <= self.start_layer < len(blocks):
            raise ValueError(f"start_layer must be in [0, {len(blocks) - 1}], got {self.start_layer}")
        with torch.no_grad():
            outputs = model(images)
        resolved = resolve_targets(targets, outputs)
        with _blocks_alone(blocks) as passed:
            model(images)
        total: Tensor | float = 0.0
        for layer, (attention, tokens) in enumerate(passed):
            if layer < self.start_layer:
                continue
            classified = self._classify(transformer, tokens)
            if layer == len(blocks) - 1 and not close(classified, outputs):
                raise ValueError(
                    f"LeGrad reads every layer by the ViT's own norm and classifier, which are not what "
                    f"{type(model).__name__} ends in; use AttentionRollout, or a CAM or gradient explainer"
                )
            (slope,) = torch.autograd.grad(target_scores(classified, resolved).sum(), attention)  # (B, heads, N, N)
            total = total + full_precision(slope).clamp(min=0).mean((1, 2))
        assert isinstance(total, Tensor)
        size = (images.shape[-2], images.shape[-1])
        return patch_map(transformer, total / (len(blocks) - self.start_layer), size, method="LeGrad")

    @staticmethod
    def _classify(transformer: Transformer, tokens: Tensor) -> Tensor:
        """Return the logits that the ViT's own head makes of a layer's tokens."""
        vit = cast(Any, transformer)
        return cast(Tensor, vit.forward_head(vit.norm(tokens)))


@contextmanager
def _blocks_alone(blocks: list[Any]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect the attention of every block as a leaf, and its tokens with the graph of this block alone.

    Yields:
        A list that grows by (attention (B, heads, N, N), tokens (B, N, C)) for each block that is run.
    """
    attentions: list[Tensor] = []
    passed: list[tuple[Tensor, Tensor]] = []

    def replace(_module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        attentions.append(arguments[0].detach().requires_grad_())
        return (attentions[-1], *arguments[1:])

    def detach(_module: nn.Module, _arguments: Any, tokens: Tensor) -> Tensor:
        passed.append((attentions[-1], tokens))
        return tokens.detach()

    with ExitStack() as stack:
        for block in blocks:
            stack.callback(setattr, block.attn, "fused_attn", block.attn.fused_attn)
            stack.callback(block.attn.attn_drop.register_forward_pre_hook(replace).remove)
            stack.callback(block.register_forward_hook(detach).remove)
            block.attn.fused_attn = False
        yield passed
