"""The study's page in a real Chromium, driven by its keys and buttons against a real server.

Skipped where there is no Chromium; with OPENLUMIERE_REQUIRE_BROWSER=1, as in `.ci/run`, that is a failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from chromium import NEEDS_CHROMIUM, start_chromium
from openlumiere.study.answers import Answers
from openlumiere.study.pairs import Study, create_study
from openlumiere.video import write_clip
from study_tools import Server

SITUATION = (
    "[document.body.dataset.state, watched, busy, radios.map((r) => [r.checked, r.disabled]), next.disabled, "
    "document.activeElement.outerHTML.slice(0, 60), alarm.hidden, alarm.textContent, "
    "videos.map((v) => [v.currentTime, v.paused, v.ended, v.readyState])]"
)
PATIENCE = 60  # seconds: machines that also train are slow
DESKTOP, PHONE = (1280, 800), (390, 844)

pytestmark = [pytest.mark.browser, NEEDS_CHROMIUM]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Ten pairs for each rater, checks included; clips of half a second."""
    root = tmp_path_factory.mktemp("browser")
    for method, tint in (("ours", (1.0, 0.4, 0.2)), ("pika", (0.2, 0.5, 1.0))):
        (root / method).mkdir()
        for number in range(8):
            light = np.linspace(0.1 * number, 1, 8)[:, None, None, None]
            clip = np.broadcast_to(light * np.array(tint), (8, 64, 64, 3))
            write_clip(clip, root / method / f"prompt-{'abcdefgh'[number]}.mp4", fps=16)
    others = {"Pika": root / "pika"}
    return create_study(root / "ours", others, root / "study", pairs_per_rater=8, checks=2, progress=False)


class Page:
    """A browser of its own, as a rater has it."""

    def __init__(self, profile: Path) -> None:
        self.driver = start_chromium(profile)
        self.driver.set_page_load_timeout(PATIENCE)

    def renew(self, size: tuple[int, int], *, dark: bool) -> None:
        """As if it had never been used, with another screen. Storage goes by the server's port, which is new."""
        self.driver.get("about:blank")
        self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        self.driver.get_log("browser")
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})

    def run(self, script: str) -> object:
        return self.driver.execute_script(f"return {script}")

    def until(self, true: Callable[[], object]) -> None:
        WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(lambda _: true())

    def begin(self, server: Server) -> None:
        self.driver.get(f"http://127.0.0.1:{server.port}/")
        self.driver.find_element(By.ID, "consent").click()
        self.driver.find_element(By.CSS_SELECTOR, "button.first").click()
        self.until(lambda: "/s/" in self.driver.current_url)

    @property
    def state(self) -> object:
        return self.run("document.body.dataset.state")

    @property
    def place(self) -> object:
        """Which question is shown."""
        return self.run("[shown.pair, shown.question]")

    def wait_for_question(self) -> bool:
        """Wait until an answer can be given: False at the end of the study."""
        self.until(lambda: self.state == "done" or self.run("typeof watched === 'boolean' && watched && !busy"))
        return self.state != "done"

    def press(self, *keys: str) -> None:
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def answer(self, *keys: str) -> None:
        """Answer by keys, and wait for what comes next."""
        before = self.place
        self.press(*keys)
        try:
            self.until(lambda: self.state == "done" or self.place != before)
        except TimeoutException as error:
            raise AssertionError(f"nothing came after {before}: {self.run(SITUATION)}, {self.complaints()}") from error

    def complaints(self) -> list[str]:
        """What the page logged, but for lost connections."""
        return [e["message"] for e in self.driver.get_log("browser") if "ERR_CONNECTION" not in e["message"]]


Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browsers() -> Iterator[list[Page]]:
    started: list[Page] = []
    yield started
    for page in started:
        page.driver.quit()


@pytest.fixture
def open_page(browsers: list[Page], tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Opens one browser after the other, those of earlier tests first."""
    waiting = iter([*browsers])

    def start(size: tuple[int, int] = DESKTOP, *, dark: bool = False) -> Page:
        page = next(waiting, None)
        if page is None:
            page = Page(tmp_path_factory.mktemp("profile"))
            browsers.append(page)
        page.renew(size, dark=dark)
        return page

    return start


@pytest.fixture
def server(study: Study) -> Iterator[Server]:
    running = Server(study)
    yield running
    running.end()
    for path in study.folder.glob("answers*"):
        path.unlink()


def test_ten_pairs_by_keyboard_with_a_reload_lose_and_double_nothing(
    study: Study, server: Server, open_page: Open
) -> None:
    page = open_page()
    page.begin(server)
    answers, count = Answers(study), 0
    given: list[tuple[object, str]] = []
    keys = ({"left": Keys.ARROW_LEFT, "right": "2"}, {"left": "1", "right": Keys.ARROW_RIGHT})
    while page.wait_for_question():
        place = page.place
        choice = "left" if count % 3 else "right"
        page.answer(keys[count % 2][choice], Keys.ENTER)
        given.append((place, choice))
        count += 1
        if count in (4, 9):  # in the middle of a pair, and of the study
            page.driver.refresh()
    stored = [([j.pair, j.question], "left" if j.left else "right") for j in answers.judgements()]
    assert stored == given
    assert len({str(place) for place, _ in given}) == sum(len(s.pair.questions) for s in answers.showings(1)) == 18
    assert study.shown == 10
    assert page.driver.find_element(By.ID, "code").text == answers.code(1)
    assert page.complaints() == []


def test_both_clips_are_whole_before_either_plays_and_run_in_step(server: Server, open_page: Open) -> None:
    page = open_page()
    # Notes, from the page's first moment on, what is loaded whenever a clip is told to play, and tries to choose then.
    added = page.driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument",
        {
            "source": "window.notes = []; window.early = null; { const play = HTMLMediaElement.prototype.play;"
            "HTMLMediaElement.prototype.play = function () { notes.push([...document.querySelectorAll('video')]"
            ".map((v) => [v.src.slice(0, 5), v.readyState, v.buffered.length ? v.buffered.end(0) - v.duration : -1]));"
            "if (early === null) { document.dispatchEvent(new KeyboardEvent('keydown', {key: '1'}));"
            "early = radios.map((radio) => [radio.disabled, radio.checked]); } return play.call(this); }; }"
        },
    )
    page.begin(server)
    page.wait_for_question()
    assert page.run("early") == [[True, False], [True, False]]  # nothing is chosen before both were watched
    notes = page.run("notes")
    assert isinstance(notes, list)
    assert notes
    for both in notes:
        for source, ready, missing in both:
            assert (source, ready) == ("blob:", 4)
            assert abs(missing) < 0.07
    assert page.run("videos.map((v) => v.muted && v.playsInline && v.videoWidth)") == [64, 64]
    apart = []
    for _ in range(20):
        apart.append(page.run("Math.abs(videos[0].currentTime - videos[1].currentTime)"))
        time.sleep(0.05)
    assert np.median(apart) < 0.07  # about a frame; single samples may fall into a restart
    page.press(" ")
    assert page.state == "paused"
    assert page.run("videos.every((v) => v.paused)")
    page.press(" ")
    page.until(lambda: page.state == "playing")
    page.press("r")
    page.until(lambda: page.run("videos.every((v) => !v.paused)"))
    page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_an_answer_outlives_a_dead_server_and_arrives_once(study: Study, server: Server, open_page: Open) -> None:
    page = open_page()
    page.begin(server)
    page.wait_for_question()
    place = page.place
    server.end()
    page.press("2", Keys.ENTER)
    page.until(lambda: page.run("!document.getElementById('alarm').hidden"))
    assert "kept here" in page.driver.find_element(By.ID, "alarm").text
    assert page.run("Object.keys(localStorage).filter((key) => key.startsWith('lumiere-study-answer')).length") == 1
    assert Answers(study).judgements() == []
    again = Server(study, server.port)
    try:
        page.driver.execute_script("for (const _ of [1, 2]) document.querySelector('#alarm button').click()")
        page.until(lambda: page.place != place)
        page.wait_for_question()
        (judgement,) = Answers(study).judgements()
        assert ([judgement.pair, judgement.question], judgement.left) == (place, False)
        assert page.run("Object.keys(localStorage).filter((key) => key.startsWith('lumiere-study-answer')).length") == 0
    finally:
        again.end()
        server.process = again.process


def test_an_unsent_answer_is_sent_after_a_reload(study: Study, server: Server, open_page: Open) -> None:
    page = open_page()
    page.begin(server)
    page.wait_for_question()
    place = page.place
    # Requests fail until the page is loaded again.
    page.driver.execute_script("window.fetch = () => Promise.reject(new TypeError('no network'))")
    page.press("1", Keys.ENTER)
    page.until(lambda: page.run("!document.getElementById('alarm').hidden"))
    page.driver.refresh()
    page.wait_for_question()
    (judgement,) = Answers(study).judgements()
    assert ([judgement.pair, judgement.question], judgement.left) == (place, True)
    assert page.place != place


def test_a_second_rater_cannot_write_into_the_firsts_session(study: Study, server: Server, open_page: Open) -> None:
    first, second = open_page(), open_page(PHONE)
    first.begin(server)
    first.wait_for_question()
    second.begin(server)
    second.wait_for_question()
    own = second.driver.current_url
    pair, question = first.place  # type: ignore[misc]
    path = first.run("location.pathname")
    status = second.driver.execute_async_script(
        "const [path, pair, question, done] = arguments; fetch(path + '/answers', {method: 'POST', "
        "headers: {'Content-Type': 'application/json'}, "
        "body: JSON.stringify({pair, question, choice: 'left', seconds: 1})}).then((r) => done(r.status))",
        path, pair, question,
    )  # fmt: skip
    assert status == 403
    second.driver.get(first.driver.current_url)
    assert "another browser" in second.driver.find_element(By.TAG_NAME, "main").text
    assert Answers(study).judgements() == []
    second.driver.get(own)
    second.wait_for_question()
    second.answer("1", Keys.ENTER)
    assert [judgement.rater for judgement in Answers(study).judgements()] == [2]
    first.answer("1", Keys.ENTER)
    assert [judgement.rater for judgement in Answers(study).judgements()] == [2, 1]
    # The first page knows the way back.
    second.driver.get(f"http://127.0.0.1:{server.port}/")
    second.driver.find_element(By.PARTIAL_LINK_TEXT, "where you stopped").click()
    second.until(lambda: second.driver.current_url == own)


@pytest.mark.parametrize(("size", "layout"), [(DESKTOP, "row"), (PHONE, "column"), ((844, 390), "row")])
def test_all_fits_on_the_screen_and_can_be_touched(
    server: Server, open_page: Open, size: tuple[int, int], layout: str
) -> None:
    page = open_page(size, dark=size == PHONE)
    page.begin(server)
    seen = set()
    while len(seen) < 2 and page.wait_for_question():
        kind = page.run("shown.question")
        shown = page.driver.find_element(By.ID, "prompt").is_displayed()
        assert shown == (kind == "text")
        seen.add(kind)
        assert page.run("document.getElementById('pair').dataset.layout") == layout
        width, height, full, tall = page.run(  # type: ignore[misc]
            "[innerWidth, innerHeight, document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
        )
        assert (width, height) == size == (full, tall)
        boxes = page.run(
            "[...document.querySelectorAll('video, button:not(#alarm button), .name, h1, #prompt:not([hidden])')]"
            ".filter((e) => e.offsetParent).map((e) => { const b = e.getBoundingClientRect();"
            "return [b.left, b.top, b.right, b.bottom, e.scrollWidth > e.clientWidth + 1]; })"
        )
        assert isinstance(boxes, list)
        assert len(boxes) >= 8
        for left, top, right, bottom, cut in boxes:
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            assert not cut
        assert page.run("Math.min(...videos.map((v) => Math.min(v.clientWidth, v.clientHeight)))") > 150
        page.driver.find_elements(By.CSS_SELECTOR, ".side")[1].click()
        assert page.run("radios[1].checked")
        before = page.place
        page.driver.find_element(By.ID, "next").click()
        page.until(lambda before=before: page.state == "done" or page.place != before)
    assert seen == {"quality", "text"}


def test_names_for_a_screen_reader(server: Server, open_page: Open) -> None:
    page = open_page()
    page.begin(server)
    page.wait_for_question()
    group = page.driver.find_element(By.CSS_SELECTOR, "[role=radiogroup]")
    assert group.accessible_name == page.driver.find_element(By.ID, "ask").text
    assert [radio.accessible_name for radio in group.find_elements(By.TAG_NAME, "input")] == ["Video 1", "Video 2"]
    live = page.driver.find_element(By.ID, "count")
    assert (live.get_attribute("aria-live"), live.text[:7]) == ("polite", "1 of 10")
    page.press(Keys.TAB)
    focused = "(document.activeElement.closest('.side') ?? document.activeElement)"
    assert page.run(f"getComputedStyle({focused}).outlineStyle") == "solid"
