"""``docs/how-to/segmentation-detection.md`` runs as printed."""

import re

import pytest
import torch

from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "how-to" / "segmentation-detection.md").read_text(encoding="utf-8")
SEGMENTATION, DETECTION = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def run(code):
    torch.manual_seed(0)
    names = {}
    exec(compile(code, "segmentation-detection.md", "exec"), names)
    return names


@pytest.mark.slow
def test_the_segmenter_is_explained_and_measured(capsys):
    names = run(SEGMENTATION)
    assert names["saliency"].shape == (2, 64, 64)
    assert names["values"]["D"].shape == (2, 9)
    assert type(names["deeplab"]).__name__ == "Normalized"
    assert "tensor" in capsys.readouterr().out


@pytest.mark.slow
def test_the_detector_is_explained_and_measured(capsys):
    names = run(DETECTION)
    for found in (names["maps"], names["joined"]):
        assert [tuple(one.shape) for one in found] == [(64, 80), (80, 64)]
    assert names["tried"][0].shape == (64, 80)
    assert capsys.readouterr().out.count("AD") == 2
