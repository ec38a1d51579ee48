"""Transparent files in a real Chromium: what is behind them shows through.

Skipped where there is no Chromium; with OPENLUMIERE_REQUIRE_BROWSER=1, as in `.ci/run`, that is a failure.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from chromium import NEEDS_CHROMIUM, start_chromium
from openlumiere.video import write_clip
from openlumiere.video.stickers import make_sticker

FLAGS = (
    "--force-color-profile=srgb", "--autoplay-policy=no-user-gesture-required", "--force-device-scale-factor=1",
)  # fmt: skip
PATIENCE = 60  # seconds: machines that also train are slow
MAGENTA, YELLOW = [255, 0, 255], [250, 210, 40]
READY = (
    "return [...document.images].every((i) => i.complete && i.naturalWidth) && "
    "[...document.querySelectorAll('video')].every((v) => v.readyState >= 2 && v.currentTime > 0)"
)

pytestmark = [pytest.mark.browser, NEEDS_CHROMIUM]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    driver = start_chromium(tmp_path_factory.mktemp("profile"), *FLAGS)
    driver.set_page_load_timeout(PATIENCE)
    driver.set_window_size(1000, 900)
    yield driver
    driver.quit()


def disc(num_frames: int = 16, side: int = 128) -> np.ndarray:
    """A yellow disc that breathes, black, unseen, around it; uint8, (frames, side, side, 4)."""
    y, x = np.mgrid[:side, :side]
    frames = np.zeros((num_frames, side, side, 4), np.uint8)
    for i, frame in enumerate(frames):
        radius = side * (0.36 + 0.04 * np.sin(2 * np.pi * i / num_frames))
        frame[..., 3] = (255 * np.clip(radius - np.hypot(x - side / 2, y - side / 2), 0, 1)).round()
        frame[frame[..., 3] > 0, :3] = YELLOW
    return frames


def test_files_and_stickers_are_shown_with_what_is_behind_them(browser: webdriver.Chrome, tmp_path: Path) -> None:
    frames = disc()
    shown = [write_clip(frames, tmp_path / name, fps=16) for name in ("a.webm", "a.webp", "a.apng", "a.gif")]
    shown += [
        make_sticker(frames, 16, target, tmp_path / f"{target}{suffix}").path
        for target, suffix in (
            ("telegram", ".webm"), ("telegram-emoji", ".webm"), ("whatsapp", ".webp"), ("discord", ".png"),
            ("discord-emoji", ".webp"), ("slack", ".gif"),
        )
    ]  # fmt: skip
    tags = [
        f'<video src="{path.name}" autoplay loop muted playsinline></video>'
        if path.suffix == ".webm"
        else f'<img src="{path.name}">'
        for path in shown
    ]
    style = "body { margin: 0; background: #f0f } img, video { width: 160px; height: 160px; float: left }"
    (tmp_path / "page.html").write_text(f"<!doctype html><style>{style}</style>{''.join(tags)}")
    browser.get((tmp_path / "page.html").as_uri())
    WebDriverWait(browser, PATIENCE, poll_frequency=0.1).until(lambda driver: driver.execute_script(READY))
    screen = np.asarray(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")).astype(int)
    script = "return [...document.body.children].map((e) => e.getBoundingClientRect()).map((r) => [r.x, r.y])"
    places = browser.execute_script(script)
    assert len(places) == len(shown)
    for path, (x, y) in zip(shown, places, strict=True):
        picture = screen[int(y) : int(y) + 160, int(x) : int(x) + 160]
        for corner in (picture[2, 2], picture[2, -3], picture[-3, 2], picture[-3, -3]):
            assert np.abs(corner - MAGENTA).max() <= 2, path.name
        assert np.abs(picture[80, 80] - YELLOW).max() <= 12, path.name
        # No dark fringe: along the edge is nothing darker than a mixture of both.
        assert picture.sum(-1).min() > 420, path.name
