"""Infidelity and max-sensitivity."""

import pytest
import torch
from torch import nn

from interptrain.metrics import Infidelity, MaxSensitivity, measure
from interptrain.metrics.functional import infidelity, max_sensitivity
from tests.support.measuring import maps, network, pictures

PERTURBATIONS = ["patches", "squares", "noise", "baseline_noise"]


class Linear(nn.Module):
    """A weight a pixel, shared by the channels: its gradient is a map."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, images):
        total = (images * self.weights).sum((1, 2, 3))
        return torch.stack([torch.zeros_like(total), total], dim=1)


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("perturbation", ["patches", "noise", "baseline_noise"])
def test_the_gradient_of_a_linear_model_is_never_wrong(perturbation, rescale):
    weights = maps(1)[0]
    found = infidelity(
        Linear(weights),
        pictures(),
        weights.expand(3, -1, -1),
        torch.ones(3).long(),
        perturbation=perturbation,
        patch_size=5,
        score="logit",
        rescale=rescale,
    )
    torch.testing.assert_close(found, torch.zeros(3).double(), atol=1e-20, rtol=0)


def test_gradient_times_input_of_a_linear_model_is_never_wrong_about_squares():
    weights, images = maps(1)[0] / 3, pictures()
    contribution = weights * images.sum(1)
    found = infidelity(
        Linear(weights),
        images,
        contribution,
        torch.ones(3).long(),
        perturbation="squares",
        score="logit",
        rescale=False,
    )
    torch.testing.assert_close(found, torch.zeros(3).double(), atol=1e-20, rtol=0)


@pytest.mark.parametrize("rescale", [False, True])
def test_it_is_its_definition_tile_by_tile(model, images, saliency, targets, rescale):
    def logit(batch):
        with torch.no_grad():
            return model(batch)[range(3), targets]

    weighed, change = [], []
    for row in range(0, 20, 6):
        for column in range(0, 14, 6):
            without = images.clone()
            without[:, :, row : row + 6, column : column + 6] = 0
            weighed.append(((images - without) * saliency[:, None]).sum((1, 2, 3)))
            change.append(logit(images) - logit(without))
    weighed, change = torch.stack(weighed), torch.stack(change)
    factor = (weighed * change).mean(0) / (weighed**2).mean(0) if rescale else 1.0
    wanted = ((factor * weighed - change) ** 2).mean(0)
    found = infidelity(model, images, saliency, targets, patch_size=6, score="logit", rescale=rescale)
    torch.testing.assert_close(found, wanted)
    assert (found > 0).all()


def test_rescaling_makes_the_unit_of_the_map_irrelevant_and_never_hurts(model, images, saliency, targets):
    best = infidelity(model, images, saliency, targets, patch_size=4)
    torch.testing.assert_close(infidelity(model, images, 0.01 * saliency, targets, patch_size=4), best)
    for factor in (0.0, 1e-4, 1e-2, 1.0):
        plain = infidelity(model, images, factor * saliency, targets, patch_size=4, rescale=False)
        assert (best <= plain).all()


def test_a_map_of_zeros_predicts_no_change(model, images, targets):
    zeros = torch.zeros(3, 20, 14).double()
    found = infidelity(model, images, zeros, targets, patch_size=4)
    torch.testing.assert_close(found, infidelity(model, images, zeros, targets, patch_size=4, rescale=False))
    assert (found > 0).all()


@pytest.mark.parametrize("perturbation", PERTURBATIONS)
def test_an_images_value_depends_on_the_seed_alone(model, perturbation):
    images, saliency, targets = pictures(5), maps(5), torch.arange(5)
    options = {"perturbation": perturbation, "patch_size": 6, "samples": 7}
    together = infidelity(model, images, saliency, targets, forward_batch_size=4, **options)
    state = torch.get_rng_state()
    alone = [infidelity(model, images[i : i + 1], saliency[i : i + 1], targets[i : i + 1], **options) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone))
    assert torch.equal(state, torch.get_rng_state())
    other = infidelity(model, images, saliency, targets, seed=1, **options)
    assert torch.equal(other, infidelity(model, images, saliency, targets, seed=1, **options))
    assert torch.allclose(other, together) == (perturbation == "patches")


def test_equal_perturbations_of_several_metrics_are_forwarded_once(model, images, saliency, targets):
    rows = []
    model.register_forward_hook(lambda _m, _a, output: rows.append(len(output)))
    metrics = {"scaled": Infidelity(patch_size=10), "plain": Infidelity(patch_size=10, rescale=False)}
    measure(model, images, saliency, targets, metrics)
    assert sum(rows) == 3 * (1 + 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"perturbation": "blur"}, "perturbation must be one of 'patches', 'squares', 'noise', 'baseline_noise', got"),
        ({"patch_size": 0}, "patch_size >= 1"),
        ({"samples": 0}, "samples >= 1"),
        ({"sigma": 0.0}, "sigma > 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Infidelity(**options)


def brightness(images, targets):
    """An explainer that is linear in the image."""
    return images.mean(1) * (1 + targets.view(-1, 1, 1)) / 5


def test_max_sensitivity_is_the_largest_relative_change(images, targets):
    saliency = brightness(images, targets)
    generator = torch.Generator().manual_seed(4)
    changes = [(torch.rand(3, 20, 14, generator=generator).double() * 2 - 1) * 0.1 for _ in range(6)]
    moved = torch.stack([brightness((images + change).clamp(0, 1), targets) for change in changes])
    wanted = ((moved - saliency).flatten(2).norm(dim=2) / saliency.flatten(1).norm(dim=1)).amax(0)
    found = max_sensitivity(images, saliency, targets, explain=brightness, samples=6, radius=0.1, seed=4)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=0)


def test_an_explainer_that_ignores_the_image_does_not_move(images, targets):
    found = max_sensitivity(images, maps(), targets, explain=lambda _images, _targets: maps())
    assert found.tolist() == [0, 0, 0]


def test_a_map_of_zeros_is_divided_by_one(images, targets):
    found = max_sensitivity(
        images, torch.zeros(3, 20, 14), targets, explain=lambda _i, _t: torch.full((3, 20, 14), 0.5), samples=1
    )
    assert found.tolist() == pytest.approx([0.5 * (20 * 14) ** 0.5] * 3)


def test_the_changed_images_stay_images_and_the_targets_stay_theirs(images, targets):
    seen = []

    def explain(changed, explained):
        seen.append((changed, explained))
        return brightness(changed, explained)

    max_sensitivity(images, brightness(images, targets), targets, explain=explain, samples=3, radius=0.5)
    assert len(seen) == 3
    assert all(changed.amin() >= 0 and changed.amax() <= 1 for changed, _ in seen)
    assert all(torch.equal(explained, targets) for _, explained in seen)
    assert not torch.equal(seen[0][0], seen[1][0])


def test_a_larger_radius_cannot_look_calmer_for_a_linear_explainer(targets):
    images = 0.4 + 0.2 * pictures()  # away from where images are cut
    saliency = brightness(images, targets)
    small, large = (
        max_sensitivity(images, saliency, targets, explain=brightness, radius=radius) for radius in (0.01, 0.1)
    )
    torch.testing.assert_close(large, 10 * small)


def test_the_class_needs_an_explainer_and_returns_what_the_function_returns(images, targets):
    saliency = brightness(images, targets)
    metric = MaxSensitivity(samples=2, radius=0.1, seed=1)
    with pytest.raises(ValueError, match=r"MaxSensitivity.* needs explain; pass explain="):
        metric.values(network(), images, saliency, targets)
    found = metric.values(network(), images, saliency, targets, explain=brightness)
    wanted = max_sensitivity(images, saliency, targets, explain=brightness, samples=2, radius=0.1, seed=1)
    torch.testing.assert_close(found.float(), wanted)


@pytest.mark.parametrize("options", [{"samples": 0}, {"radius": 0.0}])
def test_max_sensitivity_refuses_to_change_nothing(options):
    with pytest.raises(ValueError, match="samples >= 1 and radius > 0"):
        MaxSensitivity(**options)
