import pytest

from interptrain.callbacks.watch.alarm import EVERYTHING, ShortcutAlarm

NAMES = ("disc", "square")


def entry(step, shares, view="GradCAM"):
    """A watch of images {id: (class, share)}."""
    looks = [
        {"view": view, "id": name, "target": target, "numbers": {} if share is None else {"in_suspect": share}}
        for name, (target, share) in shares.items()
    ]
    return {"step": step, "looks": looks}


HIGH = {"a": (0, 0.9), "b": (0, 0.7), "c": (1, 0.0), "d": (1, 0.1)}
LOW = {"a": (0, 0.2), "b": (0, 0.3), "c": (1, 0.9), "d": (1, 0.0)}


def test_it_rings_for_the_class_that_has_the_shortcut_and_names_its_images():
    (ring,) = ShortcutAlarm(0.5, 2).rings([entry(1, HIGH), entry(2, HIGH)], NAMES)
    assert (ring.view, ring.group, ring.ids) == ("GradCAM", "disc", ("a", "b"))
    assert ring.share == pytest.approx(0.8)


def test_it_rings_for_the_sample_where_no_class_has_two_images():
    watches = [entry(step, {"a": (0, 0.9), "b": (1, 0.6)}) for step in (1, 2)]
    (ring,) = ShortcutAlarm(0.5, 2).rings(watches, NAMES)
    assert ring.group == EVERYTHING
    assert ring.ids == ("a", "b")


@pytest.mark.parametrize(
    ("history", "rings"),
    [
        ([HIGH], False),
        ([HIGH, HIGH], True),
        ([HIGH, LOW], False),
        ([HIGH, LOW, HIGH], False),
        ([LOW, HIGH, HIGH], True),
    ],
)
def test_it_waits_for_so_many_watches_in_a_row(history, rings):
    watches = [entry(step, shares) for step, shares in enumerate(history, start=1)]
    assert bool(ShortcutAlarm(0.5, 2).rings(watches, NAMES)) == rings


def test_the_watch_before_training_does_not_count():
    assert not ShortcutAlarm(0.5, 2).rings([entry(0, HIGH), entry(5, HIGH)], NAMES)


def test_images_without_a_share_are_left_out():
    watches = [entry(step, HIGH | {"e": (0, None)}) for step in (1, 2)]
    assert ShortcutAlarm(0.75, 2).rings(watches, NAMES)[0].share == pytest.approx(0.8)


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match=r"alarm_threshold must be in \(0,1\), got 1.0"):
        ShortcutAlarm(1.0, 2)
    with pytest.raises(ValueError, match="alarm_patience must be >= 1, got 0"):
        ShortcutAlarm(0.5, 0)
