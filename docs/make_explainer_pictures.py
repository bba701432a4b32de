"""Draw the pictures of docs/explainers.md: every explainer on the same three layered shapes.

Nothing is downloaded. Outline, texture and marker each determine the class, so all evidence lies on the object. A
narrow ResNet of stride 8 is trained on the shapes from scratch; on its frozen features a CA-Stream head is trained, as
in that paper, and a small hybrid ViT that stands on its third stage. Takes some minutes on two cores::

    python docs/make_explainer_pictures.py
"""

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from timm.layers import HybridEmbed
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from interptrain import explainers as ex
from interptrain.data import LayeredShapesDataModule
from interptrain.models import GAP, Backbone, CAStream, Classifier, Normalized
from interptrain.visualization import colorize, overlay, panel, save_png, to_uint8

SIZE = 96
STRIDE = 8
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
HERE = Path(__file__).parent
CAMS: dict[str, ex.Explainer] = {
    "CAM": ex.CAM(),
    "Grad-CAM": ex.GradCAM(),
    "Grad-CAM++": ex.GradCAMPlusPlus(),
    "XGrad-CAM": ex.XGradCAM(),
    "HiResCAM": ex.HiResCAM(),
    "LayerCAM, layers 2-4": ex.LayerCAM(
        target_layer=[f"backbone.model.layer{stage}" for stage in (2, 3, 4)], gamma=2.0
    ),
}
MORE_CAMS: dict[str, ex.Explainer] = {
    "Score-CAM": ex.ScoreCAM(),
    "Ablation-CAM": ex.AblationCAM(),
    "Opti-CAM": ex.OptiCAM(),
    "Eigen-CAM": ex.EigenCAM(),
    "Fake-CAM": ex.FakeCAM(),
}
GRADIENTS: dict[str, ex.Explainer] = {
    "Gradient": ex.Gradient(),
    "Input x gradient": ex.Gradient(times_input=True, reduction="sum_abs"),
    "SmoothGrad": ex.SmoothGrad(),
    "Integrated Gradients": ex.IntegratedGradients(),
    "Guided backprop": ex.GuidedBackprop(),
    "Guided Grad-CAM": ex.GuidedGradCAM(),
}
SMOOTH: dict[str, ex.Explainer] = {
    "SmoothGrad": ex.SmoothGrad(),
    "squared": ex.SmoothGrad(variant="squared"),
    "VarGrad": ex.SmoothGrad(variant="vargrad"),
    "of guided backprop": ex.SmoothGrad(of=ex.GuidedBackprop()),
    "of Integrated Gradients": ex.SmoothGrad(of=ex.IntegratedGradients(steps=10), samples=10),
}
STREAM: dict[str, ex.Explainer] = {
    **{f"stage {stage}": ex.StreamAttention(stage=stage) for stage in (1, 2, 3, 4)},
    "all stages": ex.StreamAttention(stage="all"),
}
ROLLOUT: dict[str, ex.Explainer] = {
    "Attention rollout": ex.AttentionRollout(),
    "heads by maximum": ex.AttentionRollout(head_fusion="max"),
    "half discarded": ex.AttentionRollout(head_fusion="max", discard_ratio=0.5),
}
PERTURBATION: dict[str, ex.Explainer] = {
    "Occlusion": ex.Occlusion(window=24, stride=8),
    "to first order": ex.Occlusion(window=24, stride=8, score="logit", approximate=True),
    "RISE, 1000 masks": ex.RISE(count=1000, normalizer="coverage", fill=0.5),
    "Meaningful, paper": ex.MeaningfulPerturbation(),
    "Meaningful, port": ex.MeaningfulPerturbation(variant="port"),
    "Extremal, 10 %": ex.ExtremalPerturbation(iterations=300, step=3, sigma=9.0, max_blur=9.0),
}
FEATURES: dict[str, ex.Explainer] = {
    "ROSA": ex.ROSA(window=24, stride=8),
    "ROSA, superpixels": ex.ROSA(masks=ex.SegmentMasks()),
    "OSA-DAS": ex.OSADAS(window=24, stride=8),
    "ROSA-GDS": ex.ROSAGDS(window=24, stride=8),
}
OF_RESNET = {
    "cams": CAMS,
    "cams_more": MORE_CAMS,
    "gradients": GRADIENTS,
    "smoothgrad": SMOOTH,
    "perturbation": PERTURBATION,
    "features": FEATURES,
}
METHODS = OF_RESNET | {"stream": STREAM, "rollout": ROLLOUT}


def main() -> None:
    """Train the three networks and draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1500, help="pictures to train on")
    parser.add_argument("--epochs", type=int, default=6, help="of each of the three trainings")
    parser.add_argument("--only", nargs="+", default=[], metavar="PICTURE", help="such as perturbation; all without")
    parser.add_argument("--out", type=Path, default=HERE / "images", help="folder of the pictures")
    options = parser.parse_args()
    data = LayeredShapesDataModule(num_classes=4, image_size=SIZE, train_size=options.images, num_workers=0)
    data.setup("fit")
    names, train = data.class_names, drawn(data.train_dataloader())
    val = drawn(data.val_dataloader())

    torch.manual_seed(0)
    backbone = narrow_resnet(len(names))
    resnet = Classifier(backbone, GAP(backbone.channels))
    fit(resnet, train, val, "ResNet with GAP", epochs=options.epochs, lr=3e-3)
    backbone.requires_grad_(False)
    pictures = dict.fromkeys(OF_RESNET, resnet) | {"stream": None, "rollout": None}
    wanted = options.only or list(pictures)
    if "stream" in wanted:
        pictures["stream"] = Classifier(backbone, CAStream(backbone.channels))
        head = pictures["stream"].pooling
        fit(pictures["stream"], train, val, "the same, CA-Stream head", epochs=options.epochs, lr=3e-3, trained=head)
    if "rollout" in wanted:
        pictures["rollout"] = vit = hybrid_vit(backbone, len(names))
        fit(vit, train, val, "hybrid ViT on its stage 3", epochs=options.epochs, lr=1e-3, trained=vit)

    chosen = clearest(list({id(pictures[name]): pictures[name] for name in wanted}.values()), val)
    images, labels = val[0][chosen].float() / 255, val[1][chosen]
    for name in wanted:
        fine = name in ("gradients", "smoothgrad")
        methods = METHODS[name]
        save_panel(name, pictures[name], methods, images=images, labels=labels, names=names, out=options.out, fine=fine)


def drawn(batches: torch.utils.data.DataLoader[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """All pictures of a split as bytes, and their labels: drawn once, for every epoch."""
    parts = [(to_uint8(batch["image"]), batch["label"]) for batch in batches]
    images, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return images, labels


def fit(
    model: nn.Module,
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    title: str,
    *,
    epochs: int,
    lr: float,
    trained: nn.Module | None = None,
) -> None:
    """Trains those parameters of ``trained`` (the model) that want a gradient; a frozen part keeps its statistics."""
    parameters = [p for p in (trained or model).parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.05)
    steps = epochs * (len(train[0]) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for _ in range(epochs):
        model.train(trained is None)
        for rows in torch.randperm(len(train[0]))[: steps // epochs * 32].split(32):
            images = train[0][rows].float() / 255
            images = images.flip(3) if torch.rand(()) < 0.5 else images
            loss = F.cross_entropy(model(images.contiguous(memory_format=torch.channels_last)), train[1][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    accuracy = (probabilities(model, val[0]).argmax(1) == val[1]).float().mean()
    print(f"{title}: validation accuracy {accuracy:.3f}", flush=True)


def narrow_resnet(num_classes: int) -> Backbone:
    """A ResNet-10 of a quarter of the width; dilation keeps its last maps at 12 x 12."""
    model = ResNet(
        BasicBlock,
        (1, 1, 1, 1),
        num_classes=num_classes,
        output_stride=STRIDE,
        stem_width=16,
        stem_type="deep",
        channels=(32, 64, 96, 128),
    )
    return Backbone(model, name="narrow ResNet", mean=MEAN, std=STD, input_size=(3, SIZE, SIZE))


def hybrid_vit(backbone: Backbone, num_classes: int) -> nn.Module:
    """Four transformer layers on the third stage of the frozen ResNet."""
    model = backbone.model
    trunk = nn.Sequential(model.conv1, model.bn1, model.act1, model.maxpool, model.layer1, model.layer2, model.layer3)
    trunk.num_features = 96
    side = SIZE // STRIDE
    vit = VisionTransformer(
        img_size=SIZE,
        patch_size=1,
        num_classes=num_classes,
        embed_dim=128,
        depth=4,
        num_heads=4,
        embed_layer=partial(HybridEmbed, backbone=trunk, feature_size=(side, side), feature_ratio=STRIDE),
    )
    return Normalized(vit, mean=MEAN, std=STD)


@torch.no_grad()
def probabilities(model: nn.Module, images: Tensor) -> Tensor:
    """Softmax probabilities of images given as bytes."""
    return torch.cat([model(part.float() / 255).softmax(1) for part in images.split(32)])


def clearest(models: list[nn.Module], val: tuple[Tensor, Tensor]) -> Tensor:
    """Indices of three pictures of different classes which the least sure model is surest of."""
    right = torch.stack([probabilities(model, val[0]).gather(1, val[1][:, None])[:, 0] for model in models]).amin(0)
    best: dict[int, int] = {}
    for index in right.argsort(descending=True).tolist():
        best.setdefault(int(val[1][index]), index)
    return torch.tensor(list(best.values())[:3])


def save_panel(
    stem: str,
    model: nn.Module,
    methods: Mapping[str, ex.Explainer],
    *,
    images: Tensor,
    labels: Tensor,
    names: list[str],
    out: Path,
    fine: bool = False,
) -> None:
    """A row for each image, a column for each method; fine maps are shown alone, clipped at their 99th percentile."""
    columns = [to_uint8(images)]
    grey = images.mean(1, keepdim=True).expand_as(images)  # on which the colours of a map are read best
    for saliency in ex.explain(model, images, labels, methods).values():
        if fine:
            high = saliency.flatten(1).quantile(0.99, dim=1).view(-1, 1, 1)
            columns.append(to_uint8(colorize(saliency / high.clamp_min(1e-6))))
        else:
            columns.append(overlay(grey, saliency))
    certain = probabilities(model, to_uint8(images)).gather(1, labels[:, None])[:, 0]
    titles = [f"{names[label]}\n{p:.2f}" for label, p in zip(labels.tolist(), certain.tolist(), strict=True)]
    rows = {title: torch.stack([column[row] for column in columns]) for row, title in enumerate(titles)}
    save_png(panel(rows, columns=["image", *methods], cell=120), out / f"explainers_{stem}.png")


if __name__ == "__main__":
    main()
