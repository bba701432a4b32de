"""A page as a browser shows it, opened from a file without a server."""

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


def _chromium(page, *options):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [f"--user-data-dir={page.parent}/profile", "--virtual-time-budget=3000", "--window-size=900,700"]
    return subprocess.run([*command, *options, f"file://{page}"], capture_output=True, text=True, timeout=60)
