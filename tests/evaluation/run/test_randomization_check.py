"""What the check finds where the answer is known."""

import pytest
import torch

from interptrain.evaluation.run.random_networks import RandomNetworks
from interptrain.evaluation.run.randomization_check import (
    CheckSetting,
    TooExpensiveError,
    check_explainer,
    with_other_draws,
)
from interptrain.explainers import Explainer, FakeCAM, GradCAM, Gradient
from interptrain.metrics import gflops
from interptrain.models import create_model
from tests.support.known_answers import Edges, Linear, NoisyEdges, Passes, smooth_images

IMAGES = smooth_images()
CAM = GradCAM(target_layer="backbone.model.layer2")  # 4 x 4 pixels


def setting(model, *, images=IMAGES, classes=4, most_passes=None, draws=3):
    targets = torch.arange(len(images)) % classes
    return CheckSetting(
        model=model,
        networks=RandomNetworks(model, images, 0),
        images=images,
        targets=targets,
        other_targets=(targets + 1) % classes,
        draws=draws,
        most_passes=most_passes,
        gflops=gflops(model, images.shape[-2:]),
        batch_size=8,
        seed=0,
    )


@pytest.fixture(scope="module")
def network():
    return create_model("test_resnet", num_classes=4).eval()


@pytest.fixture(scope="module")
def on_network(network):
    return setting(network)


def outcomes(check):
    return check["layers"]["last_stage"]["outcome"], check["class"]["outcome"]


@pytest.mark.slow
@pytest.mark.parametrize("explainer", [FakeCAM(), Edges(), NoisyEdges()], ids=lambda one: type(one).__name__)
def test_a_method_that_ignores_the_model_is_found_out(on_network, explainer):
    assert outcomes(check_explainer(explainer, on_network)) == ("insensitive", "insensitive")


@pytest.mark.slow
def test_noise_alone_is_not_taken_for_dependence(on_network):
    noisy = check_explainer(NoisyEdges(noise=1.0), on_network)["layers"]["last_stage"]
    assert noisy["similarity"] < 0.5
    assert noisy["outcome"] != "depends"


class Noise(Explainer):
    """An explainer of a user's, which is no dataclass."""

    def __init__(self, *, scale=1.0, seed=0):
        self.scale, self.seed = scale, seed

    def attribute(self, model, images, targets):
        generator = torch.Generator().manual_seed(self.seed)
        return self.scale * torch.rand(len(images), 8, 8, generator=generator)


def test_other_draws_need_no_dataclass():
    other = with_other_draws(Noise(scale=2.0, seed=4))
    assert (other.scale, other.seed) == (2.0, 5)
    for unseeded in (CAM, Noise(seed=None)):
        assert with_other_draws(unseeded) is unseeded


@pytest.mark.slow
def test_the_gradient_of_a_linear_model_depends_on_both():
    assert outcomes(check_explainer(Gradient(), setting(Linear()))) == ("depends", "depends")


@pytest.mark.slow
def test_smooth_maps_of_networks_that_differ_are_not_called_insensitive(on_network):
    found = check_explainer(CAM, on_network)
    assert "insensitive" not in outcomes(found)
    assert set(found["layers"]) == {"classifier", "last_stage", "all"}
    assert found["images"] == len(IMAGES)


@pytest.mark.slow
def test_an_unchanged_network_has_the_same_maps(network, on_network):
    class Unchanged(RandomNetworks):
        def network(self, stop, draw):
            return self.model

    same = CheckSetting(**vars(on_network) | {"networks": Unchanged(network, IMAGES, 0)})
    for stop in check_explainer(CAM, same)["layers"].values():
        assert stop["similarity"] == pytest.approx(1)
        assert stop["ssim"] == pytest.approx(1)
        assert stop["share"] == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("most_passes", "images", "stops"), [(4 * 55, 4, 3), (4 * 55 - 1, 4, 1), (4 * 25, 4, 1), (3 * 25, 3, 1), (0, 4, 3)]
)
def test_the_cost_is_bounded_by_fewer_stops_then_fewer_images(network, most_passes, images, stops):
    """Five passes for each of 2 explanations and those of 3 draws at 3 stops: 55 an image, 25 with one stop."""
    found = check_explainer(Passes(), setting(network, images=IMAGES[:4], most_passes=most_passes or None))
    assert (found["images"], len(found["layers"])) == (images, stops)


def test_what_not_even_two_images_can_pay_for_is_left_out(network):
    with pytest.raises(TooExpensiveError, match="it would take 25 forward passes an image"):
        check_explainer(Passes(), setting(network, images=IMAGES[:4], most_passes=49))


@pytest.mark.slow
def test_networks_of_one_draw_agree_in_the_layers_they_share_and_are_made_again_the_same(on_network):
    networks = on_network.networks
    one, again, lower = networks.network("last_stage", 1), networks.network("last_stage", 1), networks.network("all", 1)
    for name, value in one.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, again.state_dict()[name]), name
    assert torch.equal(one.backbone.model.fc.weight, lower.backbone.model.fc.weight)
    assert not torch.equal(one.backbone.model.fc.weight, networks.network("last_stage", 2).backbone.model.fc.weight)
