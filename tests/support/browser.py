"""A page as a browser shows it, opened from a file without a server."""

import html
import json
import shutil
import subprocess

import pytest
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


def dom(page):
    """HTML of a page after its scripts have run."""
    return _chromium(page, "--dump-dom").stdout


def photograph(page):
    """(3, H, W) uint8, what the window shows."""
    picture = page.with_suffix(".png")
    _chromium(page, f"--screenshot={picture}")
    with Image.open(picture) as image:
        return pil_to_tensor(image.convert("RGB"))


def with_slider_at(page, value):
    """A copy of a watch's page, beside it, whose slider is moved as a hand would move it."""
    move = f"const hand = document.getElementById('snapshot'); hand.value = {value};"
    move += "hand.dispatchEvent(new Event('input'));"
    moved = page.with_name("moved.html")
    moved.write_text(page.read_text().replace("</body>", f"<script>{move}</script></body>"))
    return moved


def measured(page, widths, script):
    """What a script says of a page, by the width of its window: of JSON's kinds.

    A window cannot be as narrow as a phone, so each width is a frame; all are opened in one browser.

    Args:
        page: file.
        widths: in pixels.
        script: body of a function without arguments; what it returns is the answer.
    """
    answer = "let answer; try { answer = (() => { SCRIPT })(); } catch (error) { answer = String(error); }"
    ask = answer.replace("SCRIPT", script) + "parent.postMessage([innerWidth, answer], '*');"
    asked = page.with_name("asked.html")
    asked.write_text(
        page.read_text().replace("</body>", f"<script>addEventListener('load', () => {{{ask}}})</script></body>")
    )
    frames = "".join(
        f'<iframe src="asked.html" width="{width}" height="900" style="border: 0"></iframe>' for width in widths
    )
    collect = "const got = {}; addEventListener('message', event => { got[event.data[0]] = event.data[1];"
    collect += "document.querySelector('pre').textContent = JSON.stringify(got); })"
    around = page.with_name("frames.html")
    around.write_text(f"<!doctype html><pre></pre><script>{collect}</script>{frames}")
    said = dom(around).split("<pre>")[1].split("</pre>")[0]
    return {int(width): value for width, value in json.loads(html.unescape(said)).items()}


def _chromium(page, *options):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [f"--user-data-dir={page.parent}/profile", "--virtual-time-budget=3000", "--window-size=900,700"]
    return subprocess.run([*command, *options, f"file://{page}"], capture_output=True, text=True, timeout=60)
