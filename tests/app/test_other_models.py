"""Models of other families, served: tasks from start to download by the API, and by the page in a real Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from api_tools import clip_file, line_of, picture
from selenium.webdriver.support.ui import Select
from serving import PATIENCE as API_PATIENCE

from chromium import NEEDS_CHROMIUM
from openlumiere.video import read_clip, read_metadata
from page_tools import DESKTOP, PHONE, Page, Server
from tiny_backends import save_svd, save_zeroscope
from tiny_transformers import save_wan

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    saved = {
        "zeroscope": save_zeroscope(folder / "zeroscope"), "svd": save_svd(folder / "svd"),
        "vace": save_wan(folder / "vace", "vace"),
    }  # fmt: skip
    return {name: str(path) for name, path in saved.items()}


def _finished(client: httpx.Client, folder: Path, files: dict[str, bytes], **fields: Any) -> tuple[dict, np.ndarray]:
    """Ask for a clip, follow its events to the end, and download it."""
    answer = client.post("/v1/videos", data={key: str(value) for key, value in fields.items()}, files=files)
    assert answer.status_code == 200, answer.text
    id = answer.json()["id"]
    with client.stream("GET", f"/v1/videos/{id}/events", timeout=API_PATIENCE) as events:
        for _ in events.iter_lines():
            pass
    video = client.get(f"/v1/videos/{id}").json()
    assert video["status"] == "completed", video["error"]
    path = folder / "made.webp"
    path.write_bytes(client.get(f"/v1/videos/{id}/content", params={"format": "webp"}).content)
    assert read_metadata(path)["licence"]
    return video, read_clip(path).frames


def test_the_api_says_what_each_can_do(client: httpx.Client, models: dict[str, str]) -> None:
    data = client.get("/v1/videos/models").json()["data"]
    assert [each["id"] for each in data] == [*models.values(), "emoji"]
    assert [each["default"] for each in data] == [True, False, False, False]
    zeroscope, svd, vace, _ = data
    assert (zeroscope["family"], zeroscope["licence"], zeroscope["commercial"]) == ("zeroscope", "cc-by-nc-4.0", False)
    assert "inpaint" in zeroscope["emulated"]
    assert (svd["prompt"], svd["last_frame"], svd["fps"], svd["num_frames"]) == (False, False, 7.0, 6)
    assert (vace["frame_multiple"], vace["frame_offset"], vace["resizable"]) == (4, 1, True)
    assert "inpaint" not in vace["emulated"]
    assert line_of(client.post("/v1/videos", json={"model": svd["id"], "prompt": "a lamp"})).startswith(
        f"{svd['id']} cannot generate: it can animate"
    )
    asked = {"model": vace["id"], "prompt": "a lamp"}
    assert "pixels; at most" in line_of(client.post("/v1/videos", json={**asked, "size": "4000x4000"}))
    assert "give another name" not in line_of(client.post("/v1/videos", json={**asked, "model": "/etc"}), 404)


def test_a_picture_moves_by_svd_and_what_it_does_not_take_is_told(
    client: httpx.Client, models: dict[str, str], tmp_path: Path
) -> None:
    video, frames = _finished(
        client, tmp_path, {"input_reference": picture()}, model=models["svd"], prompt="a cat", num_inference_steps=2,
        size="30x25", seconds=60, loop="false",
    )  # fmt: skip
    assert frames.shape[0] == video["num_frames"] == 6
    assert (video["request"]["size"], video["fps"]) == ([32, 24], 7.0)
    assert (video["width"], video["height"]) == (192, 144)  # tiny clips are written larger, by whole pixels
    assert [change.partition(":")[0] for change in video["changes"]] == ["prompt", "size", "num_frames"]
    assert video["request"]["prompt"] == ""


def test_a_region_is_changed_by_wan(client: httpx.Client, models: dict[str, str], tmp_path: Path) -> None:
    source = clip_file(tmp_path, ".webp", frames=5, size=32, fps=16)
    video, frames = _finished(
        client, tmp_path, {"video_reference": source}, model=models["vace"], task="inpaint", prompt="a lamp",
        box="0,0,0.5,1", num_inference_steps=2, num_frames=5, seed=3, size="32x32",
    )  # fmt: skip
    assert (video["task"], video["num_frames"], frames.shape[0]) == ("inpaint", 5, 5)
    assert video["request"]["size"] == [32, 32]
    assert frames.shape[1:3] == (video["height"], video["width"])


@pytest.mark.browser
@NEEDS_CHROMIUM
def test_the_page_shows_what_a_model_can_do(browser: Page, server: Server, models: dict[str, str]) -> None:
    browser.open(server.address, calm=True)
    browser.ready()
    text = "document.getElementById('composer').innerText"
    assert "cc-by-nc-4.0 · non-commercial" in browser.run(text)
    assert "Emulated" not in browser.run(text)
    browser.choose("inpaint")
    mark = browser.find(".hint .emulated", "Emulated")
    assert "was not made for that" in (mark.get_attribute("title") or "")
    Select(browser.find("#model")).select_by_value(models["svd"])
    tasks = "[...document.querySelectorAll('.task')].filter((e) => e.checkVisibility()).map((e) => e.innerText.trim())"
    assert browser.run(tasks) == ["Move", "Brush", "Extend"]
    assert browser.run("document.querySelector('.task input:checked').value") == "animate"
    assert "Prompt" not in browser.run(text)
    assert "Last frame" not in browser.run(text)
    for size in (DESKTOP, PHONE):
        browser.look(size, calm=True)
        assert browser.serious() == []
        assert browser.run("document.documentElement.scrollWidth") <= size[0]
    browser.look(DESKTOP, calm=True)
    browser.example()
    browser.click("summary", "More settings")
    browser.set("Steps", "2")
    browser.find("input[aria-label=Width]").send_keys("20")
    id = browser.make()
    browser.wait()
    video = server.ask(f"/v1/videos/{id}")
    assert (video["model"], video["task"], video["prompt"]) == (models["svd"], "animate", "")
    assert (video["request"]["size"], video["num_frames"]) == ([16, 16], 6)
    assert browser.find(".changes li").text.startswith("size: 16x16 instead of 20x16")
    assert len(read_clip(browser.save("MP4")).frames) == 6
    Select(browser.find("#model")).select_by_value(models["vace"])
    assert browser.run("document.querySelector('[aria-label=Width]').value") == ""
    length = browser.run("(({min, max, step, value}) => [min, max, step, value])"
                      "(document.querySelector('#composer input[aria-valuetext$=\" s\"]'))")  # fmt: skip
    assert (int(length[3]) - 1) % 4 == 0
    assert length[2] == "4"
    assert browser.complaints() == []
    assert browser.foreign() == set()
