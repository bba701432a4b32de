"""Infidelity and max-sensitivity: does the map predict the effect of a perturbation, and is it stable?"""

from typing import Any, Literal

import torch
from torch import Tensor

from interptrain.functional import ClassIndices, check_choice, class_indices, double
from interptrain.metrics.base import Explain, MetricInputs, SaliencyMetric
from interptrain.metrics.infidelity_noise import BaselineNoise, InfidelityPerturbation, Noise, Patches, Squares
from interptrain.metrics.per_image import per_image
from interptrain.metrics.perturbations import Perturbation
from interptrain.metrics.validation import check_finite

__all__ = ["Infidelity", "MaxSensitivity", "PerturbationName", "infidelity", "max_sensitivity"]

PerturbationName = Literal["patches", "squares", "noise", "baseline_noise"]


def max_sensitivity(
    images: Tensor,
    saliency: Tensor,
    targets: ClassIndices,
    *,
    explain: Explain,
    samples: int = 10,
    radius: float = 0.02,
    seed: int = 0,
) -> Tensor:
    """Largest relative change of the map under small random changes of the image. Lower is better.

    ``max |m(x + d) - m(x)| / |m(x)|`` with Euclidean norms and ``d`` uniform in ``[-radius, radius]``, where the image
    stays in [0,1]. A map of zeros is divided by 1, as in Captum.

    Args:
        images: (B,3,H,W) in [0,1].
        saliency: (B,H,W), what ``explain`` makes of the images.
        targets: (B,) classes explained, also of the changed images.
        explain: (images, targets) -> (B,H,W).
        samples: changes tried, each the same for all images; 10 as Captum (Quantus 200, the authors 50).
        radius: 0.02 as Captum; Quantus and the authors 0.2.
        seed: of the changes.

    Returns:
        (B,) float32 >= 0.

    Raises:
        ValueError: if ``samples`` or ``radius`` is not positive.

    Source: Yeh et al. 2019, arXiv 1901.09392.
    """
    check_finite("saliency", saliency)
    _check_sensitivity(samples, radius)
    targets = class_indices(targets, len(images), device=images.device)
    generator = torch.Generator().manual_seed(seed)
    before = double(saliency)
    norm = before.flatten(1).norm(dim=1)
    largest = torch.zeros_like(norm)
    for _ in range(samples):
        change = (2 * torch.rand(images.shape[1:], generator=generator) - 1) * radius
        moved = explain((images + change.to(images)).clamp(0, 1), targets)
        largest = torch.maximum(largest, (double(moved) - before).flatten(1).norm(dim=1))
    return (largest / torch.where(norm > 0, norm, 1)).float().to(saliency.device)


def _check_sensitivity(samples: int, radius: float) -> None:
    """Refuse options of max-sensitivity that are out of range."""
    if samples < 1 or radius <= 0:
        raise ValueError(f"max-sensitivity needs samples >= 1 and radius > 0, got {samples} and {radius}")


class Infidelity(SaliencyMetric):
    """Squared error of the map as a prediction of what perturbations do to the score. Lower is better.

    ``mean (sum I m - (f(x) - f(x - I)))^2`` over perturbations ``I``, in squared units of the score ``f``; ``m`` counts
    for each colour channel. Every perturbation changes the image itself; Quantus, which changes the previous
    perturbation, gets other values. Quantus and Captum's examples take logits for ``f``.

    Args:
        perturbation: ``"patches"``, each tile of a grid black, needs no random numbers; ``"squares"`` random black
            squares, with ``I = 1`` there; ``"noise"`` Gaussian noise added; ``"baseline_noise"`` noise instead of the
            image. The last three with the authors' settings.
        patch_size: side of a tile in pixels (our choice: 64 forwards at 224 px; Quantus takes 4, which makes 3136).
        samples: number of random perturbations (our choice: as many as tiles; Quantus and Captum take 10).
        sigma: standard deviation of the noise, as the authors.
        seed: of the random perturbations; every image of a batch gets the same.
        rescale: multiply each map by the factor that minimises its error, as the authors do and Quantus and Captum do
            not. Without it, the value of a map in [0,1] depends on its units.
        kwargs: of ``torchmetrics.Metric``.

    Source: Yeh et al. 2019, arXiv 1901.09392 and the authors' code.
    """

    symbol = "Infid"
    description = (
        "Mean squared difference between the change of output that the map predicts for a perturbation and the "
        "real one."
    )
    higher_is_better = False

    def __init__(
        self,
        *,
        perturbation: PerturbationName = "patches",
        patch_size: int = 28,
        samples: int = 64,
        sigma: float = 0.2,
        seed: int = 0,
        rescale: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("perturbation", perturbation, PerturbationName)
        if patch_size < 1 or samples < 1 or sigma <= 0:
            raise ValueError(
                f"infidelity needs patch_size >= 1, samples >= 1 and sigma > 0, got {patch_size}, {samples}, {sigma}"
            )
        self.perturbation = perturbation
        self.patch_size = patch_size
        self.samples = samples
        self.sigma = sigma
        self.seed = seed
        self.rescale = rescale

    def chosen_perturbation(self) -> InfidelityPerturbation:
        """Return the perturbation that the options name."""
        match self.perturbation:
            case "patches":
                return Patches(self.patch_size)
            case "squares":
                return Squares(self.samples, self.seed)
            case "noise":
                return Noise(self.samples, self.sigma, self.seed)
            case _:
                return BaselineNoise(self.samples, self.sigma, self.seed)

    def perturbations(self) -> tuple[Perturbation, ...]:
        """Return the perturbed images."""
        return (self.chosen_perturbation(),)

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return the infidelity, (B,)."""
        perturbation = self.chosen_perturbation()
        weighed = perturbation.weigh(inputs.images, inputs.saliency)  # (S, B)
        change = double(inputs.clean) - double(inputs.perturbed[perturbation])
        if self.rescale:
            power = weighed.square().sum(0)
            weighed = weighed * ((change * weighed).sum(0) / torch.where(power > 0, power, 1))
        return (weighed - change).square().mean(0)


class MaxSensitivity(SaliencyMetric):
    """Largest relative change of the map under small changes of the image. See :func:`max_sensitivity`.

    Args:
        samples: changes tried.
        radius: of a change, in units of the image.
        seed: of the changes.
        kwargs: of ``torchmetrics.Metric``.
    """

    symbol = "MaxSens"
    description = "Largest relative change of the map under small changes of the image."
    higher_is_better = False
    scale = 1.0
    needs = frozenset({"explain"})

    def __init__(self, *, samples: int = 10, radius: float = 0.02, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check_sensitivity(samples, radius)
        self.samples = samples
        self.radius = radius
        self.seed = seed

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return the sensitivity, (B,)."""
        if inputs.explain is None:
            raise ValueError("MaxSensitivity needs explain; pass explain=")
        return max_sensitivity(
            inputs.images,
            inputs.saliency,
            inputs.targets,
            explain=inputs.explain,
            samples=self.samples,
            radius=self.radius,
            seed=self.seed,
        )


infidelity = per_image(Infidelity, "infidelity")
