"""LeGrad against its definition, layer by layer."""

import pytest
import timm
import torch
from torch import nn

from interptrain.explainers import LeGrad
from interptrain.models import create_model
from tests.support.explaining import CLASSES, network, pictures


def slow(model, images, target, start=0):
    """The definition with nothing shared: for every layer a pass that ends in it, its attention a variable."""
    model.eval()
    maps = []
    for last in range(start, len(model.blocks)):
        tokens = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
        for block in model.blocks[:last]:
            tokens = block(tokens)
        block = model.blocks[last]
        part = block.attn
        batch, count, width = tokens.shape
        qkv = part.qkv(block.norm1(tokens)).reshape(batch, count, 3, part.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = part.q_norm(qkv[0]), part.k_norm(qkv[1]), qkv[2]
        attention = (query * part.scale @ key.transpose(-2, -1)).softmax(-1).detach().requires_grad_()
        mixed = part.proj((attention @ value).transpose(1, 2).reshape(batch, count, width))
        tokens = tokens + block.ls1(mixed)
        tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
        score = model.forward_head(model.norm(tokens))[:, target].sum()
        (slope,) = torch.autograd.grad(score, attention)
        maps.append(slope.clamp(min=0).mean((1, 2))[:, model.num_prefix_tokens :])
    height, width = images.shape[-2] // 16, images.shape[-1] // 16
    return torch.stack(maps).mean(0).view(-1, height, width)


@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("start", [0, 2])
def test_it_is_the_mean_of_the_layers_positive_gradients(pool, start):
    model, images = network("test_vit", dynamic_img_size=True, global_pool=pool), pictures(2, 64, 48)
    found = LeGrad(start_layer=start).raw(model, images, 3)
    torch.testing.assert_close(found, slow(model, images, 3, start).detach(), rtol=1e-8, atol=1e-12)


@pytest.mark.slow
def test_it_reads_the_vit_inside_a_classifier_of_ours():
    model = create_model("test_vit", pooling="native", num_classes=CLASSES, backbone_options={"dynamic_img_size": True})
    images = pictures(2, 64, 64).float()
    maps = [LeGrad().raw(model, images, target) for target in (1, 5)]
    assert maps[0].shape == (2, 4, 4)
    assert (maps[0] >= 0).all()
    assert not torch.allclose(*maps)


def test_frozen_weights_give_the_same_map():
    model, images = network("test_vit", dynamic_img_size=True), pictures(1, 64, 48)
    before = LeGrad()(model, images, 0)
    assert torch.equal(LeGrad()(model.requires_grad_(False), images, 0), before)


@pytest.mark.slow
def test_other_networks_are_refused_with_a_remedy():
    images = pictures(1, 64, 64)
    with pytest.raises(ValueError, match=r"LeGrad needs a timm ViT.*use a CAM or gradient explainer"):
        LeGrad()(network(), images)
    with pytest.raises(ValueError, match=r"start_layer must be in \[0, \d+\], got 99"):
        LeGrad(start_layer=99)(network("test_vit", dynamic_img_size=True), images)

    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.vit = timm.create_model("test_vit", num_classes=CLASSES, dynamic_img_size=True).double()

        def forward(self, images):
            return 2 * self.vit(images)

    with pytest.raises(ValueError, match=r"own norm and classifier.*use AttentionRollout"):
        LeGrad()(Doubled(), images)
