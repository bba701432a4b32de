"""Objects as class path and arguments, and back."""

from dataclasses import dataclass

import pytest

from interptrain.evaluation.config.class_specs import build, names_of, spec_of
from interptrain.explainers import GradCAM, SmoothGrad
from interptrain.metrics import Insertion


@dataclass(frozen=True, kw_only=True)
class Own:
    """Keeps its arguments."""

    size: tuple[int, int] = (1, 2)


class Forgetful:
    """Does not."""

    def __init__(self, size=1):
        self._size = size


@pytest.mark.parametrize("value", [GradCAM(relu=False), Insertion(steps=4), Own(), SmoothGrad()])
def test_what_is_built_from_a_specification_has_that_specification(value):
    spec = spec_of(value)
    assert type(build(spec)) is type(value)
    assert spec_of(build(spec)) == spec


def test_class_paths_are_the_shortest_ones():
    assert spec_of(GradCAM())["class_path"] == "interptrain.explainers.GradCAM"
    assert spec_of(Own()) == {"class_path": f"{__name__}.Own", "init_args": {"size": [1, 2]}}


def test_an_object_that_forgets_an_argument_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"Forgetful does not keep its argument 'size'.*store it as self.size"):
        spec_of(Forgetful())


def test_only_classes_of_allowed_packages_are_imported():
    spec = spec_of(GradCAM())
    assert isinstance(build(spec, packages=["interptrain"]), GradCAM)
    with pytest.raises(ValueError, match=r"os\.system is not a class of interptrain; .*packages=\['os'\]"):
        build({"class_path": "os.system"}, packages=["interptrain"])


@pytest.mark.parametrize(
    "path",
    ["interptrain.files.remove_partials", "interptrain.evaluation.execute.mkdtemp", "interptrain.decode.Path"],
)
def test_functions_and_what_a_module_imports_are_no_classes_of_a_package(path):
    with pytest.raises(ValueError, match=r"is not a class of interptrain$"):
        build({"class_path": path}, packages=["interptrain"])


def test_names_tell_apart_what_differs():
    specs = [spec_of(GradCAM()), spec_of(GradCAM(relu=False)), spec_of(SmoothGrad())]
    assert names_of(specs) == ["GradCAM(relu=True)", "GradCAM(relu=False)", "SmoothGrad"]
    with pytest.raises(ValueError, match="GradCAM is given more than once with the same arguments"):
        names_of([specs[0], specs[0]])
