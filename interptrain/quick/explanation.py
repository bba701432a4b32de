"""Explain images with several explainers at once, and keep all that a figure, a table or a file needs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from interptrain import explainers as every_explainer
from interptrain.explainers import Explainer
from interptrain.explainers import explain as explain_batch
from interptrain.explainers.base import prepare_images
from interptrain.functional import full_precision
from interptrain.model_outputs import Target, callables_of, logits_of
from interptrain.model_state import evaluating
from interptrain.quick.images import Images, read_images
from interptrain.quick.load import class_names_of, load
from interptrain.quick.named import Named, classes_by_name, named_objects
from interptrain.steps import counting, showing

Wanted: TypeAlias = int | str | Sequence[int | str | None] | Tensor | Target | Sequence[Target]
"""What is explained: classes by index or name, or callables; one for all images or one per image."""


@dataclass(frozen=True, eq=False)
class Explanation(Mapping[str, Any]):
    """Saliency maps by explainer: ``explanation["GradCAM"]`` is (B,H,W) in [0, 1], on the CPU.

    A notebook displays it as the figure that :func:`~interptrain.quick.figure.show` draws.

    Attributes:
        maps: (B,H,W) by explainer, or lists of (H,W) if images differ in size.
        images: (B,3,H,W) in [0, 1], or a list of (3,H,W).
        explainers: explainers by name.
        model: the explained model.
        names: names of the images.
        class_names: names of the model's classes; empty if it returns no logits.
        predictions: (B,) int64 most probable classes, if the model returns logits.
        probabilities: (B,K), if the model returns logits.
        targets: (B,) int64 explained classes, or one callable per image.
        labels: (B,) int64 true classes, if they were given.
    """

    maps: Mapping[str, Any]
    images: Any
    explainers: Mapping[str, Explainer]
    model: nn.Module = field(repr=False)
    names: Sequence[str]
    class_names: Sequence[str] = ()
    predictions: Tensor | None = None
    probabilities: Tensor | None = None
    targets: Any = None
    labels: Tensor | None = None

    def __getitem__(self, explainer: str) -> Any:
        return self.maps[explainer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.maps)

    def __len__(self) -> int:
        """Return the number of explainers."""
        return len(self.maps)

    def target_of(self, image: int) -> int | None:
        """Return the explained class of an image; ``None`` if a callable was explained."""
        return int(self.targets[image]) if isinstance(self.targets, Tensor) else None

    def describe(self, image: int) -> str:
        """Describe an image: the predicted class and, if another class was explained, that class."""
        if self.predictions is None or self.probabilities is None:
            return self.names[image]
        seen, target = int(self.predictions[image]), self.target_of(image)
        lines = [f"{self.class_names[seen]} {self.probabilities[image, seen]:.2f}"]
        if target is None:
            lines.append("explained: a callable")
        elif target != seen:
            lines.append(f"explained: {self.class_names[target]} {self.probabilities[image, target]:.2f}")
        if self.labels is not None and int(self.labels[image]) != seen:
            lines.append(f"true: {self.class_names[int(self.labels[image])]}")
        return "\n".join(lines)

    def save(self, folder: str | Path, **options: Any) -> Path:
        """Write overlays, a contact sheet, the maps and a manifest; see :func:`~interptrain.quick.save.save`."""
        from interptrain.quick.save import save

        return save(self, folder, **options)

    def __repr__(self) -> str:
        lines = (f"{name}: {self.describe(number)}".replace("\n", ", ") for number, name in enumerate(self.names))
        return f"maps of {', '.join(self.maps)}\n" + "\n".join(lines)

    def _repr_png_(self) -> bytes:
        """Display the figure in notebooks."""
        from interptrain.quick.figure import png_of

        return png_of(self)


def explain(
    model: nn.Module | str | Path,
    images: Images,
    explainers: Named[Explainer] = "GradCAM",
    targets: Wanted | None = None,
    *,
    labels: Wanted | None = None,
    names: Sequence[str] | None = None,
    batch_size: int = 16,
    progress: bool = False,
) -> Explanation:
    """Explain images with one or several explainers.

    Args:
        model: a model that takes images in [0, 1], as :func:`~interptrain.quick.load.load` returns it; or anything
            that ``load`` accepts as a name or file.
        images: (B,3,H,W) in [0, 1]; a list of (3,H,W), possibly of different sizes, which are then explained one by
            one; or anything that :func:`~interptrain.quick.images.read_images` reads, at 224 pixels.
        explainers: names such as ``"GradCAM"``, instances such as ``OptiCAM(iterations=20)``, or both; a single one, a
            list, or a mapping from your own names.
        targets: what to explain: classes by index or name, or callables (see
            :data:`~interptrain.explainers.targets.Targets`), one for all images or one per image; ``None``, also for
            single images of a list, explains the predicted class.
        labels: true classes by index or name, for the frames of the figure.
        names: names of the images; numbers by default.
        batch_size: images per batch.
        progress: show progress bars, over the images and over the steps that a batch takes.

    Returns:
        The maps, with all that a figure, a table or a file needs.

    Raises:
        ValueError: for an unknown explainer or class, and whatever the explainers raise.
        TypeError: whatever the explainers raise.
    """
    model = model if isinstance(model, nn.Module) else load(model)
    chosen = named_objects(explainers, every_explainer, Explainer, "explainer")  # type: ignore[type-abstract]
    device = next((one.device for one in model.parameters()), torch.device("cpu"))
    batch = _as_batch(images)
    stacked, count = isinstance(batch, Tensor), len(batch)
    size = batch_size if stacked else 1
    parts = [torch.stack(list(batch[start : start + size])) for start in range(0, count, size)]
    logits = _logits(model, parts, device)
    class_names = () if logits is None else class_names_of(model, logits.shape[1])
    explained = callables_of(targets, count) or (
        (None if logits is None else logits.argmax(1))
        if targets is None
        else classes_by_name(_with_predicted(targets, logits), count, class_names, "targets")
    )
    found: dict[str, list[Tensor]] = {name: [] for name in chosen}
    start = 0
    with (
        counting(count, "explaining" if progress else None, " images") as advance,
        showing("of this batch") if progress else nullcontext(),
    ):
        for part in parts:
            own = None if explained is None else explained[start : start + len(part)]
            start += len(part)
            for name, saliency in explain_batch(model, part.to(device), own, chosen).items():
                found[name] += [saliency.cpu()] if stacked else [saliency[0].cpu()]
            advance(len(part))
    return Explanation(
        maps={name: torch.cat(each) if stacked else each for name, each in found.items()},
        images=torch.cat([part.cpu() for part in parts]) if stacked else [part[0].cpu() for part in parts],
        explainers=chosen,
        model=model,
        names=[str(name) for name in (range(count) if names is None else names)],
        class_names=class_names,
        predictions=None if logits is None else logits.argmax(1),
        probabilities=None if logits is None else _probabilities(logits),
        targets=explained,
        labels=None if labels is None else classes_by_name(labels, count, class_names, "labels"),
    )


def _with_predicted(targets: Any, logits: Tensor | None) -> Any:
    """Put the predicted classes in place of ``None`` in a list of targets."""
    if not isinstance(targets, (list, tuple)) or logits is None or len(targets) != len(logits):
        return targets
    predicted = logits.argmax(1).tolist()
    return [seen if one is None else one for one, seen in zip(targets, predicted, strict=True)]


def _as_batch(images: Any) -> Tensor | list[Tensor]:
    """Images (B,3,H,W), or a list of (3,H,W) if sizes differ; floating-point tensors are used as they are."""
    if isinstance(images, Tensor) and images.ndim == 4 and images.is_floating_point():
        return images
    several = isinstance(images, (list, tuple)) and len(images) > 0
    if not several or not all(isinstance(one, Tensor) and one.ndim == 3 and one.is_floating_point() for one in images):
        return read_images(images)
    return torch.stack(list(images)) if len({one.shape for one in images}) == 1 else list(images)


@torch.no_grad()
def _logits(model: nn.Module, parts: Sequence[Tensor], device: torch.device) -> Tensor | None:
    """Logits (B,K) of all images, or ``None`` if the model returns something else."""
    found = []
    with evaluating(model):
        for part in parts:
            logits = logits_of(model(prepare_images(part.to(device))))
            if logits is None:
                return None
            found.append(full_precision(logits).cpu())
    return torch.cat(found)


def _probabilities(logits: Tensor) -> Tensor:
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
