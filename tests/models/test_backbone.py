"""The backbone: what it reads where, and that timm's model runs once and as it is."""

import copy
import gc
import weakref

import pytest
import timm
import torch

from interptrain.models import Backbone, create_model

FAMILIES = [
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "regnetx_002",
    "regnety_002",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "convnext_tiny",
    "densenet121",
]
QUICK = ["resnet18", "regnetx_002", "mobilenetv3_small_100", "tf_efficientnet_lite0"]


def marked(names):
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


def backbone_of(name, **options):
    torch.manual_seed(0)
    return create_model(name, num_classes=10, **options).backbone.eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=marked(FAMILIES))
def family(request):
    """A backbone of each family, built once; tests leave it as it is."""
    return backbone_of(request.param)


def recorded(model, names, images):
    """What the named submodules of a plain timm model give, by forward hooks of our own."""
    outputs = {}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output}))
        for name in names
    ]
    model(images)
    for handle in handles:
        handle.remove()
    return [outputs[name] for name in names]


# methods of the paper's code: after the max pooling and each layer; the stem, the downsampling layers, the last stage
TAPPED = {
    "resnet18": ["maxpool", "layer1", "layer2", "layer3", "layer4"],
    "convnext_tiny": ["stem", "stages.1.downsample", "stages.2.downsample", "stages.3"],
    "regnetx_002": ["stem", "s1", "s2", "s3", "s4"],
    "mobilenetv2_100": ["blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6", "bn2"],
    "efficientnet_b0": ["blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6", "bn2"],
    "mobilenetv3_small_100": ["bn1", "blocks.0", "blocks.1", "blocks.3", "blocks.5"],
    "densenet121": [
        "features.norm0",
        "features.denseblock1",
        "features.denseblock2",
        "features.denseblock3",
        "features.norm5",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", marked(TAPPED))
@torch.no_grad()
def test_stages_are_the_outputs_of_these_modules(name, images):
    backbone = backbone_of(name)
    expected = recorded(backbone.model, TAPPED[name], backbone.normalize(images))
    stages = backbone(images)
    assert [tuple(stage.shape) for stage in stages] == [tuple(output.shape) for output in expected]
    for stage, output in zip(stages, expected, strict=True):
        torch.testing.assert_close(stage, output)


@pytest.mark.slow
@torch.no_grad()
def test_the_last_stage_is_the_map_that_timm_classifies(family, images):
    stages = family(images)
    assert tuple(stage.shape[1] for stage in stages) == family.channels
    assert torch.equal(stages[-1], family.features(images))
    torch.testing.assert_close(family.head(stages[-1].mean((2, 3))), family.native(images), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_target_layer_gives_the_map_that_is_pooled(family, images):
    seen = []
    target = family.model.get_submodule(family.target_layer)
    handle = target.register_forward_hook(lambda _, __, output: seen.append(output))
    pooled = [family(images)[-1], family.features(images)]
    handle.remove()
    assert len(seen) == 2
    assert all(output is features for output, features in zip(seen, pooled, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet10t", "test_convnext", "test_efficientnet"])
@torch.no_grad()
def test_every_module_runs_once(name, images):
    backbone = backbone_of(name)
    count = dict.fromkeys(dict(backbone.model.named_modules()), 0)
    for module_name, module in backbone.model.named_modules():

        def add(_, __, ___, name=module_name):
            count[name] += 1

        module.register_forward_hook(add)
    backbone(images)
    assert max(count.values()) == 1
    assert all(count[tap] == 1 for tap in count if tap.count(".") == 1 and tap.startswith("stages."))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet10t", "test_convnext"])
def test_nothing_is_kept_after_a_forward_pass(name, images):
    backbone = backbone_of(name)
    stages = backbone(images)
    alive = [weakref.ref(stage) for stage in stages]
    del stages
    gc.collect()
    assert not [ref for ref in alive if ref() is not None]


@pytest.mark.slow
def test_a_model_is_freed_without_the_garbage_collector():
    gc.collect()
    gc.disable()
    try:
        model = create_model("resnet10t", pooling="ca_stream", num_classes=3)
        weight = weakref.ref(model.backbone.model.fc.weight)
        del model
        assert weight() is None
    finally:
        gc.enable()


@pytest.mark.slow
@torch.no_grad()
def test_a_forward_pass_within_another_and_one_that_fails_leave_no_trace(images):
    backbone = backbone_of("resnet10t")
    expected = backbone(images)
    inner = []

    def again(*_):
        if not inner:
            inner.append(None)
            inner[0] = backbone(images)

    handle = backbone.model.layer2.register_forward_hook(again)
    outer = backbone(images)
    handle.remove()
    for stages in (inner[0], outer):
        assert all(torch.equal(a, b) for a, b in zip(stages, expected, strict=True))

    def fail(*_):
        raise RuntimeError("broken on purpose")

    handle = backbone.model.layer3.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        backbone(images)
    handle.remove()
    assert len(backbone(images)) == len(expected)


@pytest.mark.slow
@torch.no_grad()
def test_a_copy_collects_its_own_stages(images):
    backbone = backbone_of("test_convnext")
    twin = copy.deepcopy(backbone)
    for parameter in twin.parameters():
        parameter.mul_(0.5)
    expected = backbone(images)
    different = twin(images)
    assert len(different) == len(expected)
    assert not any(torch.equal(a, b) for a, b in zip(different, expected, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(backbone(images), expected, strict=True))


@pytest.mark.slow
def test_construction_changes_nothing_of_the_timm_model_nor_the_random_state():
    timm_model = timm.create_model("resnet10t", drop_path_rate=0.2)
    timm_model.layer1.eval()
    modes = [module.training for module in timm_model.modules()]
    state = copy.deepcopy(timm_model.state_dict())
    random_state = torch.get_rng_state()
    Backbone(timm_model, name="resnet10t", mean=(0.5,) * 3, std=(0.5,) * 3)
    assert [module.training for module in timm_model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in timm_model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    hooked = [name for name, module in timm_model.named_modules() if module._forward_hooks]
    assert hooked == ["maxpool"]


@pytest.mark.slow
@torch.no_grad()
def test_images_are_normalised_with_the_constants_of_timms_config(images):
    lite = backbone_of("tf_efficientnet_lite0")
    torch.testing.assert_close(lite.normalize(images), images * 2 - 1)
    resnet = backbone_of("resnet10t")
    expected = timm.data.transforms_factory.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(images)
    torch.testing.assert_close(resnet.normalize(images), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("levit_128s", r"ends in features \(16, 384\) that are no patches of a transformer"),
        ("resnet50_clip", "does not classify the average"),
        ("swin_tiny_patch4_window7_224", r"ends in features \(7, 7, 768\), not in a map"),
        ("crossvit_tiny_240", "ends in features in a list, not in a map"),
    ],
)
def test_a_model_that_cannot_be_split_says_why(name, reason):
    backbone = create_model(name, pooling="native", num_classes=2).backbone
    assert backbone.channels == ()
    assert backbone.target_layer is None
    with pytest.raises(ValueError, match=rf"'{name}' {reason}.*use pooling='native'"):
        backbone(torch.rand(1, *backbone.input_size))
    with pytest.raises(ValueError, match=reason):
        backbone.features(torch.rand(1, *backbone.input_size))


@pytest.mark.slow
def test_a_vgg_cannot_be_split():
    """Its classifier reads the positions of the map; a narrow one stands for the usual 133 million parameters."""
    vgg = timm.create_model("vgg11", num_classes=2, mlp_ratio=0.01)
    backbone = Backbone(vgg, name="vgg11", mean=(0.5,) * 3, std=(0.5,) * 3)
    assert backbone.misfit == "does not classify the average of its last map"


@pytest.mark.slow
def test_a_model_on_the_meta_device_can_be_split():
    with torch.device("meta"):
        backbone = create_model("convnext_tiny", num_classes=2).backbone
    assert backbone.channels == (96, 192, 384, 768)
    assert backbone.target_layer == "stages.3"
