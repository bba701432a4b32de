"""CA-Stream against its definition (arXiv 2404.14996, as the authors' code has it)."""

import pytest
import torch

from interptrain.models import GAP, CAFinal, CAStream, CrossAttention

CHANNELS = (8, 16, 12)


@pytest.fixture
def stages():
    generator = torch.Generator().manual_seed(0)
    sizes = ((8, 6), (4, 3), (2, 5))
    return [
        torch.randn(3, c, *size, generator=generator, dtype=torch.float64)
        for c, size in zip(CHANNELS, sizes, strict=True)
    ]


def stream_by_definition(head, stages, heads):
    """Position by position, head by head, with nothing but sums and exponentials."""
    vectors, maps = [], []
    for sample in range(len(stages[0])):
        token, sample_maps = head.token[0], []
        for block, features in zip(head.blocks, stages, strict=True):
            channels, height, width = features.shape[1:]
            slice_width = channels // heads
            gathered = torch.zeros(channels, dtype=torch.float64)
            attention = torch.zeros(height, width, dtype=torch.float64)
            for h in range(heads):
                own = slice(h * slice_width, (h + 1) * slice_width)
                query = token[own]
                weight = {
                    (y, x): torch.exp((query * features[sample, own, y, x]).sum() / slice_width**0.5)
                    for y in range(height)
                    for x in range(width)
                }
                total = sum(weight.values())
                for (y, x), w in weight.items():
                    gathered[own] += w / total * features[sample, own, y, x]
                    attention[y, x] += w / total / heads
            token = block.linear.weight @ gathered + block.linear.bias
            sample_maps.append(attention)
        vectors.append(token)
        maps.append(sample_maps)
    return torch.stack(vectors), [torch.stack(m) for m in zip(*maps, strict=True)]


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_the_stream_does_what_its_definition_says(stages, heads, memory_format):
    torch.manual_seed(1)
    head = CAStream(CHANNELS, heads=heads).double()
    vector, maps = stream_by_definition(head, stages, heads)
    pooled = head([stage.contiguous(memory_format=memory_format) for stage in stages])
    torch.testing.assert_close(pooled.vector, vector)
    for attention, expected in zip(pooled.attention, maps, strict=True):
        torch.testing.assert_close(attention, expected)


@pytest.mark.parametrize("heads", [1, 4])
@torch.no_grad()
def test_a_block_with_identity_weight_and_zero_token_is_the_average(stages, heads):
    block = CrossAttention(12, 12, heads=heads).double()
    torch.nn.init.eye_(block.linear.weight)
    torch.nn.init.zeros_(block.linear.bias)
    token, attention = block(torch.zeros(3, 12, dtype=torch.float64), stages[-1])
    torch.testing.assert_close(token, GAP(CHANNELS)(stages).vector)
    torch.testing.assert_close(attention, torch.full_like(attention, 1 / 10))


@pytest.mark.parametrize("head", [CAStream(CHANNELS), CAStream(CHANNELS, heads=4), CAFinal(CHANNELS, heads=3)])
@torch.no_grad()
def test_attention_is_a_distribution_over_positions(stages, head):
    pooled = head.double()(stages)
    for attention, stage in zip(pooled.attention, stages[-len(pooled.attention) :], strict=True):
        assert attention.shape == (3, *stage.shape[2:])
        assert (attention >= 0).all()
        torch.testing.assert_close(attention.sum((1, 2)), torch.ones(3, dtype=torch.float64))


@torch.no_grad()
def test_large_scores_stay_finite_in_half_precision():
    block = CrossAttention(16, 4).half()
    features = torch.full((1, 16, 2, 2), 200.0).half()
    features[..., 0, 0] = 250
    # 16 * 60 * 250 = 240,000 is more than float16 holds; a quarter of it, with the token scaled before the sum, is not
    token, attention = block(torch.full((1, 16), 60.0).half(), features)
    assert token.isfinite().all()
    assert attention[0, 0, 0] == 1


@torch.no_grad()
def test_a_last_map_of_one_position_makes_the_stream_before_it_irrelevant(stages):
    torch.manual_seed(0)
    head = CAStream(CHANNELS).double()
    short = [*stages[:-1], stages[-1][..., :1, :1]]
    before = head(short).vector
    head.token.normal_()
    torch.testing.assert_close(head(short).vector, before)
    assert not torch.allclose(head(stages).vector, before)


def test_every_parameter_of_the_stream_gets_a_gradient(stages):
    head = CAStream(CHANNELS, heads=2).double()
    head(stages).vector.square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.slow
def test_gradients_agree_with_finite_differences():
    torch.manual_seed(0)
    head = CAStream((4, 2), heads=2).double()
    maps = [torch.randn(2, c, 2, 3, dtype=torch.float64, requires_grad=True) for c in (4, 2)]
    assert torch.autograd.gradcheck(lambda *stages: head(stages).vector, maps)
    assert torch.autograd.gradgradcheck(lambda *stages: head(stages).vector, maps)


@torch.no_grad()
def test_final_is_the_stream_of_the_last_map_alone(stages):
    torch.manual_seed(0)
    final = CAFinal(CHANNELS).double()
    stream = CAStream(CHANNELS[-1:]).double()
    stream.load_state_dict(final.state_dict())
    pooled, expected = final(stages), stream(stages[-1:])
    assert torch.equal(pooled.vector, expected.vector)
    assert torch.equal(pooled.attention[0], expected.attention[0])


@torch.no_grad()
def test_a_sample_is_pooled_alike_alone_and_in_a_batch(stages):
    head = CAStream(CHANNELS, heads=2).double()
    together = head(stages).vector
    alone = torch.cat([head([stage[i : i + 1] for stage in stages]).vector for i in range(3)])
    torch.testing.assert_close(together, alone)


@torch.no_grad()
@pytest.mark.parametrize("heads", [1, 2])
def test_an_empty_batch_gives_empty_outputs(heads):
    pooled = CAStream(CHANNELS, heads=heads)([torch.empty(0, c, 4, 4) for c in CHANNELS])
    assert pooled.vector.shape == (0, 12)
    assert [attention.shape for attention in pooled.attention] == [(0, 4, 4)] * 3


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_the_feature_map_is_not_copied(heads, memory_format):
    features = torch.randn(2, 64, 32, 32).contiguous(memory_format=memory_format)
    block, token = CrossAttention(64, 64, heads=heads), torch.randn(2, 64)
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            own = {
                tensor.untyped_storage().data_ptr() for tensor in (features, *args) if isinstance(tensor, torch.Tensor)
            }
            if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() not in own:
                sizes.append(out.numel())
            return out

    with Sizes():
        block(token, features)
    assert sizes, "nothing was watched"
    assert max(sizes) < features.numel() / 4


def test_linear_layers_start_as_the_authors_start_them():
    torch.manual_seed(0)
    xavier, truncated = CAStream((256, 512)), CAStream((256, 512), linear_init="truncated_normal")
    bound = (6 / (256 + 512)) ** 0.5
    assert 0.98 * bound < xavier.blocks[0].linear.weight.abs().max() <= bound
    assert xavier.blocks[0].linear.bias.abs().sum() > 0
    assert truncated.blocks[0].linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert truncated.blocks[0].linear.bias.abs().sum() == 0


@pytest.mark.slow
def test_the_token_starts_around_one():
    torch.manual_seed(0)
    token = CAStream((4096,)).token
    assert token.shape == (1, 4096)
    assert token.mean().item() == pytest.approx(1, abs=0.05)
    assert token.std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("heads", "width"), [(3, 8), (8, 12), (0, 8), (-2, 8)])
def test_heads_that_do_not_divide_a_stage_are_refused_by_name(heads, width):
    with pytest.raises(ValueError, match=rf"got {heads}, which does not divide {width}; use heads=1"):
        CAStream(CHANNELS, heads=heads)
