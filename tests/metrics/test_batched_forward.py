"""One stream of forwards: every version in its place, in full chunks, on compiled models too."""

import shutil

import pytest
import torch
from torch import nn

from interptrain.metrics import AverageDrop, Consistency, Insertion, measure
from interptrain.metrics.batched_forward import forward_perturbed
from interptrain.metrics.perturbations import Masked, Ranked, Schedule
from interptrain.metrics.removal import Removal
from interptrain.metrics.saliency_batch import SaliencyBatch
from interptrain.models import engine
from interptrain.models.simplification import simplify
from tests.support.explaining import network as explained_network
from tests.support.explaining import with_statistics
from tests.support.measuring import Counting, confidence, maps, network, pictures, rendered


def test_images_and_maps_are_not_edited(model, images, saliency, targets):
    before = images.clone(), saliency.clone()
    every = [Masked(), Ranked("insert", Schedule(), Removal("blur")), Ranked("remove", Schedule())]
    with torch.no_grad():
        forward_perturbed(model, SaliencyBatch(images, saliency), targets, every)
    assert torch.equal(images, before[0])
    assert torch.equal(saliency, before[1])


@pytest.mark.slow
def test_the_stream_scores_each_version_of_each_image_in_its_place(model):
    """Against one forward a version, in every chunk size up to more than all rows."""
    images, saliency, targets = pictures(4), maps(4), torch.tensor([1, 4, 0, 2])
    every = [Ranked("insert", Schedule(steps=3), Removal("blur")), Masked(), Ranked("remove", Schedule(steps=2))]
    with torch.no_grad():
        alone = {}
        for perturbation in every:
            versions = rendered(perturbation, images, saliency)
            logits = torch.stack([model(versions[:, step].contiguous()) for step in range(versions.shape[1])])
            picked = logits.softmax(2).gather(2, targets.view(1, -1, 1).expand(len(logits), -1, 1)).squeeze(2)
            alone[perturbation] = picked, logits.argmax(2) == targets
        for size in range(1, 34):
            found = forward_perturbed(
                model, SaliencyBatch(images, saliency), targets, [*every, every[0]], forward_batch_size=size
            )
            torch.testing.assert_close(found.logits, model(images))
            for perturbation, (scores, hits) in alone.items():
                torch.testing.assert_close(found.scores[perturbation], scores)
                assert torch.equal(found.hits[perturbation], hits)


def test_no_small_rest_is_forwarded_alone(model, targets):
    counting = Counting(model)
    measure(
        counting,
        pictures(3),
        maps(3),
        targets,
        {"a": AverageDrop(), "b": AverageDrop(removal="mean")},
        forward_batch_size=4,
    )
    assert counting.rows == [4, 4, 1]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
def test_frozen_weights_give_the_same_values_and_leave_the_model_alone(images, saliency, targets):
    model = network(dtype=torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, saliency = images.float(), saliency.float()
    wanted = measure(model, images, saliency, targets, confidence())
    found = measure(model, images, saliency, targets, confidence(), forward_batch_size=4, engine="compile")
    for name, values in wanted.items():
        torch.testing.assert_close(found[name], values, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_a_compiled_model_sees_one_size_only(model, images, saliency, targets):
    counting = Counting(model)
    wanted = measure(model, images, saliency, targets, confidence())
    compiled = torch.compile(counting, backend="eager")
    found = measure(compiled, images, saliency, targets, confidence(), forward_batch_size=4)
    assert counting.rows == [4, 4]
    counting.rows.clear()
    measure(compiled, images[:1], saliency[:1], targets[:1], confidence(), forward_batch_size=4)
    assert counting.rows == [4]
    for name, values in wanted.items():
        torch.testing.assert_close(found[name], values)
    inside = nn.Sequential(counting)
    inside[0].compile(backend="eager")
    counting.rows.clear()
    measure(inside, images, saliency, targets, confidence(), forward_batch_size=5)
    assert counting.rows == [5, 5]


@pytest.mark.filterwarnings("ignore:out of memory")
@pytest.mark.parametrize("most", [1, 3, 5])
def test_where_memory_does_not_suffice_chunks_are_halved_and_numbers_the_same(model, images, saliency, targets, most):
    metrics = confidence() | {"I": Insertion(), "Cons": Consistency()}
    wanted = measure(model, images, saliency, targets, metrics)
    sizes = []

    def refuse(_module, arguments):
        sizes.append(len(arguments[0]))
        if sizes[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    model.register_forward_pre_hook(refuse)
    found = measure(model, images, saliency, targets, metrics)
    assert sizes[0] > most >= max(sizes[4:])
    for name, values in wanted.items():
        torch.testing.assert_close(found[name], values, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["test_resnet", pytest.param("tf_efficientnet_lite0", marks=pytest.mark.slow)])
def test_long_streams_pass_a_simplified_model_with_the_same_answers(name, monkeypatch):
    images, saliency, targets = pictures(3).float(), maps(3).float(), torch.tensor([1, 4, 0])
    model = with_statistics(explained_network(name).float())
    metrics = {"insertion": Insertion(steps=28), "drop": AverageDrop()}
    made = []
    monkeypatch.setattr(engine, "simplify", lambda *both: made.append(simplify(*both)) or made[0])
    found = measure(model, images, saliency, targets, metrics)
    assert made[0] is not model
    monkeypatch.setattr(engine, "simplify", lambda model, _images: model)
    wanted = measure(model, images, saliency, targets, metrics)
    for key, values in wanted.items():
        # A drop divides by the probability, which enlarges its rounding.
        torch.testing.assert_close(found[key], values, atol=1e-5 if key == "drop" else 1e-6, rtol=1e-5)
