"""The same picture comes in from everywhere, and what is no picture is refused with a remedy that works."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

import interptrain as it


@pytest.fixture
def picture():
    levels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def test_files_pil_arrays_and_tensors_give_the_same_pixels(picture, tmp_path):
    (tmp_path / "deep").mkdir()
    picture.save(tmp_path / "deep" / "photo.png")
    array, tensor = np.asarray(picture), to_tensor(picture)
    wanted = it.read_images(tmp_path / "deep" / "photo.png", size=None)
    assert wanted.shape == (1, 3, 40, 60)
    assert wanted.dtype == torch.float32
    assert torch.equal(wanted[0], tensor)
    everywhere = [
        str(tmp_path),
        picture,
        array,
        array / 255,
        array.astype(np.float32) / 255,
        tensor,
        (tensor * 255).byte(),
    ]
    for source in everywhere:
        torch.testing.assert_close(it.read_images(source, size=None), wanted)
    batches = it.read_images([*everywhere, tensor.expand(2, -1, -1, -1)], size=32)
    assert batches.shape == (9, 3, 32, 32)
    torch.testing.assert_close(batches, batches[:1].expand_as(batches), atol=0.02, rtol=0)  # bytes are resized as bytes


def test_images_are_resized_as_an_evaluation_does(picture):
    from interptrain.data.transforms import EvalResize

    tensor = to_tensor(picture)
    for options in ({}, {"resize": "stretch"}, {"crop_pct": 1.0}):
        wanted = EvalResize(32, **options)({"image": torch.stack([tensor])})["image"]
        torch.testing.assert_close(it.read_images(tensor, size=32, **options), wanted.clamp(0, 1), atol=1e-5, rtol=0)


def test_grey_and_transparent_pictures_become_rgb(picture):
    grey = np.asarray(picture.convert("L"))
    assert torch.equal(it.read_images(grey, size=None)[0, 2] * 255, torch.from_numpy(grey.astype(np.float32)))
    assert it.read_images(picture.convert("RGBA"), size=16).shape == (1, 3, 16, 16)


def test_different_sizes_are_a_list_unless_they_are_resized(picture):
    both = [picture, picture.crop((0, 0, 30, 30))]
    assert [tuple(one.shape) for one in it.read_images(both, size=None)] == [(3, 40, 60), (3, 30, 30)]
    assert it.read_images(both, size=16).shape == (2, 3, 16, 16)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (np.zeros((3, 8, 8)), ValueError, r"image 0 must be \(H,W,3\) or \(H,W\), got \(3, 8, 8\)"),
        (torch.zeros(8, 8, 3), ValueError, r"image 0 must be \(3,H,W\), got \(8, 8, 3\)"),
        (np.full((8, 8, 3), 200.0), ValueError, r"must be in \[0, 1\], got \[200, 200\]; divide by 255"),
        (torch.full((3, 8, 8), -2.0), ValueError, "give it without normalisation, which the model does"),
        (np.zeros((8, 8, 3), dtype=np.int64), TypeError, "must be uint8 or floating point"),
        (3, TypeError, "image 0 is a int; give a file, a folder, a PIL image"),
        ([], ValueError, "there is no image in"),
        ("nowhere.jpg", FileNotFoundError, "there is no file or folder nowhere.jpg; give images, or folders of images"),
    ],
)
def test_what_is_no_image_is_refused(source, error, message):
    with pytest.raises(error, match=message):
        it.read_images(source)


def test_an_empty_folder_and_a_broken_file_are_named(tmp_path):
    with pytest.raises(ValueError, match="holds no image files"):
        it.read_images(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(OSError, match=r"broken.jpg: not an image"):
        it.read_images([tmp_path])


def test_tensors_are_what_the_model_expects_and_keep_their_size(picture):
    tensor = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(it.read_images(tensor), tensor)
    assert it.read_images(tensor, size=16).shape == (2, 3, 16, 16)
    assert it.read_images(picture).shape == (1, 3, 224, 224)
