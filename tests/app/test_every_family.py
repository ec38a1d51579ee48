"""Every task of every kind of model by one server: from the API, and from the page in a real Chromium."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from api_tools import line_of
from PIL import Image
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from serving import PATIENCE

from chromium import NEEDS_CHROMIUM
from openlumiere.generation.backends.find import read_abilities
from openlumiere.video import read_clip, read_metadata
from page_tools import Page, Server
from tiny_families import EVERY_TASK, FAMILIES, Small, saved_in

pytestmark = pytest.mark.slow

BOX = {"box": "0,0,0.5,1"}
OWN: dict[str, dict[str, Any]] = {
    "inpaint": BOX, "cinemagraph": {**BOX, "loop": False}, "outpaint": {"to": "2:1"}, "restyle": {"strength": 0.5},
    "extend": {"num_frames": 4}, "interpolate": {"factor": 2},
}  # fmt: skip
PICTURES = ("animate", "cinemagraph")
REFERENCES = "What is to be in it, if you like"
ORDER = ("generate", "animate", "cinemagraph", "inpaint", "outpaint", "restyle", "extend", "interpolate")  # the page's


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    saved = saved_in(tmp_path_factory.mktemp("families"))
    return {name: saved(name) for name in FAMILIES}


def ask(client: httpx.Client, small: Small, task: str) -> httpx.Response:
    """Ask for the smallest clip of a task."""
    fields: dict[str, Any] = {
        "model": small.able.model, "task": task, "prompt": "a red heart", "size": "{}x{}".format(*small.size),
        "num_inference_steps": 2, "seed": 1, **OWN.get(task, {}),
    }  # fmt: skip
    files = {}
    if task != "generate":
        files["input_reference"] = Path(small.files.picture if task in PICTURES else small.files.clip).read_bytes()
    if task in ("generate", *PICTURES):
        fields["num_frames"] = small.num_frames
    if task == "animate" and small.able.last_frame:
        files["last_frame"] = Path(small.files.last).read_bytes()
    return client.post("/v1/videos", data={name: str(value) for name, value in fields.items()}, files=files or None)


@pytest.mark.parametrize("name", FAMILIES)
def test_api(name: str, client: httpx.Client, models: dict[str, str], tmp_path: Path) -> None:
    able = read_abilities(models[name])
    (told,) = (each for each in client.get("/v1/videos/models").json()["data"] if each["id"] == able.model)
    assert (told["tasks"], told["emulated"]) == ([*able.tasks], [*able.emulated])
    small, ids = Small.of(able, tmp_path), {}
    for task in EVERY_TASK:
        answer = ask(client, small, task)
        if task in able.tasks:
            assert answer.status_code == 200, answer.text
            ids[task] = answer.json()["id"]
        else:
            assert line_of(answer).startswith(f"{able.model} cannot {task}: it can ")
    for task, id in ids.items():
        with client.stream("GET", f"/v1/videos/{id}/events", timeout=PATIENCE) as events:
            for _ in events.iter_lines():
                pass
        video = client.get(f"/v1/videos/{id}").json()
        assert video["status"] == "completed", (task, video["error"])
        width, height = small.size[0] * (2 if task == "outpaint" else 1), small.size[1]
        assert video["num_frames"] == small.length(task), task
        assert video["width"] / video["height"] == width / height
        path = tmp_path / "made.webp"
        path.write_bytes(client.get(f"/v1/videos/{id}/content", params={"format": "webp"}).content)
        assert len(read_clip(path).frames) == small.length(task)
        metadata = read_metadata(path)
        assert (metadata["model"], metadata["licence"]) == (able.model, able.licence)


def test_api_takes_reference_pictures(client: httpx.Client, models: dict[str, str], tmp_path: Path) -> None:
    small = Small.of(read_abilities(models["Wan 2.1 VACE"]), tmp_path)
    faces = [Path(path).read_bytes() for path in (small.files.picture, small.files.last)]
    fields = {
        "model": small.able.model, "prompt": "a red heart", "size": "16x16", "num_frames": "5",
        "num_inference_steps": "2", "seed": "1",
    }  # fmt: skip
    files = [("reference", (f"{n}.png", face)) for n, face in enumerate(faces)]
    answer = client.post("/v1/videos", data=fields, files=files)
    assert answer.status_code == 200, answer.text
    first = answer.json()
    assert first["request"]["references"] == ["reference-0.png", "reference-1.png"]
    again = client.post(f"/v1/videos/{first['id']}/remix", json={"prompt": "a blue heart"}).json()
    plain = client.post("/v1/videos", data=fields).json()
    clips = {}
    for id in (first["id"], again["id"], plain["id"]):
        with client.stream("GET", f"/v1/videos/{id}/events", timeout=PATIENCE) as events:
            for _ in events.iter_lines():
                pass
        video = client.get(f"/v1/videos/{id}").json()
        assert (video["status"], video["num_frames"]) == ("completed", 5), video["error"]
        clips[id] = client.get(f"/v1/videos/{id}/content", params={"format": "png"}).content
    assert len({*clips.values()}) == 3
    command = client.get(f"/v1/videos/{first['id']}").json()["command"]
    assert command.endswith("--reference reference-0.png --reference reference-1.png --device cpu --dtype float32")
    kept = client.get(f"/v1/videos/{first['id']}/source", params={"name": "reference-1"}).content
    assert (np.asarray(Image.open(io.BytesIO(kept))) == np.asarray(Image.open(small.files.last))).all()
    line = line_of(client.post("/v1/videos", data={**fields, "model": models["Wan 2.1 T2V"]}, files=files))
    assert line == f"reference: generate of {models['Wan 2.1 T2V']} takes no reference pictures; leave them out"


@pytest.fixture(scope="module")
def page(browser: Page, server: Server) -> Page:
    browser.open(server.address, calm=True)
    return browser


def in_sight(page: Page) -> set[str]:
    """Names of what can be set, more settings included."""
    labels = "[...document.querySelectorAll('#composer :is(.label, input[aria-label], .switch label)')]"
    seen = f"{labels}.filter((e) => e.checkVisibility()).map((e) => e.getAttribute('aria-label') ?? e.textContent)"
    return {str(name) for name in page.run(seen)}


@pytest.mark.browser
@NEEDS_CHROMIUM
@pytest.mark.parametrize("name", FAMILIES)
def test_page(name: str, page: Page, server: Server, models: dict[str, str], tmp_path: Path) -> None:
    able = read_abilities(models[name])
    small = Small.of(able, tmp_path)
    page.ready()
    Select(page.find("#model")).select_by_value(able.model)
    tasks = "[...document.querySelectorAll('.task')].filter((e) => e.checkVisibility()).map((e) => e.firstChild.value)"
    assert [task for task in page.run(tasks) if task != "sticker"] == [
        task for task in ORDER if task in able.tasks
    ]  # a sticker is a clip of text
    task = page.run(tasks)[0]
    assert task == ("generate" if "generate" in able.tasks else "animate")
    page.choose(task)
    if not page.run("document.querySelector('.more:last-child').open"):
        page.click("summary", "More settings")
    seen = in_sight(page)
    assert {"Prompt", "Prompt, if you like", "Not this"} & seen == (
        set() if not able.prompt else {"Not this", "Prompt" if task == "generate" else "Prompt, if you like"}
    )
    assert ("Width" in seen) == able.resizable
    assert not {"Loop", "Transparent", "Style", "Where it goes"} & seen  # what none of them has
    if task == "animate":
        assert ("Last frame, if you like" in seen) == (able.last_frame and not able.last_frame_needed)
        assert ("Last frame" in seen) == able.last_frame_needed
        page.upload("Picture", small.files.picture)
        if able.last_frame_needed:
            page.click("button[type=submit]", "Make")
            assert page.find("#composer .error", "Choose a picture to end with.")
            page.upload("Last frame", small.files.last)
    assert (REFERENCES in seen) == (able.references > 0)
    if able.references:
        page.upload(REFERENCES, small.files.picture)
    if able.prompt:
        page.set("Prompt" if task == "generate" else "Prompt, if you like", "a red heart")
    page.set("Steps", "2")
    if able.resizable:
        for label, side in zip(("Width", "Height"), small.size, strict=True):
            page.find(f"input[aria-label={label}]").send_keys(str(side))
    page.find("#composer input[aria-valuetext$=' s']").send_keys(Keys.HOME)
    id = page.make()
    page.wait()
    video = server.ask(f"/v1/videos/{id}")
    assert (video["model"], video["task"]) == (able.model, task)
    assert (video["num_frames"] - able.frame_offset) % able.frame_multiple == 0
    assert video["changes"] == []
    assert len(video["request"]["references"]) == (1 if able.references else 0)
    assert page.complaints() == []
