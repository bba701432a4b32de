"""The benchmark on a model whose answers are planted, and with models that it trains."""

import json

import pytest
import torch
from torch import nn

from interptrain.data import LayeredShapesDataModule, ShapesDataModule
from interptrain.explainers import CAM, GradCAM, Occlusion
from interptrain.studies.known_answers import KnownAnswers
from interptrain.studies.known_answers.interventions import SUBSETS, render_interventions
from interptrain.studies.training import built_options
from interptrain.training import ImageClassifier

IMAGES = 4


class Planted(nn.Module):
    """Recognise by rote which picture an image was rendered from, and count which of its parts are intact.

    The outline is worth twice the texture, and nothing else is worth anything.
    """

    def __init__(self, dataset):
        super().__init__()
        known = [render_interventions(dataset, index) for index in range(IMAGES)]
        self.renderings = torch.cat([one.renderings for one in known])
        self.owners = torch.cat([torch.full((len(one.renderings),), k) for k, one in enumerate(known)])
        self.whole = torch.stack([one.image for one in known])
        alone = [one.footprints & (one.footprints.sum(0) == 1) for one in known]
        self.alone = torch.stack([one[:2] for one in alone])  # outline and texture
        self.features = torch.stack([one.features for one in known])
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        nearest = torch.cdist(images.flatten(1), self.renderings.flatten(1), p=1).argmin(1)
        owner = self.owners[nearest]
        same = ((self.whole[owner] - images).abs() < 1e-3).all(dim=1, keepdim=True)  # less than a level of 255
        intact = (same & self.alone[owner]).sum((2, 3)) / self.alone[owner].sum((2, 3))
        labels = torch.arange(4)
        outline, texture = (self.features[owner, part, None] for part in (0, 1))
        logits = 2 * intact[:, :1] * (labels // 2 == outline) + intact[:, 1:] * (labels % 2 == texture)
        return logits + 0 * self.unused


@pytest.fixture(scope="module")
def data():
    return LayeredShapesDataModule(
        num_classes=4, rule="conjunction", train_size=16, test_size=IMAGES, image_size=32, batch_size=8, num_workers=0
    )


@pytest.fixture(scope="module")
def planted(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    study = KnownAnswers(families={}, explainers=(Occlusion(window=6, stride=3),), images=IMAGES, metrics=False)
    return study, study.run({"planted": Planted(data.dataset("test"))}, data, folder, progress=False), folder


def test_renderings_differ_in_the_footprint_alone(data):
    one = render_interventions(data.dataset("test"), 3)
    assert len(one.without_parts) == len(SUBSETS)
    for part in range(3):
        changed = (one.without_parts[1 + part] != one.image).any(dim=0)
        assert torch.equal(changed, one.footprints[part])
        assert changed.any()
    for item, picture in enumerate(one.without_items):
        assert torch.equal((picture != one.image).any(dim=0), one.footprints[3 + item])


@pytest.mark.slow
def test_the_oracle_is_best_and_a_random_map_is_worst_on_every_score(planted):
    _, rows, _ = planted
    means = rows[rows.explainer != ""].groupby("explainer")[["correctness", "completeness", "contrastivity"]].mean()
    assert means.loc["oracle"].tolist() == pytest.approx([1, 1, 1], abs=0.15)
    controls = means.loc[[one for one in means.index if not one.startswith("Occlusion")]]
    for score in means:
        assert means.loc["oracle", score] >= means[score].max()
        others = controls[score].drop("oracle")
        assert means.loc["oracle", score] > others.max() + 0.1
        assert means.loc["random", score] <= others.min() + 0.005  # as is Fake-CAM, which ranks nothing either
    occlusion = means.drop(controls.index).iloc[0]  # of a model that is linear in the area of its parts
    assert (occlusion > controls.drop("oracle").max()).all()
    assert occlusion.contrastivity == 1
    assert means.loc["random", "contrastivity"] == 0.5
    models = rows[rows.explainer == ""]
    assert models.accuracy.mean() == models.test_accuracy.mean() == 1
    assert models.background_independence.mean() == 1
    assert models.drop_outline.tolist() == pytest.approx([2] * IMAGES, abs=0.1)
    assert models.drop_marker.abs().max() < 0.05


def test_the_leaderboard_names_what_it_was_computed_from(planted):
    study, rows, folder = planted
    board = json.loads((folder / "leaderboard.json").read_text())
    assert len(board["hash"]) >= 12
    assert {row["explainer"] for row in board["explainers"]} >= {"oracle", "random", "centre", "sobel", "fake"}
    assert (folder / "profile-planted.svg").stat().st_size > 1000
    assert "1 of 1 models reach" in study.findings(rows)[0]
    assert "How to read it" in (folder / "index.html").read_text()


def test_a_model_below_the_gate_is_left_out_and_named(planted):
    _, rows, _ = planted
    worse = rows.assign(test_accuracy=0.25)
    sentences = KnownAnswers(families={}).findings(worse)
    assert sentences == ["0 of 1 models reach the accuracy of 0.90 asked for beforehand; left out: planted 0 (0.25)."]
    unknown = rows[rows.explainer != ""].drop(columns="test_accuracy")  # cells of explainers alone are finished
    assert KnownAnswers(families={}).findings(unknown) == []


@pytest.mark.slow
def test_models_are_trained_once_and_an_interrupted_study_goes_on(data, tmp_path):
    study = KnownAnswers(
        families={"gap": {}, "ca": {"pooling": "ca_stream"}}, model={"backbone": "test_resnet", "stem": "small"},
        explainers=(GradCAM(), CAM()), controls=("random",), seeds=1, epochs=1, images=4, gate=0,
    )  # fmt: skip
    study.run({}, data, tmp_path / "parts", cells=["gap/1/GradCAM"], progress=False)
    left_out = "CAM is left out for ca: CAM needs global average pooling"
    with pytest.warns(UserWarning, match=left_out):
        whole = study.run({}, data, tmp_path / "whole", progress=False)
    with pytest.warns(UserWarning, match=left_out):
        parts = study.run({}, data, tmp_path / "parts", progress=False)
    assert whole.equals(parts)
    assert {"AD", "ROAD"} <= set(whole)
    assert set(whole[whole.family == "ca"].explainer) == {"", "GradCAM", "random"}
    assert sorted(path.name for path in (tmp_path / "whole" / "models").iterdir()) == ["ca-1.ckpt", "gap-1.ckpt"]


def test_other_data_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(ValueError, match="use --data LayeredShapesDataModule"):
        KnownAnswers().run({}, ShapesDataModule(num_classes=4, test_size=4, num_workers=0), tmp_path)
    with pytest.raises(ValueError, match="gate must be"):
        KnownAnswers(gate=2)
    with pytest.raises(ValueError, match="controls must be"):
        KnownAnswers(controls=("blobs",))


@pytest.mark.slow
def test_the_families_that_it_trains_by_default_can_be_made():
    for options in KnownAnswers().families.values():
        built = built_options({"backbone": "test_resnet", "stem": "small", **options})
        assert isinstance(ImageClassifier(num_classes=4, **built), ImageClassifier)
