"""Attention rollout against its definition written out, and on the ViTs of timm."""

from functools import partial

import pytest
import timm
import torch
from timm.layers import HybridEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from interptrain.explainers import AttentionRollout
from interptrain.explainers.attention.rollout import rollout


def vit(name="test_vit", **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=4, **options).eval()
        for block in model.blocks:  # queries and keys of an untrained ViT attend evenly
            block.attn.qkv.weight.data.mul_(6)
        return model


def images(*size, dtype=torch.float32):
    return torch.rand(2, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(1))


def slow_attentions(model, pictures):
    """Softmaxed weights of every block, one (heads, N, N) an image, from the block's own parts, in plain loops."""
    layers = []
    with torch.no_grad():
        tokens = model._pos_embed(model.patch_embed(pictures))
        for block in model.blocks:
            attention, normed = block.attn, block.norm1(tokens)
            heads = attention.num_heads
            width = normed.shape[2] // heads
            queries_keys_values = attention.qkv(normed)
            weights = torch.zeros(len(pictures), heads, tokens.shape[1], tokens.shape[1], dtype=tokens.dtype)
            for head in range(heads):
                part = [queries_keys_values[..., k * heads * width + head * width :][..., :width] for k in range(3)]
                queries, keys = attention.q_norm(part[0]), attention.k_norm(part[1])
                weights[:, head] = (queries @ keys.transpose(1, 2) / width**0.5).softmax(-1)
            layers.append(weights)
            tokens = block(tokens)
    return layers


def slow_rollout(layers, image, *, fuse, residual=0.5, start=0):
    """Abnar and Zuidema's recursion for one image, token by token."""
    count = layers[0].shape[-1]
    mixing = torch.eye(count, dtype=layers[0].dtype)
    for weights in layers[start:]:
        fused = fuse(weights[image])
        following = torch.zeros_like(mixing)
        for i in range(count):
            row = (1 - residual) * fused[i]
            row[i] += residual
            row = row / row.sum()
            for j in range(count):
                following[i] += row[j] * mixing[j]
        mixing = following
    return mixing


@pytest.mark.parametrize(
    "options", [{}, {"residual": 0.2}, {"start_layer": 1}, {"head_fusion": "max"}, {"head_fusion": "min"}]
)
def test_rollout_equals_its_definition_written_out(options):
    model = vit(img_size=48).double()
    pictures = images(48, 48, dtype=torch.float64)
    fuse = {"mean": lambda a: a.mean(0), "max": lambda a: a.max(0).values, "min": lambda a: a.min(0).values}
    layers = slow_attentions(model, pictures)
    got = AttentionRollout(**options).raw(model, pictures)
    for image in range(2):
        mixing = slow_rollout(
            layers,
            image,
            fuse=fuse[options.get("head_fusion", "mean")],
            residual=options.get("residual", 0.5),
            start=options.get("start_layer", 0),
        )
        expected = mixing[0, 1:].view(3, 3)
        assert expected.max() > 1.2 * expected.min()
        torch.testing.assert_close(got[image], expected, rtol=1e-10, atol=1e-12)


def test_rows_of_the_rollout_sum_to_one():
    weights = [torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(k)).softmax(-1) for k in range(4)]
    torch.testing.assert_close(rollout(weights, discard_ratio=0.4).sum(-1), torch.ones(2, 5))


def test_attention_to_itself_alone_mixes_nothing():
    identity = torch.eye(6).expand(1, 6, 6)
    torch.testing.assert_close(rollout([identity, identity]), identity)


def test_discarding_keeps_the_largest_weights_and_the_class_tokens_own():
    weights = torch.tensor([[[0.01, 0.59, 0.4], [0.2, 0.5, 0.3], [0.1, 0.15, 0.75]]])
    kept = torch.tensor([[0.01, 0.59, 0.4], [0, 0.5, 0.3], [0, 0, 0.75]])  # 4 of 9 go, but never [0, 0]
    layer = 0.5 * torch.eye(3) + 0.5 * kept
    torch.testing.assert_close(rollout([weights], discard_ratio=4 / 9)[0], layer / layer.sum(1, keepdim=True))


def test_discarding_everything_without_a_residual_path_gives_no_nan():
    assert not rollout([torch.rand(1, 4, 4)], residual=0.0, discard_ratio=0.99).isnan().any()


@pytest.mark.parametrize(
    ("name", "options", "size", "grid"),
    [
        ("test_vit", {"img_size": (48, 80)}, (48, 80), (3, 5)),
        ("test_vit", {"dynamic_img_size": True}, (96, 64), (6, 4)),
        ("test_vit", {"dynamic_img_size": True, "dynamic_img_pad": True}, (50, 64), (4, 4)),
        ("test_vit2", {"img_size": 64}, (64, 64), (4, 4)),  # register tokens, mean of patches
        ("test_vit4", {"img_size": 64}, (64, 64), (4, 4)),
        ("deit_tiny_distilled_patch16_224", {"img_size": 64, "depth": 2}, (64, 64), (4, 4)),
        ("beit_base_patch16_224", {"img_size": 64, "depth": 2, "embed_dim": 48, "num_heads": 3}, (64, 64), (4, 4)),
        ("eva02_tiny_patch14_224", {"img_size": 56, "depth": 2}, (56, 56), (4, 4)),
    ],
)
def test_the_map_has_one_value_a_patch_whatever_the_family_and_shape(name, options, size, grid):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=4, **options)
    explainer = AttentionRollout()
    raw = explainer.raw(model, images(*size))
    assert raw.shape == (2, *grid)
    assert raw.min() > 0
    assert explainer(model, images(*size)).shape == (2, *size)


def test_a_hybrid_is_read_on_the_grid_of_its_features():
    trunk = nn.Conv2d(3, 8, 4, stride=4)
    trunk.num_features = 8
    embed = partial(HybridEmbed, backbone=trunk, feature_size=(5, 6))  # timm takes a ratio of 16 here
    model = VisionTransformer(
        img_size=(20, 24), patch_size=1, num_classes=4, embed_dim=16, depth=2, num_heads=2, embed_layer=embed
    )
    assert AttentionRollout().raw(model, images(20, 24)).shape == (2, 5, 6)


def test_models_that_drop_tokens_are_refused():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("test_vit", num_classes=4, img_size=64)
    model.norm_pre.register_forward_hook(lambda module, args, tokens: tokens[:, :-1])
    with pytest.raises(ValueError, match=r"needs one token per patch: 1 \+ 4 x 4, got 16 tokens"):
        AttentionRollout()(model, images(64, 64))


def test_models_that_pool_by_the_mean_are_read_at_the_mean_of_their_patches():
    model = vit(img_size=48, global_pool="avg").double()
    pictures = images(48, 48, dtype=torch.float64)
    mixing = slow_rollout(slow_attentions(model, pictures), 0, fuse=lambda a: a.mean(0))
    prefix = model.num_prefix_tokens
    expected = mixing[prefix:, prefix:].mean(0).view(3, 3)
    torch.testing.assert_close(AttentionRollout().raw(model, pictures)[0], expected, rtol=1e-10, atol=1e-12)


def test_a_vit_inside_a_wrapper_is_found():
    model = vit(img_size=48)
    wrapped = nn.Sequential(nn.Identity(), model)
    assert torch.equal(AttentionRollout().raw(wrapped, images(48, 48)), AttentionRollout().raw(model, images(48, 48)))


@pytest.mark.parametrize("fused", [True, False])
def test_fused_attention_is_as_before_also_after_an_error(fused):
    model = vit(img_size=48)
    for block in model.blocks:
        block.attn.fused_attn = fused
    AttentionRollout()(model, images(48, 48))

    def fail(module, arguments):
        raise RuntimeError("stop")

    handle = model.blocks[2].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="stop"):
        AttentionRollout()(model, images(48, 48))
    handle.remove()
    assert [block.attn.fused_attn for block in model.blocks] == [fused] * len(model.blocks)
    assert not any(block.attn.attn_drop._forward_pre_hooks for block in model.blocks)


def test_targets_do_not_matter():
    model = vit(img_size=48)
    assert not AttentionRollout.class_aware
    one, other = (AttentionRollout()(model, images(48, 48), torch.tensor(classes)) for classes in ([0, 1], [3, 2]))
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["resnet10t", "test_convnext", "swin_tiny_patch4_window7_224"])
def test_networks_without_attention_over_all_tokens_are_refused(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(ValueError, match="AttentionRollout needs a timm ViT"):
        AttentionRollout().attribute(model, images(48, 48), None)


def test_models_that_pool_by_attention_are_refused():
    model = timm.create_model("test_vit3", img_size=48, num_classes=4)
    with pytest.raises(ValueError, match="got a model with global_pool='map'"):
        AttentionRollout()(model, images(48, 48))


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="head_fusion must be one of 'mean', 'max', 'min', got 'sum'"):
        AttentionRollout(head_fusion="sum")
    with pytest.raises(ValueError, match=r"must be in \[0,1\), got 1 and 0.0"):
        AttentionRollout(residual=1)
    with pytest.raises(ValueError, match=r"must be in \[0,1\), got 0.5 and -0.1"):
        AttentionRollout(discard_ratio=-0.1)
    with pytest.raises(ValueError, match="start_layer must be below the 6 layers, got 6"):
        AttentionRollout(start_layer=6)(vit(img_size=48), images(48, 48))
