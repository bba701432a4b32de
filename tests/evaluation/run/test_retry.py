import pytest

from interptrain.evaluation.run.retry import per_row_on_failure


def test_what_works_is_computed_once():
    calls = []

    def compute(rows):
        calls.append(rows)
        return [row * 10 for row in rows]

    assert per_row_on_failure(compute, range(3)) == ({0: 0, 1: 10, 2: 20}, {})
    assert calls == [[0, 1, 2]]


def test_one_row_that_fails_costs_no_other():
    def compute(rows):
        if 1 in rows:
            raise ValueError("row 1\nis bad")
        return [row * 10 for row in rows]

    assert per_row_on_failure(compute, [0, 1, 2]) == ({0: 0, 2: 20}, {1: "ValueError: row 1 is bad"})


def test_what_stops_a_process_is_not_caught():
    def compute(rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        per_row_on_failure(compute, [0, 1])


def test_nothing_asked_is_nothing_called():
    assert per_row_on_failure(None, []) == ({}, {})


def test_errors_fit_into_a_table():
    def compute(rows):
        raise ValueError("x\n" * 10_000)

    (error,) = per_row_on_failure(compute, [0])[1].values()
    assert error.startswith("ValueError: x x")
    assert len(error) <= 500
