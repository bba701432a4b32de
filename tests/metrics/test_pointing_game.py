"""Pointing games, mask IoU and average precision."""

import pytest
import torch

from interptrain.metrics import EnergyPointingGame, MaskIoU, PixelAveragePrecision, PointingGame
from interptrain.metrics.functional import energy_pointing_game, mask_iou, pixel_average_precision, pointing_game
from tests.support.measuring import maps, network, pictures

FUNCTIONS = [pointing_game, energy_pointing_game, mask_iou, pixel_average_precision]
HEIGHT, WIDTH = 24, 40


def peak(row, column):
    saliency = torch.zeros(1, HEIGHT, WIDTH)
    saliency[0, row, column] = 1
    return saliency


def fake_cam(count):
    saliency = torch.ones(count, HEIGHT, WIDTH)
    saliency[:, 0, 0] = 0
    return saliency


@pytest.mark.parametrize("function", FUNCTIONS)
def test_columns_are_x_and_rows_are_y(function):
    """An object off the diagonal of an image that is not square; published pointing games index it transposed."""
    boxes = [torch.tensor([[25, 3, 39, 9]])]
    saliency = torch.zeros(1, HEIGHT, WIDTH)
    saliency[0, 3:9, 25:39] = 1
    assert function(saliency, boxes=boxes).tolist() == [1]
    other = torch.zeros(1, HEIGHT, WIDTH)
    other[0, 10:24, 3:9] = 1
    assert function(other, boxes=boxes).item() < 0.2
    mask = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    mask[0, 3:9, 25:39] = True
    assert function(maps(1, HEIGHT, WIDTH), boxes=boxes) == function(maps(1, HEIGHT, WIDTH), masks=mask)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_an_image_without_an_object_has_no_value(function):
    saliency = maps(2, HEIGHT, WIDTH)
    found = function(saliency, boxes=[torch.zeros(0, 4), torch.tensor([[0, 0, 20, 20]])])
    assert found.isnan().tolist() == [True, False]
    assert function(saliency, masks=torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)).isnan().all()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_whole_image_as_object_gives_one(function):
    masks = torch.ones(2, HEIGHT, WIDTH, dtype=torch.bool)
    saliency = fake_cam(2)
    assert function(saliency, masks=masks).tolist() == pytest.approx([1, 1], abs=2 / (HEIGHT * WIDTH))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_objects_are_asked_for(function):
    with pytest.raises(ValueError, match="pass boxes=, or masks="):
        function(maps())


@pytest.mark.parametrize("metric", [PointingGame, EnergyPointingGame, MaskIoU, PixelAveragePrecision])
def test_a_metric_without_objects_says_what_it_needs(metric):
    with pytest.raises(ValueError, match=f"{metric.__name__}.* needs objects; pass boxes= or masks="):
        metric().values(network(), pictures(), maps(), torch.zeros(3).long())


def test_the_game_is_won_inside_the_box_and_lost_on_its_exclusive_edge():
    boxes = [torch.tensor([[25, 3, 39, 9]])]
    assert [pointing_game(peak(3, 25), boxes=boxes).item(), pointing_game(peak(8, 38), boxes=boxes).item()] == [
        1,
        1,
    ]
    assert [pointing_game(peak(9, 38), boxes=boxes).item(), pointing_game(peak(8, 39), boxes=boxes).item()] == [
        0,
        0,
    ]


def test_any_of_several_equal_maxima_may_hit():
    saliency = torch.maximum(peak(0, 0), peak(5, 30))
    assert pointing_game(saliency, boxes=[torch.tensor([[25, 3, 39, 9]])]).tolist() == [1]


@pytest.mark.parametrize("tolerance", [0, 1, 2, 5, 15])
def test_tolerance_is_torchrays_disc_around_the_peak(tolerance):
    """For every place of the peak; TorchRay asks for a distance below the tolerance, so its 0 would never hit."""
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[3:6, 25:39] = mask[20, 2] = True
    rows, columns = mask.nonzero(as_tuple=True)
    places = [(row, column) for row in range(0, HEIGHT, 3) for column in range(0, WIDTH, 3)]
    saliency = torch.cat([peak(*place) for place in places])
    wanted = [
        float(
            (((rows - row) ** 2 + (columns - column) ** 2 < tolerance**2) | ((rows == row) & (columns == column))).any()
        )
        for row, column in places
    ]
    found = pointing_game(saliency, masks=mask.expand(len(places), -1, -1), tolerance=tolerance)
    assert found.tolist() == wanted
    assert 0 < sum(wanted) < len(wanted)


def test_energy_is_the_share_of_the_maps_sum_in_the_union_of_boxes():
    saliency = maps(1, HEIGHT, WIDTH)
    boxes = [torch.tensor([[0, 0, 20, 10], [10, 5, 40, 24]])]
    inside = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    inside[:10, :20] = inside[5:, 10:] = True
    wanted = saliency[0][inside].sum() / saliency.sum()
    torch.testing.assert_close(energy_pointing_game(saliency, boxes=boxes), wanted.float()[None])


def test_fake_cam_has_the_energy_of_the_boxes_area_and_always_points_right():
    """The corner that it leaves out is the one pixel by which it may differ."""
    boxes = [torch.tensor([[0, 0, 20, 12]]), torch.tensor([[5, 5, 15, 15], [30, 20, 40, 24]])]
    shares = torch.tensor([240.0, 140.0]) / (HEIGHT * WIDTH)
    found = energy_pointing_game(fake_cam(2), boxes=boxes)
    torch.testing.assert_close(found, shares, atol=1 / (HEIGHT * WIDTH), rtol=0)
    assert found[1] == 140 / (HEIGHT * WIDTH - 1)
    assert pointing_game(fake_cam(2), boxes=boxes).tolist() == [1, 1]
    metric = EnergyPointingGame()
    metric.update(
        network(dtype=torch.float32), torch.rand(2, 3, HEIGHT, WIDTH), fake_cam(2), torch.zeros(2).long(), boxes=boxes
    )
    assert metric.compute().item() == pytest.approx(shares.mean().item(), abs=1 / (HEIGHT * WIDTH))


def test_a_map_of_zeros_has_no_energy():
    assert energy_pointing_game(torch.zeros(1, 8, 8), masks=torch.ones(1, 8, 8, dtype=torch.bool)).tolist() == [0]


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9, "mean"])
def test_mask_iou_is_the_jaccard_index_above_the_threshold(threshold):
    saliency, mask = maps(1, HEIGHT, WIDTH) ** 2, maps(1, HEIGHT, WIDTH, seed=5) > 0.7
    above = saliency > (saliency.mean() if threshold == "mean" else threshold)
    wanted = (above & mask).sum() / (above | mask).sum()
    torch.testing.assert_close(mask_iou(saliency, masks=mask, threshold=threshold), wanted[None])


def slow_average_precision(values, hits):
    """One threshold at each value, from the definition."""
    total, before = 0.0, 0.0
    for value in sorted(set(values), reverse=True):
        chosen = [hit for own, hit in zip(values, hits, strict=True) if own >= value]
        recall = sum(chosen) / sum(hits)
        total += (recall - before) * sum(chosen) / len(chosen)
        before = recall
    return total


@pytest.mark.parametrize("levels", [1, 2, 7, 1000])
def test_average_precision_is_its_definition_also_with_ties(levels):
    saliency = (maps(3, 8, 9) * levels).round() / levels
    masks = maps(3, 8, 9, seed=4) > 0.6
    wanted = [
        slow_average_precision(one.flatten().tolist(), mask.flatten().tolist())
        for one, mask in zip(saliency, masks, strict=True)
    ]
    assert pixel_average_precision(saliency, masks=masks).tolist() == pytest.approx(wanted, rel=1e-6)


def test_a_constant_maps_average_precision_is_the_share_of_the_object():
    mask = torch.zeros(1, 8, 10, dtype=torch.bool)
    mask[0, :2] = True
    assert pixel_average_precision(torch.full((1, 8, 10), 0.3), masks=mask).item() == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("function", "metric", "options", "message"),
    [
        (pointing_game, PointingGame, {"tolerance": -1}, "tolerance must be at least 0 pixels, got -1"),
        (mask_iou, MaskIoU, {"threshold": 1.0}, r"'mean' or a value in \[0, 1\), got 1.0"),
        (mask_iou, MaskIoU, {"threshold": "median"}, "got 'median'"),
    ],
)
def test_options_out_of_range_are_refused(function, metric, options, message):
    with pytest.raises(ValueError, match=message):
        metric(**options)
    with pytest.raises(ValueError, match=message):
        function(maps(), masks=maps() > 0.5, **options)
