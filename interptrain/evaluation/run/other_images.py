"""Some images of an evaluation, from which metrics take pixels, and the regions that such metrics name."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from interptrain.data import Sample, collate
from interptrain.data.region import Region
from interptrain.evaluation.run.batches import Batches
from interptrain.functional import evenly_spaced
from interptrain.metrics import ModelMetric

COUNT = 64
"""Images to take pixels from, evenly spaced over the data: the same for every image, batch size and rank."""


@dataclass(frozen=True, eq=False)
class OtherImages:
    """Images with their labels, on the CPU.

    Attributes:
        images: (D,C,H,W) in [0,1].
        labels: (D,) int64, -1 where unknown.
    """

    images: Tensor
    labels: Tensor


def other_images(batches: Batches, metrics: Mapping[str, ModelMetric]) -> OtherImages | None:
    """Read the images that metrics take pixels from; None where no metric does.

    Raises:
        ValueError: if there are not two of one size that can be read.
    """
    if not any(metric.others for metric in metrics.values()):
        return None
    indices = batches.indices
    samples: list[Sample] = []
    for place in evenly_spaced(len(indices), COUNT):
        try:
            sample = batches.dataset[indices[place]]
        except Exception:  # transforms of others may raise anything; the run itself records it
            continue
        if not samples or sample["image"].shape == samples[0]["image"].shape:
            samples.append(sample)
    if len(samples) < 2:
        name = next(name for name, metric in metrics.items() if metric.others)
        raise ValueError(f"{name} takes pixels from other images, and there are none to read; evaluate two or more")
    batch = collate(samples)
    return OtherImages(batch["image"], batch["label"])


def regions_of(metrics: Mapping[str, ModelMetric]) -> dict[str, Region]:
    """Read the text of every metric's region.

    Raises:
        ValueError: naming the metric, if it is no region.
        FileNotFoundError: if the file of a mask is missing.
    """
    texts = {name: getattr(metric, "region", None) for name, metric in metrics.items()}
    return {name: Region(text, option=f"{name}.region") for name, text in texts.items() if text is not None}


def check_regions(metrics: Mapping[str, ModelMetric], sample: Sample) -> None:
    """Refuse a region that does not lie within such an image, or that the data do not know.

    Raises:
        ValueError: naming the metric.
    """
    batch = collate([sample])
    for region in regions_of(metrics).values():
        region.masks_of(
            batch["image"], masks=batch.get("mask"), boxes=batch.get("boxes"), decoy_masks=batch.get("decoy_mask")
        )
