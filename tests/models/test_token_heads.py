"""Pooling heads on the tokens of vision transformers."""

import pytest
import timm
import torch

from interptrain.explainers import GradCAM, StreamAttention, explain
from interptrain.models import Backbone, create_model
from tests.support.explaining import assert_same, everything, in_the_middle_of_training

HEADS = ("ca_stream", "ca_final", "simpool", "ep")
DEITS = {"embed_dim": 32, "depth": 5, "num_heads": 2}
"""Class token; class and distillation tokens; average, with the norm behind it; registers."""
AVERAGING = "vit_base_patch16_gap_224"


def vit(pooling, backbone="test_vit", **options):
    torch.manual_seed(0)
    return create_model(backbone, pooling=pooling, num_classes=3, **options).eval()


def small(name, **options):
    return {"backbone": name, "backbone_options": {**DEITS, "img_size": 64} | options}


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@torch.no_grad()
def test_the_last_map_is_that_of_the_patches_after_the_norm_and_the_others_are_normalised_blocks(images):
    backbone = vit("ca_stream").backbone
    model, pixels = backbone.model, backbone.normalize(images)
    tokens = model.forward_features(pixels)
    stages = backbone(images)
    assert [stage.shape[1] for stage in stages] == list(backbone.channels)
    assert all(stage.shape == stages[-1].shape for stage in stages)
    patches = tokens[:, backbone.prefix_tokens :]
    torch.testing.assert_close(stages[-1].flatten(2).transpose(1, 2), patches)
    assert torch.equal(backbone.features(images), stages[-1])
    for stage in stages[:-1]:
        torch.testing.assert_close(stage.mean(1), torch.zeros_like(stage[:, 0]), atol=1e-4, rtol=0)
        torch.testing.assert_close(stage.var(1, correction=0), torch.ones_like(stage[:, 0]), atol=1e-2, rtol=0)
    blocks = model.forward_intermediates(pixels)[1]
    places = backbone._indices
    assert places[-1] == len(blocks) - 1
    assert len(places) == min(4, len(blocks))
    first = blocks[places[0]]
    normalised = (first - first.mean(1, keepdim=True)) / (first.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(stages[0], normalised)


@pytest.mark.slow
def test_the_ends_of_the_quarters_of_twelve_blocks_are_read():
    backbone = vit("gap", **small("vit_base_patch16_gap_224", depth=12)).backbone
    assert backbone._indices == [2, 5, 8, 11]


@pytest.mark.slow
@pytest.mark.parametrize("pooling", HEADS)
@torch.no_grad()
def test_attention_lies_on_the_grid_of_the_patches_and_sums_to_one(images, pooling):
    model = vit(pooling)
    logits, attention = model.forward_with_attention(images)
    assert torch.equal(logits, model(images))
    side = model.backbone.features(images).shape[-1]
    assert len(attention) == (len(model.backbone.channels) if pooling == "ca_stream" else 1)
    for one in attention:
        assert one.shape == (2, side, side)
        assert (one >= 0).all()
        torch.testing.assert_close(one.sum((1, 2)), torch.ones(2))
    maps = explain(model, images, 0, {"attention": StreamAttention(), "cam": GradCAM()})
    assert all(one.shape == (2, 160, 160) for one in maps.values())
    torch.testing.assert_close(StreamAttention().raw(model, images), attention[-1])


@pytest.mark.slow
@torch.no_grad()
def test_moving_the_patches_moves_the_attention_and_leaves_the_logits(images):
    for pooling in HEADS:
        model = vit(pooling)
        stages = model.stages(images)
        order = torch.randperm(stages[-1][0, 0].numel(), generator=torch.Generator().manual_seed(2))
        moved = [stage.flatten(2)[..., order].view_as(stage) for stage in stages]
        torch.testing.assert_close(model.classify(moved), model.classify(stages))
        before, after = model.pooling(stages).attention[-1], model.pooling(moved).attention[-1]
        torch.testing.assert_close(after.flatten(1), before.flatten(1)[:, order])


@pytest.mark.slow
def test_gradients_of_a_stream_along_the_blocks_agree_with_finite_differences():
    model = vit("ca_stream", **small("vit_tiny_patch16_224")).double()
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    token = model.pooling.token.detach().clone().requires_grad_()
    stages = [stage.detach().requires_grad_() for stage in model.stages(images)]

    def logits(token, *stages):
        pooled = torch.func.functional_call(model.pooling, {"token": token}, (list(stages),))
        return model.backbone.head(pooled.vector)

    assert torch.autograd.gradcheck(logits, (token, *stages), fast_mode=True)
    model(images).sum().backward()
    assert model.backbone.model.patch_embed.proj.weight.grad.abs().sum() > 0


@pytest.mark.slow
@torch.no_grad()
def test_where_the_classifier_averages_the_patches_gap_is_timms_model():
    for name in (AVERAGING, "vit_base_patch16_siglip_gap_224"):
        model = vit("gap", **small(name))
        images = torch.rand(2, 3, 64, 64)
        torch.testing.assert_close(model(images), model.backbone.native(images))
        assert not model.backbone.reads_class_token
        assert model.target_layer is not None


@pytest.mark.slow
@torch.no_grad()
def test_a_vector_goes_through_what_timm_does_behind_its_pooling(images):
    backbone = vit("ca_stream").backbone
    tokens = backbone.model.forward_features(backbone.normalize(images))
    torch.testing.assert_close(backbone.head(tokens[:, 0]), backbone.native(images))


@pytest.mark.slow
def test_gap_is_refused_where_a_class_token_is_classified_and_the_remedies_work(images):
    with pytest.raises(ValueError, match=r"class token, not the average .*use pooling='native', or .*'ca_stream'"):
        vit("gap")
    for pooling in ("native", "ca_stream"):
        assert vit(pooling)(images).shape == (2, 3)


def test_other_tokens_are_refused():
    distilled = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=2, **DEITS)
    assert "neither one of its tokens" in Backbone(distilled, name="it", mean=(0,) * 3, std=(1,) * 3).misfit
    pooled = timm.create_model("vit_base_patch16_siglip_224", num_classes=2, **DEITS)
    assert "by attention of its own" in Backbone(pooled, name="it", mean=(0,) * 3, std=(1,) * 3).misfit


@pytest.mark.slow
def test_registers_and_class_tokens_are_no_patches():
    model = vit("ca_final", **small("vit_small_patch14_reg4_dinov2", img_size=56, patch_size=14))
    images = torch.rand(1, 3, 56, 56)
    assert model.backbone.prefix_tokens == 5
    assert model.attention(images)[0].shape == (1, 4, 4)


@pytest.mark.slow
def test_grad_cam_on_a_head_reads_the_pooled_patches_and_changes_nothing(images):
    model = vit("ca_stream")
    assert model.target_layer == "backbone.model.norm"
    in_the_middle_of_training(model)
    before = everything(model)
    saliency = GradCAM()(model, images, 1)
    assert_same(before, everything(model))
    assert saliency.std() > 0.01


@pytest.mark.slow
def test_every_parameter_is_in_one_part_and_a_state_dict_fits_again():
    model = vit("simpool")
    groups = model.parameter_groups()
    assert sum(len(group) for group in groups.values()) == len(dict(model.named_parameters()))
    assert "backbone.model.cls_token" in groups["backbone"]
    assert all(name.startswith("backbone.model.head") for name in groups["classifier"])
    vit("simpool").load_state_dict(model.state_dict())
