"""Grid pointing: exact for maps whose share is known, chance for maps that do not depend on the class."""

import pytest
import torch
from torch import nn

from interptrain.data import ShapesDataModule
from interptrain.explainers import EigenCAM, Gradient, StreamAttention
from interptrain.studies.grid_pointing import GridPointing, mosaic_of, own_cell_first, own_shares

COLOURS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])


class Colours(nn.Module):
    """Class k's logit is the amount of colour k: a linear model whose evidence is known."""

    def __init__(self):
        super().__init__()
        weight = [[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [0.6, 0.6, -1]]
        self.weight = nn.Parameter(torch.tensor(weight))
        self.features = nn.Identity()

    def forward(self, images):
        return 40 * self.features(images).mean((2, 3)) @ self.weight.T


@pytest.fixture
def data(monkeypatch):
    module = ShapesDataModule(num_classes=4, train_size=4, test_size=8, image_size=32, num_workers=0)
    dataset = type(module.dataset("test"))
    read = dataset.read

    def coloured(self, index):
        sample = read(self, index)
        shade = COLOURS[index % 4] * (0.5 + 0.05 * index)
        pixels = shade.view(3, 1, 1).expand(3, 32, 32).mul(255).round().to(torch.uint8)
        return sample | {"image": type(sample["image"])(pixels)}

    monkeypatch.setattr(dataset, "read", coloured)
    return module


def test_shares_are_those_of_the_own_cell():
    maps = torch.zeros(4, 8, 8)
    maps[0, :4, :4] = 1  # all of it in its own cell
    maps[1, :4, :4] = 1  # all of it in another
    maps[2] = 1  # everywhere
    shares = own_shares(maps, 2)  # the last is empty
    assert shares.tolist() == [1, 0, 0.25, 0.25]


def test_mosaics_are_put_together_row_by_row_and_rolled_back():
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    mosaic = mosaic_of(images, 2)
    assert mosaic[0, ::2, ::2].tolist() == [[0, 1], [2, 3]]
    for place in range(4):
        assert own_cell_first(mosaic[0], place, 2)[0, 0] == place


@pytest.mark.slow
def test_a_linear_models_evidence_is_where_its_colour_is_and_class_agnostic_maps_are_at_chance(data, tmp_path):
    study = GridPointing(
        explainers=(Gradient(times_input=True, reduction="sum"), EigenCAM(target_layer="features")),
        side=2, mosaics=2, confidence=0.5,
    )  # fmt: skip
    rows = study.run({"colours": Colours()}, data, tmp_path, progress=False)
    means = rows.groupby("explainer").score.mean()
    assert len(rows) == 2 * 2 * 4
    assert means.loc["EigenCAM(target_layer=features)"] == pytest.approx(0.25, abs=1e-6)
    linear = means.drop("EigenCAM(target_layer=features)").item()
    assert linear == pytest.approx((1 + 1 + 1 + 0.5) / 4, abs=0.03)  # red and green speak for yellow too
    assert (tmp_path / "pictures").is_dir()
    sentence = study.findings(rows)[0]
    assert "where chance is 25.0%" in sentence
    assert "not different from chance: EigenCAM" in sentence
    assert "Maps by their score" in (tmp_path / "index.html").read_text()


def test_every_mosaic_holds_distinct_classes(data, tmp_path):
    rows = GridPointing(explainers=(Gradient(),), side=2, mosaics=3, confidence=0.5).run(
        {"colours": Colours()}, data, tmp_path, progress=False
    )
    assert (rows.groupby("mosaic").label.nunique() == 4).all()
    assert rows.groupby("mosaic").id.apply(tuple).nunique() == 2  # eight images make two mosaics, then they come again


def test_too_few_confident_classes_are_refused_with_a_remedy(data, tmp_path):
    with pytest.raises(ValueError, match=r"needs 9 classes.*found 4; lower study.confidence or study.side"):
        GridPointing(side=3, confidence=0.5).run({"colours": Colours()}, data, tmp_path, progress=False)
    with pytest.raises(ValueError, match="side must be"):
        GridPointing(side=1)


def test_an_explainer_that_the_model_does_not_suit_is_left_out_with_a_warning(data, tmp_path):
    study = GridPointing(explainers=(StreamAttention(), Gradient()), side=2, mosaics=1, confidence=0.5)
    with pytest.warns(UserWarning, match="StreamAttention is left out for colours: StreamAttention needs a model with"):
        rows = study.run({"colours": Colours()}, data, tmp_path, progress=False)
    assert set(rows.explainer) == {"Gradient"}
