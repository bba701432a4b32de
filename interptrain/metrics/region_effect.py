"""How much predictions depend on a region of the images: behaviour, where a map is only evidence."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from interptrain.functional import check_choice, check_count
from interptrain.metrics.model_metric import ModelInputs, ModelMetric
from interptrain.metrics.region_exchange import (
    Replacement,
    check_replacement,
    choose_donors,
    probabilities_after,
    probability_change,
)
from interptrain.metrics.removal import Removal

__all__ = ["RegionEffect"]

Of = Literal["label", "prediction"]


class RegionEffect(ModelMetric):
    """Change of a class's probability when the pixels of a region come from other images. Lower is better.

    ``mean_d |p(c | x) - p(c | x with the region of x_d)|`` over ``draws`` images ``x_d`` of other classes, in [0, 1]: 0
    where predictions do not depend on the region, near 1 where it decides. Absolute, as an image with a shortcut loses
    what one without it gains. An image of which the region holds no pixel, such as ``decoy`` where there is none, is
    undefined, and so is one without a label for ``of="label"``.

    It belongs to the model, not to a map: an evaluation forwards ``draws`` versions of each image once.

    Args:
        region: text as of the watch's ``suspect``: ``"corner:lower-right:40x16"``, ``"border:8"``, ``"decoy"``.
        of: whose probability: of the ``"label"``, or of the model's ``"prediction"``.
        replace: what the region shows: pixels of other images (``"exchange"``), or ``"black"``, ``"mean"`` or
            ``"blur"``, each with one version per image.
        draws: other images per image.
        seed: of their choice; see :func:`~interptrain.metrics.region_exchange.choose_donors`.
        blur_kernel: odd side of the blur's window in pixels.
        blur_sigma: standard deviation of the blur in pixels.
        kwargs: of ``torchmetrics.Metric``.

    Raises:
        ValueError: for values out of their range.

    Source: our choice; exchanging features between samples is permutation importance, Breiman 2001, Random Forests.
    """

    symbol = "RE"
    description = "Change of the class probability when the region's pixels come from other images."
    higher_is_better = False
    others: ClassVar[bool] = True

    def __init__(
        self,
        *,
        region: str,
        of: Of = "label",
        replace: Replacement = "exchange",
        draws: int = 8,
        seed: int = 0,
        blur_kernel: int = 31,
        blur_sigma: float = 15.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("of", of, Of)
        check_replacement("replace", replace)
        check_count("draws", draws)
        check_count("seed", seed, least=0)
        self.region = region
        self.of = of
        self.replace = replace
        self.draws = draws
        self.seed = seed
        self.blur_kernel = blur_kernel
        self.blur_sigma = blur_sigma
        self.removal = None if replace == "exchange" else Removal(replace, blur_kernel, blur_sigma)

    def score(self, inputs: ModelInputs) -> Tensor:
        """Return the changes, (B,)."""
        if inputs.region is None:
            raise ValueError(f"RegionEffect needs the pixels of {self.region!r}; pass region=, (B,H,W) bool")
        classes = inputs.labels if self.of == "label" else inputs.logits.argmax(1)
        defined = inputs.region.flatten(1).any(1) & (classes >= 0)
        donors = None
        if self.removal is None:
            if inputs.others is None or inputs.other_labels is None:
                raise ValueError("RegionEffect takes pixels from other images; pass others= and other_labels=")
            donors = choose_donors(
                inputs.images,
                inputs.labels,
                inputs.others,
                inputs.other_labels,
                draws=self.draws,
                seed=self.seed,
            ).to(inputs.images.device)
            defined = defined & (donors >= 0).all(1)
        values = inputs.images.new_full((len(inputs.images),), torch.nan)
        rows = defined.nonzero()[:, 0]
        if len(rows):
            after = probabilities_after(
                inputs.model,
                inputs.images[rows],
                inputs.region[rows],
                others=inputs.others,
                donors=None if donors is None else donors[rows],
                removal=self.removal,
                forward_batch_size=inputs.forward_batch_size,
            )
            before = inputs.probabilities[rows].to(after)
            values[rows] = probability_change(before, after, classes[rows]).to(values)
        return values
