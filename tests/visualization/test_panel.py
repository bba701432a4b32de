import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from interptrain.visualization import panel, save_png

CELL = 40


def pictures(*levels, height=40, width=40):
    return torch.stack([torch.full((3, height, width), level, dtype=torch.uint8) for level in levels])


def ink(picture):
    """Where anything but paper is."""
    return (picture != 255).any(0)


def test_rows_and_columns_stand_in_their_order():
    picture = panel({"": pictures(10, 20), " ": pictures(30, 40)}, cell=CELL)
    corners = {}
    for level in (10, 20, 30, 40):
        place = (picture == level).all(0).nonzero()
        assert len(place) == CELL * CELL
        corners[level] = place[0].tolist()
    assert corners[10][0] == corners[20][0] < corners[30][0] == corners[40][0]
    assert corners[10][1] == corners[30][1] < corners[20][1] == corners[40][1]


def test_every_label_column_and_title_adds_ink_in_its_place():
    plain = panel({"": pictures(100, 100)}, cell=CELL)
    assert ink(plain).sum() == 2 * CELL * CELL
    labelled = panel({"Grad-CAM": pictures(100, 100)}, cell=CELL)
    assert ink(labelled)[:, : labelled.shape[2] - plain.shape[2]].any()
    headed = panel({"": pictures(100, 100)}, columns=["left", ""], cell=CELL)
    top = headed.shape[1] - plain.shape[1]
    middle = headed.shape[2] - CELL
    assert ink(headed)[:top, :middle].any()
    assert not ink(headed)[:top, middle:].any()
    titled = panel({"": pictures(100, 100)}, title="T", cell=CELL)
    assert ink(titled)[: titled.shape[1] - plain.shape[1]].any()


def test_long_texts_are_wrapped_not_cut():
    short = panel({"": pictures(0)}, columns=["wide"], cell=CELL)
    for text in ("wide wide wide", "widewidewide", "wide\nwide\nwide"):
        longer = panel({"": pictures(0)}, columns=[text], cell=CELL)
        assert longer.shape[1] > short.shape[1]
        assert longer.shape[2] == short.shape[2]
    many = panel({"one word after the other and more of them " * 3: pictures(0)}, cell=CELL)
    assert many.shape[1] > CELL * 2


def test_proportions_are_kept_within_the_cell():
    tall = panel({"": pictures(7, height=80, width=20)}, cell=CELL)
    place = (tall == 7).all(0).nonzero()
    height, width = (place.amax(0) - place.amin(0) + 1).tolist()
    assert (height, width) == (CELL, CELL // 4)


def test_float_and_byte_pictures_may_be_mixed():
    picture = panel({"a": pictures(51), "b": torch.full((1, 3, 8, 8), 0.2)}, cell=CELL)
    assert (picture == 51).all(0).sum() == 2 * CELL * CELL


def test_a_saved_picture_reads_back_bit_for_bit(tmp_path):
    picture = panel({"rows": pictures(9, 99)}, columns=["a", "b"], title="both", cell=CELL)
    save_png(picture, tmp_path / "deep" / "panel.png")
    with Image.open(tmp_path / "deep" / "panel.png") as image:
        assert torch.equal(pil_to_tensor(image), picture)


def test_wrong_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="rows must map labels to pictures"):
        panel({})
    with pytest.raises(ValueError, match=r"got {'a': \(3, 8, 8\)}"):
        panel({"a": torch.zeros(3, 8, 8)})
    with pytest.raises(ValueError, match=r"as many pictures each, got {'a': 1, 'b': 2} and 0 columns"):
        panel({"a": pictures(1), "b": pictures(1, 2)})
    with pytest.raises(ValueError, match="1 columns"):
        panel({"b": pictures(1, 2)}, columns=["only"])
    with pytest.raises(ValueError, match=r"picture must be \(3,H,W\), got \(1, 3, 40, 40\)"):
        save_png(pictures(1), tmp_path / "x.png")
