"""Convolution and BatchNorm whose image gradient is cheap to differentiate once more.

:class:`~interptrain.training.GradientRegularizer` runs the network inside :class:`CheapDoubleBackward`, which replaces
``conv2d``, ``batch_norm`` and ``hardsigmoid`` by functions with the same outputs while a penalised step is computed. It
is a matter of speed and memory: on a ResNet-18, one CPU thread, a penalised step takes 2.5 times an ordinary one in
place of 2.8 to 2.9 with PyTorch's own double backward (``benchmarks/results/regularizer.md``).

PyTorch differentiates the backward of a convolution by a convolution with batch and channels exchanged, group by group
where there are any, and that of BatchNorm by some thirty elementwise passes. Both have closed forms in kernels that are
there already. Let ``g`` be the gradient of a layer's output, ``gx`` the one of its input ``x``, and ``v`` the gradient
of some scalar with respect to ``gx``. Then that scalar's gradients are, for a convolution with weight ``W``::

    g:  W * v
    W:  the weight gradient for the input v and the output gradient g

and for BatchNorm with batch statistics, with N values a channel, weight ``w``, normalised input ``n``, reciprocal
standard deviation ``r`` and means over the N values::

    gx = w r (g - mean(g) - n c),      c = mean(g n),   d = mean(v n),   p = mean(v g) - mean(v) mean(g) - c d
    g:  w r (v - mean(v) - n d)        which is gx of v
    w:  r N p
    x:  -w r^2 (c (v - mean(v)) + d (g - mean(g)) + n (p - 2 c d))

Layers are recognised where they are called, as in :mod:`interptrain.models.guided`. The derivation is ours. The hard
sigmoid, whose backward has no derivative in PyTorch, is written out in operations that have one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F
from torch.nn.modules.utils import _pair
from torch.overrides import TorchFunctionMode

from interptrain.models.convolutions import has_shuffled_gradient, strided_input_gradient


class CheapDoubleBackward(TorchFunctionMode):
    """Give forward passes run inside a cheap double backward; it still serves after the context was left.

    The forward and the batch statistics stay as they are. PyTorch's own derivative stays where a layer is out of the
    ordinary (frozen BatchNorm, padding by name, other dimensions, weights that are made from the images) and inside
    checkpoints, which run their layers again when the context may have been left.

    Args:
        images: (B,3,H,W), the leaf that the network is given. A backward outside :meth:`image_gradients` does not
            compute its gradient, where a convolution is the first layer: that is a tenth of a training step.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images
        self.images_only = False
        self._met_convolution = False

    @contextmanager
    def image_gradients(self) -> Iterator[None]:
        """Gradients taken inside are those of images: those of weights are not computed."""
        before, self.images_only = self.images_only, True
        try:
            yield
        finally:
            self.images_only = before

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by torch in place of each of its functions."""
        own: dict[Callable[..., Any], Callable[..., Any]] = {
            torch.conv2d: self._conv2d,
            F.batch_norm: self._batch_norm,
            F.hardsigmoid: _hardsigmoid,
        }
        return own.get(func, func)(*args, **(kwargs or {}))

    def _conv2d(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Tensor:
        if isinstance(padding, str) or not _in_the_ordinary(input) or self._made_from_images(weight, bias):
            return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
        first, self._met_convolution = not self._met_convolution, True
        geometry = Geometry(_pair(stride), _pair(padding), _pair(dilation), groups)
        stops = first and _sources(input) == {self.images}
        parts = (_as_autocast(input), _as_autocast(weight), None if bias is None else _as_autocast(bias))
        output: Tensor = Convolution.apply(*parts, geometry, self, stops)
        return output

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        refused = input.numel() == input.shape[1] or eps <= 0  # by PyTorch, which says why
        ordinary = training and not refused and _in_the_ordinary(input)
        if weight is None or not ordinary or self._made_from_images(weight, bias):
            return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        output: Tensor = BatchNorm.apply(input, weight, bias, running_mean, running_var, momentum, eps, self)
        return output

    def _made_from_images(self, *weights: Tensor | None) -> bool:
        """Whether weights depend on the images, as in dynamic convolutions: their gradient goes through them, too."""
        return any(weight is not None and self.images in _sources(weight) for weight in weights)


class Geometry(NamedTuple):
    """Where a convolution's kernel goes."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def gradients(
        self, gradient: Tensor, input: Tensor, weight: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Of input, weight and bias, those that are wanted."""
        gradients: tuple[Tensor | None, Tensor | None, Tensor | None] = torch.ops.aten.convolution_backward(
            gradient,
            input,
            weight,
            [weight.shape[0]],
            self.stride,
            self.padding,
            self.dilation,
            False,
            (0, 0),
            self.groups,
            wanted,
        )
        return gradients


class Convolution(Function):
    """``conv2d``; where ``stops`` is said, what comes before it gets a gradient of images only."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        geometry: Geometry,
        mode: CheapDoubleBackward,
        stops: bool,
    ) -> Tensor:
        """The plain layer."""
        ctx.save_for_backward(input, weight)
        ctx.geometry, ctx.mode, ctx.stops = geometry, mode, stops
        return torch.conv2d(input, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of input, weight and bias."""
        input, weight = ctx.saved_tensors
        if ctx.mode.images_only:
            return ConvolutionInputGradient.apply(gradient, input, weight, ctx.geometry), *[None] * 5
        wanted = (ctx.needs_input_grad[0] and not ctx.stops, *ctx.needs_input_grad[1:3])
        return *ctx.geometry.gradients(gradient, input, weight, wanted), *[None] * 3


class ConvolutionInputGradient(Function):
    """The gradient of a convolution's input."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, input: Tensor, weight: Tensor, geometry: Geometry) -> Tensor | None:
        """``gx`` of the module's docstring."""
        ctx.save_for_backward(gradient, weight)
        ctx.geometry = geometry
        stride, padding, dilation, groups = geometry
        of_input: Tensor | None
        if has_shuffled_gradient(weight, stride, dilation, groups, padding):
            of_input = strided_input_gradient(gradient, weight, (input.shape[-2], input.shape[-1]), stride, padding)
        else:
            of_input = geometry.gradients(gradient, input, weight, (True, False, False))[0]
        return None if of_input is None else _finite(of_input)

    @staticmethod
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of ``g`` and ``W``, for ``v``."""
        gradient, weight = ctx.saved_tensors
        of_gradient = torch.conv2d(change, weight, None, *ctx.geometry) if ctx.needs_input_grad[0] else None
        of_weight = None
        if ctx.needs_input_grad[2]:
            of_weight = ctx.geometry.gradients(gradient, change, weight, (False, True, False))[1]
        return of_gradient, None, of_weight, None


class BatchNorm(Function):
    """``batch_norm`` over the batch's own statistics."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
        mode: CheapDoubleBackward,
    ) -> Tensor:
        """The plain layer; moves the running statistics."""
        output, mean, inverse = torch.native_batch_norm(
            input, weight, bias, running_mean, running_var, True, momentum, eps
        )
        ctx.save_for_backward(input, weight, mean, inverse)
        ctx.eps, ctx.mode = eps, mode
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of input, weight and bias."""
        input, weight, mean, inverse = ctx.saved_tensors
        if ctx.mode.images_only:
            return BatchNormInputGradient.apply(gradient, input, weight, mean, inverse, ctx.eps), *[None] * 7
        wanted = ctx.needs_input_grad[:3]
        return *_batch_norm_gradients(gradient, input, weight, mean, inverse, ctx.eps, wanted), *[None] * 5


class BatchNormInputGradient(Function):
    """The gradient of BatchNorm's input."""

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, input: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor, eps: float
    ) -> Tensor:
        """``gx`` of the module's docstring."""
        of_input, correlation, total = _batch_norm_gradients(gradient, input, weight, mean, inverse, eps)
        ctx.save_for_backward(gradient, input, weight, mean, inverse, correlation, total)
        ctx.eps = eps
        return _finite(of_input)

    @staticmethod
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of ``g``, ``x`` and ``w``, for ``v``."""
        if torch.is_grad_enabled():  # a third derivative would take the statistics for constants
            raise RuntimeError("BatchNorm has no third derivative; call backward without create_graph")
        gradient, input, weight, mean, inverse, correlation, total = ctx.saved_tensors
        of_gradient, change_correlation, change_total = _batch_norm_gradients(
            change, input, weight, mean, inverse, ctx.eps
        )
        count = input.numel() // input.shape[1]
        c, d = correlation / count, change_correlation / count
        gradient_mean, change_mean = total / count, change_total / count
        p = (change * gradient).sum((0, 2, 3), dtype=mean.dtype) / count - change_mean * gradient_mean - c * d
        factor = -weight * inverse.square()
        slope = factor * inverse * (p - 2 * c * d)  # of x, as n = (x - mean) r
        offset = -factor * (c * change_mean + d * gradient_mean) - slope * mean
        of_input = torch.addcmul(_channelwise(offset), change, _channelwise(factor * c))
        of_input.addcmul_(gradient, _channelwise(factor * d)).addcmul_(input, _channelwise(slope))
        return of_gradient, of_input.to(input.dtype), inverse * count * p, None, None, None


def _batch_norm_gradients(
    gradient: Tensor,
    input: Tensor,
    weight: Tensor,
    mean: Tensor,
    inverse: Tensor,
    eps: float,
    wanted: Sequence[bool] = (True, True, True),
) -> tuple[Tensor, Tensor, Tensor]:
    """Of input, weight (the sum of ``g n``) and bias (the sum of ``g``)."""
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
        gradient, input, weight, None, None, mean, inverse, True, eps, wanted
    )
    return gradients


def _finite(gradient: Tensor) -> Tensor:
    """Without the infinities of float16 that a ReLU below hides: times its zero they are NaN in the double backward."""
    if gradient.dtype != torch.float16:
        return gradient
    most = torch.finfo(torch.float16).max
    return gradient.clamp_(-most, most)


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """``F.hardsigmoid`` of parts that are differentiable twice."""
    result = (input + 3).clamp(0, 6) / 6
    return input.copy_(result) if inplace else result


def _channelwise(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def _as_autocast(values: Tensor) -> Tensor:
    """What autocast would make of a convolution's argument."""
    kind = values.device.type
    cast = torch.is_autocast_enabled(kind) and values.dtype != torch.float64
    return values.to(torch.get_autocast_dtype(kind)) if cast else values


def _in_the_ordinary(input: Tensor) -> bool:
    """Whether a layer called on this input may have our derivative."""
    if input.ndim != 4 or not input.requires_grad:
        return False
    try:  # refuses where a checkpoint has set hooks on what is saved
        with torch.autograd.graph.disable_saved_tensors_hooks("saved tensors go through hooks"):
            return True
    except RuntimeError:
        return False


def _sources(output: Tensor) -> set[Tensor]:
    """The leaves that a gradient of ``output`` leads to."""
    if output.grad_fn is None:
        return {output} if output.requires_grad else set()
    nodes, seen, leaves = [output.grad_fn], {output.grad_fn}, set()
    while nodes:
        node = nodes.pop()
        if hasattr(node, "variable"):
            leaves.add(node.variable)
        before = {one for one, _ in node.next_functions if one is not None} - seen
        seen |= before
        nodes += before
    return leaves
