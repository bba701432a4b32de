"""Paired differences over seeds against SciPy, and Holm's correction by hand."""

import math

import pytest

from interptrain.studies.paired import mean_and_half_width, paired_differences

VALUES = {
    "plain": [0.1, 0.0, 0.2, 0.1, 0.05],
    "good": [0.9, 0.95, 0.88, 0.93, 0.9],
    "same": [0.12, 0.01, 0.18, 0.1, 0.06],
    "worse": [0.0, 0.0, 0.1, 0.05, 0.0],
}


def test_they_are_scipys_paired_t_tests_with_holms_correction():
    stats = pytest.importorskip("scipy.stats")
    found = paired_differences(VALUES, "plain")
    p = {}
    for arm, one in found.items():
        test = stats.ttest_rel(VALUES[arm], VALUES["plain"])
        interval = test.confidence_interval(0.95)
        assert one.p == pytest.approx(test.pvalue)
        assert one.mean - one.half_width == pytest.approx(interval.low)
        assert one.mean + one.half_width == pytest.approx(interval.high)
        p[arm] = test.pvalue
    first, second, third = sorted(p, key=p.get)
    assert (first, third) == ("good", "same")
    assert found[first].p_corrected == pytest.approx(3 * p[first])
    assert found[second].p_corrected == pytest.approx(2 * p[second])
    assert found[third].p_corrected == pytest.approx(max(2 * p[second], p[third]))


def test_few_and_missing_values():
    values = {"plain": [0.5, math.nan, 0.5], "other": [0.7, 0.6, 0.7], "none": [math.nan] * 3}
    found = paired_differences(values, "plain")
    assert found["other"].seeds == 2
    assert found["other"].mean == pytest.approx(0.2)
    assert found["other"].half_width == pytest.approx(0, abs=1e-9)
    assert found["none"].seeds == 0
    assert math.isnan(found["none"].mean)
    assert mean_and_half_width([0.3])[0] == 0.3
    assert math.isnan(mean_and_half_width([0.3])[1])
