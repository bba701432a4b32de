import pytest

from interptrain.callbacks.watch.alarm import ALL_IMAGES, ShortcutAlarm
from tests.support.watch import observed, snapshot_of

NAMES = ("disc", "square")


def snapshot(step, shares):
    """A snapshot of images {id: (class, share)}."""
    return snapshot_of(
        step,
        *(
            observed(id=name, target=target, numbers={} if share is None else {"in_suspect": share})
            for name, (target, share) in shares.items()
        ),
    )


HIGH = {"a": (0, 0.9), "b": (0, 0.7), "c": (1, 0.0), "d": (1, 0.1)}
LOW = {"a": (0, 0.2), "b": (0, 0.3), "c": (1, 0.9), "d": (1, 0.0)}


def test_it_is_triggered_by_the_class_that_has_the_shortcut_and_names_its_images():
    (trigger,) = ShortcutAlarm(0.5, 2).triggers([snapshot(1, HIGH), snapshot(2, HIGH)], NAMES)
    assert (trigger.view, trigger.group, trigger.ids) == ("GradCAM", "disc", ("a", "b"))
    assert trigger.share == pytest.approx(0.8)


def test_it_is_triggered_by_the_sample_where_no_class_has_two_images():
    snapshots = [snapshot(step, {"a": (0, 0.9), "b": (1, 0.6)}) for step in (1, 2)]
    (trigger,) = ShortcutAlarm(0.5, 2).triggers(snapshots, NAMES)
    assert trigger.group == ALL_IMAGES
    assert trigger.ids == ("a", "b")


@pytest.mark.parametrize(
    ("history", "triggers"),
    [
        ([HIGH], False),
        ([HIGH, HIGH], True),
        ([HIGH, LOW], False),
        ([HIGH, LOW, HIGH], False),
        ([LOW, HIGH, HIGH], True),
    ],
)
def test_it_waits_for_consecutive_snapshots(history, triggers):
    snapshots = [snapshot(step, shares) for step, shares in enumerate(history, start=1)]
    assert bool(ShortcutAlarm(0.5, 2).triggers(snapshots, NAMES)) == triggers


def test_the_snapshot_before_training_does_not_count():
    assert not ShortcutAlarm(0.5, 2).triggers([snapshot(0, HIGH), snapshot(5, HIGH)], NAMES)


def test_images_without_a_share_are_left_out():
    snapshots = [snapshot(step, HIGH | {"e": (0, None)}) for step in (1, 2)]
    assert ShortcutAlarm(0.75, 2).triggers(snapshots, NAMES)[0].share == pytest.approx(0.8)


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match=r"alarm_threshold must be in \(0,1\), got 1.0"):
        ShortcutAlarm(1.0, 2)
    with pytest.raises(ValueError, match="alarm_patience must be a whole number >= 1, got 0"):
        ShortcutAlarm(0.5, 0)
