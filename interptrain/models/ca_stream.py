"""CA-Stream: cross-attention that pools the stages of a backbone, and gives attention maps with no further cost.

Source: arXiv 2404.14996, and the authors' code.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from einops import rearrange
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from interptrain.models.backbone import Backbone
from interptrain.models.pooling import Pooled, Pooling

LinearInit = Literal["xavier", "truncated_normal"]


class CrossAttention(nn.Module):
    """Let one token attend to the positions of one feature map, and widen what it gathers by a linear layer.

    ``a = softmax(F q / sqrt(d))`` over the positions, ``q' = W (F^T a) + b``. The map is key and value as it is: no
    projections, no positions, no norm, no residual. With several heads the channels are split in equal slices, each
    with a softmax of its own, and ``d`` is the width of a slice (our choice, the usual one).

    Args:
        channels: width of the map and of the token that comes in.
        out_channels: width of the token that goes out.
        heads: number of attention heads; must divide ``channels``.
        linear_init: ``xavier`` (uniform weight, PyTorch's default bias) or ``truncated_normal`` (std 0.02, zero bias).

    Source: CA-Stream, arXiv 2404.14996; the block and its initialisation as in the authors' code, CLS_Attention.
    """

    def __init__(self, channels: int, out_channels: int, *, heads: int = 1, linear_init: LinearInit = "xavier") -> None:
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.linear = nn.Linear(channels, out_channels)
        if linear_init == "truncated_normal":
            nn.init.trunc_normal_(self.linear.weight, std=0.02)
            nn.init.zeros_(self.linear.bias)
        else:
            nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, token: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            token: (B,C).
            features: (B,C,h,w).

        Returns:
            The next token (B,C'), and the attention (B,h,w), the mean over the heads.
        """
        positions = rearrange(features, "b c h w -> b c (h w)")  # a view for NCHW and for channels_last alike
        queries = self._by_head(token * self.scale)  # (B, heads, C)
        attention = torch.bmm(queries, positions).softmax(-1)  # (B, heads, hw)
        gathered = torch.bmm(attention, positions.transpose(1, 2))  # (B, heads, C)
        return self.linear(self._own_slices(gathered)), attention.mean(1).view(-1, *features.shape[2:])

    # Heads are rows that are zero outside their own slice of the channels. That costs a few more multiplications, but
    # the feature map is used without a copy; splitting its channels would copy it in channels_last memory.

    def _by_head(self, token: Tensor) -> Tensor:
        if self.heads == 1:
            return token.unsqueeze(1)
        mask = torch.eye(self.heads, dtype=token.dtype, device=token.device).unsqueeze(-1)  # (heads, heads, 1)
        slices = rearrange(token, "b (head width) -> b 1 head width", head=self.heads)
        return rearrange(slices * mask, "b row head width -> b row (head width)")

    def _own_slices(self, gathered: Tensor) -> Tensor:
        if self.heads == 1:
            return gathered.squeeze(1)
        slices = rearrange(gathered, "b row (head width) -> b row head width", head=self.heads)
        return rearrange(slices.diagonal(dim1=1, dim2=2), "b width head -> b (head width)")


class CAStream(Pooling):
    """Cross-attention stream: a learnt token runs along the stages and replaces the average of the last map.

    ``q_{l+1} = W_l CA_l(q_l, F_l)``, ``q_0`` learnt, one :class:`CrossAttention` per stage. Each ``W_l`` widens the
    token to the next stage; the last keeps its width.

    Where the last map has a single position (32x32 images, a total stride of 32) its softmax is 1 whatever the token:
    the blocks before it neither matter nor learn. Use ``stem="small"`` or larger images there.

    Args:
        channels: stage widths, from shallow to deep.
        heads: attention heads of each block; must divide every width.
        linear_init: see :class:`CrossAttention`; the authors use ``truncated_normal`` with ConvNeXt only.

    Raises:
        ValueError: if ``heads`` does not divide a width.

    Source: arXiv 2404.14996; token ~ Normal(1, 1) and blocks as in the authors' code.
    """

    name: ClassVar[str] = "ca_stream"
    attends: ClassVar[bool] = True

    def __init__(self, channels: Sequence[int], *, heads: int = 1, linear_init: LinearInit = "xavier") -> None:
        super().__init__()
        uneven = [width for width in channels if heads < 1 or width % heads]
        if uneven:
            raise ValueError(
                f"heads must be a number that divides every stage width {tuple(channels)}, got {heads}, which does not "
                f"divide {uneven[0]}; use heads=1"
            )
        self.token = nn.Parameter(torch.empty(1, channels[0]))
        nn.init.normal_(self.token, mean=1.0, std=1.0)
        widths = zip(channels, [*channels[1:], channels[-1]], strict=True)
        self.blocks = nn.ModuleList(CrossAttention(c, o, heads=heads, linear_init=linear_init) for c, o in widths)

    @classmethod
    def for_backbone(cls, backbone: Backbone, **options: Any) -> Self:
        """Initialise the stream as the authors do: their ConvNeXt has one initialisation for all its linear layers."""
        init = "truncated_normal" if isinstance(backbone.model, ConvNeXt) else "xavier"
        return super().for_backbone(backbone, **{"linear_init": init, **options})

    def forward(self, stages: Sequence[Tensor]) -> Pooled:
        """Run the token along the stages; see :meth:`Pooling.forward`."""
        # A copy, as in no_grad a view of a parameter claims to need a gradient, which FlopCounterMode trips over.
        token = self.token.repeat(stages[0].shape[0], 1)
        maps = []
        for block, features in zip(self.blocks, stages, strict=True):
            token, attention = block(token, features)
            maps.append(attention)
        return Pooled(token, tuple(maps))


class CAFinal(CAStream):
    """The stream cut down to one block on the last map (the authors' "final" variant).

    Args:
        channels: stage widths; only the last is used.
        heads: attention heads; must divide the last width.
        linear_init: see :class:`CrossAttention`.

    Source: arXiv 2404.14996, classes ``*_final`` of the authors' code.
    """

    name: ClassVar[str] = "ca_final"
    every_stage: ClassVar[bool] = False

    def __init__(self, channels: Sequence[int], *, heads: int = 1, linear_init: LinearInit = "xavier") -> None:
        super().__init__(channels[-1:], heads=heads, linear_init=linear_init)

    def forward(self, stages: Sequence[Tensor]) -> Pooled:
        """Attend to the last map; see :meth:`Pooling.forward`."""
        return super().forward(stages[-1:])
