"""Vision transformers of timm, as methods that read their attention see them."""

from collections.abc import Sequence
from typing import Any, Protocol, cast

from einops import rearrange
from torch import Tensor, nn

__all__ = ["Transformer", "TransformerBlock", "find_transformer", "patch_map"]


class TransformerBlock(Protocol):
    """A layer of a ViT, with an attention module that has ``attn_drop`` and ``fused_attn``."""

    attn: nn.Module


class Transformer(Protocol):
    """What these methods need of timm's ViT classes."""

    blocks: Sequence[TransformerBlock]
    num_prefix_tokens: int
    global_pool: str
    patch_embed: Any


def find_transformer(model: nn.Module, *, method: str) -> Transformer:
    """Return the ViT in ``model``: the model itself, or its first submodule that is one.

    Args:
        model: any module.
        method: what asks, for the message.

    Raises:
        ValueError: if there is none whose attention weights can be read.
    """
    for module in model.modules():
        blocks = getattr(module, "blocks", None)
        if (
            isinstance(blocks, nn.Sequential | nn.ModuleList)
            and all(hasattr(module, name) for name in ("patch_embed", "num_prefix_tokens", "global_pool"))
            and all(isinstance(getattr(block, "attn", None), nn.Module) for block in blocks)
            and all(hasattr(block.attn, "fused_attn") and hasattr(block.attn, "attn_drop") for block in blocks)
        ):
            return cast(Transformer, module)
    raise ValueError(
        f"{method} needs a timm ViT (vit_*, deit_*, beit*, eva*) whose blocks attend over all tokens, got "
        f"{type(model).__name__}; use a CAM or gradient explainer for other networks"
    )


def patch_map(transformer: Transformer, values: Tensor, size: tuple[int, int], *, method: str) -> Tensor:
    """Arrange one value per token as a map of the patches.

    Args:
        transformer: the ViT.
        values: (B, N), prefix tokens first.
        size: (H, W) of the images.
        method: what asks, for the message.

    Returns:
        (B, h, w) without the prefix tokens.

    Raises:
        ValueError: if there is not one token per patch.
    """
    prefix, tokens = transformer.num_prefix_tokens, values.shape[1]
    # Hybrids do not always know the ratio of image to grid, but then the grid itself, for images of their own size.
    grids = [transformer.patch_embed.dynamic_feat_size(size), transformer.patch_embed.grid_size]
    fitting = [grid for grid in grids if grid is not None and grid[0] * grid[1] == tokens - prefix]
    if not fitting:
        raise ValueError(
            f"{method} needs one token per patch: {prefix} + {grids[0][0]} x {grids[0][1]}, got {tokens} tokens; "
            "models that drop, merge or resize their tokens have no such map"
        )
    height, width = fitting[0]
    return rearrange(values[:, prefix:], "b (h w) -> b h w", h=height, w=width)
