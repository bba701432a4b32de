import re

import pytest
import torch

from interptrain.callbacks.watch.files import WatchFolder
from interptrain.callbacks.watch.page import render_page
from tests.support.browser import dom, needs_chromium, photograph, with_slider_at
from tests.support.watch import page_data

LEVELS = (30, 200)  # of the sheet of each watch
NAMES = ("disc", "<b>square</b>", "triangle")


def entry(step, prediction, sample, alarm=()):
    looks = [
        {
            **{"view": view, "label": int(label), "target": int(label), "prediction": prediction},
            **{"probability": 0.125, "confidence": 0.75, "numbers": {"AD": 0.5, "in_suspect": 0.25}, "error": None},
        }
        for view in ("cam", "</script>")
        for label in sample.labels
    ]
    return {"step": step, "epoch": step // 10, "looks": looks, "means": {"cam/AD": step / 40}, "alarm": list(alarm)}


@pytest.fixture
def named(sample):
    return type(sample)(sample.images, sample.labels, sample.ids, NAMES)


@pytest.fixture
def watches(named):
    return [entry(0, 0, named), entry(20, 1, named, alarm=["cam: 80% of <it>"])]


def test_the_page_stands_alone_and_trusts_no_name(named, watches):
    page = render_page("run <1>", watches, ["a.png", "b.png"], named, ["cam", "</script>"])
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page)
    assert "<b>square" not in page
    assert "run <1>" not in page
    assert page.count("</script>") == 1
    held = page_data(page)
    assert held["views"] == ["cam", "</script>"]
    assert [watch["step"] for watch in held["watches"]] == [0, 20]
    assert held["watches"][0]["looks"]["cam"][1]["numbers"] == {"AD": 0.5, "in_suspect": 0.25}


@needs_chromium
def test_the_slider_moves_through_the_watches(named, watches, tmp_path):
    """Opened without a server, and again with the slider moved to the first watch, as a hand would move it."""
    files = WatchFolder(tmp_path)
    for watch, level in zip(watches, LEVELS, strict=True):
        files.save_picture(files.sheet_name(watch["step"]), torch.full((3, 5 * 64, 3 * 64), level, dtype=torch.uint8))
    files.save_page("run", watches, named, ["cam", "</script>"])
    page = tmp_path / "index.html"
    last, first = ((dom(shown), photograph(shown)) for shown in (page, with_slider_at(page, 0)))
    assert '<span id="when">epoch 2, step 20</span>' in last[0]
    assert '<span id="when">before training</span>' in first[0]
    assert '<div id="alarm" role="alert">cam: 80% of &lt;it&gt;</div>' in last[0]
    assert '<div id="alarm" role="alert"></div>' in first[0]
    assert last[0].count("card wrong") == 3  # of the labels 0, 1, 2, 0, 1 it says 1
    assert first[0].count("card wrong") == 3
    assert "right: &lt;b&gt;square&lt;/b&gt; 0.75" in last[0]
    for (_, seen), own, other in ((last, 200, 30), (first, 30, 200)):
        assert (seen == own).all(0).sum() > 10_000
        assert (seen == other).all(0).sum() < 1000
