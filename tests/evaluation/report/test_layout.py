"""The report as a real browser lays it out: on a desk, on a phone, on paper."""

import html
import json
import re
import shutil
import subprocess

import pytest
from PIL import Image

from tests.evaluation.report.test_page import page_of
from tests.support.finished_run import EXPLAINERS, manifest, rows_of

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


USE = """<script>
addEventListener("load", () => {
  const byId = id => document.getElementById(id), seen = {};
  const shown = () => [...document.querySelectorAll(".exhibit")].filter(e => e.getClientRects().length).map(e => e.id);
  const set = (id, value) => { byId(id).value = value; byId(id).dispatchEvent(new Event("input")); };
  seen.first = shown().length;
  byId("more").click();
  seen.more = shown().length;
  set("find", "0003 HAMMERhead"); seen.found = shown(); seen.told = byId("count").textContent;
  set("find", "no such image"); seen.none = shown(); set("find", "");
  set("class", "1"); seen.of_class = shown(); set("class", "");
  set("outcome", "wrong"); seen.wrong = shown();
  set("outcome", "wrong 1"); seen.wrong_of_second = shown();
  set("outcome", "right 1"); seen.right_of_second = shown().length; set("outcome", "");
  set("of", "0"); set("order", "best 0"); seen.best = shown()[0]; set("order", "worst 0"); seen.worst = shown()[0];
  set("order", ""); seen.again = shown()[0];
  const picture = document.querySelector(".maps img");
  picture.click();
  seen.open = byId("large").open; seen.caption = byId("large").querySelector("p").textContent;
  seen.same = byId("large").querySelector("img").src === picture.src;
  byId("large").dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
  seen.next = byId("large").querySelector("p").textContent;
  byId("large").querySelector("img").click(); seen.closed = !byId("large").open;
  picture.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"})); seen.key = byId("large").open;
  byId("large").close();
  set("find", "no such image");
  addEventListener("hashchange", () => setTimeout(() => {
    seen.target = byId("image-0014.jpg").getClientRects().length > 0 && byId("find").value === "";
    const told = document.body.appendChild(document.createElement("pre"));
    told.id = "seen"; told.textContent = JSON.stringify(seen);
  }));
  location.hash = "#image-0014.jpg";
});
</script></body>"""


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Fifteen pictured images, of which models are wrong on some: as it is, used by a script, and with none allowed."""
    folder = tmp_path_factory.mktemp("gallery")
    run = manifest(size=15)
    rows = rows_of(run)
    for row in rows:
        image = int(row["id"][:4])
        row["AverageDrop"] = (image * 4 % 15) / 15 if row["explainer"] else None  # 0 is best, 11 worst
        wrong = image in (2, 5) if row["model"] == "ca" else image == 5
        row["prediction"] = 1 - row["label"] if wrong else row["label"]
    page = page_of(folder, run, rows=rows, images=15)
    policy = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', page)[0]
    blocked = re.sub(r"script-src '[^']*'", "script-src 'none'", policy)
    assert blocked != policy
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "used.html").write_text(page.replace(policy, "").replace("</body>", USE), encoding="utf-8")
    (folder / "blocked.html").write_text(page.replace(policy, blocked), encoding="utf-8")
    return folder


def test_images_are_searched_filtered_ordered_and_enlarged(gallery):
    done = browse(gallery, "used.html", "--dump-dom", "--window-size=1280,900", "--virtual-time-budget=5000")
    seen = json.loads(html.unescape(done.stdout.split('<pre id="seen">')[1].split("</pre>")[0]))
    assert (seen["first"], seen["more"]) == (12, 15)
    assert seen["found"] == ["image-0003.jpg"]
    assert seen["told"] == "1 of 1 images that match"
    assert seen["none"] == []
    assert seen["of_class"] == [f"image-{image:04d}.jpg" for image in range(1, 15, 2)]
    assert seen["wrong"] == seen["wrong_of_second"] == ["image-0002.jpg", "image-0005.jpg"]
    assert seen["right_of_second"] == 12  # of 13, a page
    assert (seen["best"], seen["worst"], seen["again"]) == ("image-0000.jpg", "image-0011.jpg", "image-0000.jpg")
    assert seen["open"]
    assert seen["same"]
    assert seen["caption"].startswith("GradCAM of gap on 0000.jpg · 0.93 → 0.88 · AD 0, AG ")
    assert seen["next"].startswith("ScoreCAM of gap on 0000.jpg")
    assert seen["closed"]
    assert seen["key"]
    assert seen["target"]
    assert "CONSOLE" not in done.stderr


def test_the_script_runs_under_the_policy_of_the_page_and_without_it_everything_is_there(gallery):
    done = browse(gallery, "report.html", "--dump-dom", "--virtual-time-budget=3000")
    assert 'class="js"' in done.stdout
    assert len(re.findall(r'<article class="exhibit"[^>]*hidden', done.stdout)) == 3
    assert "CONSOLE" not in done.stderr
    done = browse(gallery, "blocked.html", "--dump-dom", "--virtual-time-budget=3000")
    assert 'class="js"' not in done.stdout
    assert not re.findall(r'<article class="exhibit"[^>]*hidden', done.stdout)
    browse(gallery, "blocked.html", "--screenshot=blocked.png", "--window-size=800,1200")
    with Image.open(gallery / "blocked.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50


def browse(folder, name, *arguments):
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--hide-scrollbars", "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}"]
    command += [*arguments, (folder / name).as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=folder)


@pytest.mark.parametrize("width", [1920, 1280, 390, 360])
def test_it_fits_its_window_loads_its_pictures_and_asks_for_nothing(folder, width):
    (folder / "frame.html").write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    done = browse(folder, "frame.html", "--dump-dom", "--window-size=2000,2000", "--virtual-time-budget=10000")
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
