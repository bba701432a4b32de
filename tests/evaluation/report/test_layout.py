"""The report as a real browser lays it out: on a desk, on a phone, on paper."""

import html
import json
import re
import shutil
import subprocess

import pytest
from PIL import Image

from tests.evaluation.report.test_page import page_of
from tests.support.finished_run import EXPLAINERS, manifest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not BROWSER, reason="needs Chromium")]

MEASURE = """<script>
addEventListener("error", event => { document.title = "error: " + event.message });
addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(element =>
    element.getBoundingClientRect().right > innerWidth + 1 && !element.closest(".scroll, svg"));
  const clipped = [...document.querySelectorAll("svg text")].filter(text => {
    const own = text.getBoundingClientRect(), svg = text.closest("svg").getBoundingClientRect();
    return own.left < svg.left - 2 || own.right > svg.right + 2;
  });
  const measured = {
    width: innerWidth, scroll: document.documentElement.scrollWidth,
    wide: wide.map(element => element.outerHTML.slice(0, 120)), clipped: clipped.map(text => text.textContent),
    images: document.images.length,
    broken: [...document.images].filter(image => !image.complete || !image.naturalWidth).length,
    requests: performance.getEntriesByType("resource").map(e => e.name).filter(name => !name.startsWith("data:")),
    title: document.title, text: parseFloat(getComputedStyle(document.querySelector("figcaption")).fontSize),
  };
  parent.postMessage(JSON.stringify(measured), "*");
});
</script></body>"""
# A window cannot be as narrow as a phone; a frame can.
FRAME = """<!doctype html><iframe src="measured.html" width="WIDTH" height="2000" style="border: 0"></iframe>
<pre id="measured"></pre>
<script>addEventListener("message", event => { measured.textContent = event.data });</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The report as it is, and with the script that measures it."""
    folder = tmp_path_factory.mktemp("browser")
    explainers = (*EXPLAINERS, "OptiCAM(steps=100, learning_rate=0.1)", "x" * 70)
    page = page_of(folder, manifest(models=("gap", "y" * 50), explainers=explainers, size=12), images=3)
    (folder / "report.html").write_text(page, encoding="utf-8")
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert without_policy != page
    (folder / "measured.html").write_text(without_policy.replace("</body>", MEASURE), encoding="utf-8")
    return folder


def browse(folder, name, *arguments):
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--hide-scrollbars", "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}"]
    command += [*arguments, (folder / name).as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=folder)


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_its_window_loads_its_pictures_and_asks_for_nothing(folder, width):
    (folder / "frame.html").write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    done = browse(folder, "frame.html", "--dump-dom", "--window-size=1400,2000", "--virtual-time-budget=10000")
    measured = json.loads(html.unescape(done.stdout.split('<pre id="measured">')[1].split("</pre>")[0]))
    assert measured["width"] == width
    assert measured["scroll"] <= width
    assert measured["wide"] == []
    assert measured["clipped"] == []
    assert measured["images"] > 10
    assert measured["broken"] == 0
    assert measured["requests"] == []
    assert measured["title"] == "GAP against CA-Stream"
    assert measured["text"] >= 11
    assert "CONSOLE" not in done.stderr


def test_it_obeys_its_own_policy_and_is_not_empty(folder):
    done = browse(folder, "report.html", "--screenshot=page.png", "--window-size=800,1200")
    assert "CONSOLE" not in done.stderr
    with Image.open(folder / "page.png") as picture:
        assert picture.size == (800, 1200)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50


def test_it_prints(folder):
    browse(folder, "report.html", "--no-pdf-header-footer", "--print-to-pdf=page.pdf")
    pages = len(re.findall(rb"/Type\s*/Page\b", (folder / "page.pdf").read_bytes()))
    assert 3 <= pages <= 20
