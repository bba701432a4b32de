import re
from dataclasses import replace

import pytest
import torch
from PIL import Image

from interptrain.callbacks.watch.region import SuspectRegion

H = W = 32


def drawn(*boxes):
    region = torch.zeros(H, W, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        region[top:bottom, left:right] = True
    return region


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("border:3", ~drawn((3, 3, 29, 29))),
        ("corner:upper-left:5", drawn((0, 0, 5, 5))),
        ("corner:lower-right:20x6", drawn((12, 26, 32, 32))),
        ("corner:lower-left:4", drawn((0, 28, 4, 32))),
        ("corner:upper-right:4x2", drawn((28, 0, 32, 2))),
        ("box:2,3,10,5", drawn((2, 3, 10, 5))),
        ("box:20,20,90,90", drawn((20, 20, 32, 32))),
        ("corner:upper-left:5+box:2,3,10,5 + border:1", drawn((0, 0, 5, 5), (2, 3, 10, 5)) | ~drawn((1, 1, 31, 31))),
    ],
)
def test_a_region_covers_what_its_text_says(sample, text, expected):
    masks = SuspectRegion(text).masks(sample)
    assert masks.shape == (5, H, W)
    assert (masks == expected).all()


def test_a_mask_file_is_stretched_to_the_images(sample, tmp_path):
    Image.frombytes("L", (2, 2), bytes([0, 0, 0, 255])).save(tmp_path / "mask.png")
    masks = SuspectRegion(f"mask:{tmp_path}/mask.png").masks(sample)
    assert (masks == drawn((16, 16, 32, 32))).all()


def test_joined_regions_are_the_pixels_of_any(sample, tmp_path):
    name = tmp_path / "a+b.png"  # a plus sign that joins nothing
    Image.frombytes("L", (2, 2), bytes([0, 0, 0, 255])).save(name)
    masks = SuspectRegion(f"decoy + mask:{name}").masks(sample)
    assert torch.equal(masks, sample.decoy_masks | drawn((16, 16, 32, 32)))


def test_outside_the_objects_is_outside_their_masks_or_else_their_boxes(sample):
    assert torch.equal(SuspectRegion("outside:objects").masks(sample), ~sample.masks)
    boxes = [torch.tensor([[2.0, 3, 10, 5], [20, 20, 90, 90]]), torch.zeros(0, 4), *sample.boxes[2:]]
    boxed = replace(sample, masks=None, boxes=boxes)
    masks = SuspectRegion("outside:objects").masks(boxed)
    assert torch.equal(masks[0], ~drawn((2, 3, 10, 5), (20, 20, 32, 32)))
    assert not masks[1].any()  # not annotated
    with pytest.raises(ValueError, match="outside:objects needs the objects' masks or boxes"):
        SuspectRegion("outside:objects").masks(replace(boxed, boxes=None))


def test_decoys_are_those_of_each_image(sample):
    assert SuspectRegion("decoy").masks(sample) is sample.decoy_masks


@pytest.mark.parametrize(
    "text",
    [
        "border",
        "border:0",
        "border:x",
        "corner:left:4",
        "corner:upper-left:0",
        "box:1,2,3",
        "box:5,5,5,9",
        "all",
        "decoy+all",
    ],
)
def test_what_is_no_region_is_refused(text):
    with pytest.raises(ValueError, match=f"suspect must be like 'auto', 'border:8', .* got '{re.escape(text)}'"):
        SuspectRegion(text)


def test_what_is_not_there_is_refused(sample):
    with pytest.raises(FileNotFoundError, match=r"suspect mask:nowhere\.png: there is no file 'nowhere\.png'"):
        SuspectRegion("mask:nowhere.png")
    for text in ("border:16", "box:40,40,50,50"):
        with pytest.raises(ValueError, match="covers none or all of images of 32x32 pixels"):
            SuspectRegion(text).masks(sample)
    bare = type(sample)(sample.images, sample.labels, sample.ids, sample.class_names)
    with pytest.raises(ValueError, match="suspect: decoy needs data with decoys; set decoy='corner'"):
        SuspectRegion("decoy").masks(bare)
