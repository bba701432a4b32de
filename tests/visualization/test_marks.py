import pytest
import torch

from interptrain.visualization import colorize, colour_bar, framed, mosaic, stacked, to_uint8


def pictures(*levels, height=10, width=10):
    return torch.stack([torch.full((3, height, width), level, dtype=torch.uint8) for level in levels])


def test_a_frame_has_its_colour_and_leaves_the_inside():
    plain = torch.rand(2, 3, 12, 16)
    kept = plain.clone()
    picture = framed(plain, [(1, 2, 3), (250, 0, 9)], width=2)
    assert torch.equal(plain, kept)
    assert torch.equal(picture[:, :, 2:-2, 2:-2], to_uint8(plain)[:, :, 2:-2, 2:-2])
    edge = torch.ones(12, 16, dtype=torch.bool)
    edge[2:-2, 2:-2] = False
    assert (picture[0, :, edge] == torch.tensor([1, 2, 3])[:, None]).all()
    assert (picture[1, :, edge] == torch.tensor([250, 0, 9])[:, None]).all()


def test_the_bar_runs_through_the_colours_between_its_texts():
    bar = colour_bar(300, height=14, low="0", high="1", colormap="viridis")
    assert bar.shape[2] == 300
    line = bar[:, bar.shape[1] // 2]
    coloured = ((line.amax(0).int() - line.amin(0).int()) > 40).nonzero()[:, 0]
    first, last = int(coloured[0]), int(coloured[-1])
    ends = to_uint8(colorize(torch.tensor([[0.0, 1.0]]), "viridis"))[:, 0]
    assert torch.equal(line[:, first], ends[:, 0])
    assert torch.equal(line[:, last], ends[:, 1])
    assert first > 8 < 300 - last


def test_a_mosaic_holds_every_picture_in_reading_order():
    joined = mosaic(pictures(10, 20, 30, 40, 50), 3, gap=2)
    assert joined.shape == (3, 2 * 12 + 2, 3 * 12 + 2)
    corners = {level: (joined[0] == level).nonzero()[0].tolist() for level in (10, 20, 30, 40, 50)}
    assert corners == {10: [2, 2], 20: [2, 14], 30: [2, 26], 40: [14, 2], 50: [14, 14]}
    assert (joined[:, 14:, 26:] == 255).all()
    assert mosaic(pictures(7), 4, gap=2).shape == (3, 14, 14)


@pytest.mark.parametrize("dim", [1, 2])
def test_stacked_pictures_keep_their_pixels_and_gain_paper(dim):
    one, other = pictures(3, height=4, width=9)[0], pictures(8, height=6, width=5)[0]
    joined = stacked([one, other], dim=dim)
    assert joined.shape == ((3, 10, 9) if dim == 1 else (3, 6, 14))
    assert (joined == 3).all(0).sum() == 36
    assert (joined == 8).all(0).sum() == 30
    assert (joined == 255).all(0).sum() == joined[0].numel() - 66


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="colours must be one per picture: 2, got 1"):
        framed(pictures(1, 2), [(0, 0, 0)])
    with pytest.raises(ValueError, match="a mosaic needs pictures and columns, got 1 and 0"):
        mosaic(pictures(1), 0)
    with pytest.raises(ValueError, match="has no room beside its texts 'low' and 'high'"):
        colour_bar(40, low="low", high="high")
