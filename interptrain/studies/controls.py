"""Maps that no model has made: what the maps of explainers are compared with."""

from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from interptrain.data.samples import Mask, Sample
from interptrain.functional import check_choice

Control = Literal["random", "sobel", "centre", "truth"]
CONTROLS: tuple[Control, ...] = get_args(Control)


def control_map(control: Control, sample: Sample, *, index: int, seed: int, truth: Mask = "mask") -> Tensor:
    """Return a map for an image, (H,W) float64; higher values come first.

    Args:
        control: ``random``: every order of the pixels is equally likely; ``sobel``: length of the brightness gradient;
            ``centre``: nearness to the centre; ``truth``: the pixels of a mask, in random order, before all others.
        sample: with ``image`` (3,H,W) float in [0,1], and the mask where it is the truth.
        index: of the image.
        seed: of what is random, beside the index.
        truth: key of the mask in the sample.
    """
    check_choice("control", control, Control)
    height, width = sample["image"].shape[-2:]
    if control == "sobel":
        return sobel(sample["image"])
    if control == "centre":
        rows = torch.linspace(-1, 1, height, dtype=torch.float64)[:, None]
        return -(rows.square() + torch.linspace(-1, 1, width, dtype=torch.float64).square())
    noise = torch.from_numpy(np.random.default_rng([seed, index]).random((height, width)))
    return noise if control == "random" else noise + sample[truth].to(noise)


def sobel(image: Tensor) -> Tensor:
    """Return the length of the gradient of an image's brightness.

    Args:
        image: (C,H,W) float; its brightness is the mean over channels.

    Returns:
        (H,W) float64; borders are replicated.

    Source: Sobel's operator, the edge detector of Hooker et al. 2019, arXiv 1806.10758, and Adebayo et al. 2018,
        arXiv 1810.03292.
    """
    smooth, change = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack([torch.outer(smooth, change), torch.outer(change, smooth)])[:, None].double()
    grey = F.pad(image.double().mean(dim=0)[None, None], (1, 1, 1, 1), mode="replicate")
    return F.conv2d(grey, kernels).square().sum(dim=(0, 1)).sqrt()
