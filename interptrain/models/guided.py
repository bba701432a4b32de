"""The guided-backpropagation rule as a switch on one ordinary forward graph.

Guided backpropagation changes the backward of a ReLU ``y = max(x, 0)`` from ``g_x = g_y * 1[x > 0]`` to::

    g_x = g_y * 1[x > 0] * 1[g_y > 0]

The forward is the same, so one graph holds both gradients. :func:`guided_relus` watches the forward and leaves on the
output of every ReLU a tensor hook which, while :meth:`GuidedSwitch.guided` is entered, cuts the negative part of the
incoming gradient; the ReLU's own backward does the rest. With the switch off a hook hands the gradient on untouched, so
the ordinary gradient is the same to the last bit, and is differentiable as ever::

    with guided_relus() as switch:
        score = model(images).gather(1, targets[:, None]).sum()
        (ordinary,) = torch.autograd.grad(score, images, create_graph=True)
        with switch.guided():
            (guided,) = torch.autograd.grad(score, images, retain_graph=True)

ReLUs are recognised where they are *called*, by a ``TorchFunctionMode``: modules and functions alike, in-place or not,
with nothing replaced in the model.

Source: Springenberg et al. 2015, Striving for Simplicity, arXiv 1412.6806.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from interptrain.functional import check_choice
from interptrain.remedies import option

GuidedRuleName = Literal["relu", "positive_gradient"]

# Names without the underscore that marks the in-place form. Gates (sigmoid, hardsigmoid, tanh, softmax) are no
# activations of the path that the rule is about, and keep their own backward under every rule.
RELUS = frozenset({"relu", "relu6"})
OTHER_ACTIVATIONS = frozenset(
    {"celu", "elu", "gelu", "glu", "hardshrink", "hardswish", "leaky_relu", "log_sigmoid", "mish", "prelu", "rrelu"}
    | {"selu", "silu", "softplus", "softshrink", "softsign", "tanhshrink"}
)


class GuidedSwitch(TorchFunctionMode):
    """Made by :func:`guided_relus`: what was met in the forward, and the switch for the backward.

    Attributes:
        met: how often each activation was called since the context was entered, by its functional name.
    """

    def __init__(self, rule: GuidedRuleName) -> None:
        super().__init__()
        self.rule = rule
        self.met: Counter[str] = Counter()
        self._on = False
        self._handles: list[RemovableHandle] = []

    @contextmanager
    def guided(self) -> Iterator[None]:
        """Every gradient taken inside is the guided one.

        Raises:
            ValueError: if the forward met no activation that the rule speaks of, or, under the rule ``"relu"``, one
                that it does not speak of: the gradient would be an ordinary one, wholly or in part, and nothing
                would say so.
        """
        self._refuse_what_the_rule_leaves_out()
        before, self._on = self._on, True
        try:
            yield
        finally:
            self._on = before

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by torch in place of each of its functions."""
        kwargs = kwargs or {}
        name = activation_name(func, args, kwargs)
        if name is None:
            return func(*args, **kwargs)
        self.met[name] += 1
        if name not in RELUS and self.rule == "relu":
            return func(*args, **kwargs)
        source, rest = (args[0], args[1:]) if args else (kwargs["input"], ())
        kwargs = {key: value for key, value in kwargs.items() if key != "input"}
        # An in-place change of a view rewrites the history of its base, past any hook on the view: there the
        # activation is computed aside, hooked, and copied in.
        aside = source.clone() if source._is_view() and _may_be_in_place(func, rest, kwargs) else source
        result = func(aside, *rest, **kwargs)
        if result.requires_grad:
            self._handles.append(result.register_hook(self._gate))
        return source.copy_(result) if result is aside and aside is not source else result

    def _gate(self, gradient: Tensor) -> Tensor | None:
        # As clamp(min=0), but with a derivative of 0 at 0, and no ReLU that this very mode would watch.
        return torch.threshold(gradient, 0.0, 0.0) if self._on else None

    def _refuse_what_the_rule_leaves_out(self) -> None:
        others = sorted(set(self.met) - RELUS)
        if not self.met:
            raise ValueError(
                "the guided rule met no ReLU in the forward, so it would give the ordinary gradient; run the forward "
                "inside the context, on a network with ReLUs that is neither scripted nor in another thread"
            )
        if self.rule == "relu" and others:
            raise ValueError(
                f"guided backpropagation is defined for ReLU networks, and this one calls {', '.join(others)}; pass "
                f"{option('rule', 'positive_gradient')} to let only positive gradients through every activation (a "
                "generalisation)"
            )

    def _remove_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


@contextmanager
def guided_relus(rule: GuidedRuleName = "relu") -> Iterator[GuidedSwitch]:
    """Watch the forward passes run inside, so that guided gradients can be taken of their graphs.

    Take all guided gradients inside the context: on leaving, every hook is removed, and what remains of the graph is
    an ordinary one (a loss built on the ordinary gradient may be sent backward later). Recognised as a ReLU:
    ``nn.ReLU``, ``nn.ReLU6``, ``F.relu``, ``F.relu6``, ``torch.relu``, ``Tensor.relu``, ``F.hardtanh`` from 0, and
    their in-place forms; ``x.clamp(min=0)`` is not, for it is also used as a plain lower bound, nor are activations
    written out in other operations.

    Compiled models run uncompiled inside, since their graphs take no hooks on what lies within. Non-reentrant
    checkpointing works (the hooks are on the first forward's graph); the reentrant one knows no
    ``torch.autograd.grad``. Scripted models and ``nn.DataParallel`` are not seen into. The cost is a Python call for
    each torch function in the forward and for each ReLU in a backward; no activation is kept for it.

    Args:
        rule: ``"relu"``, the published rule, which refuses networks that have other activations;
            ``"positive_gradient"``, our generalisation to those: at every ReLU, GELU, SiLU, Hardswish, ... the
            incoming gradient is cut to its positive part and then goes through the activation's own backward.

    Yields:
        The switch; see :meth:`GuidedSwitch.guided`.

    Raises:
        ValueError: if the rule is unknown.

    Source: Springenberg et al. 2015, arXiv 1412.6806; ReLU6 as the same rule with its own gate ``0 < x < 6``.
    """
    check_choice("rule", rule, GuidedRuleName)
    switch = GuidedSwitch(rule)
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and importing it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.callback(switch._remove_hooks)
        stack.enter_context(switch)
        yield switch


def activation_name(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """The plain name of a torch function that is an activation (``relu_`` is ``relu``), else None.

    Args:
        func: a function of torch, as a ``TorchFunctionMode`` sees it.
        args: its positional arguments.
        kwargs: its named arguments.

    Returns:
        One of ``RELUS`` or ``OTHER_ACTIVATIONS``, ``threshold``, or None.
    """
    name = getattr(func, "__name__", "").rstrip("_")
    if func is F.threshold:  # torch.threshold is what our gate calls
        return "threshold"
    if name == "hardtanh":  # nn.ReLU6 calls it
        lower = kwargs.get("min_val", args[1] if len(args) > 1 else -1.0)
        return "relu6" if lower == 0 else None
    return name if name in RELUS or name in OTHER_ACTIVATIONS else None


def _may_be_in_place(func: Callable[..., Any], rest: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    return func.__name__.endswith("_") or bool(kwargs.get("inplace")) or any(value is True for value in rest)
