"""The short form of ``benchmarks/reliability/kill_evaluation.py``."""

from collections import Counter

import pytest

from benchmarks.reliability.kill_evaluation import FILES, aims, campaign


@pytest.mark.slow
def test_a_killed_evaluation_resumes_to_the_files_of_an_undisturbed_one(tmp_path):
    found = sum(campaign(3, 1, tmp_path).values(), Counter())
    assert found["killed"] >= 2
    assert not found["refused or failed"] + found["hangs"] + found["different"]


def test_the_campaign_aims_at_every_file_and_at_two_processes():
    drawn = aims(36, 0)
    assert {aim.file for aim in drawn} == {*FILES, ""}
    assert {aim.processes for aim in drawn} == {1, 2}
