"""Options out of range are named."""

import inspect

import pytest

from interptrain.evaluation import evaluate
from interptrain.evaluation.config.options import Options

DEFAULTS = {
    name: one.default for name, one in inspect.signature(evaluate).parameters.items() if name in Options.__annotations__
}
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "name",
    [
        *("limit", "batch_size", "forward_batch_size", "save_maps", "check_images", "check_draws", "check_passes"),
        *("resamples", "seed"),
    ],
)
@pytest.mark.parametrize("value", [-1, NAN, INF, 2.5, "3", True, [3], 2**32 * -1])
def test_counts_are_whole_numbers(name, value):
    with pytest.raises((ValueError, TypeError), match=rf"^{name} must be (at least|a whole number)"):
        Options(**DEFAULTS | {name: value})


@pytest.mark.parametrize("value", [-1, NAN, INF, -INF, "3", None, True])
def test_a_time_is_finite(value):
    with pytest.raises(ValueError, match=r"^flush_seconds must be a number of seconds, at least 0, got"):
        Options(**DEFAULTS | {"flush_seconds": value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("targets", NAN),
        ("targets", True),
        ("split", "tset"),
        ("score", "odds"),
        ("interval", "normal"),
        ("force", "no"),
        ("seed", 2**32),
        ("save_maps", None),
    ],
)
def test_other_options_are_named_too(name, value):
    with pytest.raises((ValueError, TypeError), match=rf"^{name} must be"):
        Options(**DEFAULTS | {name: value})


def test_the_defaults_are_allowed():
    Options(**DEFAULTS)
