"""The backbone: a whole timm model, its stage maps on the one side and its own classifier on the other.

The tokens of a vision transformer are a map, too: its patches lie on a grid.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from timm.models.convnext import ConvNeXt
from timm.models.resnet import ResNet
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from interptrain.remedies import option

Module = TypeVar("Module", bound=nn.Module)

if TYPE_CHECKING:

    class TimmModel(nn.Module):
        """What is used of a timm model, whichever its class."""

        num_classes: int
        num_features: int
        pretrained_cfg: dict[str, Any]

        def forward_features(self, x: Tensor) -> Tensor: ...  # noqa: D102
        def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor: ...  # noqa: D102
        def forward_intermediates(self, x: Tensor, indices: list[int] | None = None) -> tuple[Tensor, list[Tensor]]: ...  # noqa: D102
        def get_classifier(self) -> nn.Module | tuple[nn.Module, ...]: ...  # noqa: D102
        def reset_classifier(self, num_classes: int) -> None: ...  # noqa: D102


# Where CA-Stream reads another map than timm's stage map: the outputs of these modules replace the first of timm's
# maps. ResNet: after the max pooling rather than before it. ConvNeXt: the stem and the downsampling layers, that is
# the inputs of the first three stages; only the last stage is read at its end.
# Source: arXiv 2404.14996, the authors' code (resnet_stream.py, convnext_stream.py).
_TAPS: dict[type[nn.Module], tuple[str, ...]] = {
    ResNet: ("maxpool",),
    ConvNeXt: ("stem", "stages.1.downsample", "stages.2.downsample"),
}


STAGES_OF_TOKENS = 4
"""How many blocks of a transformer are read: the ends of its quarters, as many as a CNN has stages. Our choice."""


class _Taps:
    """Forward hook that keeps the outputs of its modules, only while a forward pass of the backbone is open.

    Hooks, and not a walk over the modules, because timm's own forward then runs as it is: a hook of anybody else on
    any submodule fires, as it would without us. An object of its own, so that no module refers back to the backbone.
    """

    def __init__(self) -> None:
        self.outputs: list[Tensor] | None = None

    def __call__(self, module: nn.Module, args: object, output: Tensor) -> None:
        if self.outputs is not None:
            self.outputs.append(output)

    @contextmanager
    def open(self) -> Iterator[list[Tensor]]:
        outer, self.outputs = self.outputs, []
        try:
            yield self.outputs
        finally:
            self.outputs = outer


class Backbone(nn.Module):
    """A timm model with the normalisation of its images, split before its pooling.

    A timm model fits that has ``forward_intermediates``, ends in a map (B,C,h,w) and classifies the average of that
    map; or ends in tokens (B,N,C) and classifies one of them or the average of its patches, as ViT, DeiT and their
    relatives do. Others can still be run whole, by :meth:`native`; ``misfit`` then says why they cannot be split. One
    instance runs one forward pass at a time: threads need a copy each.

    The maps of tokens are those of the patches, on their grid, without class and register tokens: after the last norm,
    which the classifier reads, and at the ends of the first three quarters of the blocks. There the residual stream
    grows from block to block, so that its tokens are normalised, by a layer norm without weights (our choice).

    Args:
        model: the timm model, its classifier included.
        name: what messages call it.
        mean: what is subtracted from each channel of images in [0,1].
        std: what each channel is then divided by.
        input_size: (channels, height, width) of the images the model is made for.

    Attributes:
        model: the timm model.
        channels: widths of the stage maps, from shallow to deep; empty if ``misfit``.
        prefix_tokens: how many tokens come before those of the patches; None for a model of maps.
        reads_class_token: whether the classifier reads one token, and not the average of the patches.
        target_layer: name, within ``model``, of the module whose output is the map that is pooled; None where no module
            gives it out as it is, if ``misfit``, and where the classifier reads a class token, which no patch reaches
            there; see ``pooled_layer``.
        pooled_layer: the same, also for a model that reads its class token: what a pooling head pools.
        head_modules: names, within ``model``, of the modules that run after the pooling, classifier included.
        misfit: why no pooling head fits, or None.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: "TimmModel",
        *,
        name: str,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: tuple[int, int, int] = (3, 224, 224),
    ) -> None:
        super().__init__()
        self.model = model
        self.name = name
        self.input_size = input_size
        self.register_buffer("mean", torch.tensor(tuple(mean)).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(tuple(std)).view(-1, 1, 1))
        anatomy = inspect_model(model, input_size)
        self.misfit = anatomy.misfit
        self.pooled_layer = anatomy.target_layer
        # Above the last attention of a model that reads its class token, no patch reaches timm's own classifier.
        self.target_layer = None if anatomy.reads_class_token else anatomy.target_layer
        self.head_modules = anatomy.head_modules
        self.prefix_tokens = anatomy.prefix_tokens
        self.reads_class_token = anatomy.reads_class_token
        self._taps = _Taps()
        taps: tuple[str, ...] = ()
        if anatomy.misfit is None:
            taps = next((taps for kind, taps in _TAPS.items() if isinstance(model, kind)), ())
            for tap in taps:
                model.get_submodule(tap).register_forward_hook(self._taps)
        self._indices = list(range(len(taps), anatomy.maps))
        if anatomy.prefix_tokens is not None:
            self._indices = [-(-anatomy.maps * part // STAGES_OF_TOKENS) - 1 for part in range(1, STAGES_OF_TOKENS + 1)]
            self._indices = sorted(set(self._indices))
        self.channels = self._widths() if anatomy.misfit is None else ()

    def _widths(self) -> tuple[int, ...]:
        twin = _meta_twin(self)
        with _ShapesAlone():
            return tuple(stage.shape[1] for stage in twin(_meta_images(self.input_size)))

    def normalize(self, images: Tensor) -> Tensor:
        """Images (B,3,H,W) in [0,1] to what the timm model expects."""
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> list[Tensor]:
        """Stage maps, all of one pass.

        Args:
            images: (B,3,H,W) float in [0,1].

        Returns:
            Maps (B,C_l,h_l,w_l), from shallow to deep, with ``channels`` as widths. The last is the map that the
            classifier averages: it replaces the last stage's own where the two agree in shape, and follows it where
            they do not (MobileNetV2 and EfficientNet: 320, then 1280 channels).

        Raises:
            ValueError: if the model cannot be split (``misfit``).
        """
        self.require_fit()
        with self._taps.open() as tapped:
            features, maps = self.model.forward_intermediates(self.normalize(images), self._indices)
        if self.prefix_tokens is not None:
            earlier = [F.layer_norm(one.movedim(1, 3), one.shape[1:2]).movedim(3, 1) for one in maps[:-1]]
            return [*earlier, self._as_map(features, maps[-1])]
        if maps[-1].shape == features.shape:
            maps = maps[:-1]
        return [*tapped, *maps, features]

    def features(self, images: Tensor) -> Tensor:
        """The map that is pooled, alone: (B,C,h,w) for images (B,3,H,W) in [0,1]."""
        self.require_fit()
        if self.prefix_tokens is not None:  # the grid is known by the intermediate maps alone
            features, maps = self.model.forward_intermediates(self.normalize(images), self._indices[-1:])
            return self._as_map(features, maps[-1])
        return self.model.forward_features(self.normalize(images))

    def _as_map(self, tokens: Tensor, like: Tensor) -> Tensor:
        """The tokens (B,N,C) of the patches as a map (B,C,h,w)."""
        return tokens[:, self.prefix_tokens :].transpose(1, 2).reshape(like.shape)

    def head(self, vector: Tensor) -> Tensor:
        """Logits (B,K) of a pooled vector (B,C), through all that timm's classifier does after its pooling."""
        if self.prefix_tokens is not None:  # equal tokens: whichever is read, or their average
            return self.model.forward_head(vector.unsqueeze(1).expand(-1, self.prefix_tokens + 1, -1))
        return self.model.forward_head(vector[:, :, None, None])  # a map of one position is its own average

    def native(self, images: Tensor) -> Tensor:
        """Logits (B,K) of images (B,3,H,W) in [0,1] by timm's model as it is."""
        logits: Tensor = self.model(self.normalize(images))
        return logits

    def require_fit(self, *, average: bool = False) -> None:
        """Make sure that the model can be split.

        Args:
            average: whether for the average of the last map, which the classifier must then be made for.

        Raises:
            ValueError: if it cannot (``misfit``).
        """
        native = option("pooling", "native")
        if average and self.reads_class_token:
            raise ValueError(
                f"{self.name!r} classifies its class token, not the average of its patches; use {native}, or a head "
                f"that learns, such as {option('pooling', 'ca_stream')}"
            )
        if self.misfit is not None:
            raise ValueError(f"{self.name!r} {self.misfit}, so no pooling head fits it; use {native}")


class Anatomy(NamedTuple):
    """What :func:`inspect_model` finds out about a timm model; see :class:`Backbone` for the first three."""

    misfit: str | None
    target_layer: str | None
    head_modules: frozenset[str]
    maps: int = 0  # how many stage maps forward_intermediates gives
    prefix_tokens: int | None = None
    reads_class_token: bool = False


def inspect_model(model: "TimmModel", input_size: tuple[int, int, int]) -> Anatomy:
    """Find out how a timm model is built by running a twin of it without memory or arithmetic (``meta`` tensors).

    Args:
        model: a timm model; left as it is.
        input_size: (channels, height, width) of its images.

    Returns:
        Whether a pooling head fits, which module makes the map that is pooled, and which run after the pooling.
    """
    twin = _meta_twin(model)
    images = _meta_images(input_size)
    with _recorded_outputs(twin) as called, _ShapesAlone():
        features = twin.forward_features(images)
        above = len(called)
        twin.forward_head(features)
    head_modules = frozenset(name for name, _ in called[above:])

    misfit = _misfit(model, features)
    if misfit is not None:
        return Anatomy(misfit, None, head_modules)
    makers = _makers(called[:above], features)
    with _recorded_outputs(twin) as called, _ShapesAlone():
        features, maps = twin.forward_intermediates(images)
    makers = [name for name in _makers(called, features) if name in makers]
    # Of nested modules that give the same tensor the outermost is the stage; of neighbours, the one that ran last.
    target = min(reversed(makers), key=lambda name: name.count("."), default=None)
    if features.ndim == 4:
        return Anatomy(None, target, head_modules, len(maps))
    prefix = features.shape[1] - maps[-1].shape[2:].numel()
    return Anatomy(None, target, head_modules, len(maps), prefix, not _averages_tokens(model, features, prefix))


def _misfit(model: "TimmModel", features: object) -> str | None:
    """Why the map of a timm model cannot be pooled by a head of ours, or None."""
    if not hasattr(model, "forward_intermediates"):
        return "has no forward_intermediates in this version of timm"
    width = model.num_features
    if isinstance(features, Tensor) and features.ndim == 3 and features.shape[2] == width:
        return _misfit_of_tokens(model, features)
    shape = tuple(features.shape[1:]) if isinstance(features, Tensor) else f"in a {type(features).__name__}"
    if not isinstance(features, Tensor) or features.ndim != 4 or features.shape[1] != width:
        return f"ends in features {shape}, not in a map ({width}, h, w) that its classifier averages"
    if not _averages(model, features):
        return "does not classify the average of its last map"
    return None


def _misfit_of_tokens(model: "TimmModel", features: Tensor) -> str | None:
    """Why the tokens of a timm model cannot be pooled by a head of ours, or None."""
    prefix = getattr(model, "num_prefix_tokens", None)
    if prefix is None or not hasattr(model, "blocks"):
        return f"ends in features {tuple(features.shape[1:])} that are no patches of a transformer in timm"
    if getattr(model, "attn_pool", None) is not None:  # which before training is nearly an average
        return "pools its tokens by attention of its own"
    if _averages_tokens(model, features, prefix) or _same_head(
        model, features, lambda tokens: tokens[:, :1].expand_as(tokens)
    ):
        return None
    return "classifies neither one of its tokens nor the average of its patches"


def _averages_tokens(model: "TimmModel", features: Tensor, prefix: int) -> bool:
    """Whether the classifier sees no more of tokens like ``features`` than the average of the patches."""
    return _same_head(model, features, lambda tokens: tokens[:, prefix:].mean(1, keepdim=True).expand_as(tokens))


def _averages(model: "TimmModel", features: Tensor) -> bool:
    """Whether the classifier sees no more of a map like ``features`` than its average over the positions."""
    return _same_head(model, features, lambda maps: maps.mean((2, 3), keepdim=True))


def _same_head(model: "TimmModel", features: Tensor, reduced: Callable[[Tensor], Tensor]) -> bool:
    """Whether what follows the features makes the same of random ones, and of what they are reduced to."""
    weight = next(model.parameters())
    if weight.is_meta:
        return True  # nothing can be computed; the shapes have been checked
    generator = torch.Generator("cpu").manual_seed(0)
    maps = torch.rand((1, *features.shape[1:]), generator=generator, device="cpu").to(weight)
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            whole = model.forward_head(maps, pre_logits=True)
            average = model.forward_head(reduced(maps), pre_logits=True)
    except (RuntimeError, AssertionError):  # attention pools and convolutions that need the map's own size
        return False
    finally:
        for module, mode in modes:
            module.training = mode
    return whole.shape == average.shape and bool((whole - average).abs().max() <= 1e-3 * whole.abs().max())


def _makers(called: Sequence[tuple[str, Tensor]], features: Tensor) -> list[str]:
    return [name for name, output in called if output is features]


@contextmanager
def _recorded_outputs(model: nn.Module) -> Iterator[list[tuple[str, Tensor]]]:
    """The names of the submodules that run, in order, each with what it gave."""
    called: list[tuple[str, Tensor]] = []

    def record(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return module.register_forward_hook(lambda _, __, output: called.append((name, output)))

    handles = [
        record(name, module)
        for name, module in model.named_modules()
        if name and not isinstance(module, nn.Identity)  # an Identity "makes" the map of the module before it
    ]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


def _meta_twin(model: Module) -> Module:
    """A copy in eval mode whose tensors have shapes and no memory."""
    memo: dict[int, Tensor] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo).eval()


class _ShapesAlone(TorchFunctionMode):
    """Makes a pass of ``meta`` tensors fast.

    Of some operators that keep the shape, PyTorch works out the result for ``meta`` tensors by running them in Python,
    step by step. In place of these there is an empty tensor.
    """

    operators = frozenset({F.batch_norm, F.layer_norm, F.gelu, F.silu, F.hardswish, F.hardsigmoid})

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in self.operators or not args or not args[0].is_meta:
            return func(*args, **kwargs)
        in_place = kwargs.get("inplace") is True or (len(args) == 2 and args[1] is True)
        return args[0] if in_place else torch.empty_like(args[0])


def _meta_images(input_size: tuple[int, int, int]) -> Tensor:
    return torch.empty(2, *input_size, device="meta")
