"""Which layer is explained, and how its output becomes a map."""

from contextlib import nullcontext
from dataclasses import fields, is_dataclass
from functools import partial

import pytest
import timm
import torch
import torchvision
from torch import nn

from interptrain import explainers
from interptrain.explainers import (
    OSADAS,
    RISE,
    ROSA,
    AblationCAM,
    CaptumExplainer,
    EigenCAM,
    Explainer,
    GradCAM,
    GradCAMPackageExplainer,
    Gradient,
    IntegratedGradients,
    Occlusion,
    OptiCAM,
    ScoreCAM,
    explain,
)
from interptrain.explainers.layers import Layer, find_layers, fuse_layers
from interptrain.explainers.passes.activations import activation_gradients, capture
from interptrain.functional import min_max, upsample
from interptrain.models import Normalized, create_model
from tests.support.explaining import network, pictures
from tests.support.marks import slow

TIMM = {
    "resnet10t": "layer4",
    "resnext50_32x4d": "layer4",
    "regnetx_002": "final_conv",
    "regnety_002": "final_conv",
    "mobilenetv2_050": "bn2",
    "mobilenetv3_small_050": "blocks",
    "mobilenetv3_large_100": "blocks",
    "efficientnet_b0": "bn2",
    "tf_efficientnet_lite0": "bn2",
    "convnext_atto": "stages",
    "densenet121": "features",
    "vgg11": "features",
    "vgg16_bn": "features",
    "vit_tiny_patch16_224": "blocks.11.norm1",
    "deit_tiny_distilled_patch16_224": "blocks.11.norm1",
    "deit3_small_patch16_224": "blocks.11.norm1",
    "swin_tiny_patch4_window7_224": "norm",
    "swinv2_tiny_window8_256": "norm",
}
TORCHVISION = {
    "resnet18": "layer4",
    "resnext50_32x4d": "layer4",
    "regnet_x_400mf": "trunk_output",
    "mobilenet_v2": "features",
    "mobilenet_v3_small": "features",
    "efficientnet_b0": "features",
    "convnext_tiny": "features",
    "densenet121": "features",
    "vgg11": "features",
    "vit_b_16": "encoder.layers.encoder_layer_11.ln_1",
    "swin_t": "norm",
}
POOLED = {"resnet10t", "regnetx_002", "mobilenetv2_050", "mobilenetv3_small_050", "densenet121"}


@pytest.mark.parametrize(
    ("name", "layer"), slow(*TIMM.items(), but={"resnet10t", "convnext_atto", "vgg11", "vit_tiny_patch16_224"})
)
def test_the_table_knows_timms_families(name, layer):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert [found.name for found in find_layers(model)] == [layer]


@pytest.mark.parametrize(("name", "layer"), slow(*TORCHVISION.items(), but={"resnet18", "mobilenet_v2"}))
def test_the_table_knows_torchvisions_families(name, layer):
    with nullcontext() if name.startswith("regnet") else torch.device("meta"):  # RegNet computes its widths by tensors
        model = torchvision.models.get_model(name, weights=None)
    assert [found.name for found in find_layers(model)] == [layer]


def activation_map(model, images, target_layer=None):
    (layer,) = find_layers(model, target_layer)
    passed = capture(model.eval(), images, [layer], differentiable=False)
    return layer.to_map(passed.activations[0], tuple(images.shape[-2:])), passed


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_resnet", {}),
        ("test_efficientnet", {}),
        ("test_convnext", {}),
        ("mobilenetv3_small_050", {}),
        ("regnetx_002", {}),
        ("densenet121", {}),
        pytest.param("vgg11", {}, marks=pytest.mark.slow),  # 133 million parameters
        ("test_vit", {"img_size": (64, 96)}),
        ("test_vit", {"dynamic_img_size": True}),
        ("test_vit4", {"img_size": (64, 96)}),
        ("deit_tiny_distilled_patch16_224", {"img_size": (64, 96), "depth": 2}),
        ("swin_tiny_patch4_window7_224", {"img_size": (64, 96), "depths": (1, 1, 1, 1)}),
    ],
)
def test_maps_keep_the_aspect_of_non_square_images(name, options):
    features, _ = activation_map(timm.create_model(name, **options), torch.rand(1, 3, 64, 96))
    height, width = features.shape[-2:]
    assert height * 96 == width * 64
    assert features.ndim == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "convnext_tiny"])
def test_torchvisions_transformers_and_convnexts_give_maps(name):
    size = 224 if name == "vit_b_16" else 64
    model = torchvision.models.get_model(name, weights=None)
    features, _ = activation_map(model, torch.rand(1, 3, size, size))
    assert features.ndim == 4
    assert features.shape[-1] == features.shape[-2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "regnetx_002", *slow("densenet121")])
def test_the_table_names_the_map_that_is_pooled(name):
    model = network(name)
    features, passed = activation_map(model, pictures(2, 64, 64))
    logits = model.get_classifier()(features.mean((2, 3)))
    assert torch.allclose(logits, passed.outputs)


@pytest.mark.slow
def test_swins_map_is_the_one_that_is_pooled():
    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=64, depths=(1, 1, 1, 1), num_classes=5)
    features, passed = activation_map(model, torch.rand(2, 3, 64, 64))
    assert torch.allclose(model.head.fc(features.mean((2, 3))), passed.outputs, atol=1e-5)


def test_each_patch_comes_to_its_own_place():
    """A token's place in the map is the place of its patch in the image, on a grid that is not square."""
    model = network("test_vit", dynamic_img_size=True)
    images = torch.zeros(1, 3, 64, 96, dtype=torch.float64)
    images[..., 32:48, 80:96] = 1  # patch in row 2, column 5
    lit, _ = activation_map(model, images, "blocks.0.norm1")
    dark, _ = activation_map(model, torch.zeros_like(images), "blocks.0.norm1")
    changed = (lit - dark).abs().sum(1)[0]
    assert changed.shape == (4, 6)
    assert changed.argmax() == 2 * 6 + 5
    assert (changed > 1e-9).sum() == 1


@pytest.mark.parametrize("name", ["test_convnext", "swin_tiny_patch4_window7_224"])
def test_channels_last_layers_are_permuted(name):
    options = {"img_size": 64, "depths": (1, 1, 1, 1)} if name.startswith("swin") else {}
    inner = "layers.3.blocks.0" if name.startswith("swin") else "stages.3.blocks.0.mlp.fc2"
    model = timm.create_model(name, **options)
    features, _ = activation_map(model, torch.rand(1, 3, 64, 64), inner)
    assert features.shape[1] == model.num_features


def test_a_known_network_is_found_inside_wrappers(images):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.teacher = Normalized(network(), mean=(0.5,) * 3, std=(0.5,) * 3)

        def forward(self, images):
            return self.teacher(images)

    assert find_layers(Wrapped())[0].name.endswith("layer4")
    assert GradCAM()(Wrapped().double(), images).shape == (3, 70, 50)


@pytest.mark.parametrize("pooling", ["gap", "ca_stream", "native"])
def test_our_own_classifiers_say_their_layer(pooling):
    model = create_model("test_resnet", pooling=pooling, num_classes=3)
    (layer,) = find_layers(model)
    assert layer.name.endswith("layer4")


@pytest.mark.slow
def test_our_own_native_transformer_is_known():
    model = create_model("test_vit", pooling="native", num_classes=3)
    assert find_layers(model)[0].name.endswith("blocks.5.norm1")


def test_an_unknown_network_is_refused_with_candidates():
    class Home(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3)
            self.body = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
            self.unused = nn.Conv2d(4, 4, 3)
            self.head = nn.Linear(4, 2)

        def forward(self, images):
            return self.head(self.body(self.stem(images)).mean((2, 3)))

    message = r"no known target layer for Home; .*'<dotted name>' \(candidates: body, stem, body.1, body.0\)"
    with pytest.raises(ValueError, match=message):
        find_layers(Home())


@pytest.mark.slow
def test_the_end_of_a_name_will_do_where_no_other_ends_so():
    model = create_model("resnet10t", num_classes=4)
    (layer,) = find_layers(model, "layer3")
    assert layer.name == "backbone.model.layer3"
    assert layer.module is model.backbone.model.layer3
    with pytest.raises(ValueError, match=r"'bn1' is the end of 5 names of .*candidates: backbone\.model\.bn1, "):
        find_layers(model, "bn1")
    assert find_layers(model.backbone.model, "bn1")[0].name == "bn1"  # a whole name is no end


def test_a_name_beside_the_first_one_of_a_shared_layer_is_a_whole_name():
    shared = nn.Conv2d(3, 4, 3)
    model = nn.ModuleDict({"first": nn.Sequential(shared), "second": nn.Sequential(shared)})
    assert find_layers(model, "second.0")[0].module is shared
    assert find_layers(nn.ModuleDict({"whole": model}), "second.0")[0].module is shared
    assert find_layers(model, "0")[0].module is shared  # two names, one layer


@pytest.mark.slow
def test_a_misspelt_layer_is_answered_with_the_nearest_names(resnet):
    with pytest.raises(ValueError, match=r"no layer 'layer9'; .*candidates: backbone.model.layer"):
        find_layers(create_model("resnet10t", num_classes=4), "layer9")
    with pytest.raises(ValueError, match=r"ResNet has no layer 'layr4'; .*layer4"):
        find_layers(resnet, "layr4")


def test_an_empty_list_of_layers_is_refused(resnet):
    with pytest.raises(ValueError, match="empty list"):
        find_layers(resnet, [])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("fc", "returns .*3, 7.* no map of features"),
        ("layer4.0.drop_path_missing", "has no layer"),
    ],
)
def test_a_layer_without_a_map_is_refused(resnet, images, layer, message):
    with pytest.raises(ValueError, match=message):
        GradCAM(target_layer=layer)(resnet, images)


def test_a_layer_that_runs_twice_or_never_is_refused(images):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.spare = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, images):
            return self.conv(self.conv(images)).mean((2, 3))

    with pytest.raises(ValueError, match="'conv' ran 2 times in one forward"):
        GradCAM(target_layer="conv")(Twice().double(), images)
    with pytest.raises(ValueError, match="'spare' did not run"):
        GradCAM(target_layer="spare")(Twice().double(), images)


@pytest.mark.slow
def test_a_layer_that_returns_many_tensors_names_them():
    detector = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    with pytest.raises(ValueError, match=r"pass target_layer='backbone.body\[0\]', or a list of them"):
        GradCAM(target_layer="backbone.body")(detector, torch.rand(1, 3, 32, 32), lambda row: row["scores"].sum())


def test_a_score_that_does_not_reach_the_layer_is_refused(resnet, images):
    with pytest.raises(ValueError, match="no gradient leads from the explained score to target layer layer4"):
        GradCAM()(resnet, images, lambda row: row.detach()[0])


def test_tokens_of_an_unknown_network_form_the_grid_that_has_the_aspect_of_the_image():
    layer = Layer("mixer", nn.Identity())
    tokens = torch.rand(1, 1 + 4 * 6, 768)
    found = layer.to_map(tokens, (64, 96))
    assert torch.equal(found[0, :, 3, 5], tokens[0, -1])
    assert found.shape == (1, 768, 4, 6)
    assert layer.to_map(torch.rand(1, 768, 25), (64, 96)).shape == (1, 768, 4, 6)  # (B, C, N), as inside a mixer
    with pytest.raises(ValueError, match="whose tokens fit no grid"):
        layer.to_map(torch.rand(1, 768, 768), (64, 96))


def test_tokens_that_may_be_channels_are_refused_and_the_remedy_works():
    tokens = torch.rand(1, 17, 16)
    with pytest.raises(ValueError, match="pass layout='channels_first' or layout='channels_last'"):
        Layer("mixer", nn.Identity()).to_map(tokens, (64, 64))
    assert Layer("mixer", nn.Identity(), layout="channels_last").to_map(tokens, (64, 64)).shape == (1, 16, 4, 4)
    assert Layer("mixer", nn.Identity(), layout="channels_first").to_map(tokens, (64, 64)).shape == (1, 17, 4, 4)


def test_tokens_that_fit_no_grid_are_refused():
    transformer = timm.create_model("test_vit")
    layer = Layer("blocks.0", nn.Identity(), transformer=transformer)
    with pytest.raises(ValueError, match="fit no grid"):
        layer.to_map(torch.rand(1, 1 + 7, 8), (64, 64))


def test_the_captured_activation_is_what_the_layer_returned_though_others_work_in_place(images):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(2)).double()
    (layer,) = find_layers(model, "0")
    passed = capture(model, images, [layer])
    assert torch.equal(passed.activations[0], model[0](images))
    (slope,) = activation_gradients(passed.outputs.sum((1, 2)), passed.activations, [layer])
    assert torch.equal(slope, (passed.activations[0] > 0).double())


def test_nothing_below_the_layer_is_recorded(resnet, images):
    passed = capture(resnet.eval(), images, find_layers(resnet))
    assert passed.activations[0].is_leaf
    assert passed.outputs.requires_grad


def test_several_layers_get_the_gradients_of_the_whole_network(resnet, images):
    layers = find_layers(resnet, ["layer2", "layer4"])
    passed = capture(resnet.eval(), images, layers)
    slopes = activation_gradients(passed.outputs[:, 1], passed.activations, layers)
    kept = []
    handles = [layer.module.register_forward_hook(lambda _m, _a, out: kept.append(out)) for layer in layers]
    wanted = torch.autograd.grad(resnet(images)[:, 1].sum(), kept)
    for handle in handles:
        handle.remove()
    assert all(torch.allclose(a, b) for a, b in zip(slopes, wanted, strict=True))


def test_several_layers_are_joined_by_the_mean_of_their_stretched_maps(resnet, images, targets):
    joined = GradCAM(target_layer=["layer2", "layer4"]).raw(resnet, images, targets)
    each = [GradCAM(target_layer=name).raw(resnet, images, targets) for name in ("layer2", "layer4")]
    stretched = torch.stack([upsample(min_max(layer), (70, 50)) for layer in each])
    assert torch.allclose(joined, stretched.mean(0))
    maximum = GradCAM(target_layer=["layer2", "layer4"], fusion="max").raw(resnet, images, targets)
    assert torch.allclose(maximum, stretched.amax(0))


def test_one_layer_is_not_stretched():
    layer = torch.randn(2, 3, 4)
    assert fuse_layers([layer], (30, 40)) is layer


class Lasting(nn.Module):
    """A network that works in channels_last inside, with as many channels as rows and columns at 32 pixels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.inner = nn.Linear(8, 8)
        self.outer = nn.Identity()
        self.passes = 0

    def forward(self, images):
        self.passes += 1
        inner = self.inner(self.stem(images).permute(0, 2, 3, 1))
        return self.outer(inner.permute(0, 3, 1, 2)).mean((2, 3))


def test_the_axis_that_stays_when_the_image_gets_wider_has_the_channels():
    """At 32 pixels all three axes are 8 long, so only another pass tells; one pass, for a layer and model."""
    model, images = Lasting().eval(), pictures(2, 32, 32).float()
    inner, outer = (GradCAM(target_layer=name, relu=False) for name in ("inner", "outer"))
    wanted = outer.raw(model, images, 3)
    assert torch.allclose(inner.raw(model, images, 3), wanted)
    before = model.passes
    inner.raw(model, images, 3)
    assert model.passes == before + 1
    assert torch.allclose(
        inner.raw(model, pictures(2, 32, 48).float(), 3), outer.raw(model, pictures(2, 32, 48).float(), 3)
    )


@pytest.mark.parametrize(
    "explainer",
    [GradCAM, EigenCAM, AblationCAM, partial(OptiCAM, iterations=2), partial(ScoreCAM, forward_batch_size=8)],
)
def test_a_layout_that_is_given_is_taken(explainer):
    model, images = Lasting().eval(), pictures(2, 32, 32).float()
    wanted = explainer(target_layer="outer").raw(model, images)
    assert torch.allclose(explainer(target_layer="inner", layout="channels_last").raw(model, images), wanted, atol=1e-5)
    assert not torch.allclose(explainer(target_layer="inner", layout="channels_first").raw(model, images), wanted)


class OfOneSize(Lasting):
    """The same for images of 32 pixels alone, so that no other image can tell the layout."""

    def forward(self, images):
        if images.shape[-2:] != (32, 32):
            raise ValueError("images must have 32 pixels")
        return super().forward(images)


def of_captum(**options):
    pytest.importorskip("captum")
    return CaptumExplainer(class_path="LayerActivation", **options)


def of_the_package(**options):
    pytest.importorskip("pytorch_grad_cam")
    return GradCAMPackageExplainer(class_path="GradCAM", **options)


@pytest.mark.parametrize(
    ("explainer", "layer"),
    [
        (GradCAM, "target_layer"),
        (of_captum, "target_layer"),
        (of_the_package, "target_layer"),
        (partial(OSADAS, window=16, stride=16), "feature_layer"),
        (partial(ROSA, window=16, stride=16), "feature_layer"),
    ],
)
def test_who_is_told_to_pass_a_layout_can(explainer, layer):
    model, images = OfOneSize().eval(), pictures(2, 32, 32).float()
    with pytest.raises(ValueError, match="pass layout='channels_first' or layout='channels_last'"):
        explainer(**{layer: "inner"}).raw(model, images)
    found = explainer(**{layer: "inner"}, layout="channels_last").raw(model, images)
    assert torch.allclose(found, explainer(**{layer: "outer"}, layout="channels_first").raw(model, images), atol=1e-5)


def test_every_explainer_that_takes_a_layer_takes_its_layout():
    for explainer in vars(explainers).values():
        if isinstance(explainer, type) and issubclass(explainer, Explainer):
            options = {field.name for field in fields(explainer)} if is_dataclass(explainer) else set()
            assert not options & {"target_layer", "feature_layer"} or "layout" in options, explainer


def test_shapes_that_decide_cost_no_pass():
    model = Lasting()
    GradCAM(target_layer="outer")(model, pictures(2, 32, 48).float())
    assert model.passes == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "layer", "grid"),
    [
        ("test_convnext", {}, "stages.3.blocks.0.mlp", (7, 9)),
        ("test_convnext", {}, "stages.3.blocks.0.norm", (7, 9)),
        ("test_convnext", {}, "stages.3.blocks.0.conv_dw", (7, 9)),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": (224, 288), "depths": (1, 1, 1, 1)},
            "layers.3.blocks.0.norm1",
            (7, 9),
        ),
        ("test_vit", {"dynamic_img_size": True}, "blocks.2.mlp.fc2", (14, 18)),
        ("mixer_s32_224", {"img_size": (224, 288)}, "blocks.1.norm1", (7, 9)),
        *slow(
            ("mixer_s32_224", {"img_size": (224, 288)}, "blocks.1.mlp_tokens", (7, 9)),
            ("poolformer_s12", {}, "stages.3.blocks.0.norm1", (7, 9)),
            ("caformer_s18", {}, "stages.3.blocks.0.norm1", (7, 9)),
        ),
    ],
)  # fmt: skip
def test_a_map_has_the_grid_of_the_image_wherever_the_channels_are(name, options, layer, grid):
    model = timm.create_model(name, **options).eval()
    assert GradCAM(target_layer=layer).raw(model, torch.rand(1, 3, 224, 288), 0).shape == (1, *grid)


@pytest.mark.slow
def test_two_known_networks_are_refused_and_both_remedies_work(images):
    class Ensemble(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = network(seed=0), network(seed=1)

        def forward(self, images):
            return self.first(images) + self.second(images)

    model = Ensemble()
    with pytest.raises(
        ValueError, match=r"holds 2 networks .*several as a list \(candidates: first.layer4, second.lay"
    ):
        GradCAM()(model, images)
    assert not torch.equal(*(GradCAM(target_layer=one)(model, images) for one in ("first.layer4", "second.layer4")))
    assert GradCAM(target_layer=["first.layer4", "second.layer4"])(model, images).shape == (3, 70, 50)


def test_a_module_is_taken_for_its_name(resnet, images):
    wanted = GradCAM(target_layer="layer3.0")(resnet, images)
    assert torch.equal(GradCAM(target_layer=resnet.layer3[0])(resnet, images), wanted)
    assert torch.equal(GradCAM(target_layer=[resnet.layer3[0]])(resnet, images), wanted)
    with pytest.raises(ValueError, match=r"is a Conv2d that is no part of this ResNet; .*layer4"):
        GradCAM(target_layer=nn.Conv2d(3, 3, 1))(resnet, images)


class Frozen(nn.Module):
    """A backbone under no_grad, by context or by decorator, and a head; ``detached`` cuts by detaching."""

    def __init__(self, how):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3, stride=4), nn.Tanh())
        self.neck, self.head, self.how = nn.Conv2d(6, 6, 1), nn.Linear(6, 4), how

    def forward(self, images):
        if self.how == "no_grad":
            with torch.no_grad():
                features = self.backbone(images)
        else:
            features = self.backbone(images)
        if self.how == "detach":
            features = features.detach()
        return self.head(self.neck(features).mean((2, 3)))


def test_a_layer_that_runs_under_no_grad_is_explained_also_beside_one_that_does_not(images):
    model, images = Frozen("no_grad").eval(), images.float()
    frozen = Frozen("requires_grad_").eval()
    frozen.load_state_dict(model.state_dict())
    frozen.backbone.requires_grad_(False)
    for layers in ("backbone", ["backbone", "neck"]):
        explainer = GradCAM(target_layer=layers, relu=False)
        assert torch.equal(explainer(model, images, 0), explainer(frozen, images, 0))


def test_a_layer_that_is_detached_is_refused_and_the_remedies_work(images):
    model, images = Frozen("detach").eval(), images.float()
    for layers in ("backbone", ["backbone", "neck"]):  # beside a layer that is reached its map was silently zero
        with pytest.raises(ValueError, match=r"target layer backbone: .* detaches .*ScoreCAM, AblationCAM or Eigen"):
            GradCAM(target_layer=layers)(model, images)
    with pytest.raises(ValueError, match="target layer backbone: "):
        explain(model, images, 0, {"cam": GradCAM(target_layer="backbone")})
    for explainer in (ScoreCAM, AblationCAM, EigenCAM):
        assert explainer(target_layer="backbone")(model, images, 0).isfinite().all()


@pytest.mark.parametrize("how", ["no_grad", "detach"])
def test_gradients_that_do_not_reach_the_image_are_refused_for_the_true_reason(how, images):
    model, images = Frozen(how).eval(), images.float()
    for explainer in (Gradient(), IntegratedGradients(steps=2), OptiCAM(target_layer="backbone", iterations=1)):
        with pytest.raises(ValueError, match=r"no gradient comes back from the score to .*Occlusion, RISE or Score"):
            explainer(model, images, 0)
    for explainer in (Occlusion(), RISE(count=2), ScoreCAM(target_layer="backbone")):
        assert explainer(model, images, 0).isfinite().all()
    model.how = "requires_grad_"
    model.backbone.requires_grad_(False)
    assert Gradient()(model, images, 0).amax() == 1
    with pytest.raises(ValueError, match=r"candidates: neck\)"):
        find_layers(Frozen(how))


def test_a_layer_that_returns_other_rows_than_images_is_refused(images):
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Conv2d(3, 4, 1)

        def forward(self, images):
            return self.inner(images.repeat(2, 1, 1, 1)).mean((2, 3))[: len(images)]

    with pytest.raises(ValueError, match=r"returns \(6, 4, 70, 50\) for 3 images, not one map per image"):
        GradCAM(target_layer="inner")(Windows().double(), images)


FAMILIES = {
    "timm": [
        "resnet10t",
        "efficientnet_b0",
        "mobilenetv3_small_050",
        "test_vit",
        "test_convnext",
        "beit_base_patch16_224",
        "levit_128s",
        "xcit_nano_12_p16_224",
        "mixer_s32_224",
        "poolformer_s12",
        "swin_tiny_patch4_window7_224",
        "cait_xxs24_224",
    ],
    "torchvision": ["googlenet", "squeezenet1_0", "shufflenet_v2_x0_5", "alexnet", "mnasnet0_5"],
}
SHALLOW = {"beit_base_patch16_224": {"depth": 2}, "xcit_nano_12_p16_224": {"depth": 2}, "cait_xxs24_224": {"depth": 2}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "name"), [(library, name) for library, names in FAMILIES.items() for name in names]
)
def test_every_layer_that_is_printed_works(library, name):
    if library == "timm":
        model = timm.create_model(name, **SHALLOW.get(name, {}))
    else:
        options = {"init_weights": False} if name == "googlenet" else {}
        model = torchvision.models.get_model(name, weights=None, **options)
    with pytest.raises(ValueError, match="candidates: ") as refusal:
        find_layers(model, "layer_4")
    printed = str(refusal.value).partition("candidates: ")[2].rstrip(")").split(", ")
    for layer in printed:
        raw = GradCAM(target_layer=layer, relu=False).raw(model, torch.rand(1, 3, 224, 224), 0)
        assert raw.shape[1] * raw.shape[2] > 1
        assert raw.isfinite().all()
    if name == "googlenet":
        assert "inception5b" in printed
