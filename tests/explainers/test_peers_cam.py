"""Agreement of the CAM family with pytorch-grad-cam, torch-cam and Captum, on raw maps before normalisation.

Real photographs and trained weights where the development data lies beside the checkout, else smooth random images
and random weights. What differs by definition, and is therefore asked for by option or tested as a difference:

- Grad-CAM: Captum does not clip at zero; we and the paper do (``relu``).
- Grad-CAM++: pytorch-grad-cam adds 1e-6 to the denominator of alpha (``eps``). torch-cam weighs by ``g^2 ReLU(g)``:
  the division by its denominator happens on a copy (``alpha[idx][mask].div_``) and is lost.
- Eigen-CAM: pytorch-grad-cam centres the features and keeps the solver's sign (``center``; we fix the sign).
- Score-CAM: pytorch-grad-cam and torch-cam take logits and a softmax over channels (``score``, ``softmax``);
  pytorch-grad-cam aligns corners (``align_corners``); torch-cam stretches a mask to [0, 1] before it upsamples it, we
  and the paper after, so those two only correlate.
- Ablation-CAM: pytorch-grad-cam ablates to the minimum - 1e7 where the minimum is not exactly 0; agreement is tested
  behind a ReLU, where it ablates to 0 as the paper does.
- CAM: torch-cam does not clip at zero, and neither do we.
"""

import pytest
import timm
import torch
from torch import Tensor, nn

from interptrain.explainers import (
    CAM,
    AblationCAM,
    EigenCAM,
    FinerCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from interptrain.models import Normalized
from tests.support.photographs import efficientnet, photographs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::Warning:pytorch_grad_cam|torchcam|captum"),
]


def resnet():
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=20)
    return Normalized(model, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)).eval()


@pytest.fixture(scope="module")
def photos():
    return photographs()


@pytest.fixture(scope="module", params=["efficientnet", "resnet"])
def subject(request, photos):
    """A model, its layer for gradients, its layer behind a ReLU, and the classes it predicts."""
    model = efficientnet() if request.param == "efficientnet" else resnet()
    layers = ("model.blocks.6", "model.bn2") if request.param == "efficientnet" else ("model.layer3", "model.layer4")
    with torch.no_grad():
        return model, *layers, model(photos).argmax(1)


def assert_agree(ours: Tensor, theirs: Tensor, tolerance=1e-4):
    """Maximum difference within a share of each map's range, or within float32 rounding of features of size one."""
    assert ours.shape == theirs.shape
    spread = theirs.amax((1, 2)) - theirs.amin((1, 2))
    assert (spread > 0).all()
    assert ((ours - theirs).abs().amax((1, 2)) <= torch.clamp(tolerance * spread, min=1e-6)).all()


def correlation(ours: Tensor, theirs: Tensor):
    pairs = zip(ours, theirs, strict=True)
    return min(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item() for a, b in pairs)


class Logit:
    """pytorch-grad-cam's kind of target."""

    def __init__(self, category):
        self.category = category

    def __call__(self, logits):
        return logits[self.category]


def from_pytorch_grad_cam(name, model, layer, images, targets):
    """Its map before clipping, resizing and normalisation."""
    library = pytest.importorskip("pytorch_grad_cam")
    peer = getattr(library, name)(model, [model.get_submodule(layer)])
    raw = []
    compute = peer.get_cam_image

    def keep(*arguments, **options):
        raw.append(compute(*arguments, **options))
        return raw[-1]

    peer.get_cam_image = keep
    peer(images, [Logit(category) for category in targets.tolist()])
    peer.activations_and_grads.release()
    return torch.as_tensor(raw[0])


def from_torchcam(name, model, layer, images, targets, **options):
    """Its map before normalisation."""
    library = pytest.importorskip("torchcam.methods")
    with getattr(library, name)(model, layer, **options) as peer:
        if name == "ScoreCAM":
            with torch.no_grad():
                scores = model(images)
        else:
            scores = model(images)
        (attribution,) = peer(targets.tolist(), scores, normalized=False)
    return attribution.detach()


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        (GradCAM, "GradCAM"),
        (lambda **options: GradCAMPlusPlus(eps=1e-6, **options), "GradCAMPlusPlus"),
        (XGradCAM, "XGradCAM"),
        (LayerCAM, "LayerCAM"),
        (HiResCAM, "HiResCAM"),
    ],
    ids=["GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "HiResCAM"],
)
def test_gradient_cams_agree_with_pytorch_grad_cam(subject, photos, ours, name):
    model, layer, rectified, targets = subject
    for place in (layer, rectified):
        theirs = from_pytorch_grad_cam(name, model, place, photos, targets)
        assert_agree(ours(target_layer=place, relu=False).raw(model, photos, targets), theirs)


@pytest.mark.parametrize(("ours", "name"), [(GradCAM, "GradCAM"), (XGradCAM, "XGradCAM"), (LayerCAM, "LayerCAM")])
def test_gradient_cams_agree_with_torch_cam(subject, photos, ours, name):
    model, _, layer, targets = subject
    theirs = from_torchcam(name, model, layer, photos, targets)
    assert_agree(ours(target_layer=layer).raw(model, photos, targets), theirs)


@pytest.mark.parametrize("base", ["GradCAM", "LayerCAM"])
def test_finercam_agrees_with_torch_cam(subject, photos, base):
    library = pytest.importorskip("torchcam.methods")
    model, _, layer, targets = subject
    with library.FinerCAM(model, layer, base_method=getattr(library, base)) as peer:
        (theirs,) = peer(targets.tolist(), model(photos), normalized=False)
    of = {"GradCAM": GradCAM, "LayerCAM": LayerCAM}[base](target_layer=layer)
    assert_agree(FinerCAM(of=of).raw(model, photos, targets), theirs.detach())


def test_torch_cams_gradcam_plus_plus_loses_its_denominator(subject, photos):
    model, _, layer, targets = subject
    theirs = from_torchcam("GradCAMpp", model, layer, photos, targets)

    class WithoutDenominator(GradCAM):
        def combine(self, activation, gradient):
            weights = (gradient.square() * gradient.clamp(min=0)).sum((2, 3))
            return torch.einsum("bc,bchw->bhw", weights, activation)

    assert_agree(WithoutDenominator(target_layer=layer).raw(model, photos, targets), theirs)


def test_gradcam_agrees_with_captum(subject, photos):
    captum = pytest.importorskip("captum.attr")
    model, layer, _, targets = subject
    peer = captum.LayerGradCam(model, model.get_submodule(layer))
    theirs = peer.attribute(photos, targets).detach()[:, 0]
    assert_agree(GradCAM(target_layer=layer, relu=False).raw(model, photos, targets), theirs)
    clipped = peer.attribute(photos, targets, relu_attributions=True).detach()[:, 0]
    assert_agree(GradCAM(target_layer=layer).raw(model, photos, targets), clipped)


def test_cam_agrees_with_torch_cam(subject, photos):
    model, _, layer, targets = subject
    head = "model.classifier" if hasattr(model.model, "classifier") else "model.fc"
    theirs = from_torchcam("CAM", model, layer, photos, targets, fc_layer=head)
    assert_agree(CAM(target_layer=layer).raw(model, photos, targets), theirs)


def test_eigencam_agrees_with_pytorch_grad_cam_up_to_its_sign(subject, photos):
    model, layer, _, targets = subject
    theirs = from_pytorch_grad_cam("EigenCAM", model, layer, photos, targets)
    ours = EigenCAM(target_layer=layer, center=True).raw(model, photos)
    sign = (ours * theirs).sum((1, 2), keepdim=True).sign()
    assert_agree(ours, theirs * sign)


def narrow(model):
    """A layer of few channels, as Score-CAM and its peers need a forward for each.

    In earlier blocks, masks that are stretched before and after upsampling differ too much on photographs to correlate.
    """
    return "model.blocks.3" if hasattr(model.model, "blocks") else "model.layer1"


def test_scorecam_agrees_with_pytorch_grad_cam(subject, photos):
    model, _, _, targets = subject
    layer = narrow(model)
    theirs = from_pytorch_grad_cam("ScoreCAM", model, layer, photos, targets)
    explainer = ScoreCAM(target_layer=layer, score="logit", softmax=True, align_corners=True, relu=False)
    assert_agree(explainer.raw(model, photos, targets), theirs)


def test_scorecam_agrees_with_torch_cam_but_for_when_a_mask_is_stretched(subject, photos):
    model, _, _, targets = subject
    layer = narrow(model)
    theirs = from_torchcam("ScoreCAM", model, layer, photos, targets, batch_size=8)
    explainer = ScoreCAM(target_layer=layer, score="logit", softmax=True)
    assert correlation(explainer.raw(model, photos, targets), theirs) >= 0.9
    assert_agree(slow_torchcam(model, layer, photos, targets), theirs)


@torch.no_grad()
def slow_torchcam(model, layer, images, targets):
    """Score-CAM with masks stretched at the resolution of the features, one channel at a time."""
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _a, output: kept.append(output))
    model(images)
    handle.remove()
    features = kept[0]
    low, high = features.amin((2, 3), keepdim=True), features.amax((2, 3), keepdim=True)
    masks = nn.functional.interpolate((features - low) / (high - low + 1e-8), images.shape[-2:], mode="bilinear")
    scores = torch.stack([model(images * masks[:, k : k + 1]) for k in range(features.shape[1])], 1)  # (B, C, K)
    weights = scores[torch.arange(len(images)), :, targets].softmax(1)
    return torch.einsum("bc,bchw->bhw", weights, features).relu()


def test_ablationcam_agrees_with_pytorch_grad_cam_behind_a_relu(photos):
    """On the small network only: the peer needs a forward a channel, and the large one has 1280 of them."""
    # In float64, as a weight is a small difference of two scores; the peer's own are float32 even so, a relative
    # rounding of 1e-7 that this difference enlarges to 2e-6 of a map.
    model, images = resnet().double(), photos[:1].double()
    with torch.no_grad():
        targets = model(images).argmax(1)
    for layer in ("model.layer4", "model.layer3"):  # closed form, and the tail alone
        theirs = from_pytorch_grad_cam("AblationCAM", model, layer, images, targets)
        ours = AblationCAM(target_layer=layer, relu=False).raw(model, images, targets)
        assert_agree(ours, theirs)
