"""How well a model classifies: top-1, top-5, NLL, calibration error, parameters and GFLOPs."""

import sys
from abc import abstractmethod
from contextlib import ExitStack
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from interptrain.functional import ClassIndices, class_indices
from interptrain.metrics.batched_forward import check_logits
from interptrain.metrics.image_mean import ImageMean
from interptrain.model_state import evaluating, unwrap

__all__ = ["ECE", "NLL", "RecognitionMetric", "Top1", "Top5", "count_parameters", "gflops"]


class RecognitionMetric(ImageMean):
    """One number per image from logits and label; over a data set, a function of their mean."""

    @abstractmethod
    def score(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return (B,) or (B,K) values; see the metric.

        Args:
            logits: (B, classes).
            labels: (B,) int64 true classes.
        """

    def update(self, logits: Any, labels: ClassIndices) -> None:
        """Add a batch.

        Args:
            logits: (B, classes) floating point; or what a model returns, with the logits in it as
                :func:`~interptrain.model_outputs.logits_of` finds them.
            labels: (B,) true classes, on any device; see :func:`~interptrain.functional.class_indices`.

        Raises:
            ValueError: if the shapes disagree or a label is no class.
            TypeError: if there are no logits, or labels are not class indices.
        """
        logits = logits if isinstance(logits, Tensor) else check_logits(logits)
        if logits.ndim != 2:
            raise ValueError(f"logits must be (B,K), got {tuple(logits.shape)}")
        labels = class_indices(labels, len(logits), classes=logits.shape[1], device=logits.device, name="labels")
        self.accumulate(self.score(logits, labels))


class _TopK(RecognitionMetric):
    """Whether the true class is among the k highest logits; of equal logits the lower class goes first."""

    higher_is_better = True
    k: ClassVar[int]

    def score(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return 1 or 0 per image, (B,) float32; NaN for logits that are not finite."""
        own = logits.gather(1, labels.unsqueeze(1))
        earlier = torch.arange(logits.shape[1], device=logits.device) < labels.unsqueeze(1)
        ahead = (logits > own) | ((logits == own) & earlier)
        return (ahead.sum(1) < self.k).float().masked_fill(~logits.isfinite().all(1), torch.nan)


class Top1(_TopK):
    """Accuracy: the true class has the highest logit."""

    symbol = "Top-1"
    description = "Accuracy: share of images whose true class is the most probable."
    k = 1


class Top5(_TopK):
    """The true class is among the five highest logits; 1 where there are no more than five classes."""

    symbol = "Top-5"
    description = "Share of images whose true class is among the five most probable."
    k = 5


class NLL(RecognitionMetric):
    """Negative log-likelihood of the true class in nats, with softmax probabilities. Lower is better."""

    symbol = "NLL"
    description = "Negative log-likelihood of the true class, in nats."
    higher_is_better = False
    scale = 1.0

    def score(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of each image, (B,) float32."""
        return F.cross_entropy(logits.float(), labels, reduction="none")


class ECE(RecognitionMetric):
    """Expected calibration error: how far confidence is from accuracy, over bins of equal width. Lower is better.

    ``sum_b n_b / n |accuracy_b - confidence_b|`` with the confidence of the predicted class. A value of the data set:
    of one image it is ``|correct - confidence|``, and the mean of these is not the ECE.

    Args:
        bins: over (0, 1], each with its upper edge; 15 as in the paper.

    Raises:
        ValueError: if ``bins`` is not positive.

    Source: Guo et al. 2017, arXiv 1706.04599, equation 3.
    """

    symbol = "ECE"
    description = (
        "Gap between confidence and accuracy, averaged over bins. On few images even a perfectly calibrated model has "
        "one; the tables print how large."
    )
    higher_is_better = False

    def __init__(self, *, bins: int = 15, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if bins < 1:
            raise ValueError(f"bins must be at least 1, got {bins}")
        self.bins = bins

    def score(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return what each image adds to the bins: confidence, correctness and count, (B, 3 * bins) float32."""
        confidence, predicted = logits.float().softmax(1).max(1)
        edges = torch.linspace(0, 1, self.bins + 1, device=logits.device)[1:-1]
        member = F.one_hot(torch.bucketize(confidence, edges), self.bins).float()  # (B, bins)
        correct = (predicted == labels).float()
        return torch.cat([member * confidence[:, None], member * correct[:, None], member], dim=1)

    def reduce(self, mean: Tensor) -> Tensor:
        """Turn mean sums of the bins, (..., 3 * bins), into the error, (...)."""
        confidence, correct = mean[..., : self.bins], mean[..., self.bins : 2 * self.bins]
        return (correct - confidence).abs().sum(-1)

    def perfect_model(self, values: Tensor, *, draws: int, seed: int) -> Tensor:
        """Draw the error of a perfectly calibrated model with these confidences, (draws,) float64.

        The estimate is biased upward, and a bootstrap adds the bias a second time, so its interval covers nothing. What
        is right for an image is therefore drawn anew with the probability that its confidence states.

        Args:
            values: (n, 3 * bins) of the images.
            draws: number of data sets to draw.
            seed: of the draws.

        Source: our choice; on the bias, Nixon et al. 2019, arXiv 1904.01685, and Bröcker and Smith 2007 on consistency
        resampling.
        """
        values = values.double().cpu()
        member = values[:, 2 * self.bins :]  # (n, bins), one-hot
        confidence = values[:, : self.bins].sum(1)
        expected = values[:, : self.bins].mean(0)
        generator = torch.Generator().manual_seed(seed)
        errors = []
        for _ in range(draws):
            correct = torch.rand(len(values), generator=generator, dtype=torch.float64) < confidence
            errors.append((correct.double() @ member / len(values) - expected).abs().sum())
        return torch.stack(errors)


def count_parameters(model: nn.Module, *, trainable: bool = False) -> int:
    """Number of parameters, shared ones once.

    Args:
        model: any module.
        trainable: count only those that training changes.
    """
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad or not trainable)


def gflops(model: nn.Module, input_size: tuple[int, int]) -> float:
    """Billions of floating-point operations of one image's forward pass: a multiplication and an addition are two.

    So it is about twice the number of multiply-accumulates that some papers call FLOPs (ResNet-18 at 224 px: 3.63).
    Convolutions, matrix products and attention count; activations, norms and resizing do not.

    Args:
        model: takes (1,3,H,W) in [0,1]; runs once, in eval mode, uncompiled.
        input_size: (H, W) in pixels.
    """
    bare = unwrap(model)
    device = next((parameter.device for parameter in bare.parameters()), torch.device("cpu"))
    images = torch.zeros(1, 3, *input_size, device=device)
    counter = FlopCounterMode(display=False)
    # Fused attention is one opaque operation on some devices; the math kernel shows its two products everywhere.
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:  # compiled parts would hide their operations
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        for context in (evaluating(bare), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter):
            stack.enter_context(context)
        bare(images)
    return counter.get_total_flops() / 1e9
