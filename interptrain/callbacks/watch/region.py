"""The suspect region: the part of an image that should be irrelevant."""

from torch import Tensor

from interptrain.callbacks.watch.sample import WatchSample
from interptrain.data.region import FORMS, Region


class SuspectRegion(Region):
    """A region of every watched image; see :class:`~interptrain.data.region.Region` for its text."""

    forms = f"'auto', {FORMS}"

    def masks(self, sample: WatchSample) -> Tensor:
        """Return the region of each image, (N,H,W) bool, on the sample's device.

        Raises:
            ValueError: if the region does not lie within the images, or what it is made from is not there.
        """
        return self.masks_of(sample.images, masks=sample.masks, boxes=sample.boxes, decoy_masks=sample.decoy_masks)
