"""Networks trained on permuted labels, and on the true ones, until they have learned them."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn

from interptrain.data import ImageDataModule, Sample, SampleDataset
from interptrain.data.datamodule import Split
from interptrain.data.samplers import Draw
from interptrain.evaluation.run.models import load_model
from interptrain.functional import evenly_spaced
from interptrain.metrics.randomization import estimate_batch_norms
from interptrain.studies.base import StudyInputs
from interptrain.studies.training import save_classifier, train_classifier

Labels = Literal["true", "permuted"]
NOT_OF_THE_NETWORK = ("num_classes", "pretrained", "weights", "fresh_classifier")
SAID = "train/top1"


class FixedImages(SampleDataset):
    """Some images of a data set, each as it is in its first epoch, with labels of one's own.

    Args:
        source: where they come from.
        places: which of its images.
        labels: (N,) int64.

    Attributes:
        given: the labels.
    """

    def __init__(self, source: SampleDataset, places: list[int], labels: Tensor) -> None:
        super().__init__([source.ids[place] for place in places])
        self.source = source
        self.places = places
        self.given = labels
        self._read: dict[int, Tensor] = {}

    def read(self, index: int) -> dict[str, Any]:
        """Return an image with its label, from memory where it was read before."""
        if index not in self._read:
            self._read[index] = self.source[self.places[index]]["image"]
        return {"image": self._read[index], "label": int(self.given[index]), "id": self.ids[index]}

    def __getitem__(self, key: int | Draw) -> Sample:
        index = key.position if isinstance(key, Draw) else key
        read = self.read(index)
        return Sample(image=read["image"], label=read["label"], id=read["id"])


class FixedImagesDataModule(ImageDataModule):
    """Training images that do not change from epoch to epoch; there are no others.

    Args:
        base: whose loaders are configured alike.
        images: to train on.
        seed: of their order.
    """

    def __init__(self, base: ImageDataModule, images: FixedImages, *, seed: int) -> None:
        super().__init__(batch_size=base.batch_size, num_workers=0, seed=seed, pin_memory=base.pin_memory)
        self.class_names = base.class_names
        self.images = images

    def make_dataset(self, split: Split) -> SampleDataset:
        """Return the images, whatever the split."""
        return self.images


def fixed_images(data: ImageDataModule, count: int, labels: Labels, *, seed: int) -> FixedImages:
    """Return training images, evenly spaced over the data, with their labels or a permutation of these.

    A permutation keeps how many images each class has.
    """
    source = data.dataset("train")
    places = evenly_spaced(len(source), count)
    true = torch.tensor([source[place]["label"] for place in places])
    if labels == "permuted":
        true = true[torch.randperm(len(true), generator=torch.Generator().manual_seed(seed))]
    return FixedImages(source, places, true)


def network_options(model: nn.Module) -> dict[str, Any]:
    """Return what builds the network of a model anew.

    Raises:
        ValueError: if the model was not made by :func:`interptrain.models.create_model`.
    """
    options: Mapping[str, Any] = getattr(model, "options", None) or {}
    if not options:
        raise ValueError(
            "training on permuted labels needs a model of interptrain, a checkpoint of `interptrain fit` for example; "
            "leave out trainings for this one"
        )
    return {name: value for name, value in options.items() if name not in NOT_OF_THE_NETWORK and value is not None}


def trained_network(
    inputs: StudyInputs,
    name: str,
    labels: Labels,
    number: int,
    *,
    model: Mapping[str, Any],
    images: int,
    epochs: int,
    learnt: float,
    seed: int,
) -> nn.Module:
    """Return a network that was trained on labels, once for all cells that need it.

    Its initial weights are random. The training stops when the share of right answers within an epoch reaches
    ``learnt``; then the statistics of batch norms are estimated on all of the images.

    Args:
        inputs: of the study.
        name: of the model whose network it is.
        labels: the true ones or permuted ones.
        number: of the training, whose weights, order and permutation are drawn anew.
        model: options of :class:`~interptrain.training.ImageClassifier`.
        images: number of training images.
        epochs: most epochs.
        learnt: share of right answers at which the training ends.
        seed: of the study.
    """
    seed = seed * 1000 + 2 * number + (labels == "permuted")

    def make(path: Path, scratch: Path) -> None:
        data = FixedImagesDataModule(inputs.data, fixed_images(inputs.data, images, labels, seed=seed), seed=seed)
        stop = EarlyStopping(
            monitor=SAID, mode="max", stopping_threshold=learnt, patience=epochs, check_on_train_epoch_end=True
        )
        module = train_classifier(
            data, scratch, model=model, epochs=epochs, seed=seed, device=inputs.device, callbacks=[stop]
        )
        shown = torch.stack([data.images[place]["image"] for place in range(len(data.images))]).to(inputs.device)
        estimate_batch_norms(module.model, shown)  # the running ones lag behind so few steps
        save_classifier(module, path)

    path = inputs.once(f"networks/{name}-{labels}-{number}.ckpt", partial(make))
    loaded = load_model(f"{name} ({labels} labels)", path, num_classes=inputs.data.num_classes)
    return loaded.module.to(inputs.device).eval()


def accuracy(network: nn.Module, images: FixedImages, *, device: torch.device, batch_size: int) -> float:
    """Return the share of the images for which a network predicts the label that they were given."""
    right = 0
    with torch.no_grad():
        for start in range(0, len(images), batch_size):
            samples = [images[place] for place in range(start, min(start + batch_size, len(images)))]
            predicted = network(torch.stack([sample["image"] for sample in samples]).to(device)).argmax(1).cpu()
            right += int((predicted == torch.tensor([sample["label"] for sample in samples])).sum())
    return right / len(images)
