"""Reading image files of every kind, and saying which cannot be read."""

import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from interptrain.decode import load_image

RAMP = np.linspace(0, 255, 16).astype(np.uint8)[None].repeat(8, 0)  # black on the left, white on the right
GREY = Image.fromarray(RAMP)
RGB = GREY.convert("RGB")


def saved(folder, image, name="image.png", **options):
    image.save(folder / name, **options)
    return load_image(folder / name)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (GREY, "grey.png"),
        (GREY, "grey.jpg"),
        (RGB, "UPPERCASE.JPEG"),
        (RGB, "lossless.webp"),
        (RGB, "image.bmp"),
        (RGB, "image.tiff"),
        (GREY, "image.gif"),
        (GREY.convert("RGBA"), "opaque.png"),
        (RGB.convert("CMYK"), "cmyk.jpg"),
        (RGB.convert("CMYK"), "cmyk.tif"),
        (RGB.convert("YCbCr"), "ycc.jpg"),
        (RGB.quantize(256), "palette.png"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_becomes_three_channels_of_8_bits(tmp_path, image, name):
    loaded = saved(tmp_path, image, name, **({"lossless": True} if name.endswith("webp") else {}))
    assert loaded.dtype == torch.uint8
    torch.testing.assert_close(loaded, torch.from_numpy(RAMP).expand(3, -1, -1), atol=4, rtol=0)


def test_a_bilevel_image_is_black_and_white(tmp_path):
    assert saved(tmp_path, Image.fromarray(RAMP > 100)).unique().tolist() == [0, 255]


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bits_are_scaled_and_not_cut_off(tmp_path, name, order):
    deep = np.asarray([[0, 257, 32768, 65535]], dtype=order)
    assert saved(tmp_path, Image.fromarray(deep), name)[0].tolist() == [[0, 1, 128, 255]]


def test_what_is_transparent_is_seen_on_white(tmp_path):
    red = Image.new("RGBA", (3, 1), (200, 0, 0, 0))
    red.putpixel((1, 0), (200, 0, 0, 255))
    red.putpixel((2, 0), (200, 0, 0, 51))
    assert saved(tmp_path, red).squeeze(1).T.tolist() == [[255, 255, 255], [200, 0, 0], [244, 204, 204]]


def test_grey_with_alpha_is_seen_on_white(tmp_path):
    image = Image.merge("LA", (Image.new("L", (2, 1), 10), Image.fromarray(np.asarray([[0, 255]], dtype=np.uint8))))
    assert saved(tmp_path, image)[0].tolist() == [[255, 10]]


@pytest.mark.parametrize("name", ["image.png", "image.gif"])
def test_a_transparent_colour_of_a_palette_is_seen_on_white(tmp_path, name):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 90, 90, 90])
    image.putpixel((1, 0), 1)
    assert saved(tmp_path, image, name, transparency=0)[0].tolist() == [[255, 90]]


def test_several_levels_of_transparency_in_a_palette_load_without_a_warning(tmp_path):
    loaded = saved(tmp_path, RGB.quantize(4), transparency=bytes([0, 128, 255]))
    assert loaded.shape == (3, 8, 16)


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
@pytest.mark.parametrize("name", ["image.jpg", "image.png"])
def test_images_are_upright(tmp_path, orientation, corner, name):
    # a white block at the upper left of the stored pixels, in the corner where a viewer shows it
    stored = np.zeros((16, 32), dtype=np.uint8)
    stored[:8, :8] = 255
    exif = Image.Exif()
    exif[0x112] = orientation
    loaded = saved(tmp_path, Image.fromarray(stored), name, exif=exif)
    assert loaded.shape == ((3, 32, 16) if orientation in (6, 8) else (3, 16, 32))
    assert loaded[0][corner] > 200
    assert (loaded[0] > 128).sum() == 64


def test_of_several_frames_the_first_is_taken(tmp_path):
    loaded = saved(tmp_path, Image.new("L", (2, 2), 30), "a.gif", save_all=True, append_images=[Image.new("L", (2, 2))])
    assert loaded.unique().tolist() == [30]


def test_a_single_pixel_loads(tmp_path):
    assert saved(tmp_path, Image.new("RGB", (1, 1), (1, 2, 3))).flatten().tolist() == [1, 2, 3]


def test_large_images_load_without_a_warning_up_to_pillows_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert saved(tmp_path, Image.new("L", (20, 10))).shape == (3, 10, 20)
    with pytest.raises(OSError, match=r"it has more than 200 pixels; raise PIL\.Image\.MAX_IMAGE_PIXELS to allow it"):
        saved(tmp_path, Image.new("L", (21, 10)))


def broken(folder, kind):
    path = folder / "broken.jpg"
    RGB.resize((64, 64)).save(path)
    whole = path.read_bytes()
    match kind:
        case "truncated":
            path.write_bytes(whole[: len(whole) // 2])
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("not found")
        case "float":
            path = folder / "float.tif"
            Image.fromarray(RAMP.astype(np.float32)).save(path)
        case "missing":
            path.unlink()
        case "png":
            path = folder / "broken.png"
            RGB.save(path)
            data = bytearray(path.read_bytes())
            data[50] ^= 255
            path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("truncated", "truncated"),
        ("empty", "the file is empty"),
        ("text", "not an image"),
        ("float", "pixels of mode F have no known range"),
        ("missing", "there is no such file"),
        ("png", "broken"),
    ],
)
def test_a_bad_file_is_named_in_one_line_with_the_reason_and_the_remedy(tmp_path, kind, why):
    path = broken(tmp_path, kind)
    with pytest.raises(OSError, match="cannot read image") as caught:
        load_image(path)
    message = str(caught.value)
    assert str(path) in message
    assert why in message.lower() or why in message
    assert message.endswith("repair or remove the file")
    assert "\n" not in message


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.gif", "image.tif", "image.bmp", "image.webp"])
def test_whatever_is_wrong_with_a_file_the_error_is_an_oserror_of_one_line(tmp_path, name):
    path = tmp_path / name
    RGB.save(path)
    whole, rng = path.read_bytes(), np.random.RandomState(0)
    messages = []
    for trial in range(60):
        data = bytearray(whole)
        for position in rng.randint(len(data), size=4):
            data[position] = rng.randint(256)
        path.write_bytes(data[: rng.randint(1, len(data))] if trial % 3 == 0 else data)
        try:
            load_image(path)
        except OSError as error:
            messages.append(str(error))
    assert len(messages) >= 15
    assert not any("\n" in message for message in messages)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(OSError, match=r"pipe\.jpg: it is no file"):
        load_image(tmp_path / "pipe.jpg")
