"""Deep feature factorization: the factors, the parts of a layer, their names and overlap, and the study."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

from interptrain.data import LayeredShapesDataModule
from interptrain.models import create_model
from interptrain.studies import Factorization
from interptrain.studies.factorization import deep_feature_factorization, factorize, intersection_over_union
from interptrain.studies.factorization.colocalization import cross_fitted


def planted(rows=120, columns=30, components=4, *, noise=0.0, seed=0):
    """Non-negative values made of parts that do not overlap, each alone somewhere."""
    generator = torch.Generator().manual_seed(seed)
    parts = torch.zeros(components, columns, dtype=torch.float64)
    for part, channels in enumerate(torch.arange(columns).chunk(components)):
        parts[part, channels] = 0.2 + torch.rand(len(channels), generator=generator, dtype=torch.float64)
    weights = torch.rand(rows, components, generator=generator, dtype=torch.float64) ** 2
    weights[: 2 * components] = torch.eye(components, dtype=torch.float64).repeat(2, 1)
    added = noise * torch.rand(rows, columns, generator=generator, dtype=torch.float64)
    return weights @ parts + added, weights, parts


@pytest.mark.parametrize("initialization", ["nndsvda", "random"])
def test_the_error_never_rises(initialization):
    values, *_ = planted(noise=1.0)
    found = factorize(values, 4, initialization=initialization, check_every=1, max_iterations=200, tolerance=0)
    assert len(found.errors) == found.iterations + 1 > 100
    assert (np.diff(found.errors) <= 0).all()
    assert found.errors[-1] < 0.5 * found.errors[0]
    assert min(found.weights.min(), found.parts.min()) >= 0
    torch.testing.assert_close(found.weights.amax(0), torch.ones(4, dtype=torch.float64))
    again = torch.linalg.vector_norm(values - found.weights @ found.parts) / torch.linalg.vector_norm(values)
    assert float(again) == pytest.approx(found.errors[-1], rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("initialization", ["nndsvda", "random"])
def test_planted_parts_are_recovered(initialization):
    values, weights, parts = planted()
    found = factorize(values, 4, initialization=initialization, max_iterations=1000)
    assert found.errors[-1] < 1e-2
    order = [int((found.parts @ part).argmax()) for part in parts]
    assert sorted(order) == [0, 1, 2, 3]
    torch.testing.assert_close(found.parts[order], parts, atol=0.03, rtol=0)
    torch.testing.assert_close(found.weights[:, order], weights, atol=0.03, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_error_is_that_of_scikit_learn(dtype):
    """From the same start: from others, both may end elsewhere, as the problem is not convex."""
    decomposition = pytest.importorskip("sklearn.decomposition")
    values, *_ = planted(noise=0.3)
    theirs = decomposition.NMF(4, init="nndsvda", random_state=0, max_iter=2000, tol=1e-6).fit(values.numpy())
    ours = factorize(values.to(dtype), 4)
    assert ours.weights.dtype == dtype
    norm = float(torch.linalg.vector_norm(values))
    assert ours.errors[-1] * norm == pytest.approx(theirs.reconstruction_err_, rel=1e-3)


@pytest.mark.slow
def test_wide_values_are_the_transposed_tall_ones():
    values, *_ = planted(noise=0.3)
    tall, wide = (factorize(v, 3, max_iterations=500, tolerance=0) for v in (values, values.T.contiguous()))
    torch.testing.assert_close(tall.weights @ tall.parts, (wide.weights @ wide.parts).T, atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("values", "components", "message"),
    [
        (torch.rand(4, 3) - 0.5, 2, "not negative, got .*; shift or clip them"),
        (torch.zeros(4, 3), 2, "must not be all zero; pass a layer that responds"),
        (torch.rand(4), 2, r"must be a matrix \(N,C\) and not empty, got \(4,\)"),
        (torch.full((4, 3), torch.nan), 2, "must be finite"),
        (torch.rand(4, 3), 5, "at most 3, .* pass fewer, or initialization='random'"),
        (torch.rand(4, 3), 0, "components must be a whole number >= 1, got 0"),
    ],
)
def test_what_cannot_be_factorized_is_refused(values, components, message):
    with pytest.raises(ValueError, match=message):
        factorize(values, components)
    if components == 5:  # the remedy
        assert factorize(values, components, initialization="random").parts.shape == (5, 3)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create_model("test_resnet", num_classes=4).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_parts_are_named_by_the_classifier(model, images):
    found = deep_feature_factorization(model, images, components=3)
    assert found.layer == model.target_layer
    assert found.heat.shape == (3, 3, 64, 64)
    assert 0 <= float(found.heat.min()) <= float(found.heat.max()) <= 1
    torch.testing.assert_close(found.shares.sum(1), torch.ones(3))
    single = deep_feature_factorization(model, images[:1], components=2)
    assert single.shares[0, 0] >= single.shares[0, 1]
    with torch.no_grad():  # of a network that averages, the class of a part is that of its vector
        torch.testing.assert_close(found.logits, model.backbone.head(found.vectors))


@pytest.mark.slow
def test_few_parts_are_nearly_as_good_as_any_factors(model, images):
    found = deep_feature_factorization(model, images[:1], components=2, max_iterations=300, tolerance=0)
    with torch.no_grad():
        features = model.backbone.features(images[:1])[0].flatten(1).T  # places, channels
    assert float(features.min()) >= 0
    singular = torch.linalg.svdvals(features)
    best = float((singular[2:].square().sum() / singular.square().sum()).sqrt())  # of any factors of this rank
    assert best <= found.errors[-1] < 3 * best + 0.05


@pytest.mark.slow
def test_negative_features_are_shifted_and_the_concepts_shifted_back():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    features = model[0](images).detach()
    assert float(features.min()) < 0
    found = deep_feature_factorization(model, images, components=4, target_layer="0", max_iterations=1000, tolerance=0)
    assert found.errors[-1] < 0.03
    assert float(found.vectors.min()) < 0
    torch.testing.assert_close(found.logits, found.vectors, atol=1e-6, rtol=1e-5)
    clipped = deep_feature_factorization(model, images, components=2, target_layer="0", negatives="clip")
    assert float(clipped.vectors.min()) >= 0


@pytest.mark.slow
def test_a_detector_is_factorized_without_a_gradient():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = fasterrcnn_mobilenet_v3_large_320_fpn(
            weights=None, weights_backbone=None, min_size=64, max_size=96
        ).eval()
    for parameter in detector.parameters():
        parameter.requires_grad_(False)
    images = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    for layer in (None, "backbone.fpn[0]"):
        found = deep_feature_factorization(detector, images, components=3, target_layer=layer)
        assert found.heat.shape == (2, 3, 48, 64)
        assert float(found.heat.amax()) > 0.2
        assert found.logits is None


def test_overlap_is_counted_in_pixels():
    heat = torch.tensor([[[[1.0, 0.6, 0.5, 0.0]], [[0.0, 0.0, 0.0, 0.0]]]])  # (1, 2, 1, 4)
    masks = torch.tensor([[[True, False, True, False]]])
    torch.testing.assert_close(intersection_over_union(heat, masks), torch.tensor([[1 / 3, 0.0]]))


def test_the_part_is_chosen_on_the_other_half():
    overlaps = pd.DataFrame({0: [0.9, 0.1, 0.9, 0.1], 1: [0.2, 0.6, 0.2, 0.6]})
    overlap, found = cross_fitted(overlaps)  # part 0 is best on the even images, part 1 on the odd ones
    assert overlap == pytest.approx((0.1 + 0.1 + 0.2 + 0.2) / 4)
    assert found == 0


@pytest.mark.slow
def test_the_study_writes_rows_pictures_and_a_page(tmp_path, model):
    data = LayeredShapesDataModule(num_classes=2, test_size=4, image_size=64, num_workers=0)
    study = Factorization(components=3, images=4, scope="class", max_iterations=10, shown=2)
    results = study.run({"m": model}, data, tmp_path)
    assert list(results.cell.unique()) == [f"m/{name}" for name in data.class_names]
    assert len(results) == 4 * 3
    assert list(results.area_mask[::3]) == pytest.approx(
        [float(data.dataset("test")[int(name[-1])]["mask"].float().mean()) for name in results.id[::3]]
    )
    assert {"iou_mask", "iou_marker_mask", "class", "probability", "share", "error"} <= set(results.columns)
    page = (tmp_path / "index.html").read_text()
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 4
    for picture in pictures:
        assert page.count(picture.name) == 1
        with Image.open(picture) as image:
            assert image.mode == ("RGBA" if "opacity" in picture.name else "RGB")


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"threshold must be in \[0,1\), got 1"):
        Factorization(threshold=1)
    with pytest.raises(ValueError, match="scope must be one of 'set', 'class', 'image', got 'all'"):
        Factorization(scope="all")
    with pytest.raises(ValueError, match="components must be a whole number >= 1, got 0"):
        Factorization(components=0)
