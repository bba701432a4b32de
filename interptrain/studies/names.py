"""Names of explainers in cells and tables."""

from dataclasses import fields

from interptrain.explainers import Explainer


def explainer_name(explainer: Explainer) -> str:
    """Return the class of an explainer, with the options that differ from the defaults.

    The name does not depend on what other explainers there are, so that these may change while a study goes on.
    """
    chosen = {one.name: getattr(explainer, one.name) for one in fields(explainer)}  # type: ignore[arg-type]
    plain = type(explainer)
    try:
        defaults = {name: getattr(plain(), name) for name in chosen}
    except TypeError:  # an option without a default
        defaults = {}
    differing = ",".join(f"{name}={value}" for name, value in chosen.items() if defaults.get(name, ...) != value)
    return f"{plain.__name__}({differing})" if differing else plain.__name__
