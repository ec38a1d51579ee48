"""The page of a comparison in a real Chromium: clips in step, frame by frame, searched, on a phone, dark, readable."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison_tools import LOADING, prompt_file
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from chromium import NEEDS_CHROMIUM
from openlumiere.comparison.compare import make_report
from openlumiere.comparison.entries import Entry
from openlumiere.comparison.making import Failure, make_clips
from openlumiere.comparison.page import write_page
from openlumiere.comparison.plan import make_plan
from openlumiere.comparison.prompts import read_shots
from openlumiere.video import write_clip
from page_tools import DESKTOP, PHONE, Page

pytestmark = [pytest.mark.browser, NEEDS_CHROMIUM]

PROMPTS = ("a red ball", "two blue kites", "</script><b>an “old” tram</b>", "green frogs")
CLOCKS = "[...document.querySelectorAll('video')].filter((v) => v.src && v.checkVisibility()).map((v) => v.currentTime)"


def clips(folder: Path, *, frames: int, fps: float, size: tuple[int, int], lacking: str = "") -> str:
    """A method's clips; a bar moves from the left to the right, so that a frame can be told."""
    folder.mkdir()
    lines = ["file,prompt"]
    for number, prompt in enumerate(PROMPTS):
        if prompt != lacking:
            clip = np.full((frames, *size, 3), 40 + 40 * number, np.uint8)
            for i in range(frames):
                clip[i, :, i * size[1] // frames : (i + 1) * size[1] // frames] = 255
            write_clip(clip, folder / f"{number}.mp4", fps=fps)
            lines.append(f'{number}.mp4,"{prompt}"')
    (folder / "prompts.csv").write_text("\n".join(lines), encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of three folders of clips of other sizes, rates and lengths."""
    root = tmp_path_factory.mktemp("page")
    entries = (
        Entry(name="Ours", clips=clips(root / "ours", frames=32, fps=16, size=(64, 64))),
        Entry(name="Gen-2", clips=clips(root / "gen2", frames=16, fps=8, size=(72, 128))),
        Entry(name="Pika", clips=clips(root / "pika", frames=24, fps=24, size=(96, 64), lacking=PROMPTS[1])),
    )
    plan = make_plan(root / "out", entries, read_shots(prompt_file(root, PROMPTS)))
    make_clips(plan, LOADING, report=print, progress=False)
    failed = Failure(plan.entries[2], plan.shots[1], "not in its folder")
    write_page(make_report(plan, [failed], command="lumiere compare", progress=False), plan.folder)
    return plan.folder


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = Page(tmp_path_factory.mktemp("browser"))
    yield page
    page.driver.quit()


def clocks(page: Page) -> list[float]:
    return [float(time) for time in page.run(CLOCKS)]


def loaded(page: Page) -> None:
    page.driver.execute_script("document.documentElement.style.scrollBehavior = 'auto'; bar.scrollIntoView()")
    page.until(lambda: page.run("followed().length") >= 2, "clips are loaded")


def test_clips_play_in_step_and_stop_together(page: Page, address: str) -> None:
    page.open(address)
    loaded(page)
    # Read at one instant, of those that are not over; a busy machine may run late for a while.
    unfinished = "followed().filter(([, p]) => clock.time < p.duration - 0.1).map(([v]) => v.currentTime - clock.time)"
    for at in (0.2, 0.5):
        in_step = (
            f"((all) => clock.time > {at} && all.length > 1 && all.every((off) => Math.abs(off) < 0.12))({unfinished})"
        )
        page.until(lambda in_step=in_step: page.run(in_step), f"clips are in step after {at} s")
    page.until(lambda: 1.3 < page.run("clock.time") < 1.9, "the shortest clip is over")
    ended = page.run("followed().filter(([, p]) => p.duration < 1.1).map(([v]) => [v.paused, v.currentTime])")
    assert ended
    assert all(paused and time > 0.9 for paused, time in ended)
    page.until(lambda: page.run("clock.time") < 0.5, "all begin again")
    page.click("#play", "Pause")
    assert page.run("document.body.dataset.state") == "paused"
    page.until(lambda: page.run("followed().every(([v]) => !v.seeking && v.paused)"))
    off = page.run("followed().map(([v, p]) => v.currentTime - Math.min(clock.time, p.duration - frame / 2))")
    assert max(map(abs, off)) < 0.005, off  # the same moment of all
    assert page.complaints() == []
    assert page.foreign() == set()


def test_a_step_is_a_frame_of_the_fastest_clip(page: Page, address: str) -> None:
    page.open(address, calm=True)
    loaded(page)
    assert page.run("document.body.dataset.state") == "paused"  # who wants no motion starts it
    page.driver.find_element(By.TAG_NAME, "body").click()
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    page.until(lambda: page.run("followed().every(([v]) => !v.seeking)"))
    assert page.run("clock.time") == pytest.approx(3 / 24)
    assert all(time == pytest.approx(3 / 24, abs=0.002) for time in clocks(page)[:2])
    page.click("#back")
    assert page.run("clock.time") == pytest.approx(2 / 24)
    page.driver.execute_script("find('time').value = 1.5; find('time').oninput()")
    page.until(lambda: page.run("followed().every(([v]) => !v.seeking)"))
    by_length = page.run("followed().map(([v, p]) => [p.duration, v.currentTime])")
    assert all(time == pytest.approx(min(1.5, duration - 1 / 48), abs=0.01) for duration, time in by_length), by_length
    assert "1.50 of 2.00 s" in page.find("#now").text
    page.click("#cut")
    assert "of 1.00 s" in page.find("#now").text


def test_the_speed_is_every_clip_s(page: Page, address: str) -> None:
    page.open(address)
    loaded(page)
    page.driver.execute_script("find('speed').value = '0.25'; find('speed').onchange()")
    assert set(page.run("followed().map(([v]) => v.playbackRate)")) == {0.25}


def test_prompts_are_searched_and_models_chosen(page: Page, address: str) -> None:
    page.open(address, calm=True)
    seen = "[...document.querySelectorAll('%s')].filter((e) => e.checkVisibility()).map((e) => e.textContent)"
    shown = seen % ".row h3"
    assert page.run(shown) == list(PROMPTS)  # markup in a prompt is text
    page.find("#search").send_keys("KITES blue")
    assert page.run(shown) == [PROMPTS[1]]
    assert page.find("#count").text == "1 of 4 prompts"
    assert "No clip: not in its folder" in page.find(".row:not([hidden])").text
    page.click("#shown button", "Pika")
    assert page.run(seen % ".row strong") == ["Ours", "Gen-2"]


def test_every_number_has_its_interval_and_its_clips(page: Page, address: str, folder: Path) -> None:
    page.open(address, calm=True)
    report: dict[str, Any] = json.loads(
        (folder / "index.html").read_text().split('id="data">')[1].split("</script>")[0]
    )
    cells = page.run("[...document.querySelectorAll('#measured tbody td')].map((e) => e.innerText)")
    given = [cell for cell in cells if cell[0].isdecimal()]
    assert len(given) == sum(len(entry["measures"]) for entry in report["entries"]) > 10
    assert all(cell.endswith(("4 clips", "3 clips")) and " to " in cell for cell in given), given


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read_by_everyone(page: Page, address: str, size: tuple[int, int], dark: bool) -> None:
    page.open(address, size, dark=dark, calm=True)
    loaded(page)
    assert page.serious() == []
    assert page.run("document.documentElement.scrollWidth") <= size[0]
    columns = page.run("getComputedStyle(document.querySelector('.cells')).gridTemplateColumns")
    assert len([width for width in columns.split() if width != "0px"]) == (3 if size == DESKTOP else 2)
    assert page.run("bar.getBoundingClientRect().height") < size[1] / 6


def test_it_opens_from_the_disk(page: Page, folder: Path) -> None:
    page.driver.get("about:blank")
    page.driver.get_log("browser")
    page.look(DESKTOP)
    page.driver.get((folder / "index.html").as_uri())
    loaded(page)
    assert page.run("document.body.dataset.state") == "playing"
    page.until(lambda: page.run("clock.time") > 0.2, "it plays")
    assert page.complaints() == []
