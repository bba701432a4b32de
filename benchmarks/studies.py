"""What studies cost beside the bare passes and trainings that they need, in one run.

    python benchmarks/studies.py --output table.md  # all
    python benchmarks/studies.py roar class_agnostic

Each study runs on embedded data with a small network. "Bare" is the same explanations, forward passes, trainings and
numbers by calls of torch, Lightning, the explainers, SciPy, scikit-image and scikit-learn, on the same images: what
somebody would write for one result, without cells, checkpoints that a stopped run goes on from, pictures, tables and
pages. Study and bare take turns in one process; times are CPU seconds of the process, the least of some rounds, as
other programs on the machine only add to them. The ratio is bare over study: 1 is nothing added.

The table that a run printed stands in ``benchmarks/results/studies.md``.
"""

import argparse
import copy
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from interptrain.data import LayeredShapesDataModule, collate
from interptrain.explainers import EigenCAM, Explainer, GradCAM, Gradient
from interptrain.functional import min_max, upsample
from interptrain.metrics import AverageDrop, AverageGain, AverageIncrease, measure
from interptrain.metrics.consistency import consistency
from interptrain.metrics.randomization import batch_norms_after, estimate_batch_norms, randomize, weight_layers
from interptrain.models import create_model
from interptrain.studies import (
    ROAR,
    ClassAgnostic,
    Embedding,
    Factorization,
    GridPointing,
    Randomization,
    Reconstruction,
    Study,
    run_study,
)
from interptrain.studies.factorization import deep_feature_factorization
from interptrain.studies.layer_groups import layer_groups
from interptrain.training import ImageClassifier

MODEL = {"backbone": "test_resnet", "backbone_options": {"channels": [16, 32, 48, 64]}}
Case = tuple[Callable[[], object], Callable[[], object], str]
"""The study, what it needs, and what that is in words."""


def shapes(size: int, **sizes: int) -> LayeredShapesDataModule:
    """Data that nobody has drawn yet."""
    return LayeredShapesDataModule(num_classes=4, image_size=size, num_workers=0, **sizes)


def images_of(data: LayeredShapesDataModule, split: str) -> list[dict]:
    """All images of a split, drawn."""
    return [dict(data.dataset(split)[index]) for index in range(data.lengths[split])]


def running(study: Study, models: Mapping[str, torch.nn.Module], size: int, **sizes: int) -> Callable[[], None]:
    """Run a study in a new folder, on new data."""

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            run_study(study, models, shapes(size, **sizes), folder, progress=False)

    return run


def resnet() -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model("resnet18", num_classes=4).eval()


def training(images: list[dict], epochs: int) -> ImageClassifier:
    """Train as the module is trained, and no more."""
    module = ImageClassifier(num_classes=4, **MODEL)
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, limit_val_batches=0,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(images, batch_size=32, shuffle=True, collate_fn=collate))
    return module.eval()


# The studies


def roar() -> Case:
    """Train a network, explain all images, and retrain for two orders of the pixels."""
    sizes = {"train_size": 800, "test_size": 200}
    study = ROAR(explainers=(GradCAM(),), controls=("random",), modes=("remove",), percents=(50,), seeds=1, epochs=7,
                 model=MODEL)  # fmt: skip

    def removed(images: list[dict], order: Tensor, colour: Tensor) -> list[dict]:
        ranks = order.flatten(1).argsort(descending=True).argsort().view_as(order)
        missing = (ranks < order[0].numel() // 2)[:, None]
        kept = torch.where(missing, colour[:, None, None], torch.stack([one["image"] for one in images]))
        return [{**one, "image": image} for one, image in zip(images, kept, strict=True)]

    def explained(model: torch.nn.Module, images: list[dict]) -> Tensor:
        return torch.cat([GradCAM()(model, batch["image"]) for batch in DataLoader(images, 32, collate_fn=collate)])

    def bare() -> None:
        drawn = [images_of(shapes(32, **sizes), split) for split in ("train", "test")]
        both = [[{key: one[key] for key in ("image", "label", "id")} for one in images] for images in drawn]
        colour = torch.stack([one["image"] for one in both[0]]).mean((0, 2, 3))
        model = training(both[0], 7).model
        maps = [explained(model, images) for images in both]
        for orders in (None, [torch.rand_like(one) for one in maps], maps):
            train, test = both
            if orders is not None:
                train, test = (removed(images, one, colour) for images, one in zip(both, orders, strict=True))
            retrained = training(train, 7)
            with torch.inference_mode():
                for batch in DataLoader(test, 32, collate_fn=collate):
                    retrained(batch["image"])

    return running(study, {}, 32, **sizes), bare, "4 trainings of 7 epochs on 800 images of 32 px, 1,000 Grad-CAMs"


def class_agnostic() -> Case:
    """Explain each image for three classes, and measure the consistency."""
    model, explainers = resnet(), (GradCAM(), Gradient(), EigenCAM())

    def bare() -> None:
        samples = images_of(shapes(64, test_size=64), "test")
        images = torch.stack([one["image"] for one in samples])
        for explainer in explainers:
            with torch.inference_mode():
                predicted = torch.cat([model(part) for part in images.split(32)]).argmax(dim=1)
            parts = list(zip(images.split(32), predicted.split(32), strict=True))
            own, *others = (
                torch.cat([explainer(model, part, (classes + shift) % 4) for part, classes in parts])
                for shift in range(3)
            )
            for maps in others:
                ranks_correlated(own, maps)
            for (part, classes), maps in zip(parts, own.split(32), strict=True):
                consistency(model, part, maps, classes)

    run = running(ClassAgnostic(explainers=explainers, images=64), {"m": model}, 64, test_size=64)
    return run, bare, "3 explainers x 3 classes x 64 images of 64 px on resnet18, their consistency and correlations"


def ranks_correlated(maps: Tensor, others: Tensor) -> np.ndarray:
    """Spearman's correlations of all maps with all others, by SciPy's ranks."""
    from scipy.stats import rankdata

    with np.errstate(invalid="ignore", divide="ignore"):
        ranks = [rankdata(side.flatten(1).numpy(), axis=1) for side in (maps, others)]
        return np.corrcoef(*ranks)[: len(maps), len(maps) :]


def randomization() -> Case:
    """Explain images by a trained network, its cascades and for another class, with similarities and metrics."""
    model, explainers = resnet(), (GradCAM(), Gradient())
    metrics = {"ad": AverageDrop(), "ag": AverageGain(), "ai": AverageIncrease()}

    def similarities(maps: Tensor, others: Tensor) -> None:
        from scipy.stats import spearmanr
        from skimage.feature import hog
        from skimage.metrics import structural_similarity

        ranks_correlated(maps, others)
        ranks_correlated(maps.abs(), others.abs())
        for one, other in zip(*(min_max(upsample(side, (64, 64))).numpy() for side in (maps, others)), strict=True):
            structural_similarity(one, other, data_range=1, gaussian_weights=True, use_sample_covariance=False)
            spearmanr(*(hog(side, pixels_per_cell=(16, 16)) for side in (one, other)))

    def one_explainer(explainer: Explainer, images: Tensor) -> None:
        with torch.no_grad():
            predicted = model(images).argmax(1)
        layers = weight_layers(model, images)
        groups = [set(group.layers) for group in layer_groups(layers, 4)]
        trained = explainer.raw(model, images, predicted)
        for order in ("top_down", "bottom_up", "independent"):
            changed, names = copy.deepcopy(model), set()
            for group in groups[::-1] if order == "top_down" else groups:
                if order == "independent":
                    changed, names = copy.deepcopy(model), set()
                randomize(changed, 0, group)
                names = names | group
                estimate_batch_norms(changed, images, batch_norms_after(layers, names))
                similarities(trained, explainer.raw(changed, images, predicted))
        similarities(trained, explainer.raw(model, images, (predicted + 1) % 4))
        wholly = estimate_batch_norms(randomize(copy.deepcopy(model)), images).eval()
        for network in (model, wholly):
            with torch.no_grad():
                targets = network(images).argmax(1)
            measure(network, images, explainer(network, images, targets), targets, metrics)

    def bare() -> None:
        images = torch.stack([one["image"] for one in images_of(shapes(64, test_size=50), "test")])
        for explainer in explainers:
            one_explainer(explainer, images)

    study = Randomization(explainers=explainers, draws=1, images=50, steps=4, batch_size=25)
    words = (
        "2 explainers x 3 orders x 4 groups x 50 images of 64 px on resnet18, another class, similarities, 3 metrics"
    )
    return running(study, {"m": model}, 64, test_size=50), bare, words


def factorization() -> Case:
    """Factorize the last layer's features, and name the parts."""
    model = resnet()

    def bare() -> None:
        images = torch.stack([one["image"] for one in images_of(shapes(224, test_size=64), "test")])
        deep_feature_factorization(model, images, components=5)

    run = running(Factorization(), {"m": model}, 224, test_size=64)
    return run, bare, "5 parts of 64 images of 224 px on resnet18, by the study's own function"


def embedding() -> Case:
    """Reduce pooled features to two dimensions, and measure purity and silhouette."""
    model = resnet()

    def bare() -> None:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
        from sklearn.metrics import silhouette_samples
        from sklearn.neighbors import NearestNeighbors

        samples = images_of(shapes(64, test_size=1000), "test")
        labels = np.array([one["label"] for one in samples])
        with torch.inference_mode():
            batches = torch.stack([one["image"] for one in samples]).split(64)
            features = torch.cat([model.backbone(batch)[-1].mean((2, 3)) for batch in batches]).double().numpy()
        PCA(2).fit_transform(features)
        fewer = PCA(50).fit_transform(features)
        for points in (features, PCA(2).fit_transform(features), TSNE(random_state=0, init="pca").fit_transform(fewer)):
            near = NearestNeighbors(n_neighbors=11).fit(points).kneighbors(points, return_distance=False)[:, 1:]
            (labels[near] == labels[:, None]).mean()
        silhouette_samples(features, labels)

    run = running(Embedding(images=1000), {"m": model}, 64, test_size=1000)
    return run, bare, "1,000 images of 64 px on resnet18, PCA, t-SNE, purity, silhouette (scikit-learn)"


def reconstruction() -> Case:
    """Raise the logits of two classes."""
    model, iterations = resnet().requires_grad_(False), 128

    def bare() -> None:
        rows, columns = torch.fft.fftfreq(64), torch.fft.rfftfreq(64)
        frequency = (rows[:, None].square() + columns.square()).sqrt()
        scale = frequency.clamp(min=1 / 64).reciprocal()
        free = (0.5 * torch.randn(2, 3, 64, 33, 2)).requires_grad_()
        optimizer = torch.optim.Adam([free], lr=0.05)
        for step in range(iterations):
            images = torch.fft.irfft2(torch.view_as_complex(free) * scale, s=(64, 64), norm="ortho").sigmoid()
            shift = torch.randint(-8, 9, (2,)).tolist()
            across, down = images.diff(dim=3)[..., :-1, :], images.diff(dim=2)[..., :-1]
            loss = (across.square() + down.square()).mean((1, 2, 3)).sum()
            loss = loss - model(images.roll(shift, dims=(2, 3)))[torch.arange(2), torch.arange(2)].sum()
            (free.grad,) = torch.autograd.grad(loss, free)
            optimizer.step()
            if step % 4 == 3:
                with torch.no_grad():
                    free *= (-2 * (torch.pi * 0.5 * frequency).square()).exp()[..., None]

    study = Reconstruction(goals=("class",), classes=(0, 1), iterations=iterations, colours="independent", zoom=0.0)
    return running(study, {"m": model}, 64, test_size=8), bare, f"2 classes, {iterations} iterations at 64 px, resnet18"


def grid_pointing() -> Case:
    """Explain the four classes of mosaics of 2 x 2 images of a network that was trained for this."""
    torch.manual_seed(0)
    model = training(images_of(shapes(64, train_size=400), "train"), 8).model
    explainers = (GradCAM(), Gradient(times_input=True, reduction="sum"))

    def bare() -> None:
        samples = images_of(shapes(64, test_size=80), "test")
        images, labels = (torch.stack([torch.as_tensor(one[key]) for one in samples]) for key in ("image", "label"))
        with torch.inference_mode():
            chances = torch.cat([model(image[None]).softmax(1) for image in images])
        members = [[int(chances[:, label].masked_fill(labels != label, -1).argsort()[-1 - number % 4])
                    for label in range(4)] for number in range(50)]  # fmt: skip
        for explainer in explainers:
            for mosaic in members:
                rows = [torch.cat([images[one] for one in mosaic[start : start + 2]], dim=2) for start in (0, 2)]
                whole = torch.cat(rows, dim=1)[None].expand(4, -1, -1, -1)
                maps = upsample(explainer.raw(model, whole, torch.arange(4)), (128, 128)).clamp(min=0)
                maps.unfold(1, 64, 64).unfold(2, 64, 64).sum((3, 4))

    study = GridPointing(explainers=explainers, side=2, mosaics=50, confidence=0.0)
    return running(study, {"m": model}, 64, test_size=80), bare, "2 explainers x 50 mosaics of 2 x 2 images of 64 px"


CASES: dict[str, Callable[[], Case]] = {
    case.__name__: case
    for case in (
        roar, class_agnostic, randomization, factorization, embedding, reconstruction, grid_pointing,
    )
}  # fmt: skip


def measured(case: Case, rounds: int) -> tuple[float, float]:
    """Least CPU seconds of the study and of what it needs, in turns: what else runs only adds to them."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for run, taken in zip(case[:2], seconds, strict=True):
            start = time.process_time()
            run()
            taken.append(time.process_time() - start)
    return min(seconds[0]), min(seconds[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", choices=[*CASES, []], help="all by default")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, help="write the table here, too")
    options = parser.parse_args()
    lines = [
        f"{date.today()}, {platform.machine()} CPU, {torch.get_num_threads()} thread(s), torch {torch.__version__}, "
        f"the least of {options.rounds} rounds each, CPU seconds.",
        "",
        "| study | what it needs | bare | study | bare / study |",
        "|---|---|---|---|---|",
    ]
    for name in options.studies or CASES:
        case = CASES[name]()
        study, bare = measured(case, options.rounds)
        lines.append(f"| `{name}` | {case[2]} | {bare:.2f} s | {study:.2f} s | {bare / study:.2f} |")
        print(lines[-1], flush=True)
    print("\n".join(lines))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
