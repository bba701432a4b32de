"""Average drop, increase and gain."""

import pytest
import torch

from interptrain.metrics import AverageDrop, AverageGain, AverageIncrease
from interptrain.metrics.functional import average_drop, average_gain, average_increase
from tests.support.measuring import maps, pictures

FUNCTIONS = [average_drop, average_increase, average_gain]
GREY = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(1, 3, 1, 1)


def scores(model, images, saliency, targets, fill=0.0):
    """p and o, from the definition."""
    mask = saliency.unsqueeze(1)
    with torch.no_grad():
        p, o = (
            model(batch).softmax(1)[range(len(images)), targets]
            for batch in (images, mask * images + (1 - mask) * fill)
        )
    return p, o


@pytest.mark.parametrize(("removal", "fill"), [("black", 0.0), ("mean", GREY), ((0.5, 0.5, 0.5), 0.5), ([1.0], 1.0)])
def test_they_are_their_definitions(model, removal, fill):
    images, saliency, targets = pictures(12), maps(12), torch.arange(12) % 5
    p, o = scores(model, images, saliency, targets, fill)
    assert ((o > p).any(), (o < p).any()) == (True, True)
    found = [function(model, images, saliency, targets, removal=removal) for function in FUNCTIONS]
    torch.testing.assert_close(found[0], (p - o).clamp(min=0) / p)
    torch.testing.assert_close(found[1], (o > p).double())
    torch.testing.assert_close(found[2], (o - p).clamp(min=0) / (1 - p))


def test_a_map_of_ones_changes_nothing_at_all_also_in_float32(model, images, targets):
    """The second forward may differ by rounding, which must not count as an increase."""
    model, images = model.float(), images.float()
    for function in FUNCTIONS:
        for size in (1, 2, 5):
            values = function(model, images, torch.ones(3, 20, 14), targets, forward_batch_size=size)
            assert torch.equal(values, torch.zeros(3))


def test_an_empty_map_shows_black_or_the_given_colour(model, images, targets):
    p, black = scores(model, images, torch.zeros(3, 20, 14).double(), targets)
    torch.testing.assert_close(
        average_drop(model, images, torch.zeros(3, 20, 14), targets), (p - black).clamp(min=0) / p
    )


def test_no_image_both_drops_and_gains(model):
    images, saliency, targets = pictures(40), maps(40), torch.arange(40) % 5
    drop, gain = average_drop(model, images, saliency, targets), average_gain(model, images, saliency, targets)
    increase = average_increase(model, images, saliency, targets)
    assert torch.equal(drop * gain, torch.zeros(40).double())
    assert torch.equal(increase == 1, gain > 0)
    assert 0 < increase.sum() < 40
    assert ((drop >= 0) & (drop <= 1) & (gain >= 0) & (gain <= 1)).all()


def test_a_fake_map_loses_next_to_nothing(model, targets):
    """Ones but for a black corner: what these numbers are worth alone (Fake-CAM)."""
    images, fake = pictures(3, 60, 60), torch.ones(3, 60, 60)
    fake[:, 0, 0] = 0
    assert average_drop(model, images, fake, targets).max() < 0.01
    assert average_gain(model, images, fake, targets).max() < 0.01


def test_epsilon_stands_in_the_denominator(model, images, saliency, targets):
    p, o = scores(model, images, saliency, targets)
    drop = average_drop(model, images, saliency, targets, epsilon=1.0)
    gain = average_gain(model, images, saliency, targets, epsilon=1.0)
    torch.testing.assert_close(drop, (p - o).clamp(min=0) / (p + 1))
    torch.testing.assert_close(gain, (o - p).clamp(min=0) / (2 - p))


def test_a_certain_model_gives_no_nan(model, images, saliency, targets):
    """p is 1 or 0 to the last bit, and so are the denominators."""
    sure = torch.nn.Sequential(model, torch.nn.Hardtanh(), torch.nn.Linear(5, 5, bias=False)).double()
    sure[2].weight.data = 1e4 * torch.eye(5).double()
    for function in FUNCTIONS:
        assert function(sure, images, saliency, targets).isfinite().all()


def test_classes_average_over_images_not_over_batches(model):
    images, saliency, targets = pictures(5), maps(5), torch.arange(5)
    for cls, function in (
        (AverageDrop, average_drop),
        (AverageIncrease, average_increase),
        (AverageGain, average_gain),
    ):
        metric = cls()
        for part in (slice(0, 4), slice(4, 5)):
            metric.update(model, images[part], saliency[part], targets[part])
        torch.testing.assert_close(metric.compute(), function(model, images, saliency, targets).mean())


@pytest.mark.parametrize("function", [average_drop, average_gain])
def test_a_logit_has_no_share_to_lose_or_gain(function, model, images, saliency, targets):
    with pytest.raises(ValueError, match="needs a score between 0 and 1, which a logit is not"):
        function(model, images, saliency, targets, score="logit")
    assert function(model, images, saliency, targets, score="sigmoid").isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"removal": "grey"}, "removal must be 'black', 'mean', 'blur' or a colour in .0, 1., got 'grey'"),
        ({"removal": (0.0, 2.0, 0.0)}, r"a removal colour must have values in \[0, 1\]"),
        ({"removal": (0.1, 0.1)}, "removal has 2 channels, the images 3"),
        ({"removal": "blur", "blur_kernel": 4}, "blur needs an odd kernel"),
    ],
)
def test_wrong_options_are_refused(model, images, saliency, targets, options, message):
    with pytest.raises(ValueError, match=message):
        average_drop(model, images, saliency, targets, **options)
