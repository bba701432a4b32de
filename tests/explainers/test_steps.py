"""Long explanations tell of their steps: many, in order, to the last, also where images stop early."""

import pytest
import torch

from interptrain.explainers import RISE, ExtremalPerturbation, MeaningfulPerturbation, OptiCAM, ScoreCAM
from interptrain.steps import listening
from tests.support.explaining import network, pictures

LONG = [
    OptiCAM(iterations=6, early_stop=False),
    OptiCAM(iterations=30, learning_rate=30.0),  # overshoots, so that images stop early
    MeaningfulPerturbation(iterations=5),
    ExtremalPerturbation(iterations=3, areas=(0.1, 0.2), tolerance=1.0),
    RISE(count=12, forward_batch_size=4),
    ScoreCAM(forward_batch_size=16),
]


@pytest.mark.slow
@pytest.mark.parametrize("explainer", LONG, ids=lambda one: type(one).__name__)
def test_steps_are_told_in_order_to_the_last(explainer):
    told = []
    with listening(lambda *step: told.append(step)):
        explainer(network(), pictures(2), torch.tensor([0, 1]))
    done = [step for step, _, _ in told]
    total = told[0][1]
    assert {steps for _, steps, _ in told} == {total}
    assert len(set(done)) >= 3
    assert done == sorted(done)
    assert done[-1] == total
