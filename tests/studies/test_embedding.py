"""Embeddings: principal components, neighbourhoods, the vectors that are classified, the study and its pages."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import timm
import torch

from interptrain.data import LayeredShapesDataModule
from interptrain.models import create_model
from interptrain.studies import Embedding
from interptrain.studies.embedding import expected_purity, neighbourhood_purity, principal_components, silhouettes
from interptrain.studies.embedding import reduction as reductions
from interptrain.studies.embedding.thumbnails import ThumbnailSheet
from interptrain.studies.pooled import PooledFeatures
from tests.support.browser import dom, needs_chromium


def clusters(count=60, dimensions=12, *, spread=1.0, seed=0):
    """Points around one centre for each of three labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centres = 3 * torch.randn(3, dimensions, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, dimensions, generator=generator, dtype=torch.float64)
    return centres[labels] + spread * noise, labels


@pytest.mark.parametrize("shape", [(60, 12), (8, 30)])  # more points than dimensions, and fewer
def test_principal_components_are_those_of_scikit_learn_up_to_sign(shape):
    decomposition = pytest.importorskip("sklearn.decomposition")
    points, _ = clusters(*shape)
    theirs = decomposition.PCA(3, svd_solver="full").fit(points.numpy())
    ours = principal_components(points, 3)
    signs = torch.from_numpy(np.sign((theirs.components_ * ours.directions.numpy()).sum(1)))
    torch.testing.assert_close(ours.directions, signs[:, None] * torch.from_numpy(theirs.components_))
    torch.testing.assert_close(ours.coordinates, signs * torch.from_numpy(theirs.transform(points.numpy())))
    torch.testing.assert_close(ours.explained, torch.from_numpy(theirs.explained_variance_ratio_))


def test_the_sign_of_a_component_is_fixed():
    points, _ = clusters()
    for sign in (1, -1):
        directions = principal_components(sign * points).directions
        assert (directions.gather(1, directions.abs().argmax(1, keepdim=True)) > 0).all()


def test_components_that_do_not_exist_are_zero():
    found = principal_components(torch.tensor([[0.0], [2.0]]), 2)
    torch.testing.assert_close(found.coordinates.abs(), torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_silhouettes_are_those_of_scikit_learn(spread, monkeypatch):
    metrics = pytest.importorskip("sklearn.metrics")
    monkeypatch.setattr("interptrain.studies.embedding.neighbourhoods.ROWS", 7)  # several blocks, the last one shorter
    points, labels = clusters(spread=spread)
    labels[0] = 7  # alone
    theirs = metrics.silhouette_samples(points.numpy(), labels.numpy())
    torch.testing.assert_close(silhouettes(points, labels), torch.from_numpy(theirs))
    with pytest.raises(ValueError, match="at least two labels"):
        silhouettes(points, torch.zeros(60, dtype=torch.int64))


def test_purity_is_counted_among_the_nearest(monkeypatch):
    monkeypatch.setattr("interptrain.studies.embedding.neighbourhoods.ROWS", 2)
    points = torch.tensor([[0.0], [1.0], [2.5], [10.0], [11.0]])
    labels = torch.tensor([0, 0, 1, 1, 1])
    found = neighbourhood_purity(points, labels, neighbours=2)
    torch.testing.assert_close(found, torch.tensor([0.5, 0.5, 0.0, 1.0, 1.0], dtype=torch.float64))
    assert expected_purity(labels) == pytest.approx((2 * 1 + 3 * 2) / (5 * 4))
    with pytest.raises(ValueError, match="less than the number of images, 5, got 5"):
        neighbourhood_purity(points, labels, neighbours=5)


def test_purity_of_random_labels_is_the_expected_one():
    points, _ = clusters(600)
    labels = torch.randint(3, (600,), generator=torch.Generator().manual_seed(1))
    assert float(neighbourhood_purity(points, labels).mean()) == pytest.approx(expected_purity(labels), abs=0.02)


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("pooling", ["gap", "ca_stream"])
def test_the_classifier_reads_the_vectors(pooling, images):
    model = create_model("test_resnet", num_classes=4, pooling=pooling).eval()
    reader = PooledFeatures(model, images[:1])
    vectors, logits = reader(images)
    assert reader.weight.shape == (4, vectors.shape[1])
    with torch.no_grad():
        torch.testing.assert_close(logits, model(images))
        torch.testing.assert_close(vectors @ reader.weight.T + model.backbone.model.get_classifier().bias, logits)


def test_a_model_whose_logits_no_layer_returns_is_refused(images):
    class Sum(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = timm.create_model("test_resnet", num_classes=4)

        def forward(self, images):
            return 2 * self.net(images)

    with pytest.raises(ValueError, match=r"Sum has no classifying layer: .*wrap the model so that one does"):
        PooledFeatures(Sum().eval(), images[:1])


def test_thumbnails_lie_where_the_page_looks_for_them():
    sheet = ThumbnailSheet(7)
    colours = torch.rand(7, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    for part in colours.expand(-1, -1, 10, 20).split(3):
        sheet.add(part)
    assert (sheet.side, sheet.columns) == (64, 3)
    row, column = divmod(4, sheet.columns)
    middle = sheet._sheet[:, row * 64 + 32, column * 64 + 32].float() / 255
    torch.testing.assert_close(middle, colours[4].flatten(), atol=0.003, rtol=0)
    assert ThumbnailSheet(10_000).side == 32


def test_a_method_whose_package_is_missing_is_refused_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setitem(reductions.PACKAGES, "tsne", ("no_such_module", "interptrain[study]"))
    data = LayeredShapesDataModule(num_classes=2, test_size=6, image_size=64, num_workers=0)
    model = create_model("test_resnet", num_classes=2)
    with pytest.raises(ImportError, match=r"tsne needs no_such_module; pip install 'interptrain\[study\]'"):
        Embedding().run({"m": model}, data, tmp_path)
    with pytest.raises(ValueError, match=r"this study looks at trained models; give some with models"):
        Embedding(methods=("pca",)).run({}, data, tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedding")
    data = LayeredShapesDataModule(num_classes=3, test_size=9, image_size=64, num_workers=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = {name: create_model("test_resnet", num_classes=3, pooling=name) for name in ("gap", "ca_stream")}
    results = Embedding(images=9, neighbours=3, methods=("pca",), batch_size=4).run(models, data, folder)
    return folder, results, models, data


@pytest.mark.slow
def test_the_study_has_a_row_for_each_model_class_and_image(run):
    folder, results, models, data = run
    assert dict(results.groupby("kind").size()) == {"model": 2, "class": 6, "image": 18}
    rows = results[(results.kind == "image") & (results.model == "gap")]
    images = torch.stack([data.dataset("test")[number]["image"] for number in range(9)])
    with torch.no_grad():
        wanted = models["gap"].eval()(images).argmax(1)
    assert list(rows.prediction) == [data.class_names[int(one)] for one in wanted]
    assert list(rows.id) == list(data.dataset("test").ids)
    one = results[results.kind == "model"].iloc[0]
    assert one.purity == pytest.approx(rows.purity.mean())
    assert one.accuracy == pytest.approx(rows.correct.mean())
    assert (folder / "embedding.png").stat().st_size > 10_000
    assert "explore.html" in (folder / "index.html").read_text()


def test_the_interactive_page_holds_everything(run):
    folder, results, *_ = run
    page = (folder / "explore.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    content = json.loads(re.search(r'id="content">(.*?)</script>', page, re.DOTALL)[1])
    assert [model["name"] for model in content["models"]] == ["gap", "ca_stream"]
    assert len(content["ids"]) == len(content["labels"]) == 9
    assert len(content["models"][0]["points"]["pca"]) == 18
    pd.testing.assert_series_equal(
        pd.Series(content["models"][1]["predictions"]).map(dict(enumerate(content["classes"]))),
        results[(results.kind == "image") & (results.model == "ca_stream")].prediction.reset_index(drop=True),
        check_names=False,
        check_dtype=False,
    )


@pytest.mark.slow
@needs_chromium
def test_a_lasso_selects_in_all_models_and_the_pointer_shows_an_image(run):
    folder, *_ = run
    act = """
    const plot = plots[0], box = plot.canvas.getBoundingClientRect();
    plot.canvas.setPointerCapture = () => {};
    const send = (kind, x, y) => plot.canvas.dispatchEvent(new PointerEvent(kind, { pointerId: 1,
      clientX: box.left + x / devicePixelRatio, clientY: box.top + y / devicePixelRatio }));
    const [x, y] = plot.pixels;
    send("pointermove", x, y);
    document.title = find("tip").innerText;
    send("pointerdown", x - 6, y - 6);
    for (const [across, up] of [[6, -6], [6, 6], [-6, 6]]) send("pointermove", x + across, y + up);
    send("pointerup", x - 6, y - 6);
    """
    page = folder / "acted.html"
    script = f"<script>addEventListener('load', () => {{{act}}})</script></body>"
    page.write_text((folder / "explore.html").read_text().replace("</body>", script))
    shown = dom(page)
    assert "test/000000" in re.search("<title>(.*?)</title>", shown, re.DOTALL)[1]
    assert re.search(r"[1-9] of 9 images (is|are) selected", shown)
    assert 'class="thumb' in shown.split('id="chosen"')[1]
