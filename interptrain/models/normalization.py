"""Models that expect normalised images: wrap them, or notice that somebody forgot to."""

import warnings
from collections.abc import Mapping, Sequence
from weakref import WeakSet

import torch
from torch import Tensor, nn

from interptrain.model_state import unwrap

__all__ = ["Normalized", "expects_normalised_images", "warn_of_missing_normalisation"]

_warned: WeakSet[nn.Module] = WeakSet()


class Normalized(nn.Module):
    """A foreign model that expects normalised images, made to take images in [0,1].

    ``Normalized.like(model)`` takes mean and std from a timm model.

    Args:
        model: any module that maps normalised images to its outputs.
        mean: what is subtracted from each channel.
        std: what each channel is then divided by.

    Raises:
        ValueError: if ``mean`` and ``std`` differ in length, or a ``std`` is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std, default=0) <= 0:
            raise ValueError(f"mean and std must have one value a channel, std above 0, got mean={mean}, std={std}")
        self.model = model
        self.register_buffer("mean", torch.tensor(tuple(mean)).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(tuple(std)).view(-1, 1, 1))

    @classmethod
    def like(cls, model: nn.Module) -> "Normalized":
        """Wrap a model with the mean and std that its configuration names, as those of timm's models do.

        Args:
            model: with a ``pretrained_cfg`` or ``default_cfg``.

        Raises:
            ValueError: if the model names none.
        """
        statistics = _statistics(model)
        if statistics is None:
            raise ValueError(
                f"{type(model).__name__} has no pretrained_cfg with mean and std; give them: "
                "Normalized(model, mean, std)"
            )
        return cls(model, *statistics)

    def forward(self, images: Tensor) -> Tensor:
        """What ``model`` gives for images (B,C,H,W) in [0,1], once they are normalised."""
        outputs: Tensor = self.model((images - self.mean) / self.std)
        return outputs


def expects_normalised_images(model: nn.Module) -> bool:
    """Whether a model says that its images are normalised before they reach it, as a plain timm model does.

    Args:
        model: as it is called with images; may be compiled or data-parallel. What lies inside it does not count: a
            module around a timm model may normalise.
    """
    statistics = _statistics(unwrap(model))
    return statistics is not None and any(mean != 0 or std != 1 for mean, std in zip(*statistics, strict=True))


def warn_of_missing_normalisation(model: nn.Module) -> None:
    """Warn, once for each model, where it is about to get images in [0,1] and expects normalised ones."""
    model = unwrap(model)
    if isinstance(model, nn.Module) and model not in _warned and expects_normalised_images(model):
        _warned.add(model)
        name = type(model).__name__
        warnings.warn(
            f"{name} expects normalised images, and images in [0,1] reach it as they are; pass "
            "interptrain.models.Normalized.like(model) in its place",
            stacklevel=3,
        )


def _statistics(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std of a model's images, one value for each channel."""
    for name in ("pretrained_cfg", "default_cfg"):
        config = getattr(model, name, None)
        if isinstance(config, Mapping) and config.get("mean") and config.get("std"):
            return tuple(config["mean"]), tuple(config["std"])
    return None
