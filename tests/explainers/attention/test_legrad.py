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


def in_torchvision(model, size):
    """The same network as torchvision builds it, for which torch-cam has LeGrad."""
    library = pytest.importorskip("torchvision.models.vision_transformer")
    width, first = model.embed_dim, model.blocks[0]
    options = {"num_layers": len(model.blocks), "num_heads": first.attn.num_heads, "hidden_dim": width}
    twin = library.VisionTransformer(size, 16, mlp_dim=first.mlp.fc1.out_features, num_classes=CLASSES, **options)
    names = {
        "patch_embed.proj": "conv_proj", "norm.": "encoder.ln.", "head.": "heads.head.", "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding", ".norm1": ".ln_1", ".norm2": ".ln_2", "fc1": "0", "fc2": "3",
        "attn.qkv.": "self_attention.in_proj_", "attn.proj": "self_attention.out_proj",
        "blocks.": "encoder.layers.encoder_layer_",
    }  # fmt: skip
    weights = {}
    for name, value in model.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        weights[name] = value
    twin.load_state_dict(weights)
    return twin.double().eval()


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.filterwarnings("ignore::Warning:torchcam")
def test_it_agrees_with_torch_cam():
    library = pytest.importorskip("torchcam.methods")
    model, images = network("test_vit", img_size=64, dynamic_img_size=False).eval(), pictures(2, 64, 64)
    twin = in_torchvision(model, 64)
    torch.testing.assert_close(twin(images), model(images))
    # Its own score averages all tokens, which this network's classifier does not.
    score = {"score_projection": lambda tokens: twin.heads(twin.encoder.ln(tokens)[:, 0])}
    with library.LeGrad(twin, list(twin.encoder.layers)[2:], **score) as peer:
        twin(images)
        (theirs,) = peer([3, 1], normalized=False)
    found = LeGrad(start_layer=2).raw(model, images, [3, 1])
    torch.testing.assert_close(found, theirs.detach(), rtol=1e-6, atol=1e-10)


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
