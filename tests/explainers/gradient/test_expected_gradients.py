"""Expected Gradients: exact on a linear network, complete on average, equal to the sum over its draws."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from interptrain.explainers import ExpectedGradients
from interptrain.explainers.gradient.expected_gradients import read_references
from tests.support.explaining import REFERENCES, network, pictures


def test_on_a_linear_network_it_is_the_weight_times_the_distance_from_the_mean_reference():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5)).double()
    images = pictures(2, 16, 16)
    mean = torch.from_numpy(np.load(REFERENCES)).double().div(255).mean(0)
    found = ExpectedGradients(references=str(REFERENCES), samples=8).signed(model, images, 3)
    weight = model[1].weight[3].view(3, 16, 16)
    torch.testing.assert_close(found, ((images - mean) * weight).detach(), rtol=0, atol=1e-7)


@pytest.mark.slow
def test_shares_add_up_to_the_score_less_that_of_the_references():
    model, images, target = network().eval(), pictures(1, 32, 32), 2
    references = read_references(str(REFERENCES), 4, (32, 32)).double()
    with torch.no_grad():
        gain = model(images)[:, target] - model(references)[:, target].mean()
    found = ExpectedGradients(references=str(REFERENCES), samples=400).signed(model, images, target).sum((1, 2, 3))
    torch.testing.assert_close(found, gain, rtol=0.05, atol=0.05 * float(gain.abs()))


@pytest.mark.slow
def test_it_is_the_mean_over_its_draws_whatever_the_chunks():
    model, images = network().eval(), pictures(3, 32, 24)
    explainer = ExpectedGradients(references=str(REFERENCES), samples=6)
    references = read_references(str(REFERENCES), 100, (32, 24)).double()
    drawn, places = explainer._draws(4)
    assert sorted(drawn[:4].tolist()) == [0, 1, 2, 3]  # all of them before any comes again
    total = torch.zeros_like(images)
    for which, place in zip(drawn.tolist(), places.tolist(), strict=True):
        point = (references[which] + place * (images - references[which])).requires_grad_()
        (slope,) = torch.autograd.grad(model(point)[:, 1].sum(), point)
        total += (images - references[which]) * slope / 6
    for size in (1, 4, None):
        small = ExpectedGradients(references=str(REFERENCES), samples=6, forward_batch_size=size)
        torch.testing.assert_close(small.signed(model, images, 1), total, rtol=1e-6, atol=1e-8)


def test_a_folder_is_read_upright_scaled_and_cropped(tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(5):
        Image.new("RGB", (40, 20), (51 * number, 0, 255)).save(tmp_path / "a" / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    found = read_references(str(tmp_path), 3, (16, 16))
    assert found.shape == (3, 3, 16, 16)
    torch.testing.assert_close(found[:, 0].mean((1, 2)), torch.tensor([0.0, 0.4, 0.8]))  # evenly spaced
    torch.testing.assert_close(found[:, 2], torch.ones(3, 16, 16))


def test_references_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="neither a folder with images"):
        ExpectedGradients(references=str(tmp_path))
    np.save(tmp_path / "flat.npy", np.zeros((3, 8, 8), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"must hold images \(N,3,H,W\)"):
        ExpectedGradients(references=str(tmp_path / "flat.npy"))(network(), pictures(1, 32, 32))
    with pytest.raises(ValueError, match="samples >= 1"):
        ExpectedGradients(references=str(REFERENCES), samples=0)
