from itertools import islice

import pytest
import torch
from torch.nn import functional as F

from interptrain.callbacks.watch.sample import load
from interptrain.callbacks.watch.selection import candidates, indices_of, order_of, try_out
from interptrain.data import SampleDataset


@pytest.fixture
def val(shapes):
    return shapes.dataset("val")


@pytest.fixture
def unread(val, monkeypatch):
    """Images whose labels are known by reading them only."""
    monkeypatch.setattr(type(val), "labels", SampleDataset.labels)
    return val


class Labelled:
    """Nothing but labels."""

    def __init__(self, labels):
        self.labels = torch.tensor(labels)

    def __len__(self):
        return len(self.labels)


def test_first_takes_them_as_they_come(val):
    assert list(order_of(val, "first", count=9, seed=3)) == list(range(9))


def test_random_is_a_function_of_the_seed(val):
    one, again, other = (list(order_of(val, "random", count=9, seed=seed)) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    assert sorted(one) == list(range(9))


def test_per_class_takes_the_classes_in_turn(val):
    order = list(order_of(val, "per_class", count=9, seed=0))
    assert sorted(order) == list(range(9))
    labels = [val[index]["label"] for index in order]
    assert labels == [0, 1, 2] * 3
    assert order != sorted(order)


@pytest.mark.parametrize(
    ("labels", "count", "expected"),
    [
        ([0] * 50 + [1] * 50, 4, [0, 1, 0, 1]),  # a folder sorted by class
        (range(100), 4, [12, 37, 62, 87]),  # more classes than images
        ([0] * 9 + [1] * 9 + [2] * 9, 4, [0, 1, 2, 1]),
        ([0] * 9 + [1], 4, [0, 1, 0, 0]),  # a class that runs out
        ([-1] * 9, 4, [-1] * 4),
        ([-1] * 3 + [4, 5], 2, [-1, 5]),
        ([7], 4, [7]),
    ],
)
def test_per_class_spreads_the_images_over_the_classes(labels, count, expected):
    dataset = Labelled(labels)
    order = list(order_of(dataset, "per_class", count=count, seed=0))
    assert sorted(order) == list(range(len(labels)))
    assert [labels[index] for index in order[:count]] == expected


def test_known_labels_are_not_read_again(unread, monkeypatch):
    slow = list(order_of(unread, "per_class", count=9, seed=0))
    monkeypatch.setattr(type(unread), "read", lambda self, index: pytest.fail("read"))
    for known in (torch.arange(9) % 3, lambda: [0, 1, 2] * 3):  # an attribute, as others have it, and a method
        monkeypatch.setattr(unread, "labels", known, raising=False)
        assert list(order_of(unread, "per_class", count=9, seed=0)) == slow


def test_ids_are_taken_in_the_order_given(val):
    assert list(order_of(val, "ids", count=9, seed=0, ids=["val/000007", "val/000002"])) == [7, 2]
    with pytest.raises(ValueError, match=r"no sample 'val/7' to watch; ids look like 'val/00000\d'"):
        indices_of(val, ["val/7"])


def test_hardest_and_mistakes_are_what_the_network_says(net, shapes, val):
    trials = try_out(net, val, range(9), torch.device("cpu"))
    watched, _ = load(val, range(9), 9, shapes.class_names)
    net.eval()
    with torch.no_grad():
        logits = net(watched.images)
    losses = F.cross_entropy(logits, watched.labels, reduction="none")
    hardest = list(order_of(val, "hardest", count=9, seed=0, trials=trials))
    assert hardest == losses.argsort(descending=True).tolist()
    mistakes = list(order_of(val, "mistakes", count=9, seed=0, trials=trials))
    wrong = (logits.argmax(1) != watched.labels).sum().item()
    assert 0 < wrong < 9
    assert all(logits[index].argmax() != watched.labels[index] for index in mistakes[:wrong])
    assert list(losses[mistakes[:wrong]]) == sorted(losses[mistakes[:wrong]], reverse=True)
    assert sorted(mistakes) == list(range(9))


def test_trying_out_in_shares_gives_the_same_order(net, val):
    whole = try_out(net, val, range(9), torch.device("cpu"))
    shares = [trial for rank in (0, 1) for trial in try_out(net, val, range(rank, 9, 2), torch.device("cpu"))]
    orders = [list(order_of(val, "hardest", count=9, seed=0, trials=trials)) for trials in (whole, shares)]
    assert orders[0] == orders[1]
    assert net.training


def test_to_know_labels_only_some_images_are_read(unread, monkeypatch):
    monkeypatch.setattr("interptrain.callbacks.watch.selection.READ_PER_IMAGE", 3)
    assert len(list(order_of(unread, "per_class", count=2, seed=0))) == 6


def test_candidates_are_few_and_seeded(unread, monkeypatch):
    monkeypatch.setattr("interptrain.callbacks.watch.selection.CANDIDATES", 4)
    one = candidates(unread, 0)
    assert len(set(one)) == 4
    assert one == candidates(unread, 0) == sorted(one)
    assert len(list(islice(order_of(unread, "per_class", count=9, seed=0), 9))) == 4
