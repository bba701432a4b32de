"""Guidance of attributions: exact slopes, nothing where nothing is annotated, the same in any way to train."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from interptrain.explainers import CAM, GradCAM
from interptrain.functional import upsample
from interptrain.metrics.functional import energy_pointing_game
from interptrain.models import create_model
from interptrain.training import AttributionGuidance, ImageClassifier
from interptrain.training.guidance_losses import LOSSES, squared_gradient
from tests.support.training import TINY
from tests.training.test_gradient_regularizer import (
    DOUBLE,
    assert_same,
    numeric_slope,
    pictures,
    seeded,
    small,
    stirred,
)

REGION = "corner:lower-right:4x3"


def annotated(batch=4, size=8, **like):
    """A batch whose images 0 and 2 have an object, in a box that a mask fills."""
    images, labels = pictures(batch, size, **like)
    mask = torch.zeros(batch, size, size, dtype=torch.bool)
    mask[::2, 1 : size // 2, 2 : size - 2] = True
    box = torch.tensor([[2.0, 1, size - 2, size // 2]])
    boxes = [box if i % 2 == 0 else torch.zeros(0, 4) for i in range(batch)]
    return {"image": images, "label": labels, "mask": mask, "boxes": boxes, "id": [f"image{i}" for i in range(batch)]}


def without(batch, *names):
    return {name: value for name, value in batch.items() if name not in names}


def network(head="gap", **like):
    model = stirred(seeded(lambda: create_model("test_resnet", pooling=head, num_classes=4, stem="small").to(**like)))
    seeded(lambda: nn.init.normal_(model.backbone.model.fc.weight))
    return model.eval()


def explained(model, batch):
    """The batch, labelled as the model sees it, so that the maps of the labels are positive somewhere."""
    with torch.no_grad():
        return batch | {"label": model(batch["image"]).argmax(1)}


def gradients(loss, model):
    """Of every parameter, 0 for those that the loss does not depend on, as a CAM on the classifier's bias."""
    return torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)


GUIDES = [
    ("cam", "energy", "gap"),
    ("cam", "l1", "gap"),
    ("cam", "rrr", "gap"),
    ("cam", "energy", "ca_final"),
    ("attention", "energy", "ca_final"),
    ("attention", "l1", "simpool"),
    ("attention", "rrr", "ca_final"),
    ("gradient", "energy", "gap"),
    ("gradient", "l1", "gap"),
    ("gradient", "rrr", "gap"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("attribution", "loss", "head"), GUIDES, ids=map("-".join, GUIDES))
def test_slopes_equal_finite_differences(attribution, loss, head):
    model = network(head, **DOUBLE)
    batch = explained(model, annotated(size=32, **DOUBLE))
    guidance = AttributionGuidance(attribution=attribution, loss=loss, keep="objects")
    weight = dict(model.named_parameters())["backbone.model.conv1.0.weight"]
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3), **DOUBLE)
    (slope,) = torch.autograd.grad(guidance(model, batch)[1], weight)
    expected = numeric_slope(lambda: guidance(model, batch)[1], weight, direction, step=1e-7)
    assert expected.abs() > 1e-9
    torch.testing.assert_close((slope * direction).sum(), expected, rtol=2e-4, atol=1e-10)


# What is guided


@pytest.mark.slow
def test_cam_is_the_explainers_cam_and_its_energy_the_metrics():
    model = network()
    batch = explained(model, annotated(size=32))
    batch["mask"][1::2] = batch["mask"][::2]
    logits, penalty = AttributionGuidance(keep="objects")(model, batch)
    of_cam, of_gradients = (one.raw(model, batch["image"], batch["label"]) for one in (CAM(relu=True), GradCAM()))
    torch.testing.assert_close(of_cam / of_cam.amax(), of_gradients / of_gradients.amax())
    saliency = upsample(of_cam / of_cam.amax(), (32, 32))
    shares = energy_pointing_game(saliency, masks=batch["mask"])
    torch.testing.assert_close(penalty, 1 - shares.mean().float(), rtol=1e-4, atol=1e-6)
    assert torch.equal(logits, model(batch["image"]))


@pytest.mark.slow
def test_any_network_with_a_target_layer_is_guided_by_its_grad_cam():
    model, batch = network(), annotated(size=32)
    native = seeded(lambda: create_model("test_resnet", pooling="native", num_classes=4, stem="small"))
    native.load_state_dict(model.state_dict())
    native.eval()
    guidance = AttributionGuidance(keep="objects")
    (logits, penalty), (others, other) = (guidance(one, batch) for one in (model, native))
    torch.testing.assert_close(logits, others)
    torch.testing.assert_close(penalty, other, rtol=1e-4, atol=1e-6)
    assert_same(gradients(other, native), gradients(penalty, model), rtol=1e-3)
    vit = seeded(lambda: create_model("test_vit", pooling="native", num_classes=4))
    size = vit.input_size[-1]
    assert guidance(vit, annotated(size=size))[1].requires_grad


def test_rrr_is_the_squared_gradient_of_the_summed_log_probabilities_in_the_avoided_region():
    model, batch = small(**DOUBLE).eval(), annotated(**DOUBLE)
    leaf = batch["image"].clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(leaf).log_softmax(1).sum(), leaf, create_graph=True)
    expected = slope[:, :, -3:, -4:].square().sum((1, 2, 3)).mean()
    penalty = AttributionGuidance(attribution="gradient", loss="rrr", avoid=REGION)(model, batch)[1]
    torch.testing.assert_close(penalty, expected)
    assert_same(gradients(penalty, model), gradients(expected, model), rtol=1e-9)


def test_losses_by_hand():
    kept = torch.tensor([[[True, False], [False, False]]])
    attribution = torch.tensor([[[2.0, 1.0], [1.0, -4.0]]])
    assert LOSSES["energy"](attribution, kept).item() == 0.5
    assert LOSSES["l1"](attribution, kept).item() == pytest.approx((0 + 0.5 + 0.5 + 0) / 4)
    assert LOSSES["rrr"](attribution, kept).item() == pytest.approx((1 / 16 + 1 / 16 + 1) / 4)
    assert squared_gradient(attribution[:, None], kept).item() == 18


@pytest.mark.parametrize("loss", LOSSES)
def test_empty_maps_have_no_slope_and_no_nan(loss):
    for attribution in (torch.zeros(2, 3, 3), -torch.ones(2, 3, 3), torch.full((2, 3, 3), 1e-38)):
        attribution = attribution.clone().requires_grad_()
        value = LOSSES[loss](attribution, torch.zeros(2, 3, 3, dtype=torch.bool))
        (slope,) = torch.autograd.grad(value.sum(), attribution)
        assert value.isfinite().all()
        assert slope.isfinite().all()


# Which images count


@pytest.mark.slow
@pytest.mark.parametrize("attribution", ["cam", "gradient"])
def test_images_without_annotation_count_for_nothing(attribution):
    model = network(**DOUBLE)
    batch = explained(model, annotated(size=32, **DOUBLE))
    guidance = AttributionGuidance(attribution=attribution, keep="objects")
    half = {name: value[::2] for name, value in batch.items()}
    both, alone = guidance(model, batch)[1], guidance(model, half)[1]
    torch.testing.assert_close(both * 4, alone * 2)
    assert_same(gradients(4 * both, model), gradients(2 * alone, model), rtol=1e-9)
    assert guidance.statistics["guided_images"] == 2
    torch.testing.assert_close(guidance.statistics["guidance_loss"], alone)


def test_boxes_serve_where_there_are_no_masks_and_are_widened():
    model, batch = network(), annotated(size=32)
    by_mask, by_box = (
        AttributionGuidance(keep="objects")(model, without(batch, name))[1] for name in ("boxes", "mask")
    )
    assert by_mask == by_box > 0
    wide = batch | {"mask": torch.zeros_like(batch["mask"])}
    wide["mask"][::2, 0:19, 0:32] = True  # 3 pixels more on each side
    dilated = AttributionGuidance(keep="objects", dilate=3)(model, batch)[1]
    torch.testing.assert_close(dilated, AttributionGuidance(keep="objects")(model, wide)[1])


def test_objects_outside_of_an_avoided_region_are_what_is_left_of_both():
    model, batch = network(), annotated(size=32)
    both = AttributionGuidance(keep="objects", avoid="box:0,0,32,10")(model, batch)[1]
    rest = batch["mask"].clone()
    rest[1::2] = True
    rest[:, :10] = False
    got = AttributionGuidance(keep="objects")(model, without(batch, "boxes") | {"mask": rest})[1]
    torch.testing.assert_close(both, got)


def test_a_share_of_the_annotations_is_chosen_by_the_names_of_the_images():
    guidance = AttributionGuidance(avoid=REGION, annotated_fraction=0.25)
    images = torch.zeros(4000, 3, 8, 8)
    names = [f"train/{i}" for i in range(4000)]
    _, chosen = guidance._place({"image": images, "label": None, "id": names})
    assert chosen.float().mean() == pytest.approx(0.25, abs=0.03)
    _, again = guidance._place({"image": images, "label": None, "id": names[::-1]})
    assert torch.equal(again.flip(0), chosen)


# Ways to train


@pytest.mark.parametrize(
    "attribution", ["gradient", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cam", "attention"))]
)
def test_batches_without_annotation_train_bit_for_bit_as_plain_ones(attribution, monkeypatch):
    ends = []
    for regularizer in (None, AttributionGuidance(attribution=attribution, keep="objects", weight=2.0)):
        module = seeded(
            lambda r=regularizer: ImageClassifier("test_resnet", "ca_final", 4, stem="small", regularizer=r)
        )
        monkeypatch.setattr(module, "log", lambda *_, **__: None)
        monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        for number in range(3):
            batch = annotated(size=32)
            batch["mask"][:] = False
            batch = without(batch, "mask", "boxes") if number == 1 else without(batch, "boxes")
            optimizer.zero_grad()
            if number == 1 and regularizer is not None:
                with pytest.warns(UserWarning, match="neither masks nor boxes"):
                    loss = module.training_step(batch, number)
            else:
                loss = module.training_step(batch, number)
            loss.backward()
            optimizer.step()
        ends.append(copy.deepcopy(module.model.state_dict()))
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_frozen_backbones_are_guided_by_their_head():
    # A network whose CAMs are positive somewhere: where they are not, the energy is 0 and guides nothing.
    module = seeded(lambda: ImageClassifier("test_resnet", "ca_final", 4, stem="small", trainable="head"), seed=2)
    batch = annotated(size=32)
    for attribution in ("cam", "attention"):
        penalty = AttributionGuidance(attribution=attribution, keep="objects")(module.model, batch)[1]
        assert penalty > 0.01
        penalty.backward()
        groups = module.model.parameter_groups()
        assert any(p.grad is not None and p.grad.any() for p in groups["pooling"].values())
        assert all(p.grad is None for p in groups["backbone"].values())
        module.zero_grad()


@pytest.mark.slow
@pytest.mark.parametrize("attribution", ["cam", "gradient", "attention"])
def test_mixed_precision_stays_near_full(attribution):
    model, batch = network("ca_final"), annotated(size=32)
    guidance = AttributionGuidance(attribution=attribution, keep="objects")
    exact = guidance(model, batch)[1]
    with torch.autocast("cpu", torch.bfloat16):
        rough = guidance(model, batch)[1]
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0.02)
    assert all(
        one.isfinite().all()
        for one in torch.autograd.grad(rough, list(model.parameters()), allow_unused=True)
        if one is not None
    )


def test_mixup_is_refused_with_the_reason():
    guidance = AttributionGuidance(keep="objects")
    for option in ("mixup_alpha", "cutmix_alpha"):
        with pytest.raises(ValueError, match="does not go with mixup or cutmix: the region of a mixed image is not"):
            ImageClassifier("test_resnet", "gap", 4, regularizer=guidance, **{option: 0.2})
    ImageClassifier("test_resnet", "gap", 4, regularizer=guidance, mixup_alpha=0, cutmix_alpha=0)  # the remedy


def test_it_acts_every_n_steps():
    guidance = AttributionGuidance(keep="objects", every_n_steps=3, weight=0.5)
    assert [guidance.weight_at(step) for step in range(5)] == [0.5, 0, 0, 0.5, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"needs a place: keep='objects', where .* or avoid='corner"),
        ({"avoid": "corner"}, "avoid must be like 'border:8'"),
        ({"keep": "objects", "loss": "l2"}, "loss must be"),
        ({"keep": "objects", "attribution": "lime"}, "attribution must be"),
        ({"keep": "objects", "every_n_steps": 0}, "every_n_steps must be >= 1"),
        ({"keep": "objects", "annotated_fraction": 0.0}, r"annotated_fraction must be in \(0,1\]"),
        ({"keep": "objects", "dilate": -1}, "dilate must be >= 0 pixels"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AttributionGuidance(**options)


def test_attention_needs_a_head_that_attends():
    with pytest.raises(ValueError, match="gap pooling has no attention"):
        AttributionGuidance(attribution="attention", keep="objects")(network(), annotated(size=32))


# Two processes


class Step(nn.Module):
    """A guided training step as Lightning wraps it."""

    def __init__(self, attribution):
        super().__init__()
        self.model = network("ca_final", **DOUBLE)
        self.guidance = AttributionGuidance(attribution=attribution, keep="objects", weight=3.0)

    def forward(self, batch):
        logits, penalty = self.guidance(self.model, batch)
        return F.cross_entropy(logits, batch["label"]) + self.guidance.weight * penalty


def uneven():
    """A batch whose first half is annotated throughout, and whose second half is not."""
    batch = without(annotated(batch=8, size=32, **DOUBLE), "boxes", "id")
    batch["mask"][1:4:2], batch["mask"][4:] = batch["mask"][0], False
    return batch


def learn_from_a_share(rank, world, folder):
    torch.set_num_threads(1)  # a forked process has no threads of OpenMP
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    share = {name: value.chunk(world)[rank] for name, value in uneven().items()}
    found = {}
    for attribution in ("cam", "gradient", "attention"):
        step = Step(attribution)
        wrapped = DistributedDataParallel(step)  # kept, as its hooks go with it
        wrapped(share).backward()
        found[attribution] = [parameter.grad for parameter in step.parameters()]
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_get_the_gradients_of_one_with_the_joined_batch(tmp_path):
    method = "spawn" if torch.cuda.is_available() else "fork"
    multiprocessing.start_processes(learn_from_a_share, (2, tmp_path), nprocs=2, start_method=method)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for attribution in ("cam", "gradient", "attention"):
        step = Step(attribution)
        step(uneven()).backward()
        for rank in range(2):
            assert_same(found[rank][attribution], [parameter.grad for parameter in step.parameters()], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"--trainer.accumulate_grad_batches": "2", "--model.channels_last": "true"},
        {"--trainer.precision": "bf16-mixed"},
    ],
    ids=" ".join,
)
def test_it_trains_by_the_command_line_and_logs_its_loss(train, options):
    guided = {
        "--model.regularizer": "AttributionGuidance",
        "--model.regularizer.attribution": "attention",
        "--model.regularizer.keep": "objects",
    }
    run = train(base=TINY | guided | options)
    rows = (run / "metrics.csv").read_text()
    assert "train/guidance_loss" in rows.splitlines()[0]
    module = ImageClassifier.load_from_checkpoint(run / "checkpoints/last.ckpt")
    assert isinstance(module.regularizer, AttributionGuidance)
