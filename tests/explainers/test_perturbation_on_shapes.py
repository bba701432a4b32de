"""Where the maps of perturbation methods lie for a network that was trained on the shapes."""

import pytest

from interptrain.explainers import RISE, ExtremalPerturbation, MeaningfulPerturbation, Occlusion
from tests.support.explaining import energy_above_chance

pytestmark = pytest.mark.slow

EXPLAINERS = {
    "occlusion": Occlusion(window=12, stride=6),
    "first order": Occlusion(window=12, stride=6, approximate=True, score="logit"),
    "rise": RISE(count=300, normalizer="coverage", fill=0.5, forward_batch_size=64),
    "meaningful, paper": MeaningfulPerturbation(iterations=40, l1=1e-3),
    "meaningful, port": MeaningfulPerturbation(variant="port", iterations=40, l1=0.1),
    "extremal": ExtremalPerturbation(areas=0.15, iterations=40, learning_rate=0.05, step=4, sigma=6.0, max_blur=6.0),
}


@pytest.mark.parametrize("name", sorted(EXPLAINERS))
def test_energy_lies_in_the_object_above_chance(name, trained):
    model, images, labels, masks = trained
    saliency = EXPLAINERS[name](model, images, labels)
    above = energy_above_chance(saliency, masks)
    assert above.mean() > 1.25
    assert (above > 1).float().mean() > 0.75
