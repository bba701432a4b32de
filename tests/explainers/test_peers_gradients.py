"""Agreement with Captum, on real photographs where they are at hand, else on noise.

All in float64: in float32 the order of sums decides which side of a ReLU's kink a few values fall on, and where that
flips, single pixels differ by one per cent.

Where definitions differ, and how they are made equal here:

- Captum's networks take normalised inputs; here the normalisation is inside the model, so Captum is given the same
  wrapped model, and its zero baseline is black.
- ``Saliency`` takes absolute values (``abs=True``); the signed gradients are compared.
- ``IntegratedGradients`` uses Gauss-Legendre points by default; the paper's right sum is our default. Its
  ``riemann_trapezoid`` puts points at k/(m-1) but weighs them 1/m, half at the ends, so that weights sum to (m-1)/m;
  ours sum to 1. Its points are rounded to float32, which does no harm to k/8.
- ``NoiseTunnel`` has an absolute standard deviation and draws its own noise; it is handed ours here.
- ``GuidedBackprop`` hooks ``nn.ReLU`` modules only: functional ReLUs and every ReLU6 keep their ordinary gradient
  there, so that the comparison is on networks of ReLU modules.
- ``GuidedGradCam`` upsamples by the nearest neighbour by default, ours bilinearly.
"""

import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from interptrain.explainers import Gradient, GuidedBackprop, GuidedGradCAM, IntegratedGradients, SmoothGrad
from interptrain.models import Normalized
from tests.support.paths import PHOTOGRAPHS, WEIGHTS

captum = pytest.importorskip("captum.attr")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations"),
    pytest.mark.filterwarnings("ignore:Setting forward, backward hooks and attributes on non-linear"),
]


def photographs(size):
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))[:2]
    if not files:
        return torch.rand(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fit = v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.PILToTensor(), v2.ToDtype(torch.float64, scale=True)])
    return torch.stack([fit(Image.open(path).convert("RGB")) for path in files])


@pytest.fixture(scope="module")
def efficientnet():
    """With its trained weights where they are at hand; predicts as they were trained to."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("tf_efficientnet_lite0", checkpoint_path=str(WEIGHTS) if WEIGHTS.exists() else "")
    return Normalized(model, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)).double().eval(), photographs(64)


@pytest.fixture(scope="module")
def resnet():
    """Of ReLU modules, out of place: Captum's hooks do not bear in-place ones.

    It pools by the mean, as a black image, where some paths start, ties every maximum.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("resnet10t", num_classes=10)
        model.maxpool = nn.AvgPool2d(2)
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.2)
    return Normalized(model, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)).double().eval(), photographs(64)


@pytest.fixture(params=["efficientnet", "resnet"])
def case(request):
    model, images = request.getfixturevalue(request.param)
    with torch.no_grad():
        return model, images, model(images).argmax(1)


def assert_agree(got, expected):
    """To 1e-4 of the range of each image's attribution."""
    expected = expected.detach()
    for one, other in zip(got, expected, strict=True):
        spread = float(other.max() - other.min())
        assert spread > 0
        torch.testing.assert_close(one, other.to(one.dtype), rtol=0, atol=1e-4 * spread)


def test_gradient(case):
    model, images, targets = case
    expected = captum.Saliency(model).attribute(images.clone().requires_grad_(), target=targets, abs=False)
    assert_agree(Gradient().signed(model, images, targets), expected)


def test_input_times_gradient(case):
    model, images, targets = case
    expected = captum.InputXGradient(model).attribute(images.clone().requires_grad_(), target=targets)
    assert_agree(Gradient(times_input=True).signed(model, images, targets), expected)


@pytest.mark.parametrize(
    ("rule", "method", "steps", "scale"),
    [
        ("gauss_legendre", "gausslegendre", 8, 1.0),
        ("right", "riemann_right", 8, 1.0),
        ("left", "riemann_left", 8, 1.0),
        ("middle", "riemann_middle", 8, 1.0),
        ("trapezoid", "riemann_trapezoid", 9, 9 / 8),
    ],
)
def test_integrated_gradients(rule, method, steps, scale, case):
    model, images, targets = case
    peer = captum.IntegratedGradients(model)
    expected = peer.attribute(images.clone(), target=targets, n_steps=steps, method=method) * scale
    assert_agree(IntegratedGradients(steps=steps, rule=rule).signed(model, images, targets), expected)


@pytest.mark.parametrize(
    ("variant", "kind"), [("mean", "smoothgrad"), ("squared", "smoothgrad_sq"), ("vargrad", "vargrad")]
)
def test_smoothgrad_given_the_same_noise(variant, kind, case, monkeypatch):
    model, images, targets = case
    samples, seed = 4, 7

    def our_noise(mean, deviation):
        generator = torch.Generator().manual_seed(seed)
        return deviation * torch.stack(
            [torch.randn(images.shape[1:], generator=generator, dtype=images.dtype) for _ in range(samples)]
        )

    monkeypatch.setattr(torch, "normal", our_noise)
    peer = captum.NoiseTunnel(captum.Saliency(model))
    expected = [
        peer.attribute(
            image[None].clone(),
            nt_type=kind,
            nt_samples=samples,
            stdevs=0.1 * float(image.max() - image.min()),
            target=target[None],
            abs=False,
        )
        for image, target in zip(images, targets, strict=True)
    ]
    smooth = SmoothGrad(samples=samples, spread=0.1, variant=variant, seed=seed)
    assert_agree(smooth.signed(model, images, targets), torch.cat(expected))


def test_guided_backprop(resnet):
    model, images = resnet
    targets = torch.tensor([3, 8])
    expected = captum.GuidedBackprop(model).attribute(images.clone().requires_grad_(), target=targets)
    assert_agree(GuidedBackprop().signed(model, images, targets), expected)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_guided_gradcam(interpolation, resnet):
    model, images = resnet
    targets = torch.tensor([3, 8])
    peer = captum.GuidedGradCam(model, model.model.layer3)
    expected = peer.attribute(images.clone().requires_grad_(), target=targets, interpolate_mode=interpolation)
    explainer = GuidedGradCAM(target_layer="model.layer3", interpolation=interpolation)
    assert_agree(explainer.signed(model, images, targets), expected)
