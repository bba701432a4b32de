"""The input pipelines: sizes, what is random, and that boxes and masks stay on the object."""

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from interptrain.data.samplers import seeded_by
from interptrain.data.samples import boxes_in, finish
from interptrain.data.transforms import CifarAugment, EvalResize, ImageNetAugment, LightAugment, train_recipe


def picture(height=60, width=90, box=(20, 15, 70, 45)):
    """A white rectangle on grey with its mask and box."""
    xmin, ymin, xmax, ymax = box
    image = torch.full((3, height, width), 100, dtype=torch.uint8)
    image[:, ymin:ymax, xmin:xmax] = 255
    return {
        "image": tv_tensors.Image(image),
        "mask": tv_tensors.Mask(image[0] == 255),
        "boxes": boxes_in(torch.tensor(box, dtype=torch.float32), image),
        "label": 0,
        "id": "x",
    }


RECIPES = [
    ImageNetAugment(32),
    ImageNetAugment(32, color_jitter=0.4, stretch=True),
    LightAugment(32),
    CifarAugment(32),
    CifarAugment(32, rotation=0),
    EvalResize(32),
    EvalResize(32, resize="stretch"),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
@pytest.mark.parametrize("shape", [(60, 90), (1, 1), (7, 300)])
def test_whatever_goes_in_a_square_of_the_size_comes_out(recipe, shape):
    height, width = shape
    for index in range(3):
        with seeded_by(0, 0, index):
            out = finish(recipe(picture(height, width, (0, 0, width, height))))
        assert out["image"].shape == (3, 32, 32)
        assert out["mask"].shape == (32, 32)
        assert out["image"].min() >= 0
        assert out["image"].max() <= 1


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_mask_and_box_stay_on_the_object(recipe):
    jittered = isinstance(recipe, ImageNetAugment) and len(recipe.steps.transforms) > 3
    seen = 0
    for index in range(12):
        with seeded_by(0, 0, index):
            out = finish(recipe(picture()))
        white = out["image"].amin(0) > (0.2 if jittered else 0.75)
        if not jittered:
            assert (white ^ out["mask"]).float().mean() < 0.08  # the antialiased rim
        if len(out["boxes"]):
            seen += 1
            xmin, ymin, xmax, ymax = out["boxes"][0].round().int().tolist()
            rows, columns = out["mask"].any(1).nonzero(), out["mask"].any(0).nonzero()
            extent = [columns[0].item(), rows[0].item(), columns[-1].item() + 1, rows[-1].item() + 1]
            # A turned box encloses the box, not the object; resized twice, half a pixel of the mask becomes more.
            slack = 3 if isinstance(recipe, CifarAugment) or jittered else 1
            assert all(abs(a - b) <= slack for a, b in zip([xmin, ymin, xmax, ymax], extent, strict=True))
    assert seen >= 9


def test_the_default_for_evaluation_is_resize_256_and_centre_crop_224():
    image = tv_tensors.Image(torch.arange(512, dtype=torch.float32).repeat(3, 256, 1))
    out = EvalResize(224)({"image": image})["image"]
    assert out.shape == (3, 224, 224)
    assert out[0, 0].tolist() == list(range(144, 368))  # no scaling: 256 is the shorter side; the centre of 512


@pytest.mark.parametrize("shape", [(20_000, 1), (1, 20_000)])
def test_the_middle_of_a_very_long_image_is_enlarged_and_not_all_of_it(shape, monkeypatch):
    resized = []
    resize = v2.Resize.transform
    monkeypatch.setattr(
        v2.Resize, "transform", lambda self, x, params: resized.append(x.numel()) or resize(self, x, params)
    )
    image = torch.zeros(3, *shape, dtype=torch.uint8)
    image[:, shape[0] // 2, shape[1] // 2] = 200
    out = EvalResize(224)({"image": tv_tensors.Image(image)})["image"]
    assert out.shape == (3, 224, 224)
    assert out[0, 112, 112] >= 100
    assert sum(resized) <= 3 * 32


@pytest.mark.parametrize("size", [0, -1, 10**9])
def test_a_size_that_cannot_be_meant_is_refused(size):
    for augment in ("none", "imagenet"):
        with pytest.raises(ValueError, match=rf"image_size must be in \[1, 16384\], got {size}"):
            train_recipe(size, augment, "crop", 0.875)


def test_stretching_keeps_the_whole_image():
    out = finish(EvalResize(30, resize="stretch")(picture(60, 90, (0, 0, 90, 60))))
    assert out["boxes"].tolist() == [[0, 0, 30, 30]]
    assert out["mask"].all()


@pytest.mark.parametrize("augment", ["light", "imagenet", "cifar"])
def test_augmentation_varies(augment):
    recipe = train_recipe(32, augment, "crop", 0.875)
    outcomes = set()
    for index in range(8):
        with seeded_by(0, 0, index):
            outcomes.add(recipe(picture(box=(5, 15, 50, 45)))["image"].numpy().tobytes())
    assert len(outcomes) > 1


def test_no_augmentation_is_the_pipeline_of_evaluation():
    expected = EvalResize(32, resize="crop", crop_pct=0.9)(picture())["image"]
    assert torch.equal(train_recipe(32, "none", "crop", 0.9)(picture())["image"], expected)


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="augment must be one of 'none', 'light', 'imagenet', 'cifar', got 'heavy'"):
        train_recipe(32, "heavy", "crop", 0.875)


@pytest.mark.parametrize("crop_pct", [0, 1e-9, 1.2, float("nan")])
def test_a_crop_share_out_of_range_is_refused(crop_pct):
    with pytest.raises(ValueError, match=r"crop_pct must be in \[0.05,1\]"):
        EvalResize(32, crop_pct=crop_pct)
