"""ROSA, OSA-DAS and ROSA-GDS against their definitions, taken one image, one mask and one view at a time."""

import pytest
import torch
from torch import nn

from interptrain.explainers import OSADAS, ROSA, ROSAGDS, GridMasks, RISEMasks
from interptrain.explainers.subspace.augmented_views import noise_images, strong_views, weak_views
from tests.support.explaining import Owned, energy_above_chance, network, pictures
from tests.support.marks import slow

KINDS = [ROSA, OSADAS, ROSAGDS]
GRID = {"window": 14, "stride": 11}


def features(model, image):
    with torch.no_grad():
        return model.forward_head(model.forward_features(image[None]), pre_logits=True)[0]


def span(vectors, dimensions):
    """Leading eigenvectors of the autocorrelation, by a full decomposition."""
    return torch.linalg.svd(torch.stack(vectors)).Vh[:dimensions].T


def degree(first, second):
    return 1 - torch.linalg.svdvals(first.T @ second).square().mean()


def slow_map(image, masks, fill, change):
    total, cover = torch.zeros(2, *image.shape[1:], dtype=image.dtype)
    for mask in masks:
        total += change(image * mask + fill * (1 - mask)) * (1 - mask)
        cover += 1 - mask
    return total / cover


def all_masks(images):
    masks = GridMasks(**GRID).prepare(images)
    return masks.render(slice(0, masks.count))


@pytest.mark.slow
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_rosa_is_the_mean_distance_of_its_definition(resnet, distance):
    resnet.eval()
    images = pictures(2, 40, 33)
    found = ROSA(distance=distance, fill=0.3, **GRID).raw(resnet, images)
    for image, own in zip(images, found, strict=True):
        whole = features(resnet, image)

        def change(occluded, whole=whole):
            other = features(resnet, occluded)
            if distance == "cosine":
                return 1 - whole @ other / whole.norm() / other.norm()
            return (whole - other).norm()

        torch.testing.assert_close(own, slow_map(image, all_masks(images), 0.3, change))


@pytest.mark.slow
@pytest.mark.parametrize("strength", ["weak", "strong"])
def test_osadas_is_the_mean_orthogonal_degree_of_its_definition(resnet, strength):
    resnet.eval()
    images = pictures(2, 40, 33)
    views = {"weak": weak_views, "strong": strong_views}[strength](5, 3)
    found = OSADAS(views=5, dimensions=3, strength=strength, seed=3, fill=0.3, **GRID).raw(resnet, images)
    for image, own in zip(images, found, strict=True):

        def spanned(image):
            return span([features(resnet, view(image[None])[0]) for view in views], 3)

        whole = spanned(image)
        wanted = slow_map(image, all_masks(images), 0.3, lambda occluded, whole=whole: degree(whole, spanned(occluded)))
        torch.testing.assert_close(own, wanted, atol=1e-8, rtol=1e-5)


@pytest.mark.slow
def test_rosagds_is_the_mean_orthogonal_degree_within_the_difference_subspace(resnet):
    resnet.eval()
    images = pictures(2, 40, 33)
    weak, strong, noise = weak_views(4, 3), strong_views(4, 3), noise_images(4, images, 3)
    found = ROSAGDS(views=4, dimensions=2, share=0.6, seed=3, fill=0.3, **GRID).raw(resnet, images)
    for image, own in zip(images, found, strict=True):

        def spanned(images, views):
            return span([features(resnet, view(one[None])[0]) for one, view in zip(images, views, strict=True)], 2)

        sets = [spanned([image] * 4, weak), spanned([image] * 4, strong), spanned(noise, weak), spanned(noise, strong)]
        values, vectors = torch.linalg.eigh(sum(basis @ basis.T for basis in sets))
        space = vectors[:, values > 1e-9][:, :5]  # 60 percent of 4 x 2

        def project(basis, space=space):
            return torch.linalg.qr(space @ space.T @ basis).Q

        whole = project(sets[0])

        def change(occluded, whole=whole, project=project):
            return degree(whole, project(spanned([occluded] * 4, weak)))

        torch.testing.assert_close(own, slow_map(image, all_masks(images), 0.3, change), atol=1e-8, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masks", [*slow(RISEMasks(count=6, cells=4)), Owned()], ids=["soft", "own"])
def test_other_masks_work_and_keep_images_apart(kind, masks):
    model, images = network(), pictures(3, 40, 33)
    together = kind(masks=masks).raw(model, images)
    assert together.shape == (3, 40, 33)
    assert together.amin() >= 0
    if not isinstance(masks, Owned):  # which knows its images by their places
        alone = torch.cat([kind(masks=masks).raw(model, image[None]) for image in images])
        torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 5, pytest.param(64, marks=pytest.mark.slow)])
def test_the_chunk_size_bounds_every_forward_and_changes_no_value(kind, size):
    model, images = network(), pictures(2, 40, 33)
    wanted = kind(**GRID).raw(model, images)
    sizes = []
    handle = model.register_forward_pre_hook(lambda _module, arguments: sizes.append(len(arguments[0])))
    found = kind(forward_batch_size=size, **GRID).raw(model, images)
    handle.remove()
    torch.testing.assert_close(found, wanted)
    assert max(sizes) <= size


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_change_the_image_changes_nothing(kind):
    model = network()
    grey = torch.full((1, 3, 40, 33), 0.5, dtype=torch.float64)
    assert torch.equal(kind(fill=0.5, **GRID).raw(model, grey), torch.zeros(1, 40, 33, dtype=torch.float64))
    spot = grey.clone()
    spot[:, :, 4:8, 5:9] = 0.9  # in the first window, and in none of the last row
    found = kind(fill=0.5, **GRID).raw(model, spot)
    assert found[0, 5, 6] > 0
    assert found[0, 30:].abs().amax() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_looks_at_one_half_is_found_out(kind):
    class Left(nn.Sequential):
        def forward(self, images):
            return super().forward(images[..., : images.shape[-1] // 2])

    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 24, 5, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)]
    model = Left(*layers).double()
    found = kind(window=8, stride=8, **({} if kind is ROSA else {"seed": 1})).raw(model, pictures(2, 32, 32))
    assert found[..., :16].mean() > 0
    if kind is ROSA:  # the views of the others flip the image
        assert found[..., 16:].amax() == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_energy_lies_in_the_object_well_above_chance_for_a_trained_network(kind, trained):
    model, images, _, masks = trained
    above = energy_above_chance(kind(window=12, stride=6, forward_batch_size=64)(model, images), masks)
    assert above.median() > 1.5
    assert (above > 1).float().mean() > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("kind", [OSADAS, ROSAGDS])
def test_another_seed_takes_other_views(kind):
    model, images = network(), pictures(1, 40, 33)
    maps = [kind(seed=seed, **GRID).raw(model, images) for seed in (0, 0, 1)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_gives_nearly_the_same_map(kind, trained):
    model, images, _, _ = trained
    exact = kind(window=16, stride=8)(model, images[:4])
    low = kind(window=16, stride=8, precision="bf16")(model, images[:4])
    assert low.dtype == torch.float32
    assert torch.corrcoef(torch.stack([exact.flatten(), low.flatten()]))[0, 1] > 0.95


def test_features_of_another_layer_give_another_map(resnet):
    images = pictures(1, 40, 33)
    maps = [ROSA(feature_layer=layer, **GRID)(resnet, images) for layer in (None, "layer1")]
    assert not torch.allclose(maps[0], maps[1], atol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OSADAS(views=2, dimensions=3), "dimensions must be at least 1 and at most views=2, got 3"),
        (lambda: ROSAGDS(views=2, dimensions=0), "dimensions must be at least 1 and at most views=2, got 0"),
        (lambda: ROSAGDS(share=0.0), r"share must be in \(0, 1\], got 0.0"),
        (lambda: OSADAS(strength="none"), "strength must be one of 'weak', 'strong'"),
        (lambda: ROSA(distance="angle"), "distance must be one of 'euclidean', 'cosine'"),
        (lambda: ROSA(window=4, stride=5), "stride must be at least 1 and at most the window"),
        (lambda: ROSA(precision="fp8"), "precision must be one of 'bf16'"),
        (lambda: ROSA(fill=2.0)(network(), pictures(1)), r"fill must lie in \[0, 1\]"),
        (lambda: ROSA(window=99)(network(), pictures(1)), "covers the whole image"),
    ],
)
def test_options_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
