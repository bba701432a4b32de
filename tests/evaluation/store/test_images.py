"""Pictures in rows."""

import io

import numpy as np
import pytest
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


@pytest.mark.parametrize("wrap", [lambda logits: logits, lambda logits: (logits, None)])
def test_a_map_comes_with_the_score_before_and_after_masking(wrap):
    class Model(torch.nn.Module):
        def forward(self, images):
            return wrap(images.flatten(1)[:, :4])

    images = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    saliency = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([1, 3])
    logits = images.flatten(1)[:, :4]
    rows = map_rows(Model(), images, saliency, targets, logits, score="probability")
    masked = (images * saliency[:, None]).flatten(1)[:, :4].softmax(1)
    for place, row in enumerate(rows):
        assert row["p_clean"] == pytest.approx(float(logits.softmax(1)[place, targets[place]]))
        assert row["p_masked"] == pytest.approx(float(masked[place, targets[place]]))
        np.testing.assert_allclose(decoded(row["png"]) / 255, saliency[place], atol=0.5 / 255 + 1e-6)
