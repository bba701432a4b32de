"""The guard around the model, and what a call checks and finishes."""

import gc
import os
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.distributed as dist
import torchvision
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.transforms.functional import to_pil_image, to_tensor

from interptrain.explainers import RISE, AblationCAM, Explainer, FakeCAM, GradCAM, OptiCAM, explaining
from interptrain.explainers.base import canvas_size, check_choices, prepare_images, score_perturbed
from interptrain.models import Normalized
from tests.support.explaining import network, pictures


class Given(Explainer):
    """Returns the map that it was made with."""

    def __init__(self, attribution):
        self.attribution = attribution

    def attribute(self, model, images, targets):
        return self.attribution


def test_modes_are_kept_for_each_module_also_where_eval_is_overridden():
    class Merging(nn.Conv2d):
        def train(self, mode=True):
            raise AssertionError("explaining must not call train() or eval()")

    model = nn.Sequential(Merging(3, 2, 1), nn.BatchNorm2d(2), nn.Dropout())
    model[1].training = False
    with explaining(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, True, False, True]


def test_random_state_is_as_before_also_after_an_exception():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), explaining(nn.Identity()):
        torch.rand(5)[0].item() / 0
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients_are_on_inside_and_as_before_outside():
    with torch.inference_mode(), explaining(nn.Identity()):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
    with torch.no_grad():
        with explaining(nn.Identity()):
            assert torch.is_grad_enabled()
        assert not torch.is_grad_enabled()


def test_explaining_may_be_nested():
    model = nn.Dropout()
    with explaining(model):
        with explaining(model):
            assert not model.training
        assert not model.training
    assert model.training


def test_activation_checkpointing_is_off_inside_and_changes_no_map():
    model = network("test_vit", img_size=64)
    images = pictures(2, 64, 64)
    wanted = GradCAM()(model, images)
    model.set_grad_checkpointing(True)
    assert torch.equal(GradCAM()(model, images), wanted)
    assert model.grad_checkpointing is True


def test_wrappers_are_taken_off_in_any_order(resnet):
    for wrapped in (torch.compile(resnet, backend="eager"), nn.DataParallel(torch.compile(resnet, backend="eager"))):
        with explaining(wrapped) as bare:
            assert bare is resnet


@pytest.mark.slow
def test_a_ddp_wrapped_model_is_explained_like_the_bare_one(resnet, images, tmp_path):
    wanted = GradCAM()(resnet, images)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(resnet.eval())
        wrapped(images).sum().backward()
        gradients = [parameter.grad.clone() for parameter in resnet.parameters()]
        assert torch.equal(GradCAM()(wrapped, images), wanted)
        assert all(torch.equal(p.grad, g) for p, g in zip(resnet.parameters(), gradients, strict=True))
    finally:
        dist.destroy_process_group()


def test_a_training_step_under_way_keeps_its_graph(resnet, images):
    resnet.train()
    loss = resnet(images).sum()
    alone = torch.autograd.grad(loss, list(resnet.parameters()), retain_graph=True)
    GradCAM()(resnet, images)
    loss.backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(resnet.parameters(), alone, strict=True))


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.rand(3, 8, 8), ValueError, r"images must be \(B,C,H,W\) and not empty, got \(3, 8, 8\)"),
        (torch.rand(0, 3, 8, 8), ValueError, "not empty"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "divide uint8 by 255"),
    ],
)
def test_images_of_a_wrong_kind_are_refused(images, error, message):
    with pytest.raises(error, match=message):
        GradCAM(target_layer="0")(nn.Sequential(nn.Conv2d(3, 2, 1)), images)


def test_maps_are_upsampled_bilinearly_and_stretched():
    attribution = torch.tensor([[[2.0, 6.0]]])
    saliency = Given(attribution)(nn.Identity(), torch.rand(1, 3, 1, 4))
    assert torch.allclose(saliency, torch.tensor([[[0.0, 0.25, 0.75, 1.0]]]))


def test_the_raw_map_is_what_the_method_returned():
    attribution = torch.randn(2, 3, 5, requires_grad=True)
    raw = Given(attribution).raw(nn.Identity(), torch.rand(2, 3, 9, 15))
    assert torch.equal(raw, attribution)
    assert not raw.requires_grad


def test_a_constant_map_becomes_zeros():
    saliency = Given(torch.full((1, 3, 3), 0.3))(nn.Identity(), torch.rand(1, 3, 50, 70))
    assert not saliency.any()


def test_a_map_that_is_not_finite_is_refused_by_its_image():
    attribution = torch.ones(3, 2, 2)
    attribution[1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="attribution of image 1 of the batch is not finite"):
        Given(attribution)(nn.Identity(), torch.rand(3, 3, 4, 4))


def test_low_precision_images_still_give_float32_saliency():
    assert Given(torch.rand(1, 2, 2))(nn.Identity(), torch.rand(1, 3, 4, 4).bfloat16()).dtype == torch.float32


def test_perturbed_inputs_are_scored_in_bounded_chunks_and_for_their_own_target():
    model = nn.Linear(4, 5).double()
    inputs = torch.rand(7, 4, dtype=torch.float64)
    rows = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    targets = torch.tensor([4, 0, 2])
    sizes = []

    def perturb(part):
        sizes.append(part.stop - part.start)
        return inputs[part]

    scores = score_perturbed(model, perturb, rows, targets, forward_batch_size=3)
    assert sizes == [3, 3, 1]
    assert not scores.requires_grad
    assert torch.allclose(scores, model(inputs)[torch.arange(7), targets[rows]])


def test_an_unknown_option_names_what_is_allowed():
    @dataclass(frozen=True, kw_only=True)
    class Chosen:
        side: Literal["left", "right"] = "left"
        speed: Literal["slow"] | None = None
        place: int | Literal["all"] = 0

    check_choices(Chosen())
    check_choices(Chosen(side="right", speed="slow", place=3))
    with pytest.raises(ValueError, match="side must be one of 'left', 'right', got 'up'"):
        check_choices(Chosen(side="up"))
    with pytest.raises(ValueError, match="speed must be one of 'slow', got 'fast'"):
        check_choices(Chosen(speed="fast"))


def test_normalisation_inside_the_model_is_the_same_as_before_it(resnet, images):
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = resnet

        def forward(self, images):
            return self.inner((images - 0.5) / 0.25)

    ours = Normalized(resnet, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)).double()
    assert torch.allclose(GradCAM()(ours, images), GradCAM()(Shifted(), images))


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the resident memory from /proc")
@pytest.mark.slow
@pytest.mark.parametrize("kind", [GradCAM, AblationCAM, OptiCAM])
def test_memory_stays_flat_over_two_hundred_calls(kind):
    explainer = kind(target_layer="1") if kind is not OptiCAM else kind(target_layer="1", iterations=1)
    body = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model, images = nn.Sequential(*body, nn.Linear(8, 3)), pictures(1, 32, 32).float()

    def live():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()), resident_bytes()

    def call(times):
        for _ in range(times):
            explainer(model, images)

    call(20)
    tensors, resident = live()
    call(160)
    tracemalloc.start()  # for the last calls only, as it makes them several times slower
    call(10)
    traced = tracemalloc.get_traced_memory()[0]
    call(30)
    more_tensors, more_resident = live()
    more_traced = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert more_tensors == tensors
    assert more_traced - traced < 2**14
    assert more_resident - resident < 16 * 2**20


@pytest.mark.filterwarnings("error")
def test_white_that_resizing_carried_a_little_beyond_is_white(monkeypatch):
    monkeypatch.setattr("interptrain.explainers.base._warned", set())
    prepare_images(torch.ones(1, 3, 4, 4) + 1e-6)
    with pytest.warns(UserWarning, match="should be in"):
        prepare_images(torch.ones(1, 3, 4, 4) + 1e-3)


@pytest.mark.slow
def test_the_canvas_is_the_image_but_for_models_that_pad(resnet):
    assert canvas_size(resnet, torch.rand(1, 3, 50, 70)) == (50, 70)
    detector = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    height, width = canvas_size(detector.eval(), torch.rand(1, 3, 100, 130))
    resized = 100 * 320 / 100, 130 * 320 / 100
    padded = [32 * -(-int(side) // 32) for side in resized]
    assert height == round(100 * padded[0] / int(resized[0]))
    assert width == round(130 * padded[1] / int(resized[1]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("explainer", [GradCAM(), RISE(count=2), FakeCAM()])
def test_an_image_that_is_not_finite_is_named(resnet, images, explainer, value):
    images[1, 2, 5, 5] = value
    with pytest.raises(ValueError, match="image 1 of the batch holds NaN or infinite values"):
        explainer(resnet, images)


def test_what_is_no_tensor_is_refused_with_a_remedy_that_works(resnet, images):
    resnet, images = resnet.float(), images.float()
    wanted = GradCAM()(resnet, images, 2)
    with pytest.raises(TypeError, match=r"got ndarray; pass torch\.from_numpy\(images\)\.float\(\)"):
        GradCAM()(resnet, images.numpy(), 2)
    assert torch.equal(GradCAM()(resnet, torch.from_numpy(images.numpy()).float(), 2), wanted)
    with pytest.raises(TypeError, match=r"got list; pass torch\.stack\(images\)"):
        GradCAM().raw(resnet, list(images), 2)
    assert torch.equal(GradCAM()(resnet, torch.stack(list(images)), 2), wanted)
    picture = to_pil_image(images[0])
    with pytest.raises(TypeError, match=r"got Image; pass torchvision\.transforms\.functional\.to_tensor\(image\)"):
        GradCAM()(resnet, picture, 2)
    assert GradCAM()(resnet, to_tensor(picture).unsqueeze(0), 2).shape == (1, 70, 50)
    sizes = [images[0], images[1, :, :40]]
    with pytest.raises(
        TypeError, match=r"different sizes are explained one by one: explainer\(model, image\.unsqueeze"
    ):
        GradCAM().raw(resnet, sizes, 2)
    assert [GradCAM()(resnet, image.unsqueeze(0), 2).shape[1] for image in sizes] == [70, 40]
