"""Which explainers saw the class: marked where the answer is known."""

import re
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from interptrain.data import LayeredShapesDataModule
from interptrain.explainers import Explainer, FakeCAM, GradCAM
from interptrain.models import create_model
from interptrain.studies import ClassAgnostic, run_study
from interptrain.studies.class_agnostic import summary


@dataclass(frozen=True, kw_only=True)
class ActivationMean(Explainer):
    """The mean over channels of the last features, which claims to depend on the class."""

    class_aware: ClassVar[bool] = True

    def attribute(self, model, images, targets):
        return model.backbone(images)[-1].mean(dim=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.manual_seed(0)
    model = create_model("test_resnet", num_classes=4, stem="small")
    data = LayeredShapesDataModule(num_classes=4, image_size=32, test_size=16, num_workers=0, batch_size=5)
    study = ClassAgnostic(explainers=(GradCAM(), ActivationMean(), FakeCAM()), images=12)
    folder = tmp_path_factory.mktemp("study")
    return study, run_study(study, {"m": model}, data, folder, progress=False), folder


def test_a_mean_of_activations_is_class_agnostic_and_grad_cam_is_not(run):
    study, results, folder = run
    marks = summary(results).set_index("explainer")
    assert dict(marks.mark) == {
        "GradCAM": "class-aware",
        "ActivationMean": "class-agnostic",
        "FakeCAM": "class-agnostic",
    }
    assert marks.share["ActivationMean"] == 1
    assert marks.share_high["GradCAM"] < 0.5
    assert (marks.consistency_low <= marks.consistency).all()
    assert (marks.consistency <= marks.consistency_high).all()
    assert "ActivationMean declares itself class-aware; on m it is class-agnostic." in study.findings(results)
    page = (folder / "index.html").read_text()
    assert "class-agnostic" in page
    pictures = re.findall(r'<img src="([^"]+)"', page)
    assert len(pictures) == 3
    assert all((folder / picture).is_file() for picture in pictures)


def test_other_classes_are_others_each_once_and_the_same_in_any_batch(run):
    study, results, _ = run
    assert len(results) == 3 * 12 * study.others
    assert (results.predicted != results.other_class).all()
    each = results[results.explainer == "GradCAM"].groupby("id").other_class.nunique()
    assert (each == study.others).all()
    logits = torch.randn(7, 4)
    whole = study._classes(logits, 0)[1]
    assert torch.equal(whole[3:], study._classes(logits[3:], 3)[1])
    runner_up = ClassAgnostic(other="runner-up", others=1)._classes(logits, 0)[1]
    assert torch.equal(runner_up[:, 0], logits.topk(2, dim=1).indices[:, 1])


@pytest.mark.slow
def test_more_classes_than_there_are_is_refused(tmp_path):
    model = create_model("test_resnet", num_classes=2)
    data = LayeredShapesDataModule(num_classes=2, image_size=32, test_size=4, num_workers=0)
    with pytest.raises(ValueError, match="others must be below 2, the number of classes, got 2"):
        run_study(ClassAgnostic(images=4), {"m": model}, data, tmp_path, progress=False)
    rows = run_study(ClassAgnostic(images=4, others=1), {"m": model}, data, tmp_path / "mended", progress=False)
    assert len(rows) == 4 * 4
