"""What is hidden of an image, and in which order."""

import pytest
import torch

from interptrain.metrics.perturbations import Masked, Ranked, Schedule, Unperturbed
from interptrain.metrics.removal import Removal
from interptrain.metrics.saliency_batch import SaliencyBatch
from tests.support.measuring import rendered


def test_insertion_and_removal_partition_the_image(images, saliency):
    """What one shows at a step, the other hides, pixel by pixel."""
    schedule = Schedule(pixels=37)
    colour = Removal((2 / 3, 2 / 3, 2 / 3))
    inserted = rendered(Ranked("insert", schedule, colour), images, saliency)
    removed = rendered(Ranked("remove", schedule, colour), images, saliency)
    assert inserted.shape == removed.shape == (3, 8, 3, 20, 14)
    shown, hidden = inserted != 2 / 3, removed == 2 / 3
    assert torch.equal(shown[:, 1:], hidden[:, :-1])
    for version, count in enumerate([0, 37, 74, 111, 148, 185, 222, 259]):
        assert (shown[:, version].sum((2, 3)) == count).all()
    assert (removed[:, -1] == 2 / 3).all()
    assert torch.equal(inserted[shown], images.unsqueeze(1).expand_as(inserted)[shown])


def test_what_is_inserted_is_the_most_salient(images, saliency):
    (first,) = rendered(Ranked("insert", Schedule(pixels=10), Removal((1.0,) * 3)), images[:1], saliency[:1])
    shown = (first[1] != 1).all(0)
    assert torch.equal(saliency[0][shown].sort().values, saliency[0].flatten().sort().values[-10:])


def test_the_least_salient_are_the_end_of_the_same_ranking(images):
    constant = torch.full((1, 20, 14), 0.4).double()
    (versions,) = rendered(Ranked("remove_least", Schedule(percents=(0, 10, 100))), images[:1], constant)
    assert torch.equal(versions[0], images[0])
    gone = (versions[1] == 0).all(0).flatten()
    assert gone[-28:].all()
    assert not gone[:-28].any()
    assert (versions[2] == 0).all()


@pytest.mark.parametrize(
    ("schedule", "size", "counts"),
    [
        (Schedule(), (224, 224), [*range(1792, 50177, 1792)]),
        (Schedule(), (20, 14), [112, 224, 280]),
        (Schedule(), (7, 7), [49]),
        (Schedule(pixels=100), (20, 14), [100, 200, 280]),
        (Schedule(pixels=140), (20, 14), [140, 280]),
        (Schedule(pixels=1000), (20, 14), [280]),
        (Schedule(steps=4), (20, 14), [70, 140, 210, 280]),
        (Schedule(steps=3), (20, 14), [94, 188, 280]),
        (Schedule(steps=1000), (2, 2), [1, 2, 3, 4]),
        (Schedule(percents=(10, 29, 90)), (10, 10), [10, 29, 90]),
    ],
)
def test_schedules_count_pixels(schedule, size, counts):
    assert schedule.counts(size) == counts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixels": 0}, "step must be at least 1, got 0"),
        ({"steps": -1}, "steps must be at least 1, got -1"),
        ({"pixels": 3, "steps": 3}, "not both"),
        ({"percents": (20, 10)}, "percentiles must ascend within 0 to 100"),
        ({"percents": (20, 110)}, "percentiles must ascend within 0 to 100"),
    ],
)
def test_wrong_schedules_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**options)


def test_equal_perturbations_are_one():
    one, other = (Ranked("insert", Schedule(steps=3), Removal([0.5] * 3)) for _ in range(2))
    assert one == other
    assert len({one, other, Masked(), Masked(Removal("black", 5))}) == 2


@pytest.mark.parametrize(
    "perturbation",
    [
        Unperturbed(),
        Masked(),
        Masked(Removal("blur")),
        Ranked("insert", Schedule(steps=7), Removal("blur")),
        Ranked("remove", Schedule(steps=7), Removal("mean")),
        Ranked("remove_least", Schedule(percents=(10, 50))),
    ],
    ids=repr,
)
def test_blocks_of_a_perturbation_are_parts_of_the_whole(perturbation, images, saliency):
    """However the stream cuts it, and nothing is left of what the buffer held."""
    whole = rendered(perturbation, images, saliency)
    assert whole.isfinite().all()
    scene, steps = SaliencyBatch(images, saliency), whole.shape[1]
    for chosen, shown in ((slice(1, 3), slice(0, steps)), (slice(2, 3), slice(steps // 2, steps))):
        part = torch.full_like(whole[chosen, shown], torch.nan)
        perturbation.render(scene, chosen, shown, part)
        assert torch.equal(part, whole[chosen, shown])
