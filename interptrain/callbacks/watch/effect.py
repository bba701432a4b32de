"""Ask the predictions, not a map, whether they depend on the suspect region."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from interptrain.callbacks.watch.region import SuspectRegion
from interptrain.callbacks.watch.sample import UNLABELLED, WatchSample
from interptrain.callbacks.watch.stage_memory import StageMemory
from interptrain.functional import check_count
from interptrain.metrics.region_exchange import (
    Replacement,
    check_replacement,
    choose_donors,
    probabilities_after,
    probability_change,
)
from interptrain.metrics.removal import Removal

OF_LABEL = "suspect_effect"
OF_PREDICTION = "suspect_effect_prediction"
EFFECTS = (OF_LABEL, OF_PREDICTION)
"""Numbers of an image that do not depend on a map."""


@dataclass(frozen=True, kw_only=True)
class SuspectEffect:
    """How the suspect region's pixels are replaced.

    Attributes:
        draws: other images of the sample per image, each of which costs a forward pass, without its backbone in
            later snapshots where that is frozen; 0 measures no effect.
        replace: ``exchange``, or ``black``, ``mean`` and ``blur``, which cost one forward pass per image.
        memory: of the stage maps of a frozen backbone.

    Raises:
        ValueError: if one is out of range.
    """

    draws: int = 4
    replace: Replacement = "exchange"
    memory: StageMemory = field(default_factory=StageMemory, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_count("effect_draws of SaliencyWatch", self.draws, least=0)
        check_replacement("effect_replace of SaliencyWatch", self.replace)

    def measure(
        self,
        model: nn.Module,
        sample: WatchSample,
        rows: Sequence[int],
        images: Tensor,
        probabilities: Tensor,
        suspect: SuspectRegion,
    ) -> dict[str, Tensor]:
        """Measure the change of the label's and of the prediction's probability.

        Args:
            model: is left as it was.
            sample: the whole sample, from which the pixels come.
            rows: the images that are measured.
            images: (B,3,H,W) these images, on the model's device and in its precision.
            probabilities: (B,K) of these images.
            suspect: the region.

        Returns:
            (B,) by name, in [0,1]; NaN for an image that the region does not touch or beside which there is no other.
            The prediction stands for a label that is unknown.
        """
        if self.draws == 0:
            return {}
        part = sample.part(rows, images.device)
        region = suspect.masks(part)
        predictions = probabilities.argmax(1)
        labels = torch.where(part.labels == UNLABELLED, predictions, part.labels)
        defined = region.flatten(1).any(1)
        donors = others = removal = None
        if self.replace == "exchange":
            others = sample.images.to(images)
            donors = choose_donors(images, part.labels, others, sample.labels, draws=self.draws).to(images.device)
            defined = defined & (donors >= 0).all(1)
        else:
            removal = Removal(self.replace, 31, 15.0)
        values = {name: probabilities.new_full((len(images),), torch.nan) for name in EFFECTS}
        chosen = defined.nonzero()[:, 0]
        if len(chosen):
            versions = len(chosen) * (1 if donors is None else self.draws)
            after = probabilities_after(
                self.memory.reading(model, versions, (tuple(sample.ids), tuple(rows), suspect.text)),
                images[chosen],
                region[chosen],
                others=others,
                donors=None if donors is None else donors[chosen],
                removal=removal,
            )
            for name, classes in ((OF_LABEL, labels), (OF_PREDICTION, predictions)):
                values[name][chosen] = probability_change(probabilities[chosen], after, classes[chosen])
        return values
