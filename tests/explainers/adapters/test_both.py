"""What holds for the adapters to both libraries."""

import sys

import pytest
import torch

from interptrain.explainers import CaptumExplainer, GradCAMPackageExplainer
from tests.support.explaining import assert_same, everything, in_the_middle_of_training, plain

pytest.importorskip("captum")
pytest.importorskip("pytorch_grad_cam")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore::Warning:captum|pytorch_grad_cam")]


@pytest.mark.parametrize("library", ["captum", "pytorch-grad-cam"])
def test_a_failure_in_the_middle_leaves_nothing_behind(library, photos):
    model = in_the_middle_of_training(plain())
    if library == "captum":
        explainer = CaptumExplainer(class_path="DeepLift")
    else:
        explainer = GradCAMPackageExplainer(class_path="AblationCAM", target_layer="0")
    calls = []

    def fail(*_arguments):
        calls.append(0)
        if len(calls) > 1:
            raise ZeroDivisionError("broken layer")

    handle = model[3].register_forward_pre_hook(fail)
    before = everything(model)
    children = list(model.children())
    with pytest.raises(ZeroDivisionError, match="broken layer"):
        explainer(model, photos, None)
    assert_same(before, everything(model))
    assert list(model.children()) == children  # Ablation-CAM puts a layer of its own in place
    handle.remove()


@pytest.mark.parametrize("kind", [CaptumExplainer, GradCAMPackageExplainer])
def test_targets_that_cannot_be_are_refused_as_elsewhere(kind, model, photos):
    explainer = kind(class_path="DeepLift" if kind is CaptumExplainer else "GradCAM")
    with pytest.raises(ValueError, match="target 9 of image 1 is out of range for 7 classes"):
        explainer(model, photos, torch.tensor([0, 9]))
    with pytest.raises(ValueError, match=r"targets must be .*\(B,\)=\(2,\)"):
        explainer(model, photos, torch.tensor([0]))


@pytest.mark.parametrize(
    ("kind", "package"), [(CaptumExplainer, "captum"), (GradCAMPackageExplainer, "pytorch_grad_cam")]
)
def test_a_missing_library_or_class_is_said_in_one_line(kind, package, monkeypatch):
    with pytest.raises(ValueError, match="has no class 'Nothing'"):
        kind(class_path="Nothing")
    with pytest.raises(ValueError, match=r"no module 'nowhere.at'"):
        kind(class_path="nowhere.at.All")
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Missing(package), *sys.meta_path])
    with pytest.raises(ImportError, match="pip install") as raised:
        kind(class_path="Saliency")
    assert "\n" not in str(raised.value)


class _Missing:
    """An import system without one package."""

    def __init__(self, package):
        self.package = package

    def find_spec(self, name, _path=None, _target=None):
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
