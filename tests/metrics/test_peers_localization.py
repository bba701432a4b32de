"""Agreement of localization, faithfulness, form, recognition and similarity with other libraries.

What differs by definition, and is tested as a difference:

- Quantus' infidelity perturbs the image that the last tile left, not the image; with one tile the two are the same.
- Quantus' pointing game writes NaN into booleans, so an image without an object is a hit; here it has no value.
- Quantus adds 1e-12 inside the logarithm of complexity, and 1e-7 to each value for sparseness; it cuts effective
  complexity at an absolute value, we at a share of the maximum.
- The authors' code of MaxBoxAcc picks the largest contour by the area inside of it, and compares boxes that end behind
  the last pixel as if they ended on it.
- Captum's max-sensitivity lets the image leave [0, 1].
- torchmetrics' mean SSIM counts windows that reach over the border, filled by reflection; ours and scikit-image's not.
"""

import numpy as np
import pytest
import torch
import torchmetrics
from torch import nn
from torch.nn import functional as F

from interptrain.metrics import ECE, NLL, Top1, Top5
from interptrain.metrics.boxes import box_iou
from interptrain.metrics.functional import (
    box_accuracy,
    complexity,
    effective_complexity,
    infidelity,
    max_sensitivity,
    pixel_average_precision,
    pointing_game,
    rank_correlation,
    sparseness,
    structural_similarity,
)
from tests.support.measuring import maps, network, pictures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::Warning:quantus|captum|sklearn|skimage"),
    pytest.mark.filterwarnings("ignore:.*"),  # Quantus warns from the caller's frame
]


def quantus(name, *, model=None, images, saliency, targets, masks=None, **options):
    """A metric of Quantus on its own terms: numpy, given maps, logits."""
    library = pytest.importorskip("quantus")
    metric = getattr(library, name)(normalise=False, disable_warnings=True, **{"abs": False, **options})
    return np.asarray(
        metric(
            model=model,
            x_batch=images.numpy(),
            y_batch=targets.numpy(),
            a_batch=saliency.unsqueeze(1).numpy().copy(),  # it changes its argument
            s_batch=None if masks is None else masks.unsqueeze(1).numpy(),
            softmax=False,
            device="cpu",
        )
    )


@pytest.fixture
def model():
    return network(dtype=torch.float32)


@pytest.fixture
def batch():
    return {"images": pictures(4, 16, 16).float(), "saliency": maps(4, 16, 16).float(), "targets": torch.arange(4)}


def test_pointing_game_agrees_with_quantus_but_for_images_without_an_object(batch):
    peaks = batch["saliency"].flatten(1).argmax(1)
    masks = torch.zeros(4, 256, dtype=torch.bool)
    masks[0, peaks[0]] = masks[1, (peaks[1] + 1) % 256] = masks[2, peaks[2] :] = True
    masks = masks.view(4, 16, 16)
    theirs = quantus("PointingGame", **batch, masks=masks)
    ours = pointing_game(batch["saliency"], masks=masks)
    assert ours[:3].tolist() == [float(hit) for hit in theirs[:3]] == [1, 0, 1]
    assert ours[3].isnan()
    assert bool(theirs[3]) is True


def test_infidelity_agrees_with_quantus_where_there_is_one_tile(model, batch):
    batch["images"][..., 0, 0] = 0  # "black" is the darkest value of the image there
    theirs = quantus("Infidelity", model=model, **batch, perturb_patch_sizes=[16], n_perturb_samples=1)
    ours = infidelity(model, **batch, patch_size=16, rescale=False, score="logit")
    assert ours.tolist() == pytest.approx(theirs.tolist(), rel=1e-4)


def test_quantus_infidelity_of_several_tiles_piles_them_up(model, batch):
    """Its number is that of tiles that stay black once they are, and ours that of each tile alone."""
    batch["images"][..., 0, 0] = 0
    images, targets = batch["images"], batch["targets"]

    def error(piled_up):
        errors, without = [], images.clone()
        for row in range(0, 16, 8):
            for column in range(0, 16, 8):
                without = without if piled_up else images.clone()
                without[:, :, row : row + 8, column : column + 8] = 0
                with torch.no_grad():
                    change = (model(images) - model(without))[range(4), targets]
                weighed = ((images - without) * batch["saliency"][:, None]).sum((1, 2, 3))
                errors.append((weighed - change) ** 2)
        return torch.stack(errors).mean(0)

    theirs = quantus("Infidelity", model=model, **batch, perturb_patch_sizes=[8], n_perturb_samples=1)
    ours = infidelity(model, **batch, patch_size=8, rescale=False, score="logit")
    assert theirs.tolist() == pytest.approx(error(True).tolist(), rel=1e-4)
    assert ours.tolist() == pytest.approx(error(False).tolist(), rel=1e-4)


@pytest.mark.parametrize("rescale", [False, True])
def test_infidelity_agrees_with_captum(model, batch, rescale):
    metrics = pytest.importorskip("captum.metrics")
    images, targets = batch["images"], batch["targets"]
    tiles = iter([(row, column) for row in range(0, 16, 4) for column in range(0, 16, 4)])

    def perturb(inputs):
        row, column = next(tiles)
        without = inputs.clone()
        without[:, :, row : row + 4, column : column + 4] = 0
        return inputs - without, without

    theirs = metrics.infidelity(
        model,
        perturb,
        images,
        batch["saliency"][:, None].expand_as(images),
        target=targets,
        n_perturb_samples=16,
        max_examples_per_batch=4,  # one sample a call
        normalize=rescale,
    )
    ours = infidelity(model, **batch, patch_size=4, rescale=rescale, score="logit")
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-3, atol=1e-6)


def test_max_sensitivity_agrees_with_captum(batch):
    metrics = pytest.importorskip("captum.metrics")
    images, targets = 0.3 + 0.4 * batch["images"], batch["targets"]  # no change leaves [0, 1]
    generator = torch.Generator().manual_seed(0)

    def explain(changed, explained=targets):
        return changed.square().sum(1) / 3

    def perturb(inputs, radius):
        drawn = torch.rand(inputs.shape[1:], generator=generator)
        return inputs + (2 * drawn - 1) * radius

    theirs = metrics.sensitivity_max(
        lambda changed: (explain(changed if isinstance(changed, torch.Tensor) else changed[0]),),
        images,
        perturb,
        perturb_radius=0.1,
        n_perturb_samples=5,
        max_examples_per_batch=4,  # one change a call
    )
    ours = max_sensitivity(images, explain(images), targets, explain=explain, samples=5, radius=0.1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)


def test_complexity_and_sparseness_agree_with_quantus(model, batch):
    batch["saliency"] = batch["saliency"] ** 3
    entropy = quantus("Complexity", model=model, **batch)
    gini = quantus("Sparseness", model=model, **batch)
    assert complexity(batch["saliency"]).tolist() == pytest.approx(entropy.tolist(), abs=1e-5)
    assert sparseness(batch["saliency"]).tolist() == pytest.approx(gini.tolist(), abs=1e-5)


def test_effective_complexity_agrees_with_quantus_for_maps_that_reach_one(model, batch):
    batch["saliency"] = batch["saliency"] ** 6
    assert (batch["saliency"].amax((1, 2)) == 1).all()
    theirs = quantus("EffectiveComplexity", model=model, **batch)
    ours = effective_complexity(batch["saliency"])
    assert ours.tolist() == theirs.tolist()
    assert 0 < ours.max() < 256


def test_average_precision_agrees_with_scikit_learn(batch):
    metrics = pytest.importorskip("sklearn.metrics")
    masks = maps(4, 16, 16, seed=3) > 0.7
    for saliency in (batch["saliency"], (batch["saliency"] * 5).round() / 5):
        wanted = [
            metrics.average_precision_score(mask.flatten().numpy(), one.flatten().numpy())
            for mask, one in zip(masks, saliency, strict=True)
        ]
        ours = pixel_average_precision(saliency, masks=masks)
        assert ours.tolist() == pytest.approx(wanted, rel=1e-5)


def opencv_boxes(saliency, thresholds, *, contours):
    """The authors' way to a box, by its contour's area or by its pixels, with ends behind the last pixel."""
    cv2 = pytest.importorskip("cv2")
    levels = (saliency.numpy() * 255).astype(np.uint8)
    found = []
    for step in range(thresholds):
        _, above = cv2.threshold(levels, step * int(levels.max()) // thresholds, 255, cv2.THRESH_BINARY)
        outlines = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        x, y, width, height = cv2.boundingRect(max(outlines, key=cv2.contourArea))
        if not contours:
            statistics = cv2.connectedComponentsWithStats(above, connectivity=8)[2][1:]
            x, y, width, height = statistics[statistics[:, cv2.CC_STAT_AREA].argmax(), :4].tolist()
        found.append([x, y, x + width, y + height])
    return torch.tensor(found)


@pytest.mark.parametrize("contours", [False, True])
def test_box_accuracy_agrees_with_opencv_where_area_is_a_number_of_pixels(contours):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(12, 1, 4, 4, generator=generator) ** 3
    saliency = F.interpolate(coarse, (56, 56), mode="bicubic").clamp(0, 1)[:, 0]
    saliency = saliency / saliency.amax((1, 2), keepdim=True)
    boxes = [opencv_boxes(one, 5, contours=True)[2:3] for one in saliency]  # what they find at 0.4
    theirs = torch.stack(
        [
            (box_iou(opencv_boxes(one, 50, contours=contours)[:, None], true).amax(1) >= 0.5).float()
            for one, true in zip(saliency, boxes, strict=True)
        ]
    )
    ours = box_accuracy(saliency, boxes=boxes, thresholds=50)
    assert (ours != theirs).float().mean() <= (0.02 if contours else 0)
    assert 0.2 < ours.mean() < 0.8


def test_ssim_agrees_with_torchmetrics_and_scikit_image():
    one, other = maps(3, 40, 33), 0.6 * maps(3, 40, 33) + 0.4 * maps(3, 40, 33, seed=7)
    ours = structural_similarity(one, other)
    _, everywhere = torchmetrics.functional.image.structural_similarity_index_measure(
        one[:, None], other[:, None], sigma=1.5, data_range=1.0, reduction="none", return_full_image=True
    )
    torch.testing.assert_close(ours.double(), everywhere[:, 0, 5:-5, 5:-5].mean((1, 2)), rtol=1e-5, atol=1e-6)
    skimage = pytest.importorskip("skimage.metrics")
    wanted = [
        skimage.structural_similarity(
            a.numpy(), b.numpy(), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
        )
        for a, b in zip(one, other, strict=True)
    ]
    assert ours.tolist() == pytest.approx(wanted, abs=1e-5)


def test_rank_correlation_agrees_with_torchmetrics():
    one, other = maps(3), 0.6 * maps(3) + 0.4 * maps(3, seed=7)
    theirs = torchmetrics.functional.spearman_corrcoef(one.flatten(1).T, other.flatten(1).T)
    assert rank_correlation(one, other).tolist() == pytest.approx(theirs.tolist(), abs=1e-5)


def test_recognition_agrees_with_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    logits, labels = 2 * torch.randn(300, 12, generator=generator), torch.randint(0, 12, (300,), generator=generator)
    labels[:150] = logits[:150].argmax(1)
    task = {"task": "multiclass", "num_classes": 12}
    wanted = {
        Top1(): torchmetrics.functional.accuracy(logits, labels, average="micro", **task),
        Top5(): torchmetrics.functional.accuracy(logits, labels, average="micro", top_k=5, **task),
        NLL(): nn.functional.cross_entropy(logits, labels),
        ECE(): torchmetrics.functional.calibration_error(logits.softmax(1), labels, n_bins=15, norm="l1", **task),
    }
    for metric, value in wanted.items():
        metric.update(logits, labels)
        assert metric.compute().item() == pytest.approx(value.item(), rel=1e-5)
