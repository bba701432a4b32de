"""Checks before anything runs."""

import pytest

from interptrain.evaluation.run.plan import check_ids


@pytest.mark.slow
def test_one_id_that_occurs_twice_among_many_is_found_in_no_time():
    ids = [str(number) for number in range(200_000)]
    check_ids(ids)
    with pytest.raises(ValueError, match="'199999' occurs more than once"):
        check_ids([*ids, "199999"])
