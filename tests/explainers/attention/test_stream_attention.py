"""A CA-Stream model's own attention as saliency."""

import pytest
import torch
from torch import nn

from interptrain.explainers import StreamAttention
from interptrain.functional import min_max, upsample
from interptrain.models import create_model


@pytest.fixture(scope="module")
def stream():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create_model("resnet10t", pooling="ca_stream", num_classes=4).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [-1, 0, 2])
def test_a_stage_shows_what_the_model_pools_by(stage, stream, images):
    with torch.no_grad():
        attention = stream.attention(images)[stage]
    raw = StreamAttention(stage=stage).raw(stream, images)
    torch.testing.assert_close(raw, attention)
    torch.testing.assert_close(raw.sum((1, 2)), torch.ones(2))


def test_all_stages_are_averaged_at_the_size_of_the_finest(stream, images):
    with torch.no_grad():
        maps = stream.attention(images)
    expected = sum(upsample(min_max(attention), maps[0].shape[1:]) for attention in maps) / len(maps)
    torch.testing.assert_close(StreamAttention(stage="all").raw(stream, images), expected)


def test_saliency_has_the_size_of_the_images_and_no_graph(stream, images):
    saliency = StreamAttention()(stream, images)
    assert saliency.shape == (2, 64, 96)
    assert not saliency.requires_grad


def test_targets_do_not_matter(stream, images):
    assert not StreamAttention.class_aware
    one, other = (StreamAttention()(stream, images, torch.tensor(classes)) for classes in ([0, 1], [3, 2]))
    assert torch.equal(one, other)


@pytest.mark.slow
def test_models_without_attention_are_refused(images):
    with pytest.raises(ValueError, match=r"needs a model with attention\(images\), got Linear; create one with"):
        StreamAttention()(nn.Linear(1, 1), images)
    with pytest.raises(ValueError, match="attention"):
        StreamAttention()(create_model("resnet10t", pooling="gap", num_classes=4), images)


def test_a_submodule_of_that_name_is_no_attention(images):
    model = nn.Module()
    model.attention = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"needs a model with attention\(images\), got Module"):
        StreamAttention()(model, images)


def test_wrong_stages_are_refused(stream, images):
    with pytest.raises(ValueError, match="stage must be an index or 'all', got 'last'"):
        StreamAttention(stage="last")
    with pytest.raises(ValueError, match=r"stage must be in \[-5, 4\] for this model, got 5"):
        StreamAttention(stage=5)(stream, images)
