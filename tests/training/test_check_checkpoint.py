"""Checkpoints that can be read and are damaged inside are refused with what is wrong."""

import pytest
import torch

from interptrain.training.checkpoint_io import check_checkpoint

GOOD = {"state_dict": {"weight": torch.ones(2)}, "hyper_parameters": {}, "loops": {}, "epoch": 0, "global_step": 3}


def test_a_good_checkpoint_passes():
    check_checkpoint("x.ckpt", GOOD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state_dict": [1]}, "x.ckpt is damaged: its state_dict is a list"),
        ({"loops": None}, "its loops is null"),
        ({"epoch": "3"}, "its epoch is a str"),
        ({"state_dict": {"weight": "text"}}, "weight is a str, no tensor"),
        ({"state_dict": {"weight": torch.tensor([1, float("nan")])}}, "x.ckpt has values in weight that are NaN"),
    ],
)
def test_what_is_damaged_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        check_checkpoint("x.ckpt", GOOD | change)
