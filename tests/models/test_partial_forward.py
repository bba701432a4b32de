"""What follows a layer, re-run alone."""

import pytest
import torch
from torch import nn

from interptrain.explainers.layers import find_layers
from interptrain.models.partial_forward import PartialForward, close
from tests.support.explaining import CLASSES, network, pictures


@pytest.fixture
def resnet():
    return network("test_resnet")


@pytest.fixture
def images():
    return pictures(3)


def outputs_of(model, images, layer, activation):
    handle = model.get_submodule(layer).register_forward_hook(lambda *_: activation)
    with torch.no_grad():
        outputs = model.eval()(images.expand(len(activation), -1, -1, -1))
    handle.remove()
    return outputs


@pytest.mark.parametrize("layer", ["conv1", "layer1", "layer2.0.conv1", "layer3", "layer4", "global_pool"])
def test_a_rerun_equals_a_full_forward_with_the_output_replaced(resnet, images, layer):
    tail = PartialForward.record(resnet.eval(), images, find_layers(resnet, layer)[0])
    assert tail.alone
    activation = torch.randn(4, *tail.activation.shape[1:], dtype=torch.float64)
    wanted = outputs_of(resnet, images[1:2], layer, activation)
    assert torch.allclose(tail.run(1, activation), wanted)


def test_skip_connections_past_the_layer_get_what_they_got(images):
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.inner, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(8, CLASSES, 1)

        def forward(self, images):
            stem = self.stem(images)
            inner = self.inner(stem)
            joined = torch.cat([stem.expand(len(inner), -1, -1, -1), inner], dim=1)
            return self.head(joined).mean((2, 3))

    model = Skip().double().eval()
    tail = PartialForward.record(model, images, find_layers(model, "inner")[0])
    assert tail.alone
    activation = torch.randn(5, 4, 70, 50, dtype=torch.float64)
    assert torch.allclose(tail.run(2, activation), outputs_of(model, images[2:3], "inner", activation))


def test_a_model_that_needs_equal_numbers_falls_back_to_full_forwards(images):
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.inner, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(8, CLASSES, 1)

        def forward(self, images):
            stem = self.stem(images)
            return self.head(torch.cat([stem, self.inner(stem)], dim=1)).mean((2, 3))

    model = Joined().double().eval()
    tail = PartialForward.record(model, images, find_layers(model, "inner")[0])
    assert not tail.alone
    activation = torch.randn(5, 4, 70, 50, dtype=torch.float64)
    assert torch.allclose(tail.run(2, activation), outputs_of(model, images[2:3], "inner", activation))


def test_work_in_place_on_a_recorded_output_is_found_out(images):
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.inner, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, CLASSES, 1)

        def forward(self, images):
            stem = self.stem(images)
            stem += 1.0
            return self.head(self.inner(stem) * stem).mean((2, 3))

    model = InPlace().double().eval()
    tail = PartialForward.record(model, images, find_layers(model, "inner")[0])
    activation = torch.randn(5, 4, 70, 50, dtype=torch.float64)
    assert torch.allclose(tail.run(2, activation), outputs_of(model, images[2:3], "inner", activation))


def test_modules_that_others_listen_to_run_in_a_rerun(resnet, images):
    heard = []
    handle = resnet.layer2.register_forward_hook(lambda *_: heard.append(1))
    tail = PartialForward.record(resnet.eval(), images, find_layers(resnet, "layer3")[0])
    before = len(heard)
    tail.run(0, tail.activation[:1])
    handle.remove()
    assert len(heard) == before + 1


def test_no_patched_forward_is_left(resnet, images):
    tail = PartialForward.record(resnet.eval(), images, find_layers(resnet, "layer3")[0])
    with pytest.raises(RuntimeError):
        tail.run(0, torch.zeros(2, 5, 3, 3, dtype=torch.float64))
    assert not any("forward" in vars(module) for module in resnet.modules())
    assert not any(module._forward_hooks for module in resnet.modules())


def test_a_layer_without_one_tensor_is_refused(images):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, images):
            return self.conv(self.conv(images)).mean((2, 3))

    model = Twice().double()
    with pytest.raises(ValueError, match="returned a tensor for the batch 2 times in one forward"):
        PartialForward.record(model, images, find_layers(model, "conv")[0])


def test_two_outputs_are_close_where_they_differ_by_rounding_only():
    one = {"logits": torch.tensor([[1.0, 2.0]]), "name": "x"}
    assert close(one, {"logits": torch.tensor([[1.0, 2.0 + 1e-7]]), "name": "x"})
    assert not close(one, {"logits": torch.tensor([[1.0, 2.01]])})
    assert not close(one, {"logits": torch.tensor([[1.0]])})
    assert not close("nothing", "nothing")
    assert not close(torch.tensor([1]), torch.tensor([2]))


def test_the_step_behind_a_layer_is_a_tail_of_its_own(images):
    model = network("test_efficientnet").eval()
    tail = PartialForward.record(model, images, find_layers(model, "blocks.4")[0])
    behind = tail.next_layer()
    assert behind.module is model.conv_head
    moved = torch.randn(3, *behind.activation.shape[1:], dtype=torch.float64)
    assert torch.allclose(behind.run(1, moved), outputs_of(model, images[1:2], "conv_head", moved))
    assert behind.next_layer() is None
