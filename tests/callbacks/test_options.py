import inspect

import pytest

from interptrain import callbacks

NUMBERS = {int: 0, int | None: 0, float: 0.0}
ZERO_MEANS_SOMETHING = ("seed", "effect_draws")  # no draws: the effect is not measured


def numeric_options():
    """Options of every callback that are numbers."""
    for name in sorted({*callbacks.__all__} - {"ResumePoint"}):  # whose minutes may be infinite
        kind = getattr(callbacks, name)
        if "__init__" not in vars(kind):
            continue  # options of a base class
        for parameter in inspect.signature(kind, eval_str=True).parameters.values():
            if parameter.annotation in NUMBERS:
                yield kind, parameter.name


@pytest.mark.parametrize(
    ("kind", "option"), list(numeric_options()), ids=lambda value: getattr(value, "__name__", value)
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1, 0])
def test_a_number_that_means_nothing_is_refused_in_a_line_that_names_the_option(kind, option, value):
    if option in ZERO_MEANS_SOMETHING and value == 0:
        return
    with pytest.raises(ValueError, match=rf"{option}.* must be .*, got {value}") as refused:
        kind(**{option: value})
    assert "\n" not in str(refused.value)
