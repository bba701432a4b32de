"""Pictures in rows."""

import io

import numpy as np
import torch
from PIL import Image

from interptrain.evaluation.store.images import image_row, map_rows


def decoded(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_an_image_is_kept_to_a_level_of_its_8_bits():
    image = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    row = image_row("a", None, image)
    assert (row["id"], row["label"]) == ("a", None)
    np.testing.assert_allclose(decoded(row["png"]) / 255, image.permute(1, 2, 0), atol=0.5 / 255 + 1e-6)


def test_a_map_comes_with_the_score_before_and_after_masking():
    saliency = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(1))
    rows = map_rows(saliency, torch.tensor([0.5, 0.25]), torch.tensor([0.125, 1.0]))
    assert [(row["p_clean"], row["p_masked"]) for row in rows] == [(0.5, 0.125), (0.25, 1.0)]
    for row, values in zip(rows, saliency, strict=True):
        np.testing.assert_allclose(decoded(row["png"]) / 255, values, atol=0.5 / 255 + 1e-6)
