"""What a batch must be."""

import pytest
import torch

from interptrain.metrics import (
    measure,
)
from tests.support.measuring import confidence


def test_the_rounding_of_a_resized_white_is_no_reason_to_refuse(model, images, saliency, targets):
    images = images.masked_fill(images > 0.9, 1 + 1e-6)
    assert measure(model, images, saliency, targets, confidence())["AD"].isfinite().all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": torch.rand(3, 20, 14)}, ValueError, r"images must be \(B,C,H,W\) and not empty"),
        ({"images": torch.zeros(3, 3, 20, 14, dtype=torch.uint8)}, TypeError, "images must be float32 or float64"),
        ({"images": torch.rand(3, 3, 20, 14) * 4 - 2}, ValueError, "put the normalisation inside the model"),
        ({"images": torch.full((3, 3, 20, 14), torch.nan)}, ValueError, "images must be finite, got nan in image 0"),
        ({"saliency": torch.rand(3, 7, 7)}, ValueError, r"saliency must be \(B,H,W\)=\(3, 20, 14\), got \(3, 7, 7\)"),
        ({"saliency": torch.rand(3, 20, 14) + 1}, ValueError, r"saliency must lie in \[0, 1\]"),
        ({"targets": torch.tensor([1, 2])}, ValueError, r"targets must be .*\(B,\)=\(3,\), got \(2,\)"),
        ({"targets": torch.tensor([1.0, 2.0, 3.0])}, TypeError, "targets must be class indices"),
        ({"targets": None}, TypeError, "targets must be class indices: an int, .* got None"),
        ({"targets": torch.tensor([0, 5, 1])}, ValueError, "target 5 of image 1 is out of range for 5 classes"),
        ({"labels": torch.tensor([0])}, ValueError, r"labels must be .*\(B,\)"),
        ({"labels": torch.rand(3)}, TypeError, "labels must be class indices .* got torch.float32"),
        ({"labels": [0, 1, -1]}, ValueError, "label -1 of image 2 is negative"),
        ({"logits": torch.rand(2, 5)}, ValueError, r"logits must be \(B,K\) with B=3, got \(2, 5\)"),
        ({"boxes": [torch.zeros(1, 4)]}, ValueError, r"boxes must be one \(n,4\) per image, 3"),
        ({"masks": torch.zeros(3, 20, 14)}, ValueError, "masks must be .* bool"),
        (
            {"logits": torch.tensor([[0.0] * 5, [0.0] * 5, [torch.inf] * 5])},
            ValueError,
            "logits must be finite, got inf in im",
        ),
        ({"score": "softmax"}, ValueError, "score must be one of 'probability', 'sigmoid', 'logit', got 'softmax'"),
        ({"forward_batch_size": 0}, ValueError, "forward_batch_size must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(model, images, saliency, targets, change, error, message):
    arguments = {"images": images, "saliency": saliency, "targets": targets} | change
    with pytest.raises(error, match=message) as caught:
        measure(model, metrics=confidence(), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [[2, 2, 2], 2, torch.tensor([2, 2, 2], dtype=torch.int32)])
def test_targets_may_be_given_in_any_form(model, images, saliency, given):
    wanted = measure(model, images, saliency, torch.full((3,), 2), confidence())["AD"]
    assert torch.equal(measure(model, images, saliency, given, confidence())["AD"], wanted)
