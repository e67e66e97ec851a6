"""The page of `cascade app` in a browser: a drawing goes in, an image comes out, and mistakes leave it alive."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

pytest.importorskip("gradio", reason="the page needs gradio: pip install -e '.[app]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright: pip install it")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium on this machine: apt-get install chromium", allow_module_level=True)

WAIT_MS = 1000 * int(os.environ.get("CASCADE_APP_WAIT_S", "120"))
SCREENSHOT = os.environ.get("CASCADE_APP_SCREENSHOT")  # docs/app.png, to make it anew


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Address of the page, and the folder that its server keeps files in."""
    folder = tmp_path_factory.mktemp("server")
    words = [sys.executable, "-u", "-m", "cascade", "app", "--port", "0"]
    server = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(folder)}
    )
    found = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
    assert found, server.stderr.read()
    yield found[0], folder
    server.send_signal(signal.SIGTERM)
    _, errors = server.communicate(timeout=60)
    assert server.returncode == 143
    assert errors.splitlines()[-1] == "cascade app: terminated: what the page was sent is deleted"
    assert not list(folder.glob("cascade-*"))


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--enable-unsafe-swiftshader"]
        )
        yield opened
        opened.close()


@pytest.fixture
def page(site, browser):
    """The page, opened; whatever it asks for lies on this machine."""
    address, _ = site
    opened = browser.new_page(viewport={"width": 1280, "height": 1000})
    opened.set_default_timeout(WAIT_MS)
    asked, complaints = [], []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
    opened.goto(address)
    opened.wait_for_selector("#paint")
    yield opened
    away = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert asked
    assert not away
    assert not complaints
    opened.close()


def line(page, name: str, text: str) -> str:
    """What a line of the page says, once it holds this text."""
    page.wait_for_function(
        "([name, text]) => (document.querySelector(`#${name} textarea, #${name} input`)?.value || '').includes(text)",
        arg=[name, text],
    )
    return page.locator(f"#{name} textarea, #{name} input").first.input_value()


def draw(page, strokes) -> None:
    """Move the brush over the canvas; places as shares of its sides."""
    page.wait_for_function("document.querySelector('#drawing [aria-label=Brush]')?.classList.contains('highlight')")
    canvas = page.locator("#drawing canvas").first
    box = canvas.bounding_box()
    for path in strokes:
        for n, (x, y) in enumerate(path):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
            if n == 0:
                page.mouse.down()
        page.mouse.up()


def test_a_drawing_goes_in_and_an_image_comes_out(page, site):
    middles = [
        (0.22, 0.27),
        (0.45, 0.22),
        (0.74, 0.3),
        (0.3, 0.47),
        (0.55, 0.45),
        (0.8, 0.55),
        (0.2, 0.7),
        (0.48, 0.73),
    ]
    turns = np.random.default_rng(0).uniform(0, 2 * np.pi, len(middles))
    draw(
        page, [[(x, y), (x + 0.03 * np.cos(a), y + 0.03 * np.sin(a))] for (x, y), a in zip(middles, turns, strict=True)]
    )
    page.click("#paint")
    assert line(page, "draw-said", "cells in") == "8 cells in 320×320"
    picture = page.locator("#image img")
    picture.wait_for()
    page.wait_for_function("document.querySelector('#image img').naturalWidth > 0")
    assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [320, 320]
    if SCREENSHOT:
        page.screenshot(path=SCREENSHOT)


def test_an_empty_drawing_is_said_in_one_line(page):
    page.click("#paint")
    assert line(page, "draw-said", "drawn") == "nothing is drawn: paint a cell with the brush, or load a mask"


def test_masks_that_cannot_be_used_are_said_in_one_line_and_gone_and_the_next_one_is_painted(page, site, tmp_path):
    _, folder = site
    (tmp_path / "letter.png").write_bytes(b"dear page, I am no image")
    tifffile.imwrite(tmp_path / "sky.tif", np.zeros((10_000, 10_000), np.uint8), compression="zlib")
    tifffile.imwrite(tmp_path / "many.tif", np.arange(1, 10_001, dtype=np.uint16).reshape(100, 100))
    one = np.zeros((64, 64), np.uint8)
    one[20:44, 20:44] = 1
    tifffile.imwrite(tmp_path / "one.tif", one)
    for name, said in (
        ("letter.png", "letter.png: cannot be read"),
        ("sky.tif", "sky.tif: 100 megapixels, and the page takes 16"),
        ("many.tif", "many.tif holds 10000 cells, and the page paints up to 1000"),
    ):
        page.locator("#mask input[type=file]").set_input_files(tmp_path / name)
        assert line(page, "draw-said", said).startswith(said)
        assert not list(folder.rglob(name))
        page.click("#mask button[aria-label=Clear]")
        line(page, "draw-said", "the drawing is painted")
    page.locator("#mask input[type=file]").set_input_files(tmp_path / "one.tif")
    line(page, "draw-said", "1 cells in 64×64: they are painted, not the drawing")
    assert not list(folder.rglob("one.tif"))
    page.click("#paint")
    page.wait_for_function(
        "document.querySelector('#draw-said textarea, #draw-said input').value === '1 cells in 64×64'"
    )


def test_equal_files_of_two_visitors_are_two(site, tmp_path):
    """Or the first that is read, and deleted, would be missed by the other."""
    httpx = pytest.importorskip("httpx")
    address, folder = site
    sent = [httpx.post(f"{address}/gradio_api/upload", files={"files": ("one.tif", b"equal")}) for _ in range(2)]
    (first,), (second,) = (answer.json() for answer in sent)
    assert first != second
    assert Path(first).is_relative_to(folder)
    assert "default-src 'self'" in sent[0].headers["content-security-policy"]
