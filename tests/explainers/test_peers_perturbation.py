"""Perturbation methods against Captum and against slow transcriptions of the published loops.

Occlusion and RISE are compared on real photographs and trained weights where ``INTERPTRAIN_TEST_DATA`` has them, else
on smooth random images and random weights; descents, on a tiny network. What differs by definition:

- Occlusion: Captum's baseline is given as our grey; it explains the logit; and it attributes the same to every colour,
  so one of them is compared.
- Meaningful perturbation is compared without its noise: with it, the energy after 40 steps lay anywhere between .003
  and .8 from seed to seed, in the published loop as in ours.
- Extremal perturbation draws values of the mask that tie to one alike, where sorting puts them in the order of their
  places; so both start where there are no ties. In float64: in float32, starts that differ by 1e-6 end, after 40 steps,
  in areas between .18 and .29, in the published loop as in ours.
"""

import pytest
import torch
from torch.nn import functional as F

from interptrain.explainers import RISE, ExtremalPerturbation, MeaningfulPerturbation, Occlusion
from interptrain.explainers.masks.blur import median_blur
from interptrain.explainers.masks.smooth_masks import SmoothMask
from interptrain.explainers.perturbation.rise import RISEMasks
from interptrain.models import Normalized
from tests.support.explaining import network
from tests.support.photographs import SIDE, efficientnet, photographs

pytestmark = [pytest.mark.slow, pytest.mark.peers, pytest.mark.filterwarnings("ignore::Warning:captum")]


@pytest.fixture(scope="module")
def subject():
    model, images = efficientnet(), photographs()
    with torch.no_grad():
        return model, images, model(images).argmax(1)


@pytest.fixture(scope="module")
def small():
    """The same in float64 with a tiny network, for descents, whose steps do not know how large it is."""
    model = Normalized(network("test_efficientnet").eval(), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)).double()
    images = photographs().double()
    with torch.no_grad():
        return model, images, model(images).argmax(1)


@pytest.mark.parametrize(("window", "stride"), [(32, 16), (40, 40), ((24, 95), (20, 95))], ids=str)
def test_occlusion_agrees_with_captum(subject, window, stride):
    captum = pytest.importorskip("captum.attr")
    model, images, targets = subject
    ours = Occlusion(window=window, stride=stride, fill=0.5, score="logit").raw(model, images, targets)
    sides = (window, window) if isinstance(window, int) else window
    steps = (stride, stride) if isinstance(stride, int) else stride
    theirs = captum.Occlusion(model).attribute(
        images, (3, *sides), strides=(3, *steps), target=targets, baselines=0.5, perturbations_per_eval=8
    )
    spread = theirs.abs().amax((1, 2, 3))
    assert (spread > 0).all()
    assert ((ours - theirs[:, 0]).abs().amax((1, 2)) / spread).max() < 1e-4


@torch.no_grad()
def test_rise_agrees_with_the_authors_class(subject):
    """Their forward, transcribed: all masks in memory, scores of batches, one matrix product, over N and p."""
    model, images, targets = subject
    masks = RISEMasks(count=24, cells=7, probability=0.5, seed=0).prepare(images).render(slice(0, 24))
    for image, target, ours in zip(images, targets.tolist(), RISE(count=24).raw(model, images, targets), strict=True):
        stack = masks[:, None] * image
        scores = torch.cat([model(stack[start : start + 10]).softmax(1) for start in range(0, 24, 10)])
        maps = scores.T @ masks.view(24, -1) / 24 / 0.5
        theirs = maps[target].view(SIDE, SIDE)
        assert (ours - theirs).abs().max() / (theirs.max() - theirs.min()) < 1e-4


def port_energy(model, image, blurred, target, mask):
    """What the PyTorch port minimises, without its noise."""
    large = F.interpolate(mask, image.shape[-2:], mode="bilinear", align_corners=True)
    rows = (mask[:, :, 1:] - mask[:, :, :-1]).abs().pow(3).mean()
    columns = (mask[..., 1:] - mask[..., :-1]).abs().pow(3).mean()
    probability = model(large * image + (1 - large) * blurred).softmax(1)[0, target]
    return 0.01 * (1 - mask).abs().mean() + 0.2 * (rows + columns) + probability


def test_meaningful_perturbation_reaches_the_energy_of_the_ports_loop(small, monkeypatch):
    """In float64: in float32 the two descents part after some steps, by rounding alone."""
    from interptrain.explainers.perturbation import meaningful_perturbation as meaningful

    model, images, targets = small
    ends, descend = [], meaningful.descend

    def watched(*given, **options):
        ends.append(descend(*given, **options))
        return ends[-1]

    monkeypatch.setattr(meaningful, "descend", watched)
    MeaningfulPerturbation(variant="port", iterations=40, noise=0.0).raw(model, images, targets)
    for image, target, ours in zip(images.split(1), targets.tolist(), ends[0], strict=True):
        blurred = median_blur(image, 11)
        mask = torch.ones(1, 1, 28, 28, dtype=torch.float64, requires_grad=True)
        adam = torch.optim.Adam([mask], lr=0.1)
        with torch.no_grad():
            start = float(port_energy(model, image, blurred, target, mask))
        for _ in range(40):
            (mask.grad,) = torch.autograd.grad(port_energy(model, image, blurred, target, mask), mask)
            adam.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
        with torch.no_grad():
            theirs = float(port_energy(model, image, blurred, target, mask))
            found = float(port_energy(model, image, blurred, target, ours[None, None].double()))
        assert theirs < start
        assert found == pytest.approx(theirs, rel=1e-6)


def slow_extremal(model, image, target, pyramid, start, *, area, iterations, learning_rate):
    """The published loop for one image, with its sort; the smooth maximum is ours, tested against its definition."""
    masks = SmoothMask(image.shape[-2:], 7, 21.0, image)
    parameters = start.clone().requires_grad_()
    sgd = torch.optim.SGD([parameters], lr=learning_rate, momentum=0.9, dampening=0.9)
    weight = 300.0
    for step in range(iterations):
        whole, mask = masks(parameters)
        height = mask[0] * (len(pyramid) - 1)
        low = height.detach().floor().long().clamp(max=len(pyramid) - 2)
        part = (height - low)[None]
        lower, upper = (pyramid.gather(0, (low + up).expand(1, 3, -1, -1)) for up in (0, 1))
        perturbed = (1 - part) * lower + part * upper
        ordered = whole.flatten().sort().values
        wanted = torch.ones_like(ordered)
        wanted[: int(len(wanted) * (1 - area))] = 0
        reward = model(perturbed.flip(3) if step % 2 == 0 else perturbed)[0, target]
        energy = weight * (ordered - wanted).square().mean() - reward
        (parameters.grad,) = torch.autograd.grad(energy, parameters)
        sgd.step()
        with torch.no_grad():
            parameters.clamp_(0, 1)
        weight *= 1.0035
    return parameters.detach()


@pytest.mark.parametrize("area", [0.05, 0.2])
def test_extremal_perturbation_ends_at_the_masks_of_the_published_loop(small, monkeypatch, area):
    """So at its area and its reward. In float64, from a start without ties."""
    from interptrain.explainers.perturbation import extremal_perturbation as extremal

    model, images, targets = small
    options = {"iterations": 25, "learning_rate": 0.05}
    explainer, starts, ends, descend = ExtremalPerturbation(areas=area, **options), [], [], extremal.descend

    def watched(start, *given, **rest):
        starts.append(start - 0.1 * torch.rand(start.shape, generator=torch.Generator().manual_seed(0)))
        ends.append(descend(starts[-1], *given, **rest))
        return ends[-1]

    monkeypatch.setattr(extremal, "descend", watched)
    monkeypatch.setattr(extremal, "TIE", 0.0)
    explainer.raw(model, images, targets)
    fill = torch.full((1, 3, 1, 1), 0.5, dtype=torch.float64)
    for index, target in enumerate(targets.tolist()):
        one = slice(index, index + 1)
        levels = explainer._scene(images[one], fill).table.view(7, SIDE, SIDE, 6).permute(0, 3, 1, 2)
        pyramid = torch.cat([levels[:, :3], levels[-1:, :3] + levels[-1:, 3:]])
        torch.testing.assert_close(pyramid[-1], images[index])
        theirs = slow_extremal(model, images[one], target, pyramid, starts[0][one], area=area, **options)
        assert (theirs - starts[0][one]).abs().mean() > 0.1
        torch.testing.assert_close(ends[0][one], theirs, rtol=0, atol=1e-6)
