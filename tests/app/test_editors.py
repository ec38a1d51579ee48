"""The page's mask, frame and path editors, by mouse, finger, pen and keyboard, in a real Chromium."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.keys import Keys

from chromium import NEEDS_CHROMIUM
from editor_tools import Editor
from openlumiere.app.sandbox.decoding import take
from openlumiere.video import read_mask, write_clip

pytestmark = [pytest.mark.browser, NEEDS_CHROMIUM]

WIDTH, HEIGHT = 300, 200
FRAMES, FPS = 24, 16
PHONE = (320, 700)
OPEN = "await it.setSource('/files/{}')"
TO_BLOB = "return it.toBlob()"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    folder = tmp_path_factory.mktemp("files")
    ramp = np.linspace(0, 255, WIDTH).astype(np.uint8)
    Image.fromarray(np.broadcast_to(ramp[None, :, None], (HEIGHT, WIDTH, 3)).copy()).save(folder / "picture.png")
    Image.new("RGB", (3000, 2001), "teal").save(folder / "large.jpg")
    clip = np.linspace(0.1, 0.9, FRAMES)[:, None, None, None] * np.ones((FRAMES, 64, 96, 3))
    write_clip(clip, folder / "clip.mp4", fps=FPS)
    write_clip(clip, folder / "clip.webp", fps=FPS)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand then nothing")
    editor = Editor(folder, tmp_path_factory.mktemp("profile"))
    yield editor
    editor.close()


def mask_of(browser: Editor, script: str = TO_BLOB) -> np.ndarray:
    """The mask as the server reads it: white = change."""
    picture = browser.picture(script)
    assert picture.format == "PNG"
    return np.asarray(picture.convert("L")) >= 128


def extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is masked."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


@pytest.mark.parametrize(("size", "density"), [((1000, 900), 1), ((1000, 900), 2), (PHONE, 3)])
def test_a_stroke_is_where_and_as_large_as_it_was_drawn(browser: Editor, size: tuple[int, int], density: float) -> None:
    browser.open("mask-editor", size, density=density)
    browser.run(OPEN.format("picture.png") + "; it.size = 40")
    assert browser.run("return [it.empty, await it.toBlob(), await it.toBlobs()]") == [True, None, None]
    browser.drag(browser.part("board"), (0.25, 0.5), (0.4, 0.5), (0.75, 0.5))
    mask = mask_of(browser)
    assert mask.shape == (HEIGHT, WIDTH)
    assert np.allclose(extent(mask), (75 - 20, 100 - 20, 225 + 20, 100 + 20), atol=2)
    assert mask.sum() == pytest.approx(150 * 40 + math.pi * 20**2, rel=0.03)
    share = browser.run("return [it.coverage, it.said.textContent]")
    assert share[0] == pytest.approx(mask.mean(), rel=0.02)
    assert share[1] == f"{100 * share[0]:.0f} % of the picture is masked."
    assert browser.complaints() == []


def test_undo_redo_eraser_invert_and_clear(browser: Editor) -> None:
    browser.open("mask-editor")
    browser.run(
        OPEN.format("picture.png")
        + "; it.size = 60; window.changes = 0; it.addEventListener('change', () => changes++)"
    )
    board = browser.part("board")
    browser.drag(board, (0.2, 0.5), (0.8, 0.5))
    stroke = mask_of(browser)
    browser.part("tools.eraser").click()
    browser.drag(board, (0.5, 0.2), (0.5, 0.8))
    erased = mask_of(browser)
    assert not erased[70:130, 125:175].any()
    assert (erased <= stroke).all()
    assert np.array_equal(erased[:, :115], stroke[:, :115])
    browser.keys("z", held=(Keys.CONTROL,))
    assert np.array_equal(mask_of(browser), stroke)
    browser.keys("z", held=(Keys.CONTROL,))
    assert browser.run("return it.empty")
    browser.keys("z", held=(Keys.CONTROL,))  # nothing is left to take back
    browser.keys("z", "z", held=(Keys.CONTROL, Keys.SHIFT))
    assert np.array_equal(mask_of(browser), erased)
    browser.part("acts.invert").click()
    assert np.mean(mask_of(browser) == ~erased) > 0.999
    browser.part("acts.clear").click()
    assert browser.run("return [it.empty, it.acts.clear.disabled, it.acts.redo.disabled]") == [True, True, True]
    browser.part("acts.undo").click()
    assert np.mean(mask_of(browser) == ~erased) > 0.999
    assert browser.run("return changes") >= 8


def test_many_steps_can_be_taken_back_one_by_one(browser: Editor) -> None:
    browser.open("mask-editor")
    browser.run(OPEN.format("picture.png"))
    shares = [0.0]
    for number in range(12):
        browser.run("it.box = values[0]", {"x": 20 * number, "y": 10, "w": 10, "h": 30})
        browser.run("it.tool = 'brush'")  # lets go of the box, so that the next one is another
        shares.append(browser.run("return it.coverage"))
    assert shares == sorted(set(shares))
    for share in reversed(shares[:-1]):
        browser.run("it.undo()")
        assert browser.run("return it.coverage") == pytest.approx(share)


def test_a_box_by_mouse_fields_and_arrows_is_exact(browser: Editor) -> None:
    browser.open("mask-editor")
    browser.run(OPEN.format("picture.png"))
    browser.part("tools.box").click()
    board = browser.part("board")
    browser.drag(board, (0.1, 0.1), (0.3, 0.2), (0.5, 0.6))
    assert np.allclose(extent(mask_of(browser)), (30, 20, 150, 120), atol=1)
    for name, value in zip("xywh", (40, 50, 33, 21), strict=True):
        field = browser.part(f"fields[{'xywh'.index(name)}]")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(str(value))
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[50:71, 40:73] = True
    assert np.array_equal(mask_of(browser), expected)
    browser.run("it.board.focus()")
    step = round(WIDTH / 64)
    browser.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    assert np.array_equal(mask_of(browser), np.roll(expected, (-step, 2 * step), (0, 1)))
    browser.keys(Keys.ARROW_DOWN, held=(Keys.SHIFT,))
    assert extent(mask_of(browser)) == (40 + 2 * step, 50 - step, 73 + 2 * step, 71)
    # By its corner and by its middle.
    left, top, right, bottom = extent(mask_of(browser))
    browser.drag(board, (right / WIDTH, bottom / HEIGHT), (0.6, 0.7))
    assert np.allclose(extent(mask_of(browser)), (left, top, 0.6 * WIDTH, 0.7 * HEIGHT), atol=2)
    browser.drag(board, (0.4, 0.45), (0.5, 0.45))
    assert np.allclose(extent(mask_of(browser)), (left + 30, top, 0.6 * WIDTH + 30, 0.7 * HEIGHT), atol=2)
    browser.run("it.undo()")  # one box is one step, however often it was moved
    assert browser.run("return it.empty")
    assert browser.complaints() == []


def test_a_box_never_leaves_the_picture(browser: Editor) -> None:
    browser.open("mask-editor")
    browser.run(OPEN.format("picture.png"))
    browser.run("it.box = values[0]", {"x": -10, "y": 190, "w": 1000, "h": 1000})
    assert browser.run("return it.box") == {"x": 0, "y": 190, "w": 300, "h": 10, "erase": False}
    assert extent(mask_of(browser)) == (0, 190, 300, 200)


def test_all_by_keyboard(browser: Editor) -> None:
    browser.open("mask-editor")
    browser.run(OPEN.format("picture.png") + "; it.size = 20; it.tools.brush.focus()")
    while browser.run("return it.shadowRoot.activeElement !== it.board"):
        browser.keys(Keys.TAB)
    browser.keys(" ")
    dot = mask_of(browser)
    assert dot.sum() == pytest.approx(math.pi * 10**2, rel=0.05)
    assert np.allclose(extent(dot), (140, 90, 160, 110), atol=1)
    browser.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, held=(Keys.SHIFT,))
    assert np.allclose(extent(mask_of(browser)), (140, 90, 180, 110), atol=1)
    browser.keys("]")
    assert browser.run("return it.size") == pytest.approx(24)
    browser.keys("[", "[")
    assert browser.run("return it.size") == pytest.approx(20 / 1.2)
    browser.keys("e")
    assert browser.run("return [it.tool, it.tools.eraser.getAttribute('aria-pressed')]") == ["eraser", "true"]
    browser.keys("r", Keys.ARROW_RIGHT)
    assert browser.run("return it.box") == {"x": 75, "y": 50, "w": 150, "h": 100, "erase": False}
    assert browser.run(
        "return it.board.getAttribute('aria-describedby').split(' ').every((id) => it.shadowRoot.getElementById(id))"
    )
    assert browser.run("return it.said.getAttribute('role')") == "status"


def test_a_finger_paints_and_does_not_scroll_the_page(browser: Editor) -> None:
    browser.open("mask-editor", PHONE)
    browser.run(OPEN.format("picture.png") + "; it.size = 30; document.body.style.paddingBottom = '2000px'")
    rect = browser.part("board").rect
    x, top, bottom = rect["x"] + rect["width"] / 2, rect["y"] + 10, rect["y"] + rect["height"] - 10
    scrolled = browser.run("return scrollY")
    for kind, y in [("Start", top), *(("Move", top + (bottom - top) * i / 6) for i in range(1, 7)), ("End", None)]:
        points = [] if y is None else [{"x": x, "y": y}]
        browser.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    mask = mask_of(browser)
    assert browser.run("return scrollY") == scrolled
    left, up, right, down = extent(mask)
    assert np.allclose((left, right), (135, 165), atol=2)
    assert down - up > 0.85 * HEIGHT


def test_a_pens_pressure_is_the_strokes_width(browser: Editor) -> None:
    browser.open("mask-editor")
    browser.run(OPEN.format("picture.png") + "; it.size = 60")
    rect = browser.part("board").rect
    for x, force in ((0.25, 0.1), (0.75, 1.0)):
        for kind, y in (("Pressed", 0.5), ("Moved", 0.6), ("Released", 0.6)):
            event = {
                "type": f"mouse{kind}", "x": rect["x"] + x * rect["width"], "y": rect["y"] + y * rect["height"],
                "button": "left", "buttons": int(kind != "Released"), "pointerType": "pen",
                "force": 0 if kind == "Released" else force, "clickCount": 1,
            }  # fmt: skip
            browser.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)
    mask = mask_of(browser)
    light, heavy = (np.ptp(np.flatnonzero(half.any(0))) for half in (mask[:, :150], mask[:, 150:]))
    assert heavy == pytest.approx(60, abs=2)
    assert light == pytest.approx(60 * (0.25 + 0.75 * 0.1), abs=3)


def test_an_uploaded_mask_is_read_as_luminance_and_fitted(browser: Editor) -> None:
    browser.open("mask-editor")
    browser.run(OPEN.format("picture.png"))
    given = np.zeros((50, 150, 4), np.uint8)  # four times larger and centred: 37.5 to 112.5 of its columns are seen
    given[..., 3] = 255
    given[10:30, 50:100] = (255, 255, 0, 255)  # luminance 226
    given[10:30, :50] = (0, 0, 255, 255)  # luminance 29
    given[35:45, 50:100] = (255, 255, 255, 0)  # white, but not there
    path = browser.folder / "mask.png"
    Image.fromarray(given).save(path)
    browser.part("file").send_keys(str(path))
    browser.until(lambda: browser.run("return !it.empty"))
    assert np.allclose(extent(mask_of(browser)), (4 * 50 - 150, 40, 4 * 100 - 150, 120), atol=2)
    browser.run("it.undo()")
    assert browser.run("return it.empty")
    browser.part("file").send_keys(str(browser.folder / "broken.png"))
    browser.until(lambda: browser.run("return it.alarm.textContent"))
    assert "white where it should change" in browser.run("return it.alarm.textContent")
    assert browser.run("return [it.empty, it.acts.redo.disabled]") == [True, False]


def test_a_mask_goes_in_and_out_unchanged(browser: Editor) -> None:
    browser.open("mask-editor")
    browser.run(OPEN.format("picture.png"))
    random = np.random.default_rng(1)
    given = np.kron(random.random((HEIGHT // 10, WIDTH // 10)) > 0.5, np.ones((10, 10))).astype(bool)
    Image.fromarray(given).save(browser.folder / "blocks.png")
    browser.run("await it.loadMask(await (await fetch('/files/blocks.png')).blob())")
    assert np.array_equal(mask_of(browser), given)


def test_a_large_picture_gets_a_mask_of_its_own_size(browser: Editor) -> None:
    browser.open("mask-editor")
    browser.run(OPEN.format("large.jpg"))
    browser.run("it.box = values[0]", {"x": 300, "y": 500, "w": 1200, "h": 700})
    mask = mask_of(browser)
    assert mask.shape == (2001, 3000)
    assert np.allclose(extent(mask), (300, 500, 1500, 1200), atol=2)


def test_a_mask_outlives_its_editors_absence(browser: Editor) -> None:
    browser.open("mask-editor")
    browser.run(OPEN.format("clip.mp4") + "; it.frame = 3; it.box = {x: 9, y: 9, w: 30, h: 30}")
    browser.run(
        "window.kept = it; const parent = it.parentNode; it.remove(); await new Promise((r) => setTimeout(r, 100));"
        "parent.prepend(it); await new Promise((r) => setTimeout(r, 500))"
    )
    assert extent(mask_of(browser)) == (9, 9, 39, 39)
    assert browser.run("it.undo(); return [it.empty, it.frame]") == [True, 3]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.webp"])
def test_a_mask_for_all_frames_and_masks_for_some(
    browser: Editor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    browser.open("mask-editor")
    browser.run(OPEN.format(name) + "; it.size = 12")
    board = browser.part("board")
    browser.drag(board, (0.2, 0.5), (0.4, 0.5))
    one = mask_of(browser)
    assert one.shape == (64, 96)
    browser.run("it.frame = 5")
    assert np.array_equal(mask_of(browser), one)
    assert browser.run("const all = await it.toBlobs(); return [all.length, new Set(all).size]") == [FRAMES, 1]
    browser.part("all").click()
    browser.run("it.frame = 3")
    browser.drag(board, (0.7, 0.2), (0.7, 0.8))
    browser.part("strip.input").send_keys(Keys.END)
    assert browser.run("return it.frame") == FRAMES - 1
    browser.part("acts.invert").click()
    assert browser.run("const all = await it.toBlobs(); return all.map((one) => all.indexOf(one))") == (
        [0] * 3 + [3] * (FRAMES - 4) + [FRAMES - 1]
    )
    first, second, last = (mask_of(browser, f"return (await it.toBlobs())[{frame}]") for frame in (0, 3, FRAMES - 1))
    assert np.array_equal(first, one)
    assert second.sum() > one.sum()
    assert np.mean(last == ~second) > 0.99
    masks = np.stack([first] * 3 + [second] * (FRAMES - 4) + [last])
    # As one file the server reads the same masks.
    animated = browser.picture(TO_BLOB)
    assert animated.n_frames == FRAMES
    animated.fp.seek(0)  # type: ignore[union-attr]
    (tmp_path / "mask.png").write_bytes(animated.fp.read())  # type: ignore[union-attr]
    monkeypatch.chdir(tmp_path)
    taken = take("mask.png", "taken", pixels=10**6, clip_pixels=10**7, frames=100, seconds=10)
    for file in ("mask.png", taken["name"]):
        assert np.array_equal(read_mask(file, (64, 96), (64, 96), num_frames=FRAMES, fps=FPS), masks)
    # Undo goes back to the frame that was drawn on, and one mask for all is the shown one.
    browser.run("it.frame = 0; it.undo()")
    assert browser.run("return it.frame") == FRAMES - 1
    assert np.array_equal(mask_of(browser, f"return (await it.toBlobs())[{FRAMES - 1}]"), second)
    browser.part("all").click()
    assert np.array_equal(mask_of(browser), second)
    assert browser.complaints() == []


def test_a_clip_as_mask_holds_frame_by_frame(browser: Editor) -> None:
    moving = np.zeros((FRAMES, 64, 96, 3))
    for frame in range(FRAMES):
        moving[frame, 10:50, 3 * frame : 3 * frame + 16] = 1
    write_clip(moving, browser.folder / "moving.webp", fps=FPS)
    browser.open("mask-editor")
    browser.run(OPEN.format("clip.mp4") + "; await it.loadMask(await (await fetch('/files/moving.webp')).blob())")
    for frame in (0, 4, FRAMES - 1):
        mask = mask_of(browser, f"return (await it.toBlobs())[{frame}]")
        assert np.array_equal(mask, moving[frame, ..., 0] > 0.5)
    # Pictures of frames serve as well as a file.
    browser.run(
        "const one = await it.toBlobs(); await it.setFrames(one, {fps: 8}); it.box = {x: 1, y: 2, w: 3, h: 4};"
        "return it.strip.input.max"
    )
    assert extent(mask_of(browser)) == (1, 2, 4, 6)


@pytest.mark.parametrize("colour", ["#ff00aa", "#ffffff", "#000000", "#808080"])
def test_the_mask_shows_on_any_picture(browser: Editor, colour: str) -> None:
    Image.new("RGB", (64, 64), colour).save(browser.folder / "plain.png")
    browser.open("mask-editor")
    browser.run(OPEN.format("plain.png"))
    browser.run("it.box = {x: 16, y: 16, w: 32, h: 32}; it.tool = 'brush'")
    browser.run("for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame)")
    shot = browser.screenshot(browser.part("stage"))
    side = len(shot)
    apart = np.linalg.norm(shot - shot[side // 8, side // 8], axis=-1)
    assert apart[12 : side // 5, 12:-12].max() < 3  # the picture alone
    inside = apart[side // 3 : -side // 3, side // 3 : -side // 3]
    assert np.mean(inside > 60) > 0.9
    assert apart[side // 2].max() > 120  # its outline


def test_the_mask_shows_on_its_own_colours(browser: Editor) -> None:
    """All colours that a mask may have, side by side: stripes and outline tell it."""
    colours = [(255, 0, 170), (0, 220, 110), (0, 150, 255), (255, 130, 0), (150, 60, 255)]
    bands = np.repeat(np.array(colours, np.uint8), 20, 0)[None].repeat(100, 0)
    Image.fromarray(bands).save(browser.folder / "bands.png")
    browser.open("mask-editor")
    browser.run(OPEN.format("bands.png") + "; await new Promise((r) => setTimeout(r, 200))")
    before = browser.screenshot(browser.part("stage"))
    browser.run("it.box = {x: 0, y: 30, w: 100, h: 40}; it.tool = 'brush'")
    browser.run("for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame)")
    changed = np.linalg.norm(browser.screenshot(browser.part("stage")) - before, axis=-1)
    side = len(before)
    for band in range(5):
        part = changed[2 * side // 5 : 3 * side // 5, band * side // 5 + 4 : (band + 1) * side // 5 - 4]
        assert np.percentile(part, 80) > 50


def test_no_picture_and_one_that_cannot_be_read(browser: Editor) -> None:
    browser.open("mask-editor")
    assert browser.run("return [it.empty, await it.toBlob(), it.tools.brush.disabled]") == [True, None, True]
    failed = browser.run("return it.setSource('/files/broken.png').then(() => false, () => true)")
    assert failed
    assert browser.run("return it.alarm.textContent").startswith("This file cannot be shown.")
    browser.run(OPEN.format("picture.png"))
    assert browser.run("return [it.alarm.textContent, it.tools.brush.disabled]") == ["", False]
    browser.run("it.box = {x: 1, y: 1, w: 9, h: 9}; await it.setSource(null)")
    assert browser.run("return [it.empty, it.tools.brush.disabled]") == [True, True]


def test_a_frames_proportions(browser: Editor) -> None:
    browser.open("frame-editor", calm=True)
    browser.run(
        OPEN.format("picture.png") + "; window.seen = []; it.addEventListener('change', () => seen.push(it.value))"
    )
    assert browser.run("return it.value") == "16:9"
    browser.part("named[3]").click()
    assert browser.run("return [it.value, it.named[3].getAttribute('aria-pressed')]") == ["9:16", "true"]
    rect = browser.run("const {width, height} = it.frame.getBoundingClientRect(); return [width, height]")
    assert rect[0] / rect[1] == pytest.approx(9 / 16, rel=0.01)
    picture = browser.run("const {width, height} = it.picture.getBoundingClientRect(); return [width, height]")
    assert picture[0] / picture[1] == pytest.approx(1.5, rel=0.01)
    assert picture[0] == pytest.approx(rect[0], rel=0.01)
    browser.part("named[5]").click()
    assert browser.run("return [it.value, it.unchanged, it.said.textContent]") == [
        "3:2",
        True,
        "3:2, as it is: nothing would be added.",
    ]
    # The right edge, to twice the width.
    edge = browser.part("edges.right")
    wide = browser.run("return it.frame.getBoundingClientRect().width")
    browser.drag(edge, (0.5, 0.2), (0.5 + wide / 4 / edge.rect["width"], 0.2))
    assert browser.run("return it.value.split(':').reduce((a, b) => a / b)") == pytest.approx(1.5 * 1.5, rel=0.06)
    browser.run("it.value = '1:1'; it.edges.bottom.focus()")
    browser.keys(Keys.ARROW_UP)
    assert browser.run("return it.value.split(':').reduce((a, b) => a / b)") == pytest.approx(1 / 1.05, abs=0.03)
    browser.run("it.edges.right.focus()")
    browser.keys(*[Keys.ARROW_RIGHT] * 40)
    assert browser.run("return it.value") == "4:1"
    seen = browser.run("return seen")
    assert seen[-1] == "4:1"
    assert all(one != other for one, other in pairwise(seen))  # each change is one
    browser.run("it.value = 'nonsense'")
    assert browser.run("return it.value") == "4:1"
    assert browser.complaints() == []


@pytest.mark.parametrize(("size", "dark"), [((1000, 900), False), (PHONE, True)], ids=["desktop", "phone, dark"])
@pytest.mark.parametrize("tag", ["mask-editor", "frame-editor", "path-editor"])
def test_accessible_and_within_the_page(browser: Editor, tag: str, size: tuple[int, int], dark: bool) -> None:
    browser.open(tag, size, dark=dark)
    browser.run(OPEN.format("clip.mp4"))
    content = {
        "mask-editor": "it.box = {x: 9, y: 9, w: 30, h: 30}",
        "path-editor": "it.value = [[0.2, 0.3], [0.7, 0.6]]; it.buttons[1].focus()",
    }
    browser.run(content.get(tag, ""))
    assert browser.faults() == []
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    sizes = browser.run(
        "return [...it.shadowRoot.querySelectorAll('button, input:not([type=checkbox])')]"
        ".filter((e) => e.checkVisibility()).map((e) => e.getBoundingClientRect()).map((r) => [r.width, r.height])"
    )
    assert np.min(sizes) >= 24  # pixels, as WCAG 2.5.8 asks
