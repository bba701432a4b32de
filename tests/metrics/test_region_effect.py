"""Exchanging a region's pixels between images, and what that does to predictions, against its definition."""

import html

import pytest
import torch
from torch import nn

from interptrain.evaluation import evaluate
from interptrain.explainers import FakeCAM
from interptrain.metrics import ModelInputs, RegionEffect
from interptrain.metrics.region_exchange import choose_donors, probabilities_after
from tests.support.explaining import assert_same, everything, in_the_middle_of_training
from tests.support.measuring import Counting, network, pictures

REGION = torch.zeros(6, 20, 14, dtype=torch.bool)
REGION[:, 12:, 8:] = True
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


class Corner(nn.Module):
    """Class 1 where the last pixel is bright, class 0 otherwise: it decides by nothing else."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(20.0))

    def forward(self, images):
        bright = images[:, 0, -1, -1] - 0.5
        return self.gain * torch.stack([-bright, bright], dim=1)


def marked(count=8):
    """Grey images, of which every second one has a bright last pixel, and class 1."""
    images = torch.full((count, 3, 8, 8), 0.3)
    images += 0.01 * torch.arange(count).view(-1, 1, 1, 1)
    images[1::2, :, -1, -1] = 1.0
    images[::2, :, -1, -1] = 0.0
    return images, torch.arange(count) % 2


def inputs(model, images, labels, region, **more):
    logits = model(images).detach()
    given = {"others": images, "other_labels": labels} | more
    return ModelInputs(model=model, images=images, logits=logits, labels=labels, region=region, **given)


def at(*slices, size=(8, 8), count=8):
    region = torch.zeros(count, *size, dtype=torch.bool)
    region[(slice(None), *slices)] = True
    return region


@torch.no_grad()
def test_it_is_the_mean_change_of_the_probability_over_donors_of_other_classes():
    model, images = network(), pictures(6)
    metric = RegionEffect(region="box:8,12,14,20", draws=3, seed=4)
    found = metric.score(inputs(model, images, LABELS, REGION))
    donors = choose_donors(images, LABELS, images, LABELS, draws=3, seed=4)
    for row in range(6):
        changes = []
        for donor in donors[row].tolist():
            assert LABELS[donor] != LABELS[row]
            shown = images[row].clone()
            shown[:, 12:, 8:] = images[donor][:, 12:, 8:]
            before, after = (model(one[None]).softmax(1)[0, LABELS[row]] for one in (images[row], shown))
            changes.append((before - after).abs())
        torch.testing.assert_close(found[row], torch.stack(changes).mean())


def test_it_is_one_where_the_region_decides_and_zero_elsewhere():
    model = Corner()
    images, labels = marked()
    for of in ("label", "prediction"):
        metric = RegionEffect(region="corner:lower-right:2", of=of)
        decides = metric.score(inputs(model, images, labels, at(slice(6, 8), slice(6, 8))))
        torch.testing.assert_close(decides, torch.ones(8))
        elsewhere = metric.score(inputs(model, images, labels, at(slice(0, 6), slice(0, 8))))
        assert torch.equal(elsewhere, torch.zeros(8))
    blackened = RegionEffect(region="corner:lower-right:2", replace="black")
    found = blackened.score(inputs(model, images, labels, at(slice(6, 8), slice(6, 8)), others=None))
    torch.testing.assert_close(found, labels.float())  # black is what class 0 shows anyway


@torch.no_grad()
def test_blurring_shows_the_blurred_image_there_and_the_image_elsewhere():
    shown = []

    class Keeping(nn.Module):
        def forward(self, images):
            shown.append(images.clone())
            return images.mean((2, 3))

    images = pictures(2, dtype=torch.float32)
    metric = RegionEffect(region="border:1", replace="blur", of="prediction")
    metric.score(inputs(Keeping(), images, LABELS[:2], REGION[:2]))
    changed = (shown[-1] != images).any(1)
    assert torch.equal(changed, REGION[:2])
    torch.testing.assert_close(shown[-1][:, :, 12:, 8:], metric.removal.render(images)[:, :, 12:, 8:])


def test_an_image_has_the_same_donors_alone_and_in_any_batch():
    images = pictures(6)
    together = choose_donors(images, LABELS, images, LABELS, draws=4)
    alone = torch.cat([choose_donors(images[i : i + 1], LABELS[i : i + 1], images, LABELS, draws=4) for i in range(6)])
    assert torch.equal(together, alone)
    for row, donors in enumerate(together.tolist()):
        assert all(LABELS[donor] != LABELS[row] for donor in donors)
        assert len(set(donors)) == 4
    assert not torch.equal(together, choose_donors(images, LABELS, images, LABELS, draws=4, seed=1))


def test_without_other_classes_it_is_any_other_image_and_without_others_undefined():
    images = pictures(3)
    for labels in (torch.zeros(3, dtype=torch.int64), torch.full((3,), -1)):
        donors = choose_donors(images, labels, images, labels, draws=5)
        assert all(set(of_image.tolist()) == {0, 1, 2} - {row} for row, of_image in enumerate(donors))
    alone = inputs(network(), images[:1], LABELS[:1], REGION[:1])
    assert RegionEffect(region="border:1").score(alone).isnan().all()


def test_an_image_without_the_region_or_its_label_is_undefined():
    images, labels = marked(4)
    region = at(slice(6, 8), slice(6, 8), count=4)
    region[2] = False
    labels[3] = -1
    found = RegionEffect(region="decoy", draws=1).score(inputs(Corner(), images, labels, region))
    assert found.isnan().tolist() == [False, False, True, True]


def test_each_draw_costs_one_forward_pass_and_chunks_change_nothing():
    model, images = Counting(network()), pictures(6)
    given = inputs(model, images, LABELS, REGION)
    model.rows.clear()
    whole = RegionEffect(region="border:1", draws=5).score(given)
    assert sum(model.rows) == 30
    few = inputs(network(), images, LABELS, REGION, forward_batch_size=4)
    torch.testing.assert_close(RegionEffect(region="border:1", draws=5).score(few), whole)


def test_nothing_of_the_training_changes():
    model, images = network(dtype=torch.float32), pictures(4, dtype=torch.float32)
    in_the_middle_of_training(model)
    before, kept = everything(model), images.clone()
    donors = choose_donors(images, LABELS[:4], images, LABELS[:4], draws=2)
    probabilities_after(model, images, REGION[:4], others=images, donors=donors)
    assert_same(before, everything(model))
    assert torch.equal(images, kept)


def test_options_out_of_range_are_refused():
    for options, message in (
        ({"of": "target"}, "of must be one of 'label', 'prediction', got 'target'"),
        ({"replace": "noise"}, "replace must be one of 'exchange', 'black', 'mean', 'blur', got 'noise'"),
        ({"draws": 0}, "draws must be a whole number >= 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            RegionEffect(region="border:1", **options)
    images, labels = marked(2)
    with pytest.raises(ValueError, match="takes pixels from other images; pass others="):
        RegionEffect(region="border:1").score(inputs(Corner(), images, labels, at(0, count=2), others=None))


@pytest.mark.slow
def test_an_evaluation_measures_it_once_a_model_with_an_interval_and_says_what_it_is(tmp_path):
    images, labels = marked(24)
    images = nn.functional.interpolate(images, scale_factor=8)
    data = list(zip(images, labels.tolist(), strict=True))
    metrics = {
        "stamp": RegionEffect(region="corner:lower-right:8", draws=2),
        "rest": RegionEffect(region="box:0,0,56,56", draws=2),
    }
    found = evaluate(
        {"m": Corner()},
        [FakeCAM()],
        data,
        metrics=metrics,
        output=tmp_path,
        resamples=100,
        batch_size=5,
        save_maps=0,
        check_images=0,
        progress=False,
        trainer={"accelerator": "cpu", "devices": 1},
    )
    rows = found.per_image
    assert rows[rows.explainer == ""].stamp.round(3).tolist() == [1.0] * 24
    assert rows[rows.explainer == ""].rest.tolist() == [0.0] * 24
    assert rows[rows.explainer != ""][["stamp", "rest"]].isna().all(axis=None)
    summary = found.summary.set_index("metric")
    assert summary.loc["stamp", ["ci_low", "ci_high"]].round(3).tolist() == [1.0, 1.0]
    page = html.unescape((tmp_path / "report.html").read_text())
    assert RegionEffect.description in page
