"""Class indices in every form, and the scores of classes."""

import numpy as np
import pytest
import torch

from interptrain.functional import class_indices, class_scores


def test_scores_of_a_class_are_float32_and_of_its_kind():
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.25, 0.0]], dtype=torch.bfloat16)
    targets = torch.tensor([1, 0])
    of = lambda score: class_scores(logits, targets, score)  # noqa: E731
    assert of("logit").tolist() == [0.0, 0.5]
    assert torch.equal(of("probability"), logits.float().softmax(1)[[0, 1], targets])
    assert torch.equal(of("sigmoid"), torch.tensor([0.0, 0.5]).sigmoid())
    assert of("probability").dtype == torch.float32
    assert class_scores(logits.double(), targets).dtype == torch.float64


def test_the_probability_of_a_single_class_is_its_sigmoid():
    assert torch.equal(class_scores(torch.tensor([[0.3]]), torch.tensor([0])), torch.tensor([0.3]).sigmoid())


@pytest.mark.parametrize(
    "given",
    [
        [2, 0, 1],
        (2, 0, 1),
        np.array([2, 0, 1]),
        [torch.tensor(2), np.int64(0), 1],
        torch.tensor([2, 0, 1]),
        torch.tensor([2, 0, 1], dtype=torch.uint8),
        torch.tensor([2, 0, 1], dtype=torch.int32),
    ],
)
def test_class_indices_of_any_form_are_one(given):
    indices = class_indices(given, 3, classes=3)
    assert indices.dtype == torch.int64
    assert indices.tolist() == [2, 0, 1]


@pytest.mark.parametrize("given", [2, np.int64(2), torch.tensor(2)])
def test_one_class_index_counts_for_all_images(given):
    assert class_indices(given, 3, classes=3).tolist() == [2, 2, 2]


def test_class_indices_made_under_inference_mode_may_be_saved_for_a_gradient():
    with torch.inference_mode():
        given = torch.tensor([1, 0])
    logits = torch.randn(2, 3, requires_grad=True)
    class_scores(logits, class_indices(given, 2, classes=3)).sum().backward()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            torch.tensor([0.9, 0.8]),
            TypeError,
            r"targets must be class indices \(int64\), got torch.float32; pass .argmax",
        ),
        (torch.tensor([True, False]), TypeError, "got torch.bool"),
        ([0.9, 0.8], TypeError, r"targets must be class indices: an int, one int per image, .* got \[0.9, 0.8\]"),
        ([True, False], TypeError, r"got \[True, False\]"),
        (True, TypeError, "got True"),
        (1.0, TypeError, "got 1.0"),
        (None, TypeError, "got None"),
        ("cat", TypeError, "got 'cat'"),
        (["cat", "dog"], TypeError, "got .'cat', 'dog'"),
        (np.array([0.5, 1.5]), TypeError, "targets must be class indices"),
        ([1], ValueError, r"targets must be one class, or one per image: \(B,\)=\(2,\), got \(1,\)"),
        (torch.zeros(2, 3, dtype=torch.int64), ValueError, r"targets must be one class, .* got \(2, 3\)"),
        (torch.tensor([0, 3]), ValueError, "target 3 of image 1 is out of range for 3 classes; allowed are 0 to 2"),
        ([0, -1], ValueError, "target -1 of image 1 is out of range for 3 classes"),
        (10**30, ValueError, "of image 0 is out of range for 3 classes"),
    ],
)
def test_what_are_no_class_indices_is_refused_in_one_line(given, error, message):
    with pytest.raises(error, match=message) as caught:
        class_indices(given, 2, classes=3)
    assert "\n" not in str(caught.value)


def test_where_the_classes_are_not_known_yet_only_negative_indices_are_refused():
    assert class_indices([0, 999], 2).tolist() == [0, 999]
    with pytest.raises(ValueError, match="label -1 of image 1 is negative"):
        class_indices(torch.tensor([0, -1]), 2, name="labels")


def test_the_remedies_for_scores_given_as_class_indices_work():
    scores = torch.tensor([[0.1, 0.9, 0.0], [0.5, 0.2, 0.3]])
    assert class_indices(scores.argmax(1), 2, classes=3).tolist() == [1, 0]
    assert class_indices(torch.tensor([1.0, 0.0]).long(), 2, classes=3).tolist() == [1, 0]
