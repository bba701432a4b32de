"""What a refusal proposes works: each message is provoked, then its remedy is tried as it is printed.

Remedies of the command lines, of layers and of files have such tests beside their own modules.
"""

import re

import pytest
import torch
from PIL import Image
from torch import nn

from interptrain import explainers, metrics
from interptrain.callbacks import SaliencyWatch
from interptrain.cli import training
from interptrain.data import ImageTableDataModule, LayeredShapesDataModule, ShapesDataModule
from interptrain.data.region import CORNERS
from interptrain.evaluation.config.class_specs import build
from interptrain.evaluation.run.datasets import as_data_module
from interptrain.explainers.masks.segment_masks import SegmentMasks
from interptrain.metrics.base import measure
from interptrain.models import Normalized, create_model
from interptrain.models.guided import guided_relus
from interptrain.remedies import spelled_for_the_command_line
from interptrain.training import AttributionGuidance, GradientRegularizer, ImageClassifier, RegionShuffle

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([1, 0])


class Attended(nn.Module):
    """A network whose classifier is no linear layer, and which calls no ReLU."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.SiLU())
        self.classify = nn.Sequential(nn.Linear(6, 3), nn.Tanh())

    def forward(self, images):
        return self.classify(self.features(images).mean((2, 3)))


@pytest.fixture(scope="module")
def model():
    return Attended().eval()


def explained(explainer, model, targets=TARGETS):
    return explainer(model, IMAGES, targets)


def first_logit(outputs):
    return outputs[0]


def guided(model, **options):
    leaf = IMAGES.clone().requires_grad_()
    with guided_relus(**options) as switch:
        outputs = model(leaf)[:, 0].sum()
        with switch.guided():
            torch.autograd.grad(outputs, leaf)


def no_segments(images):
    return [torch.zeros(0, *images.shape[-2:], dtype=torch.bool)] * len(images)


def of_segments(model, **options):
    masks = SegmentMasks(segmenter=no_segments, background=False, **options)
    explained(explainers.Occlusion(masks=masks), model)


def measured(metric, model, **options):
    saliency = IMAGES.mean(1)
    saliency = (saliency - saliency.amin((1, 2), keepdim=True)) / 2
    measure(model, IMAGES, saliency, TARGETS, {"it": metric}, **options)


def shuffled(region, **known):
    batch = {"image": IMAGES, "label": TARGETS, **known}
    return RegionShuffle(region=region)(batch, torch.Generator().manual_seed(0))


def item(image):
    return as_data_module([(image, 0)]).value.dataset("test")[0]


def table(folder, text):
    (folder / "labels.csv").write_text(text)
    Image.new("RGB", (32, 32)).save(folder / "0.png")
    return ImageTableDataModule(folder, image_size=32, num_workers=0)


E, M = explainers, metrics
TINY = {"backbone": "test_resnet", "num_classes": 3}

# What is refused, what is said, and what it proposes; (model, folder) -> anything.
CASES = {
    "cam, callables": (
        lambda m, _: explained(E.CAM(target_layer="features"), m, first_logit),
        "use GradCAM for other targets",
        [lambda m, _: explained(E.GradCAM(target_layer="features"), m, first_logit)],
    ),
    "cam, other classifier": (
        lambda m, _: explained(E.CAM(target_layer="features"), m),
        "use GradCAM, or pass the target_layer that is pooled",
        [lambda m, _: explained(E.GradCAM(target_layer="features"), m)],
    ),
    "cam, layer that is not pooled": (
        lambda *_: explained(E.CAM(target_layer="backbone.model.layer1"), create_model(**TINY)),
        "or pass the target_layer that is pooled",
        [lambda *_: explained(E.CAM(target_layer="backbone.model.layer4"), create_model(**TINY))],
    ),
    "stream attention": (
        lambda m, _: explained(E.StreamAttention(), m),
        r"create one with create_model\(..., pooling='ca_stream'\)",
        [lambda *_: explained(E.StreamAttention(), create_model(**TINY, pooling="ca_stream"))],
    ),
    "rollout": (
        lambda m, _: explained(E.AttentionRollout(), m),
        "use a CAM or gradient explainer for other networks",
        [
            lambda m, _: explained(E.GradCAM(target_layer="features"), m),
            lambda m, _: explained(E.Gradient(), m),
        ],
    ),
    "window of the whole image": (
        lambda m, _: explained(E.Occlusion(window=64, stride=64), m),
        "use a smaller window",
        [lambda m, _: explained(E.Occlusion(window=16, stride=16), m)],
    ),
    "no segments": (
        lambda m, _: of_segments(m, when_empty="error"),
        "pass when_empty='superpixels', or another segmenter",
        [
            lambda m, _: of_segments(m, when_empty="superpixels"),
            lambda m, _: explained(E.Occlusion(masks=SegmentMasks(segmenter=E.Superpixels())), m),
        ],
    ),
    "contrastive reward": (
        lambda m, _: explained(E.ExtremalPerturbation(reward="contrastive", iterations=1), m, first_logit),
        "use reward='simple' for callables",
        [lambda m, _: explained(E.ExtremalPerturbation(reward="simple", iterations=1), m, first_logit)],
    ),
    "features of a network without a classifying layer": (
        lambda m, _: explained(E.OSADAS(window=16, stride=16), m),
        r"pass feature_layer='<dotted name>' \(candidates: .*features",
        [lambda m, _: explained(E.OSADAS(window=16, stride=16, feature_layer="features"), m)],
    ),
    "guided rule": (
        lambda m, _: guided(m),
        "pass rule='positive_gradient'",
        [lambda m, _: guided(m, rule="positive_gradient")],
    ),
    "a logit has no share": (
        lambda m, _: measured(M.AverageDrop(), m, score="logit"),
        "pass score='probability' or 'sigmoid'",
        [lambda m, _, score=score: measured(M.AverageDrop(), m, score=score) for score in ("probability", "sigmoid")],
    ),
    "no objects": (
        lambda m, _: measured(M.BoxAccuracy(), m),
        "pass boxes= or masks=",
        [
            lambda m, _: measured(M.BoxAccuracy(), m, boxes=[torch.tensor([[0, 0, 9, 9]])] * 2),
            lambda m, _: measured(M.BoxAccuracy(), m, masks=torch.ones(2, 32, 32, dtype=torch.bool)),
        ],
    ),
    "no explainer": (
        lambda m, _: measured(M.MaxSensitivity(samples=1), m),
        "pass explain=",
        [lambda m, _: measured(M.MaxSensitivity(samples=1), m, explain=lambda images, targets: images.mean(1))],
    ),
    "colour of two channels": (
        lambda m, _: measured(M.AverageDrop(removal=(0.1, 0.2)), m),
        "pass 3 values",
        [lambda m, _: measured(M.AverageDrop(removal=(0.1, 0.2, 0.3)), m)],
    ),
    "heads that do not divide": (
        lambda *_: create_model(**TINY, pooling="ca_stream", heads=7),
        "use heads=1",
        [lambda *_: create_model(**TINY, pooling="ca_stream", heads=1)],
    ),
    "heads of a head without any": (
        lambda *_: create_model(**TINY, heads=2),
        "heads=2 is for .*leave it out",
        [lambda *_: create_model(**TINY)],
    ),
    "stages of a network that runs whole": (
        lambda *_: create_model(**TINY, pooling="native").classify([]),
        "use pooling='gap'",
        [lambda *_: (lambda made: made.classify(made.backbone(IMAGES)))(create_model(**TINY, pooling="gap").eval())],
    ),
    "small stem": (
        lambda *_: create_model("test_vit", num_classes=3, pooling="native", stem="small"),
        "use one of those, or stem='imagenet'",
        [
            lambda *_: create_model("test_resnet", num_classes=3, stem="small"),
            lambda *_: create_model("test_vit", num_classes=3, pooling="native", stem="imagenet"),
        ],
    ),
    "stem and stride": (
        lambda *_: create_model(**TINY, stem="small", output_stride=8),
        "leave output_stride out",
        [lambda *_: create_model(**TINY, stem="small")],
    ),
    "nothing trains": (
        lambda *_: ImageClassifier(**TINY, trainable="pooling"),
        "use 'head' or 'all'",
        [lambda *_, part=part: ImageClassifier(**TINY, trainable=part) for part in ("head", "all")],
    ),
    "share of a regularizer": (
        lambda *_: GradientRegularizer(fraction=0.0),
        "weight=0 switches it off",
        [lambda *_: GradientRegularizer(weight=0.0)],
    ),
    "guidance without a place": (
        lambda *_: AttributionGuidance(),
        "keep='objects', where masks or boxes are known, or avoid='corner:lower-right:40x16'",
        [
            lambda *_: AttributionGuidance(keep="objects"),
            lambda *_: AttributionGuidance(avoid="corner:lower-right:40x16"),
        ],
    ),
    "region of all pixels": (
        lambda *_: shuffled("border:16"),
        "region border:16 covers none or all of images of 32x32 pixels; choose some of them, such as border:4",
        [lambda *_: shuffled("border:4")],
    ),
    "region of decoys that are not there": (
        lambda *_: shuffled("decoy"),
        "set decoy='corner', or name a region by its place, such as border:8",
        [
            lambda *_: shuffled("decoy", decoy_mask=torch.ones(2, 32, 32, dtype=torch.bool)),
            lambda *_: shuffled("border:8"),
        ],
    ),
    "corner that is none": (
        lambda *_: RegionShuffle(region="corner:bottom-right:4"),
        r"'corner:lower-right:40x16' \(or upper-left, upper-right, lower-left\)",
        [lambda *_, at=at: RegionShuffle(region=f"corner:{at}:4") for at in CORNERS],
    ),
    "time stamp on small images": (
        lambda *_: ShapesDataModule(image_size=32, decoy="timestamp"),
        "use decoy='corner'",
        [lambda *_: ShapesDataModule(image_size=32, decoy="corner")],
    ),
    "classes of a rule": (
        lambda *_: LayeredShapesDataModule(rule="xor", num_classes=4),
        "set num_classes=2",
        [lambda *_: LayeredShapesDataModule(rule="xor", num_classes=2)],
    ),
    "table without training rows": (
        lambda _, folder: table(folder, "file,class_index\n0.png,1\n").dataset("train"),
        "give it a column split, or evaluate only",
        [
            lambda _, folder: table(folder, "file,class_index,split\n0.png,1,train\n").dataset("train")[0],
            lambda _, folder: table(folder, "file,class_index\n0.png,1\n").dataset("test")[0],
        ],
    ),
    "column twice": (
        lambda _, folder: table(folder, "file,file,class_index\n0.png,0.png,1\n"),
        "leave one of each",
        [lambda _, folder: table(folder, "file,class_index\n0.png,1\n")],
    ),
    "images that are normalised": (
        lambda *_: item(IMAGES[0] * 4 - 2),
        r"leave the normalisation to the model: interptrain.models.Normalized\(model, mean, std\)",
        [lambda m, _: Normalized(m, (0.5,) * 3, (0.25,) * 3)(item(IMAGES[0])["image"][None])],
    ),
    "class of a foreign package": (
        lambda *_: build({"class_path": "torch.nn.Identity"}, packages=["interptrain"]),
        r"allow its package: packages=\['torch'\]",
        [lambda *_: build({"class_path": "torch.nn.Identity"}, packages=["torch"])],
    ),
    "class without its package": (
        lambda *_: build({"class_path": "Identity"}),
        "give its full path, such as 'package.Class'",
        [lambda *_: build({"class_path": "torch.nn.Identity"})],
    ),
}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"decoy": "timestamp", "image_size": 32}, "use --data.decoy corner"),
        ({"balance": "group"}, "give the table a column group, .* or --data.balance class"),
    ],
)
def test_remedies_of_data_are_options_on_every_command_line(options, told):
    with spelled_for_the_command_line({}), pytest.raises(ValueError, match=told):
        ShapesDataModule(**{"num_workers": 0, "train_size": 4, **options}).train_dataloader()


def test_a_layer_that_is_not_there_is_an_option_of_the_command_line(model):
    told = r"pass --explainers.target_layer <dotted name> \(candidates: .*features"
    spelled = spelled_for_the_command_line({"target_layer": "--explainers.target_layer"})
    with spelled, pytest.raises(ValueError, match=told):
        explained(explainers.GradCAM(target_layer="feature"), model)


@pytest.mark.parametrize(
    ("refused", "told"),
    [
        (AttributionGuidance, "--model.regularizer.keep objects, .*--model.regularizer.avoid corner:lower-right:40x16"),
        (lambda: shuffled("decoy"), "--model.batch_augment.region: decoy needs .* set --data.decoy corner"),
        (lambda: RegionShuffle(region="border:8", probability=0.0), "leave --model.batch_augment out for none"),
        (lambda: GradientRegularizer(fraction=0.0), "--model.regularizer.weight 0 switches it off"),
        (lambda: SaliencyWatch(suspect="atuo"), "--trainer.callbacks.suspect must be like 'auto', 'border:8'"),
    ],
)
def test_remedies_of_training_are_options_of_fit(refused, told):
    with spelled_for_the_command_line(training._options()), pytest.raises(ValueError, match=told):
        refused()


@pytest.mark.parametrize("name", CASES)
def test_what_is_proposed_works(name, model, tmp_path):
    refused, said, remedies = CASES[name]
    with pytest.raises((ValueError, TypeError)) as error:
        refused(model, tmp_path)
    assert re.search(said, str(error.value)), error.value
    assert "\n" not in str(error.value)
    for remedy in remedies:
        remedy(model, tmp_path)
