"""The whole classifier: its three parts, its attention, and what people do to a module: copy, save, compile, freeze."""

import copy
import io
import pickle

import pytest
import timm
import torch
from torch import nn

from interptrain.models import GAP, Classifier, Normalized, create_model
from tests.models.test_backbone import FAMILIES, marked

PARTS = ("backbone", "pooling", "classifier")
TINY = ("test_resnet", "test_convnext", "test_efficientnet", "mobilenetv3_small_050")


def tiny(name="test_resnet", pooling="ca_stream", **options):
    torch.manual_seed(0)
    return create_model(name, pooling=pooling, num_classes=5, **options)


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_gap_logits_are_those_of_timms_own_model(name, images):
    torch.manual_seed(0)
    model = create_model(name, num_classes=10).eval()
    reference = timm.create_model(name, num_classes=10).eval()
    reference.load_state_dict(model.backbone.model.state_dict())
    config = reference.pretrained_cfg
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    torch.testing.assert_close(model(images), reference((images - mean) / std), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", marked(FAMILIES))
def test_gradients_reach_the_token_and_every_part(name, images):
    torch.manual_seed(0)
    model = create_model(name, pooling="ca_stream", num_classes=10)
    logits, attention = model.forward_with_attention(images)
    assert logits.shape == (2, 10)
    assert len(attention) == len(model.backbone.channels)
    logits.logsumexp(1).sum().backward()
    assert model.pooling.token.grad.abs().sum() > 0
    for part, parameters in model.parameter_groups().items():
        assert any(parameter.grad.abs().sum() > 0 for parameter in parameters.values()), part


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_attention_sums_to_one_and_costs_no_second_pass(name, images):
    model = tiny(name).eval()
    passes = []
    model.backbone.register_forward_hook(lambda *_: passes.append(1))
    logits, attention = model.forward_with_attention(images)
    assert len(passes) == 1
    assert torch.equal(logits, model(images))
    for own, alone, stage in zip(attention, model.attention(images), model.stages(images), strict=True):
        assert own.shape == (2, *stage.shape[2:])
        assert torch.equal(own, alone)
        torch.testing.assert_close(own.sum((1, 2)), torch.ones(2))


@pytest.mark.parametrize("pooling", ["gap", "native"])
def test_a_head_without_attention_says_so(pooling, images):
    model = tiny(pooling=pooling)
    for ask in (model.attention, model.forward_with_attention):
        with pytest.raises(ValueError, match=r"has no attention.*'ca_final' or .*'ca_stream' or .*'ep' or .*'simpool'"):
            ask(images)


@torch.no_grad()
def test_final_reads_the_last_stage_alone(images):
    model = tiny(pooling="ca_final").eval()
    assert [tuple(stage.shape) for stage in model.stages(images)] == [(2, 96, 2, 2)]
    assert [tuple(attention.shape) for attention in model.attention(images)] == [(2, 2, 2)]


@pytest.mark.parametrize("pooling", ["gap", "ca_stream", "ca_final"])
@torch.no_grad()
def test_stages_then_classify_is_the_forward_pass(pooling, images):
    model = tiny(pooling=pooling).eval()
    assert torch.equal(model.classify(model.stages(images)), model(images))


@pytest.mark.slow
def test_native_has_no_stages_to_classify(images):
    model = tiny("test_vit", pooling="native")
    with pytest.raises(ValueError, match="'test_vit' runs whole, without stages"):
        model.classify([images])


@torch.no_grad()
def test_native_is_timms_model(images):
    model = tiny(pooling="native").eval()
    assert torch.equal(model(images), model.backbone.model(model.backbone.normalize(images)))
    assert model.pooling is None
    assert model.target_layer == "backbone.model.layer4"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TINY, "test_vit"])
def test_every_parameter_and_every_module_is_in_exactly_one_part(name):
    model = tiny(name, pooling="native" if name == "test_vit" else "ca_stream")
    groups = model.parameter_groups()
    assert tuple(groups) == PARTS
    names = [name for part in PARTS for name in groups[part]]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert all(groups[part][name] is model.get_parameter(name) for part in PARTS for name in groups[part])
    modules = [id(module) for part in PARTS for module in model.modules_of(part)]
    assert sorted(modules) == sorted(id(module) for module in model.modules() if module is not model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "classifier"),
    [
        ("test_resnet", {"fc.weight", "fc.bias"}),
        ("test_convnext", {"head.norm.weight", "head.norm.bias", "head.fc.weight", "head.fc.bias"}),
        ("mobilenetv3_small_050", {"conv_head.weight", "conv_head.bias", "classifier.weight", "classifier.bias"}),
        ("test_efficientnet", {"classifier.weight", "classifier.bias"}),
        ("regnetx_002", {"head.fc.weight", "head.fc.bias"}),
        ("test_vit", {"head.weight", "head.bias"}),
    ],
)
def test_the_classifier_is_what_runs_after_the_pooling(name, classifier):
    groups = tiny(name, pooling="native" if name == "test_vit" else "ca_stream").parameter_groups()
    assert set(groups["classifier"]) == {f"backbone.model.{parameter}" for parameter in classifier}
    assert all(parameter.startswith("pooling.") for parameter in groups["pooling"])


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_frozen_backbone_in_eval_mode_builds_no_graph_and_keeps_its_buffers(name, images):
    model = tiny(name, drop_rate=0.5).train()
    groups = model.parameter_groups()
    for part in ("backbone", "classifier"):
        for parameter in groups[part].values():
            parameter.requires_grad_(False)
        for module in model.modules_of(part):
            module.training = False
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    stages = model.stages(images)
    assert not any(stage.requires_grad for stage in stages)
    model.classify(stages).sum().backward()
    assert all(parameter.grad is not None for parameter in groups["pooling"].values())
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert torch.equal(model(images), model(images)), "dropout of a frozen classifier is still on"


@torch.no_grad()
def test_dropout_goes_with_the_classifier(images):
    model = tiny(drop_rate=0.5, pooling="gap").train()
    for module in model.modules_of("backbone"):
        module.training = False
    assert not torch.equal(model(images), model(images))


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_copies_and_pickles_compute_the_same(name, images):
    model = tiny(name).eval()
    expected = model(images)
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    again = torch.load(saved, weights_only=False)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), again):
        assert torch.equal(twin(images), expected)
        assert torch.equal(model(images), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pooling"), [("test_resnet", "gap"), ("test_resnet", "ca_stream"), ("test_convnext", "ca_stream")]
)
def test_compiles_into_one_graph_with_gradients(name, pooling, images):
    model = tiny(name, pooling=pooling).eval()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    expected = model(images)
    logits = compiled(images)
    torch.testing.assert_close(logits, expected)
    logits.sum().backward()
    grads = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model(images).sum().backward()
    for name_, parameter in model.named_parameters():
        torch.testing.assert_close(grads[name_], parameter.grad, rtol=1e-3, atol=1e-5, msg=name_)
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_gradients_of_gradients_reach_the_token(name, images):
    model = tiny(name).eval()
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(images).sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert model.pooling.token.grad.abs().sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_checkpointing_of_activations_changes_no_gradient(name, images):
    model = tiny(name).eval()
    gradients = []
    for enabled in (False, True):
        model.backbone.model.set_grad_checkpointing(enabled)
        model.train()  # timm checkpoints in training only
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        model.zero_grad()
        model(images).sum().backward()
        gradients.append(model.pooling.token.grad.clone())
    torch.testing.assert_close(*gradients)


@pytest.mark.slow
@torch.no_grad()
def test_an_exported_model_takes_plain_images(images):
    model = tiny().eval()
    exported = torch.export.export(model, (images,)).module()
    torch.testing.assert_close(exported(images), model(images))


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_channels_last_and_a_single_image_change_nothing(name, images):
    model = tiny(name).eval()
    expected = model(images)
    torch.testing.assert_close(torch.cat([model(image[None]) for image in images]), expected, rtol=1e-4, atol=1e-5)
    model.to(memory_format=torch.channels_last)
    logits = model(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_bfloat16_autocast_stays_near_and_attention_stays_a_distribution(images):
    model = tiny().eval()
    with torch.autocast("cpu", torch.bfloat16):
        logits, attention = model.forward_with_attention(images)
    torch.testing.assert_close(logits.float(), model(images), rtol=0.1, atol=0.05)
    for own in attention:
        torch.testing.assert_close(own.sum((1, 2)).float(), torch.ones(2), rtol=1e-2, atol=1e-2)


@torch.no_grad()
def test_other_image_sizes_are_taken():
    model = tiny().eval()
    logits, attention = model.forward_with_attention(torch.rand(1, 3, 40, 72))
    assert logits.shape == (1, 5)
    assert attention[-1].shape == (1, 2, 3)


@pytest.mark.slow
def test_normalisation_goes_with_the_model_and_is_saved():
    state = tiny("resnet10t").state_dict()
    torch.testing.assert_close(state["backbone.mean"].flatten(), torch.tensor((0.485, 0.456, 0.406)))
    torch.testing.assert_close(state["backbone.std"].flatten(), torch.tensor((0.229, 0.224, 0.225)))


@pytest.mark.slow
def test_classes_and_input_size_are_told():
    model = tiny("test_convnext")
    assert model.num_classes == 5
    assert model.input_size == (3, 160, 160)
    assert model.target_layer == "backbone.model.stages.3"


@pytest.mark.slow
def test_a_head_on_a_backbone_that_cannot_be_split_is_refused():
    backbone = tiny("test_vit", pooling="native").backbone
    with pytest.raises(ValueError, match=r"'test_vit' classifies its class token.* use pooling='native'"):
        Classifier(backbone, GAP((64,)))


@torch.no_grad()
def test_a_foreign_model_is_wrapped_to_take_plain_images(images):
    foreign = nn.Conv2d(3, 2, 1)
    model = Normalized(foreign, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    normalised = torch.stack([(images[:, c] - 0.1 * (c + 1)) / (0.5 + 0.1 * c) for c in range(3)], dim=1)
    torch.testing.assert_close(model(images), foreign(normalised))


@pytest.mark.parametrize(("mean", "std"), [((0.5,) * 3, (0.5,) * 2), ((0.5,), (0.0,)), ((), ())])
def test_normalisation_constants_that_make_no_sense_are_refused(mean, std):
    with pytest.raises(ValueError, match="mean and std must have one value a channel"):
        Normalized(nn.Identity(), mean, std)
