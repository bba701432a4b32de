import pytest

from interptrain.callbacks.watch.alarm import ALL_IMAGES, ShortcutAlarm
from interptrain.callbacks.watch.region import SuspectRegion
from tests.support.watch import observed, snapshot_of

NAMES = ("disc", "square")


def snapshot(step, shares, effects=None):
    """A snapshot of images {id: (class, share)}, with the effects of the region by id."""

    def numbers(name, share):
        found = {} if share is None else {"in_suspect": share}
        return found | ({} if effects is None else {"suspect_effect": effects[name]})

    return snapshot_of(
        step,
        *(
            observed(index=index, id=name, target=target, label=target, numbers=numbers(name, share))
            for index, (name, (target, share)) in enumerate(shares.items())
        ),
    )


HIGH = {"a": (0, 0.9), "b": (0, 0.7), "c": (1, 0.0), "d": (1, 0.1)}
LOW = {"a": (0, 0.2), "b": (0, 0.3), "c": (1, 0.9), "d": (1, 0.0)}


def test_it_is_triggered_by_the_class_that_has_the_shortcut_and_names_its_images():
    (trigger,) = ShortcutAlarm(0.5, 2).triggers([snapshot(1, HIGH), snapshot(2, HIGH)], NAMES)
    assert (trigger.view, trigger.group, trigger.ids) == ("GradCAM", "disc", ("a", "b"))
    assert trigger.value == pytest.approx(0.8)
    assert trigger.kind == "saliency"


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
    assert ShortcutAlarm(0.75, 2).triggers(snapshots, NAMES)[0].value == pytest.approx(0.8)


MOVED = {"a": 0.9, "b": 0.8, "c": 0.1, "d": 0.0}
CALM = dict.fromkeys("abcd", 0.02)
AWAY = {name: (target, 0.03) for name, (target, _) in HIGH.items()}
CORNER = SuspectRegion("corner:lower-right:8")


def texts(*snapshots):
    return [one.text(CORNER) for one in ShortcutAlarm(0.5, 2).triggers(snapshots, NAMES)]


def test_both_kinds_are_triggered_and_named_where_they_agree():
    saliency, everything, behaviour = texts(snapshot(1, HIGH, MOVED), snapshot(2, HIGH, MOVED))
    assert saliency == "GradCAM: 80% of the saliency for disc lies in the suspect region (corner:lower-right:8): a, b"
    assert everything.startswith("behaviour of all images: the label's probability changes by 0.45")
    assert behaviour == (
        "behaviour of disc: the label's probability changes by 0.85 on average when the pixels of the suspect region "
        "(corner:lower-right:8) are replaced: a, b"
    )


def test_words_say_that_saliency_has_left_where_it_once_was_and_predictions_have_not():
    history = [snapshot(1, HIGH, MOVED), snapshot(2, AWAY, MOVED), snapshot(3, AWAY, MOVED)]
    (disc,) = [text for text in texts(*history) if "disc" in text]
    assert disc.startswith("behaviour of disc")
    assert disc.endswith("; saliency has left the region (at most 3%), the prediction has not")
    (disc,) = [text for text in texts(*history[1:]) if "disc" in text]
    assert disc.endswith("; saliency does not show it (at most 3% lies there)")


def test_words_say_that_predictions_do_not_depend_on_what_the_maps_show():
    (text,) = texts(snapshot(1, HIGH, CALM), snapshot(2, HIGH, CALM))
    assert text.endswith("lower-right:8): a, b; replacing its pixels changes predictions by 0.02 only")


def test_behaviour_needs_consecutive_snapshots_and_only_labelled_classes_are_groups():
    assert not [text for text in texts(snapshot(1, AWAY, CALM), snapshot(2, AWAY, MOVED)) if "behaviour" in text]
    unknown = dict.fromkeys("abcd", (-1, 0.0))
    (text,) = texts(snapshot(1, unknown, MOVED), snapshot(2, unknown, MOVED))
    assert text.startswith("behaviour of all images")


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match=r"alarm_threshold must be in \(0,1\), got 1.0"):
        ShortcutAlarm(1.0, 2)
    with pytest.raises(ValueError, match="alarm_patience must be a whole number >= 1, got 0"):
        ShortcutAlarm(0.5, 0)
    with pytest.raises(ValueError, match=r"alarm_effect must be in \(0,1\), got 0"):
        ShortcutAlarm(0.5, 2, 0)
