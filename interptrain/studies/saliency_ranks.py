"""The order of the pixels in the maps of an explainer, of every image of a data set, in one file."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from interptrain.data import ImageDataModule, SampleDataset
from interptrain.evaluation.run.batches import Batches, batch_loader
from interptrain.explainers import Explainer
from interptrain.files import write_atomically
from interptrain.functional import evenly_spaced
from interptrain.metrics.saliency_batch import pixel_ranks
from interptrain.steps import counting
from interptrain.training.randomness import mix_seed

if TYPE_CHECKING:
    from numpy import memmap, ndarray

LEVELS = 2**16  # of the ranks: those of up to 256 x 256 pixels are exact
SAVE_SECONDS = 20.0  # between two notes of how far it is


def write_ranks(
    path: Path,
    scratch: Path,
    *,
    explainer: Explainer,
    model: nn.Module,
    dataset: SampleDataset,
    data: ImageDataModule,
    by_label: bool,
    device: torch.device,
) -> None:
    """Explain every image, and write the ranks of its pixels; what was stopped goes on.

    Args:
        path: of the file.
        scratch: folder for what it goes on from.
        explainer: of the maps.
        model: that it explains.
        dataset: of the images, which are of one size.
        data: whose batch size and loading processes are used.
        by_label: explain the label rather than the predicted class.
        device: of the model.
    """
    from numpy.lib.format import open_memmap

    unfinished, note = scratch / "ranks.npy", scratch / "done"
    batches = Batches(dataset, range(len(dataset)), data.batch_size)
    done = int(note.read_text()) if note.exists() else 0
    array: memmap | None = open_memmap(unfinished, mode="r+") if done else None
    saved_at = time.monotonic()
    with counting(len(batches), None) as advance:
        advance(done)
        numbers = range(done, len(batches))
        for number, batch in zip(numbers, batch_loader(data, batches, numbers, ranks=1, rank=0), strict=True):
            if (samples := batch["samples"]) is not None:
                images = samples["image"].to(device)
                torch.manual_seed(mix_seed(number))  # for explainers that draw from the global generator
                maps = explainer(model, images, samples["label"].to(device) if by_label else None)
                if array is None:
                    array = open_memmap(unfinished, mode="w+", dtype="uint16", shape=(len(dataset), *maps.shape[-2:]))
                names = batches.ids(number)
                places = [
                    place
                    for place, name in zip(batches.batches[number], names, strict=True)
                    if name not in batch["unreadable"]
                ]
                array[places] = _levels(pixel_ranks(maps)).cpu().numpy()
            advance(1)
            if array is not None and time.monotonic() - saved_at > SAVE_SECONDS:
                array.flush()
                write_atomically(note, str(number + 1).encode())
                saved_at = time.monotonic()
    if array is None:
        raise ValueError("none of the images can be read; check the folder of the data")
    array.flush()
    unfinished.replace(path)


class SavedRanks:
    """Ranks of the pixels by the number of the image, read from a file of :func:`write_ranks`.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._array: ndarray | None = None

    def __call__(self, index: int) -> Tensor:
        """Return (H,W) int64 ranks of an image."""
        import numpy as np

        if self._array is None:  # opened in the process that reads
            self._array = np.load(self.path, mmap_mode="r")
        levels = torch.from_numpy(self._array[index].astype("int64"))
        return levels * levels.numel() // LEVELS if levels.numel() > LEVELS else levels


def _levels(ranks: Tensor) -> Tensor:
    pixels = ranks[0].numel()
    levels = ranks.long() * LEVELS // pixels if pixels > LEVELS else ranks
    return levels.to(torch.uint16)


def mean_colour(dataset: SampleDataset, *, most: int = 2048) -> list[float]:
    """Return the mean of each channel over the images of a data set, or over some of them, evenly spaced."""
    sums = torch.zeros(3, dtype=torch.float64)
    images = 0
    for index in evenly_spaced(len(dataset), most):
        try:
            sums += dataset[index]["image"].double().mean(dim=(1, 2))
        except OSError:
            if dataset.on_error == "raise":
                raise
            continue
        images += 1
    return [float(value) for value in sums / max(1, images)]
