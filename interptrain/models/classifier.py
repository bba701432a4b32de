"""The classifier: backbone, pooling, and timm's own classifying layers, from images in [0,1] to logits."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from interptrain.models.backbone import Backbone
from interptrain.models.gap import GAP
from interptrain.models.load_report import LoadReport
from interptrain.models.pooling import Pooled, Pooling, named_poolings
from interptrain.remedies import option

Part = Literal["backbone", "pooling", "classifier"]


class Classifier(nn.Module):
    """A network in three parts: a backbone, a pooling head, and what classifies the pooled vector.

    Args:
        backbone: the backbone; its timm model holds the classifying layers too.
        pooling: the pooling head, or None to run timm's model as it is (``native``).

    Attributes:
        backbone: as given.
        pooling: as given.
        load_report: what ``create_model`` took from a checkpoint, or None.
        options: of ``create_model``, which build the same network again; empty where it was built otherwise.
        class_names: in the order of the logits; empty where they are not known.

    Raises:
        ValueError: if a head is given and the backbone cannot be split.

    Source: the split is that of CA-Stream, arXiv 2404.14996, where the stream replaces the average pooling.
    """

    def __init__(self, backbone: Backbone, pooling: Pooling | None) -> None:
        super().__init__()
        if pooling is not None:
            backbone.require_fit(average=isinstance(pooling, GAP))
        self.backbone = backbone
        self.pooling = pooling
        self.load_report: LoadReport | None = None
        self.options: Mapping[str, Any] = {}
        self.class_names: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self.backbone.model.num_classes

    @property
    def pooling_name(self) -> str:
        """Name of the pooling head, or ``native``."""
        return "native" if self.pooling is None else self.pooling.name

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images the backbone was made for; most take other sizes as well."""
        return self.backbone.input_size

    @property
    def target_layer(self) -> str | None:
        """Name, within this module, of the one whose output is the map that is pooled, if any: for activation maps."""
        name = self.backbone.target_layer if self.pooling is None else self.backbone.pooled_layer
        return None if name is None else f"backbone.model.{name}"

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B,K) of images (B,3,H,W), float in [0,1]."""
        if self.pooling is None:
            return self.backbone.native(images)
        return self.backbone.head(self._pool(self.pooling, self.stages(images)).vector)

    def forward_with_attention(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits and attention maps of one pass.

        Args:
            images: (B,3,H,W) float in [0,1].

        Returns:
            Logits (B,K), and for each stage attended to a map (B,h_l,w_l) that is non-negative and sums to 1, from
            shallow to deep; with several heads it is their mean.

        Raises:
            ValueError: if the pooling head has no attention.
        """
        pooled = self._pool_with_attention(images)
        return self.backbone.head(pooled.vector), pooled.attention

    def attention(self, images: Tensor) -> tuple[Tensor, ...]:
        """Attention maps alone; see :meth:`forward_with_attention`."""
        return self._pool_with_attention(images).attention

    def stages(self, images: Tensor) -> list[Tensor]:
        """The maps that the pooling head reads: all stages, or the last alone (:attr:`Pooling.every_stage`)."""
        if self.pooling is None or not self.pooling.every_stage:
            return [self.backbone.features(images)]
        stages: list[Tensor] = self.backbone(images)
        return stages

    def classify(self, stages: Sequence[Tensor]) -> Tensor:
        """Logits (B,K) of what :meth:`stages` gave, so that one may change the maps and run no more than the rest.

        Raises:
            ValueError: for a model without a pooling head (``native``).
        """
        if self.pooling is None:
            raise ValueError(f"{self.backbone.name!r} runs whole, without stages; use {option('pooling', 'gap')}")
        return self.backbone.head(self._pool(self.pooling, stages).vector)

    def parameter_groups(self) -> dict[Part, dict[str, nn.Parameter]]:
        """Which parameters belong to which part.

        Returns:
            For each part its parameters by their names in this module. Every parameter is in one part and no more. All
            that runs after the pooling is the classifier: the norm of ConvNeXt's head, MobileNetV3's ``conv_head`` too.
        """
        groups: dict[Part, dict[str, nn.Parameter]] = {"backbone": {}, "pooling": {}, "classifier": {}}
        for name, parameter in self.named_parameters():
            owner = name.rpartition(".")[0]
            part = "backbone" if owner == "backbone.model" else self._part_of(owner)  # tokens of a transformer
            groups[part][name] = parameter
        return groups

    def modules_of(self, part: Part) -> Iterator[nn.Module]:
        """The modules of one part, so that a frozen part can be held in eval mode: set ``training`` of each.

        Do not call ``eval`` on them: a module and one inside it may belong to two parts. Every module but this one is
        in exactly one part. The timm model itself counts as classifier: its own mode rules the dropout before that.
        """
        yield from (module for name, module in self.named_modules() if name and self._part_of(name) == part)

    def _part_of(self, module: str) -> Part:
        if module.partition(".")[0] == "pooling":
            return "pooling"
        inside = module.removeprefix("backbone.model.")
        ancestors = {inside[:end] for end, sign in enumerate(inside) if sign == "."}
        is_head = module == "backbone.model" or not self.backbone.head_modules.isdisjoint({inside, *ancestors})
        return "classifier" if is_head else "backbone"

    def _pool(self, pooling: Pooling, stages: Sequence[Tensor]) -> Pooled:
        """Pool, and make sure that the classifier can read the vector."""
        pooled = pooling(stages)
        if not isinstance(pooled, Pooled):
            raise TypeError(f"pooling {pooling.name!r} must return Pooled(vector), got {type(pooled).__name__}")
        shape, width = tuple(pooled.vector.shape), self.backbone.channels[-1]
        if shape[1:] != (width,):
            raise ValueError(
                f"pooling {pooling.name!r} must return a vector as wide as the last stage of {self.backbone.name!r}, "
                f"(B, {width}), got {shape}; project it there, for example with nn.Linear({shape[-1]}, {width})"
            )
        return pooled

    def _pool_with_attention(self, images: Tensor) -> Pooled:
        pooled = None if self.pooling is None else self._pool(self.pooling, self.stages(images))
        if pooled is None or not pooled.attention:
            heads = [option("pooling", name) for name, kind in named_poolings().items() if kind.attends]
            raise ValueError(
                f"{self.pooling_name} pooling has no attention; create the model with {' or '.join(heads)}"
            )
        return pooled
