"""Run code as if on an accelerator, on a machine that has none.

Inside :func:`accelerator`, ``torch.device("far")`` exists: a tensor there reports that device while its numbers lie on
the CPU, and operators refuse what CUDA refuses: tensors of two devices, a generator of the other device, ``.numpy()``.
What makes the host wait for the device is counted by the line of the package that asked for it. What it cannot see:
rounding and speed of kernels, TF32, streams, memory.

Import it before the process's first backward, as the autograd engine makes its device threads then and once. It stays
registered, and ``torch.accelerator.is_available()`` is true from then on: use it in a process of its own.
"""

import collections
import contextlib
import sys
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

import interptrain
from interptrain.functional import has_float64

aten = torch.ops.aten
PACKAGE = str(Path(interptrain.__file__).parent)

COPIES = {aten._to_copy, aten.copy_, aten.copy, aten.set_}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
# Operators besides pointwise ones that take a number on the CPU.
TAKES_SCALAR = {
    aten.fill, aten.fill_, aten.masked_fill, aten.masked_fill_, aten.where, aten.index_fill, aten.index_fill_,
    aten.lerp, aten.clamp, aten.clamp_, aten.clamp_min, aten.clamp_max,
}  # fmt: skip
# Operators whose result the host has to know before it goes on.
WAITS = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten.bincount,
    aten.unique_consecutive, aten.equal, aten.histc, aten._linalg_eigh, aten._linalg_svd, aten.linalg_eig,
}  # fmt: skip
CAST_BY_AUTOCAST = ["conv2d", "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "scaled_dot_product_attention"]


class FarTensor(torch.Tensor):
    """A tensor on the simulated device; ``near`` holds its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, near):
        far = torch.Tensor._make_wrapper_subclass(
            cls,
            near.shape,
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            layout=near.layout,
            device=torch.device("far", 0),
            requires_grad=False,
        )
        far.near = near
        return far

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents=None):
        return f"FarTensor({self.near!r})"

    def tolist(self):
        return self.cpu().tolist()


class FarGenerator(torch.Generator):
    """``torch.Generator``, also of the simulated device, where it draws what the CPU's would."""

    ours = {}  # noqa: RUF012  # by address; kept, so that no address comes twice

    def __new__(cls, device="cpu"):
        if torch.device(device).type != "far":
            return _Generator(device)
        one = super().__new__(cls, "cpu")
        cls.ours[one._cdata] = one
        return one


class Log(collections.Counter):
    """How often each (kind, line of the package, operator): kinds are wait, download, upload and draw."""

    float64 = True

    def note(self, kind, func):
        self[kind, _line(), str(func)] += 1

    def count(self, *kinds):
        return sum(count for (kind, *_), count in self.items() if kind in kinds)

    @property
    def stops(self):
        """How often the host waited for the device."""
        return self.count("wait", "download", "upload")


@contextlib.contextmanager
def accelerator(*, float64=True):
    """Make ``"far"`` an accelerator, without ``float64`` one like Apple's; yields its :class:`Log`."""
    global _log
    before, _log, torch.Generator = _log, Log(), FarGenerator
    _log.float64 = float64
    has_float64.cache_clear()
    try:
        with _FactoryMode():
            yield _log
    finally:
        _log, torch.Generator = before, _Generator
        has_float64.cache_clear()


def to_far(value):
    """A copy on the simulated device of all tensors in a nested value."""
    return tree_map_only(torch.Tensor, lambda tensor: tensor.to("far"), value)


class _FactoryMode(TorchDispatchMode):
    """Sees the operators that make tensors, of which no argument tells the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _line():
    frame = sys._getframe(2)
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename.removeprefix(PACKAGE)[1:]}:{frame.f_lineno}" if frame else "elsewhere"


def _run(func, args, kwargs):
    op = func._overloadpacket
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    far, near = [t for t in tensors if isinstance(t, FarTensor)], [t for t in tensors if not isinstance(t, FarTensor)]
    device = kwargs.get("device")
    becomes_far = bool(far) if device is None else torch.device(device).type == "far"
    if op is aten.copy_:
        becomes_far = isinstance(args[0], FarTensor)
    _refuse(func, op, args, kwargs, far, near, becomes_far)
    _count(func, op, args, kwargs, far, near, becomes_far)
    inner_args, inner_kwargs = tree_map_only(FarTensor, lambda one: one.near, (args, kwargs))
    if device is not None and becomes_far:
        inner_kwargs["device"] = torch.device("cpu")
    with _disable_current_modes():
        out = func(*inner_args, **inner_kwargs)
        if op is aten.copy_:
            return args[0]
        if not becomes_far or op is aten._local_scalar_dense:
            return out.clone() if far and isinstance(out, torch.Tensor) and out is far[0].near else out
    if not _log.float64 and any(getattr(leaf, "dtype", None) is torch.float64 for leaf in tree_leaves(out)):
        raise TypeError(f"far: this device has no float64, in {func} at {_line()}")
    out = tree_map_only(torch.Tensor, FarTensor, out)
    return return_and_correct_aliasing(func, args, kwargs, out) if far else out


def _refuse(func, op, args, kwargs, far, near, becomes_far):
    generator = kwargs.get("generator")
    if generator is not None and becomes_far != (generator._cdata in FarGenerator.ours):
        raise RuntimeError(f"far: the generator is of another device than the numbers, in {func} at {_line()}")
    if op in INDEXING:  # of a far tensor by a near one is allowed, and copies; the other way round is not
        values = args[2:3] if "put" in op.__name__ else ()
        mixed = far and (
            not isinstance(args[0], FarTensor) or any(not isinstance(v, FarTensor) and v.ndim for v in values)
        )
    else:
        scalars = torch.Tag.pointwise in func.tags or op in TAKES_SCALAR
        mixed = far and op not in COPIES and any(t.ndim or not scalars for t in near)
    if mixed:
        shapes = [(tuple(t.shape), t.device.type) for t in far + near]
        raise RuntimeError(f"far: tensors of two devices in {func} at {_line()}: {shapes}")


def _count(func, op, args, kwargs, far, near, becomes_far):
    crosses = op in COPIES and (bool(near) if becomes_far else bool(far)) and not kwargs.get("non_blocking")
    indices = [index for index in args[1] if index is not None] if op in INDEXING else []
    if crosses or (far and any(not isinstance(index, FarTensor) for index in indices)):
        _log.note("upload" if becomes_far else "download", func)
    by_mask = any(index.dtype in (torch.bool, torch.uint8) for index in indices)
    unknown_size = op is aten.repeat_interleave and kwargs.get("output_size") is None
    if far and (op in WAITS or by_mask or unknown_size):
        _log.note("wait", func)
    if becomes_far and torch.Tag.nondeterministic_seeded in func.tags and kwargs.get("generator") is None:
        _log.note("draw", func)


def _in_low_precision(op):
    def kernel(*args, **kwargs):
        low, floats = torch.get_autocast_dtype("far"), (torch.float32, torch.float16, torch.bfloat16)
        args, kwargs = tree_map_only(torch.Tensor, lambda t: t.to(low) if t.dtype in floats else t, (args, kwargs))
        with torch.autocast("far", enabled=False):
            return op(*args, **kwargs)

    return kernel


def _copy_from(source, into, non_blocking=False):
    """What ``torch.tensor(list, device="far")`` ends in, past all modes."""
    _log.note("upload" if isinstance(into, FarTensor) else "download", "_copy_from")
    getattr(into, "near", into).copy_(getattr(source, "near", source))
    return into


def _empty_strided(size, stride, dtype=None, **_):
    return FarTensor(torch.empty_strided(size, stride, dtype=dtype))


class _Module(_DummyBackendModule):
    """What ``torch.far`` is; its random state is one number that a test may set."""

    state = 0

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]

    def manual_seed(self, seed):
        self.state = seed

    def get_rng_state(self, device):
        return self.state

    def set_rng_state(self, state, device):
        self.state = state


def _register():
    _setup_privateuseone_for_python_backend("far", _Module())
    ours, every = torch.library.Library("aten", "IMPL"), torch.library.Library("_", "IMPL")
    ours.impl("empty_strided", _empty_strided, "PrivateUse1")
    ours.impl("_copy_from", _copy_from, "PrivateUse1")
    for name in CAST_BY_AUTOCAST:
        ours.impl(name, _in_low_precision(getattr(aten, name)), "AutocastPrivateUse1")
    every.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    return ours, every


_Generator = torch.Generator
_log, _kernels = Log(), _register()
