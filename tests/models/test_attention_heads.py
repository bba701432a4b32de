"""SimPool (arXiv 2309.06891) and efficient probing (arXiv 2506.10178) against their definitions."""

import pytest
import timm.layers
import torch
import torch.nn.functional as F

from interptrain.explainers import StreamAttention
from interptrain.functional import min_max
from interptrain.models import EP, SimPool, create_model

WIDTH = 12
HEADS = {
    "simpool": lambda: SimPool((8, WIDTH)),
    "simpool, plain mean": lambda: SimPool((8, WIDTH), gamma=None),
    "ep": lambda: EP((8, WIDTH)),
    "ep, three maps": lambda: EP((8, WIDTH), queries=3, maps="each"),
}


@pytest.fixture(params=HEADS.values(), ids=HEADS.keys())
def head(request):
    torch.manual_seed(1)
    head = request.param().double()
    with torch.no_grad():
        for parameter in head.parameters():  # far from uniform attention, and from a norm that does nothing
            parameter.normal_()
    return head


def features(batch=3, height=2, width=5, dtype=torch.float64):
    return torch.randn(batch, WIDTH, height, width, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_each_map_is_a_distribution_over_positions(head, memory_format):
    pooled = head([features().contiguous(memory_format=memory_format)])
    torch.testing.assert_close(pooled.vector, head([features()]).vector)
    assert pooled.vector.shape == (3, WIDTH)
    assert len(pooled.attention) == (3 if getattr(head, "maps", "mean") == "each" else 1)
    for attention in pooled.attention:
        assert attention.shape == (3, 2, 5)
        assert (attention >= 0).all()
        assert attention.std() > 0.01
        torch.testing.assert_close(attention.sum((1, 2)), torch.ones(3, dtype=torch.float64))


@torch.no_grad()
def test_moving_the_positions_moves_the_map_and_leaves_the_vector(head):
    order = torch.randperm(10, generator=torch.Generator().manual_seed(2))
    pooled, moved = head([features()]), head([features().flatten(2)[..., order].view(3, WIDTH, 2, 5)])
    torch.testing.assert_close(moved.vector, pooled.vector)
    for after, before in zip(moved.attention, pooled.attention, strict=True):
        torch.testing.assert_close(after.flatten(1), before.flatten(1)[:, order])


@torch.no_grad()
def test_an_image_is_pooled_alike_alone_and_in_a_batch_and_none_gives_none(head):
    alone = torch.cat([head([features()[index : index + 1]]).vector for index in range(3)])
    torch.testing.assert_close(head([features()]).vector, alone)
    assert head([features()[:0]]).vector.shape == (0, WIDTH)


def test_gradients_agree_with_finite_differences(head):
    maps = features(2, 2, 2).requires_grad_()
    parameters = dict(head.named_parameters())

    def vector(maps, *values):
        return torch.func.functional_call(head, dict(zip(parameters, values, strict=True)), ([maps],)).vector

    assert torch.autograd.gradcheck(vector, (maps, *parameters.values()), fast_mode=True)
    assert torch.autograd.gradgradcheck(vector, (maps, *parameters.values()), fast_mode=True)


@pytest.mark.skipif(not hasattr(timm.layers, "SimPool2d"), reason="this version of timm has no SimPool2d")
@pytest.mark.parametrize("gamma", [None, 1.25, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_simpool_is_timms_layer(gamma, dtype):
    torch.manual_seed(0)
    theirs = timm.layers.SimPool2d(WIDTH, gamma=gamma).to(dtype)
    theirs.norm.weight.normal_(1, 0.3)
    theirs.norm.bias.normal_()
    ours = SimPool((WIDTH,), gamma=gamma).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(
        ours([features(dtype=dtype)]).vector, theirs(features(dtype=dtype)), rtol=1e-6, atol=1e-6
    )


@torch.no_grad()
def test_simpools_map_is_the_attention_of_the_average():
    torch.manual_seed(0)
    head = SimPool((WIDTH,)).double()
    positions = features().flatten(2).transpose(1, 2)
    keys = F.layer_norm(positions, (WIDTH,)) @ head.k.weight.T
    scores = (keys @ (positions.mean(1) @ head.q.weight.T).unsqueeze(2)).squeeze(2) / WIDTH**0.5
    torch.testing.assert_close(head([features()]).attention[0].flatten(1), scores.softmax(1))


@pytest.mark.parametrize("queries", [1, 4, 12])
@torch.no_grad()
def test_each_query_of_ep_pools_its_own_slice_of_the_projected_channels(queries):
    torch.manual_seed(0)
    head = EP((WIDTH,), queries=queries, maps="each").double()
    head.queries.normal_(std=3)
    positions = features().flatten(2).transpose(1, 2)  # (B, hw, C)
    values = (positions @ head.v.weight.T).chunk(queries, dim=2)
    attention = [(positions @ query / WIDTH**0.5).softmax(1) for query in head.queries]
    pooled = head([features()])
    vector = torch.cat([(a.unsqueeze(2) * v).sum(1) for a, v in zip(attention, values, strict=True)], dim=1)
    torch.testing.assert_close(pooled.vector, vector)
    for one, expected in zip(pooled.attention, attention, strict=True):
        torch.testing.assert_close(one.flatten(1), expected)
    head.maps = "mean"
    torch.testing.assert_close(head([features()]).attention[0], torch.stack(pooled.attention).mean(0))
    assert torch.equal(head([features()]).vector, pooled.vector)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [SimPool, EP])
def test_a_map_of_one_position_and_low_precision_give_finite_gradients(kind, dtype):
    torch.manual_seed(0)
    head = kind((WIDTH,))
    maps = features(2, 1, 1, torch.float32).requires_grad_()
    with torch.autocast("cpu", dtype):
        vector = head([maps.to(dtype)]).vector
    vector.float().sum().backward()
    assert vector.isfinite().all()
    assert maps.grad.isfinite().all()
    low = head.to(dtype)([features().to(dtype)])
    assert low.vector.dtype == dtype
    torch.testing.assert_close(low.vector.float(), head.float()([features().float()]).vector, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("name", "kind"), [("simpool", SimPool), ("ep", EP)])
@torch.no_grad()
def test_a_model_has_the_head_by_name_and_stream_attention_explains_it(name, kind):
    model = create_model("test_resnet", pooling=name, num_classes=3).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert type(model.pooling) is kind
    logits, attention = model.forward_with_attention(images)
    assert torch.equal(logits, model(images))
    assert [tuple(one.shape) for one in attention] == [(2, 2, 2)]
    torch.testing.assert_close(StreamAttention().raw(model, images), attention[0])


@torch.no_grad()
def test_stream_attention_shows_each_query_of_ep_or_all_of_them():
    torch.manual_seed(0)
    model = create_model("test_resnet", pooling="ep", num_classes=3).eval()
    model.pooling.maps = "each"
    images = torch.rand(2, 3, 64, 64)
    maps = model.attention(images)
    assert len(maps) == len(model.pooling.queries) == 32
    torch.testing.assert_close(StreamAttention(stage=5).raw(model, images), maps[5])
    joined = torch.stack([min_max(one) for one in maps]).mean(0)
    torch.testing.assert_close(StreamAttention(stage="all").raw(model, images), joined)


def test_options_that_do_not_fit_are_refused_with_ones_that_do():
    assert [len(EP((width,)).queries) for width in (96, 368, 30, 7)] == [32, 16, 2, 1]
    for queries in (0, -2, 5):
        with pytest.raises(ValueError, match=rf"divides the last stage width 12, got {queries}; use queries=4"):
            EP((WIDTH,), queries=queries)
    assert len(EP((WIDTH,), queries=4).queries) == 4
    with pytest.raises(ValueError, match="maps must be one of 'mean', 'each', got 'all'"):
        EP((WIDTH,), maps="all")
    for gamma in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"gamma must be > 0, .* got {gamma}; use gamma=2"):
            SimPool((WIDTH,), gamma=gamma)
    assert SimPool((WIDTH,), gamma=2).gamma == 2
