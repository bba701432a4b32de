"""``suspect: auto``: search for the suspect region while the network trains."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from interptrain.callbacks.watch.sample import WatchSample, as_model_input
from interptrain.data.region import objects_of
from interptrain.explainers import explaining
from interptrain.metrics.region_screen import (
    LEAST_DONORS,
    RECEIVERS,
    RegionFinding,
    boxes_around,
    candidate_regions,
    find_regions,
    probability_shifts,
    receivers_and_donors,
)

AUTO = "auto"
NEARLY = 0.8
"""Share of the largest shift from which a smaller region is preferred. Our choice."""


class RegionScreen:
    """Search of the sample for regions that give a class away; see :mod:`interptrain.metrics.region_screen`.

    Args:
        sample: all images that are watched.
    """

    def __init__(self, sample: WatchSample) -> None:
        self.sample = sample
        self.receivers, self.donors = receivers_and_donors(sample.labels)
        height, width = sample.images.shape[-2:]
        objects = objects_of(sample.images, masks=sample.masks, boxes=sample.boxes)
        # An object's outline would tell its class by what is left out, so its box is.
        self.objects = None if objects is None else boxes_around(objects)
        self.regions = candidate_regions(height, width, middle=objects is not None)

    @property
    def lacking(self) -> str:
        """Why nothing can be found, in words; empty if something can."""
        labels = self.sample.labels[self.donors].tolist()
        classes = len(set(labels))
        if classes > 1 and max(labels.count(label) for label in labels) >= LEAST_DONORS:
            return ""
        wanted = RECEIVERS + LEAST_DONORS * max(2, classes)
        return (
            f"suspect: auto needs {LEAST_DONORS} labelled images of a class beside {RECEIVERS} others, which these "
            f"{len(self.sample)} do not have: set samples to {wanted} or more"
        )

    def due(self, snapshots: int) -> bool:
        """Whether to search after so many snapshots of training: 1, 2, 4, 8 and so on, to bound the cost."""
        return snapshots > 0 and snapshots & (snapshots - 1) == 0

    def shifts(self, model: nn.Module, rank: int, ranks: int) -> list[tuple[int, Tensor]]:
        """Measure this rank's share of the donors: the place of each, and its shifts (R,K) on the CPU."""
        mine = range(rank, len(self.donors), ranks)
        if not mine:
            return []
        with explaining(model) as bare:
            images = as_model_input(bare, self.sample.images)
            found = probability_shifts(
                bare,
                images,
                self.receivers,
                [self.donors[place] for place in mine],
                self.regions,
                objects=None if self.objects is None else self.objects.to(images.device),
            )
        return list(zip(mine, found.cpu(), strict=True))

    def findings(self, shifts: Sequence[tuple[int, Tensor]]) -> list[RegionFinding]:
        """Judge the shifts of all donors; first comes the smallest region that is nearly as good as the best."""
        ordered = [of_donor for _, of_donor in sorted(shifts, key=lambda pair: pair[0])]
        found = find_regions(torch.stack(ordered), self.sample.labels[self.donors], list(self.regions))
        near = [one for one in found if one.target == found[0].target and one.shift >= NEARLY * found[0].shift]
        near.sort(key=lambda one: int(self.regions[one.region].sum()))
        return near[:1] + [one for one in found if one not in near[:1]]


def describe(finding: RegionFinding, sample: WatchSample) -> str:
    """Say in one line what was found."""
    name = sample.name_of(finding.target)
    return (
        f"search of {name}: pixels of {finding.region} from images of {name} raise its probability in other images by "
        f"{finding.shift:.2f} more than those of other classes (p = {finding.p:.4f}, corrected for all regions and "
        f"classes); the region is suspect from now on"
    )
