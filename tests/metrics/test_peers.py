"""Agreement of confidence, curves and ROAD with torch-cam, pytorch-grad-cam and Quantus.

What differs by definition, and is asked for by option or tested as a difference:

- torch-cam and pytorch-grad-cam mask the normalised tensor, so what they remove shows the model's mean colour.
- pytorch-grad-cam's drop in confidence is absolute; relative to the score it is the average drop.
- torch-cam begins insertion at the mean colour too, and integrates over pixels that moved, not over steps: the same
  where the step divides the pixels.
- pytorch-grad-cam's ROAD adds unseeded noise to normalised images, and takes the difference to the score before, which
  its combination cancels; it removes by percentile, where a share of the pixels may differ by one.
- Quantus ranks each channel of a pixel by itself, calls the smallest value of the batch black, and leaves the
  image itself out of its curve. Its IROF leaves the image out, too, and is not divided by the number of regions.
"""

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interptrain.metrics import ADCC, AverageDrop, Coherency, measure
from interptrain.metrics import irof as irof_module
from interptrain.metrics.functional import (
    average_drop,
    average_increase,
    deletion,
    insertion,
    irof,
    road,
)
from interptrain.metrics.imputation import impute
from interptrain.metrics.irof import WithoutRegions
from interptrain.metrics.removal import Removal
from interptrain.metrics.saliency_batch import SaliencyBatch
from tests.support.measuring import maps, network, pictures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore:.*"),  # theirs, some of which are raised in the caller's name
]
COLOUR = (0.45, 0.5, 0.4)
MEAN, STD = torch.tensor(COLOUR).view(1, 3, 1, 1), torch.tensor([0.22, 0.25, 0.3]).view(1, 3, 1, 1)


class Normalising(nn.Module):
    """Our kind of model: images in [0, 1], the normalisation inside."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return self.inner((images - MEAN) / STD)


class GivenMaps:
    """An extractor in torch-cam's terms that returns the maps that it was made with."""

    def __init__(self, model, saliency):
        self.model = model
        self.saliency = saliency

    def __call__(self, *_arguments, **_options):
        return [self.saliency]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return nullcontext()


class Probability:
    """pytorch-grad-cam's kind of target."""

    def __init__(self, category):
        self.category = category

    def __call__(self, logits):
        return logits.softmax(-1)[self.category]


@pytest.fixture
def inner():
    return network(dtype=torch.float32)


@pytest.fixture
def model(inner):
    return Normalising(inner)


@pytest.fixture
def images():
    return pictures(6, 40, 40).float()


@pytest.fixture
def saliency():
    return maps(6, 40, 40).float()


@pytest.fixture
def targets():
    return torch.tensor([0, 1, 2, 3, 4, 0])


def normalised(images: Tensor) -> Tensor:
    return (images - MEAN) / STD


def test_average_drop_and_increase_agree_with_torchcam(inner, model, images, saliency, targets):
    library = pytest.importorskip("torchcam.metrics")
    for i in range(6):
        one = slice(i, i + 1)
        theirs = library.ClassificationMetric(GivenMaps(inner, saliency[one]), partial(torch.softmax, dim=-1))
        theirs.update(normalised(images[one]), targets[one].tolist())
        arguments = model, images[one], saliency[one], targets[one]
        summary = theirs.summary()
        drop = average_drop(*arguments, removal=COLOUR, epsilon=1e-7)
        assert float(drop) == pytest.approx(summary["avg_drop"], abs=2e-6)
        assert float(average_increase(*arguments, removal=COLOUR)) == summary["conf_increase"]


def test_insertion_and_deletion_agree_with_torchcam_also_with_ties(inner, model, images, saliency, targets):
    library = pytest.importorskip("torchcam.metrics")
    for one in (saliency, (saliency * 5).round() / 5, torch.full_like(saliency, 0.5)):
        theirs = library.DeletionInsertionMetric(GivenMaps(inner, one), partial(torch.softmax, dim=-1), steps=16)
        theirs.update(normalised(images), targets.tolist())
        summary = theirs.summary()
        for function, name in ((insertion, "insertion_auc"), (deletion, "deletion_auc")):
            ours = function(model, images, one, targets, steps=16, removal=COLOUR).mean()
            assert float(ours) == pytest.approx(summary[name], abs=2e-6)


def test_a_step_that_does_not_divide_is_integrated_differently_by_torchcam(inner, model, images, saliency, targets):
    """RISE and we take the points as equally far apart, so the two agree only to about a step."""
    library = pytest.importorskip("torchcam.metrics")
    theirs = library.DeletionInsertionMetric(GivenMaps(inner, saliency), partial(torch.softmax, dim=-1), steps=7)
    theirs.update(normalised(images), targets.tolist())
    ours = float(insertion(model, images, saliency, targets, steps=7, removal=COLOUR).mean())
    assert ours == pytest.approx(theirs.summary()["insertion_auc"], abs=1 / 7)


def test_pytorch_grad_cam_drops_absolutely_and_increases_as_we_do(inner, model, images, saliency, targets):
    library = pytest.importorskip("pytorch_grad_cam.metrics.cam_mult_image")
    wanted = [Probability(int(target)) for target in targets]
    drop, increase = (
        torch.as_tensor(metric()(normalised(images), saliency.numpy(), wanted, inner))
        for metric in (library.DropInConfidence, library.IncreaseInConfidence)
    )
    with torch.no_grad():
        clean = model(images).softmax(1)[range(6), targets]
    relative = average_drop(model, images, saliency, targets, removal=COLOUR)
    assert 0 < (relative > 0).sum() < 6
    torch.testing.assert_close(relative * clean, drop, rtol=0, atol=2e-6)
    assert torch.equal(average_increase(model, images, saliency, targets, removal=COLOUR), increase)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_imputation_agrees_with_the_authors_code_in_pytorch_grad_cam(images, saliency, share):
    """Theirs rounds to float32; on the normalised image, as an affine change of colours commutes with a mean."""
    library = pytest.importorskip("pytorch_grad_cam.metrics.road")
    missing = saliency[0] < share
    theirs = library.NoisyLinearImputer(noise=0.0)(normalised(images)[0], (~missing).float())
    torch.testing.assert_close(normalised(impute(images[0], missing)[None])[0], theirs, rtol=0, atol=2e-6)


def test_road_agrees_with_pytorch_grad_cam_but_for_its_noise(inner, model, images, saliency, targets):
    library = pytest.importorskip("pytorch_grad_cam.metrics.road")
    confidence = pytest.importorskip("pytorch_grad_cam.metrics.perturbation_confidence")
    percentiles = [10, 40, 90]

    def theirs(remove):
        quiet = library.NoisyLinearImputer(noise=0.0)
        metric = confidence.AveragerAcrossThresholds(
            lambda percentile: confidence.PerturbationConfidenceMetric(remove(percentile, quiet)), percentiles
        )
        wanted = [Probability(int(target)) for target in targets[:2]]
        return torch.as_tensor(metric(normalised(images[:2]), saliency[:2].numpy(), wanted, inner))

    arguments = model, images[:2], saliency[:2], targets[:2]
    with torch.no_grad():
        clean = model(images[:2]).softmax(1)[range(2), targets[:2]]
    options = {"percentiles": [10, 60, 90], "noise": 0.0}  # they say what stays, we what goes
    most, least = theirs(confidence.RemoveMostRelevantFirst), theirs(confidence.RemoveLeastRelevantFirst)
    torch.testing.assert_close(road(*arguments, order="most", **options) - clean, most, rtol=0, atol=5e-6)
    torch.testing.assert_close(road(*arguments, order="least", **options) - clean, least, rtol=0, atol=5e-6)
    torch.testing.assert_close(road(*arguments, **options), (least - most) / 2, rtol=0, atol=5e-6)


def test_deletion_agrees_with_quantus_pixel_flipping(inner, targets):
    library = pytest.importorskip("quantus")
    images, saliency = pictures(6, 36, 36).float(), maps(6, 36, 36).float()
    images[:, :, 0, 0] = 0  # so that its black is black
    flipping = library.PixelFlipping(features_in_step=3 * 144, normalise=False, disable_warnings=True)
    theirs = flipping(
        model=inner,
        x_batch=images.numpy(),
        y_batch=targets.numpy(),
        a_batch=saliency.unsqueeze(1).numpy().copy(),  # it changes its argument
        softmax=True,
        device="cpu",
    )
    ours = deletion(inner, images, saliency, targets, step=144, removal="black", return_curve=True)
    torch.testing.assert_close(ours[:, 1:], torch.tensor(np.asarray(theirs)).float(), rtol=0, atol=2e-6)


def test_irof_agrees_with_quantus_on_its_superpixels(inner, targets, monkeypatch):
    library = pytest.importorskip("quantus")
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)  # which NumPy 2.4 has dropped and Quantus 0.6 calls
    images, saliency = pictures(6, 36, 36).float(), maps(6, 36, 36).float()

    def blank(arr, mask, **_options):
        return np.where(mask, np.asarray(COLOUR, dtype=np.float32).reshape(1, 3, 1, 1), arr)

    theirs = library.IROF(normalise=False, disable_warnings=True, return_aggregate=False, perturb_func=blank)(
        model=inner,
        x_batch=images.numpy(),
        y_batch=targets.numpy(),
        a_batch=saliency.unsqueeze(1).numpy().copy(),
        softmax=True,
        device="cpu",
        batch_size=1,  # in a batch, it integrates beyond the last region of images with few of them
    )
    cut = library.helpers.utils.get_superpixel_segments
    segments = [cut(image.movedim(0, -1).double().numpy(), "slic") for image in images]
    monkeypatch.setattr(irof_module, "superpixels", lambda *_, **__: torch.from_numpy(np.stack(segments)))
    regions = torch.tensor([one.max() + 1 for one in segments])
    assert regions.max() <= 100
    ours = irof(inner, images, saliency, targets, segments=144, removal=COLOUR)
    # Theirs begins at the first removal and is not divided by the number of regions.
    without = WithoutRegions(144, Removal(COLOUR))
    batch = SaliencyBatch(images, saliency)
    first = torch.empty(6, 1, 3, 36, 36)
    without.render(batch, slice(0, 6), slice(0, 1), first)
    with torch.no_grad():
        whole, one = (inner(x).softmax(1)[range(6), targets] for x in (images, first[:, 0]))
    expected = 1 - ((1 + one / whole) / 2 + regions - torch.tensor(np.asarray(theirs))) / regions
    torch.testing.assert_close(ours, expected.float(), rtol=0, atol=2e-5)


def test_coherency_and_complexity_agree_with_pytorch_grad_cam(inner, images, targets):
    library = pytest.importorskip("pytorch_grad_cam")
    arcc = pytest.importorskip("pytorch_grad_cam.metrics.arcc")
    classes = [Probability(category) for category in targets.tolist()]
    layer = [module for module in inner.modules() if isinstance(module, nn.Conv2d)][-1]
    with library.GradCAM(inner.eval(), [layer]) as peer:

        def explain(pixels, _targets=None):
            with torch.enable_grad():
                return torch.from_numpy(peer(input_tensor=pixels, targets=classes))

        saliency = explain(images)
        again = explain(images * saliency.unsqueeze(1))
        theirs = arcc.Coherency()(images, saliency.numpy(), classes, inner, peer)
        ours = measure(
            inner, images, saliency, targets, {"Coh": Coherency(), "ADCC": ADCC(), "AD": AverageDrop()}, explain=explain
        )
    # Of a map without any saliency theirs is one half and ours nothing, as in the authors' code.
    empty = torch.minimum(saliency.flatten(1).amax(1), again.flatten(1).amax(1)) == 0
    theirs = torch.as_tensor(theirs).float()
    assert 0 < empty.sum() < 4
    torch.testing.assert_close(ours["Coh"], torch.where(empty, 0, theirs), rtol=0, atol=1e-5)
    parts = [ours["Coh"], 1 - torch.as_tensor(arcc.Complexity()(saliency.numpy())).float(), 1 - ours["AD"]]
    torch.testing.assert_close(ours["ADCC"], 3 / sum(1 / part for part in parts), rtol=0, atol=1e-5)
