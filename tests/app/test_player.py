"""The page's clip player in a real Chromium: every frame, in time, and no more memory than it needs."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from chromium import NEEDS_CHROMIUM
from editor_tools import Editor
from openlumiere.video import read_clip, write_clip

pytestmark = [pytest.mark.browser, NEEDS_CHROMIUM]

FRAMES, SIDE, FPS = 12, 48, 16
PHONE = (320, 700)
OPEN = (
    "const ready = new Promise((resolve, reject) => {{ it.addEventListener('ready', resolve);"
    "it.addEventListener('error', ({{message}}) => reject(new Error(message))); }});"
    "for (const [name, value] of Object.entries({0})) it.setAttribute(name, value); await ready;"
)
PIXELS = (
    "const {width, height} = it.canvas; const own = it.frame().getContext('2d').getImageData(0, 0, width, height).data;"
    "let text = ''; for (const byte of own) text += String.fromCharCode(byte);"
)


def moving(num_frames: int = FRAMES, side: int = SIDE, channels: int = 3) -> np.ndarray:
    """A square that goes to the right over a ground, or over nothing."""
    clip = np.zeros((num_frames, side, side, 4))
    for frame in range(num_frames):
        left = 2 + round((side - 16) * frame / num_frames)
        clip[frame, 12:28, left : left + 12] = (1, 0.5, 0.1, 1)
    if channels == 4:
        return clip
    return clip[..., :3] + (1 - clip[..., 3:]) * np.array([0.2, 0.4, 0.8])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    folder = tmp_path_factory.mktemp("files")
    write_clip(moving(channels=4), folder / "clear.webp", fps=FPS)
    write_clip(moving(), folder / "opaque.webp", fps=FPS)
    write_clip(moving(), folder / "film.mp4", fps=FPS)
    write_clip(moving(FRAMES // 2), folder / "half.mp4", fps=FPS / 2)
    Image.new("RGB", (96, 48), "red").save(folder / "red.png")
    (folder / "broken.webp").write_bytes((folder / "clear.webp").read_bytes()[:200])
    editor = Editor(folder, tmp_path_factory.mktemp("profile"))
    yield editor
    editor.close()


def load(browser: Editor, size: tuple[int, int] = (600, 900), *, calm: bool = False, **attributes: object) -> None:
    browser.open("clip-player", size, calm=calm)
    named = {
        name: f"/files/{value}" if name in ("src", "compare", "mp4") else value for name, value in attributes.items()
    }
    browser.run(OPEN.format(named))


def shown(browser: Editor) -> np.ndarray:
    """The frame that is shown, RGBA."""
    coded, width, height = browser.run(PIXELS + "return [btoa(text), width, height]")
    return np.frombuffer(base64.b64decode(coded), np.uint8).reshape(height, width, 4)


@pytest.mark.parametrize(("name", "tolerance"), [("clear.webp", 1), ("opaque.webp", 1), ("film.mp4", 24)])
def test_each_frame_is_the_files(browser: Editor, name: str, tolerance: int) -> None:
    load(browser, src=name, paused="")
    if name == "film.mp4":
        expected = read_clip(browser.folder / name).frames
    else:
        with Image.open(browser.folder / name) as file:
            expected = np.stack([np.asarray((file.seek(i), file.convert("RGBA"))[1]) for i in range(file.n_frames)])
    assert browser.run("return it.count") == len(expected) == FRAMES
    for frame in (0, 1, 2, 7, 3, 11, 10):
        browser.run(f"await it.seek({frame})")
        picture = shown(browser).astype(int)
        apart = np.abs(picture[..., : expected.shape[-1]] - expected[frame])
        if expected.shape[-1] == 4:  # what is not there has no colour
            apart[expected[frame, ..., 3] == 0, :3] = 0
        assert apart.max() <= tolerance, frame
        blob = np.asarray(browser.picture("return it.toBlob()").convert("RGBA"))
        assert np.array_equal(blob, picture)
    assert browser.complaints() == []


@pytest.mark.parametrize("name", ["clear.webp", "film.mp4"])
def test_it_plays_every_frame_in_a_loop_at_its_rate(browser: Editor, name: str) -> None:
    browser.open("clip-player", (300, 500))
    browser.run(
        "window.seen = []; it.addEventListener('frame', ({detail}) => seen.push([detail.index, performance.now()]))"
    )
    browser.run(OPEN.format({"src": f"/files/{name}"}) + "await new Promise((r) => setTimeout(r, 4500)); it.pause()")
    order, times = zip(*browser.run("return seen"), strict=True)
    assert list(order) == [i % FRAMES for i in range(len(order))]
    assert len(order) > 2 * FRAMES
    gaps = np.diff(times[FRAMES:])  # after the first round, in which it was decoded
    assert np.median(gaps) < 1.5 * 1000 / FPS  # a busy machine plays slower
    assert gaps.sum() > len(gaps) * 1000 / FPS - 60  # a frame that came late is made up for, but none comes too early
    rest = browser.run(
        "const before = seen.length; await new Promise((r) => setTimeout(r, 300)); return seen.length - before"
    )
    assert rest == 0


def test_frame_by_frame_by_buttons_keys_and_scrubber(browser: Editor) -> None:
    load(browser, src="clear.webp")
    assert browser.run("return it.paused") is False
    browser.part("buttons.pause").click()
    browser.run("await it.seek(0)")
    browser.part("buttons.next").click()
    browser.until(lambda: browser.run("return it.index") == 1)
    assert browser.run("return [it.number.textContent, it.slider.value, it.slider.getAttribute('aria-valuetext')]") == [
        "2 / 12", "2", "frame 2 of 12",
    ]  # fmt: skip
    browser.keys(".", ".", ",")
    browser.until(lambda: browser.run("return it.index") == 2)
    browser.keys(",", ",", ",")
    browser.until(lambda: browser.run("return it.index") == FRAMES - 1)
    browser.run("it.slider.focus()")
    browser.keys(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    browser.until(lambda: browser.run("return it.index") == 2)
    browser.keys(" ")
    browser.until(lambda: browser.run("return !it.paused && it.index > 3"))
    browser.keys(" ")
    assert browser.run("return [it.paused, it.buttons.play.hidden, it.buttons.pause.hidden]") == [True, False, True]
    assert browser.complaints() == []


def test_it_starts_still_where_motion_is_unwelcome(browser: Editor) -> None:
    load(browser, src="clear.webp", calm=True)
    assert browser.run("await new Promise((r) => setTimeout(r, 300)); return [it.paused, it.index]") == [True, 0]
    browser.part("buttons.play").click()
    browser.until(lambda: browser.run("return it.index") > 1)


def test_grounds_show_through(browser: Editor) -> None:
    load(browser, src="clear.webp", paused="")
    colours = {}
    for ground in ("white", "black", "#12ab34", "checker"):
        if ground.startswith("#"):
            browser.run("it.ground = values[0]", ground)
        else:
            browser.run("it.grounds.querySelector(`[value=${values[0]}]`).click()", ground)
        shot = browser.screenshot(browser.part("stage"))
        colours[ground] = shot[len(shot) // 8 : len(shot) // 5, len(shot) // 4 : -len(shot) // 4].reshape(-1, 3)
        assert np.allclose(
            shot[int(20 / SIDE * len(shot)), int(8 / SIDE * len(shot))], (255, 128, 26), atol=4
        )  # the square
    assert (colours["white"] == 255).all()
    assert (colours["black"] == 0).all()
    assert (colours["#12ab34"] == (0x12, 0xAB, 0x34)).all()
    assert len(np.unique(colours["checker"], axis=0)) >= 2
    load(browser, src="opaque.webp", paused="")
    assert browser.run("return it.grounds.checkVisibility()") is False


def test_beside_its_source_by_a_slider_in_step(browser: Editor) -> None:
    load(browser, src="opaque.webp", compare="film.mp4", paused="")
    browser.until(lambda: browser.run("return it.source.checkVisibility()"))
    for frame in (0, 6, 11):
        browser.run(f"await it.seek({frame})")
        shot = browser.screenshot(browser.part("stage"))
        row = shot[int(20 / SIDE * len(shot))]
        is_square = np.linalg.norm(row - (255, 128, 26), axis=-1) < 60
        left = 2 + round((SIDE - 16) * frame / FRAMES)
        where = np.flatnonzero(is_square) / len(shot) * SIDE
        assert where.min() == pytest.approx(left, abs=0.7), frame  # one square, on both sides of the line
        assert where.max() == pytest.approx(left + 12, abs=0.7), frame
    # Half as many frames, each twice as long: the same time, not the same number.
    browser.run(
        "it.compare = '/files/half.mp4'; await new Promise((resolve) => {"
        "const look = () => it.source.hidden ? setTimeout(look, 20) : resolve(); setTimeout(look, 50); })"
    )
    browser.run("await it.seek(8)")
    beside = browser.run("return [...it.source.getContext('2d').getImageData(0, 20, 48, 1).data]")
    left = 2 + round((SIDE - 16) * 4 / 6)
    red = np.array(beside).reshape(-1, 4)[:, 0]
    assert abs(int(np.flatnonzero(red > 150).min()) - left) <= 1


def test_the_sliders_hands(browser: Editor) -> None:
    load(browser, src="opaque.webp", compare="red.png", paused="")
    browser.until(lambda: browser.run("return it.handle.checkVisibility()"))

    def red() -> float:
        """The part of the width that shows the source, which is red."""
        row = browser.screenshot(browser.part("stage"))[5]
        return float(np.mean(np.linalg.norm(row - (255, 0, 0), axis=-1) < 40))

    assert red() == pytest.approx(0.5, abs=0.03)
    handle = browser.part("handle")
    far = round(0.3 * browser.part("stage").rect["width"])
    ActionChains(browser.driver, duration=30).click_and_hold(handle).move_by_offset(far, 0).release().perform()
    assert red() == pytest.approx(0.8, abs=0.03)
    browser.run("it.handle.focus()")
    browser.keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert browser.run("return it.split") == pytest.approx(0.7, abs=0.02)
    assert (
        browser.run("return it.handle.getAttribute('aria-valuetext')")
        == f"{round(100 * browser.run('return it.split'))} % source"
    )
    browser.keys(Keys.HOME)
    assert red() == 0
    browser.keys(Keys.END)
    assert red() > 0.97
    browser.run("it.compare = null")
    assert browser.run("return it.handle.checkVisibility()") is False
    assert red() == 0


def test_a_broken_clip_says_so(browser: Editor) -> None:
    browser.open("clip-player")
    message = browser.run(
        "return new Promise((resolve) => { it.addEventListener('error', ({message}) => resolve(message));"
        "it.src = '/files/broken.webp'; })"
    )
    assert message
    assert browser.run("return it.wait.textContent") == "This clip could not be shown."
    browser.run("it.src = '/files/clear.webp'; await new Promise((r) => it.addEventListener('ready', r))")
    assert browser.run("return it.wait.checkVisibility()") is False


def test_blobs_and_other_clips_take_its_place(browser: Editor) -> None:
    load(browser, src="clear.webp")
    browser.run(
        "const blob = await (await fetch('/files/film.mp4')).blob();"
        "it.src = blob; it.src = '/files/opaque.webp'; it.src = blob;"
        "await new Promise((r) => it.addEventListener('ready', r)); it.pause()"
    )
    assert browser.run("return [it.count, it.grounds.hidden]") == [FRAMES, True]
    assert browser.run(
        "it.src = null; await new Promise((r) => setTimeout(r, 50)); return [it.count, it.canvas.width]"
    ) == [0, 0]
    assert browser.complaints() == []


def test_out_of_sight_nothing_is_drawn(browser: Editor) -> None:
    load(browser, src="clear.webp")
    browser.run(
        "window.drawn = 0; it.addEventListener('frame', () => drawn++); document.body.style.paddingTop = '5000px'"
    )
    browser.run("await new Promise((r) => setTimeout(r, 400)); drawn = 0; await new Promise((r) => setTimeout(r, 500))")
    assert browser.run("return [drawn, it.paused]") == [0, False]
    browser.run("it.scrollIntoView()")
    browser.until(lambda: browser.run("return drawn") > 3)


@pytest.mark.slow
def test_a_long_clip_takes_little_memory_and_gives_it_back(browser: Editor) -> None:
    """240 frames of 512 x 512 are 252 MB when decoded; a quarter of that is kept."""
    still = np.kron(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8), np.ones((64, 64, 1), np.uint8))
    frames = (Image.fromarray(np.roll(still, 2 * frame, 1)) for frame in range(240))
    options = {"save_all": True, "duration": 20, "method": 0, "quality": 30}
    next(frames).save(browser.folder / "long.webp", append_images=frames, **options)
    load(browser, src="opaque.webp", paused="")
    before = _memory(browser)
    browser.run("window.seen = new Set(); it.addEventListener('frame', ({detail}) => seen.add(detail.index))")
    browser.run("it.removeAttribute('paused'); it.src = '/files/long.webp'")
    most = 0
    deadline = time.monotonic() + 300
    while browser.run("return seen.size") < 240 and time.monotonic() < deadline:
        most = max(most, _memory(browser) - before)
        time.sleep(0.2)
    assert browser.run("return seen.size") == 240
    assert most < 150e6
    browser.run("it.remove(); window.it = null; await new Promise((r) => setTimeout(r, 300))")
    browser.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    browser.until(lambda: _memory(browser) - before < 60e6)


def _memory(browser: Editor) -> int:
    """Bytes that the browser's processes have for themselves."""
    pid = browser.driver.service.process.pid
    return sum(process.memory_full_info().uss for process in psutil.Process(pid).children(recursive=True))


@pytest.mark.parametrize(("size", "dark"), [((1000, 900), False), (PHONE, True)], ids=["desktop", "phone, dark"])
def test_accessible_and_within_the_page(browser: Editor, size: tuple[int, int], dark: bool) -> None:
    browser.open("clip-player", size, dark=dark)
    browser.run(
        OPEN.format({"src": "/files/clear.webp", "compare": "/files/red.png", "paused": "", "label": "A square"})
    )
    browser.until(lambda: browser.run("return it.handle.checkVisibility()"))
    assert browser.faults() == []
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
