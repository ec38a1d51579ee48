"""The page in a real Chromium, by mouse and keyboard, against the real server, its worker and the bundled model.

Skipped where there is no Chromium; with OPENLUMIERE_REQUIRE_BROWSER=1, as in `.ci/run`, that is a failure.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from chromium import NEEDS_CHROMIUM
from openlumiere.app.jobs.keys import Keys as ServerKeys
from openlumiere.app.settings import Settings
from openlumiere.video import read_clip, read_metadata
from page_tools import DESKTOP, PHONE, Page, Server

pytestmark = [pytest.mark.browser, NEEDS_CHROMIUM]
TILES = "[...document.querySelectorAll('.tile .open')].map((e) => e.title)"
TASKS = (
    "generate", "sticker", "animate", "cinemagraph", "inpaint", "outpaint", "restyle", "extend", "interpolate",
    "upscale",
)  # fmt: skip


@pytest.fixture
def page(browser: Page, server: Server) -> Iterator[Page]:
    """The page, ready; whatever a test does, the console stays empty and no other host hears of it.

    Without motion, which would take the time of the model.
    """
    browser.open(server.address, calm=True)
    browser.ready()
    yield browser
    assert browser.complaints() == []
    assert browser.foreign() == set()


@pytest.fixture(scope="module")
def made(server: Server, browser: Page) -> str:
    """Id of a finished clip."""
    browser.open(server.address, calm=True)
    browser.ready()
    browser.set("Prompt", "a rocket moving up on a black background")
    browser.quickly(frames=8)
    id = browser.make()
    browser.wait()
    return id


@pytest.mark.parametrize("task", TASKS)
def test_each_task_from_start_to_download(page: Page, server: Server, made: str, task: str) -> None:
    if task == "upscale":  # the example's 80 frames would take minutes
        page.driver.get(f"{server.address}/v/{made}")
        page.ready()
        page.click("#stage .chip", "Sharpen")
    else:
        page.choose(task)
        page.example()
    page.quickly(
        frames=8 if task in ("generate", "animate", "cinemagraph", "extend") else None,
        first=task in ("inpaint", "outpaint", "restyle", "interpolate"),
    )
    id = page.make()
    page.wait()
    video = server.ask(f"/v1/videos/{id}")
    assert video["task"] == ("generate" if task == "sticker" else task)
    assert video["request"]["num_inference_steps"] == 2
    assert video["source"] == (task not in ("generate", "sticker"))
    if task == "sticker":
        path = page.save("Telegram sticker")
        assert path.suffix == ".webm"
        assert read_clip(path).frames.shape[1:3] == (512, 512)
        return
    clip = read_clip(page.save("MP4"))
    assert clip.frames.shape[:3] == (video["num_frames"], video["height"], video["width"])
    if task in ("inpaint", "cinemagraph"):
        assert video["request"]["mask"] == "mask.png"
    if task == "outpaint":
        assert video["width"] / video["height"] == pytest.approx(16 / 9, rel=0.05)


def test_every_format_is_saved_with_what_made_it(page: Page, server: Server, made: str) -> None:
    page.driver.get(f"{server.address}/v/{made}")
    page.ready()
    page.wait()
    for words, suffix in (("WebP", ".webp"), ("GIF", ".gif"), ("APNG", ".apng"), ("WebM", ".webm"), ("MOV", ".mov")):
        path = page.save(words)
        assert path.suffix == suffix
        assert len(read_clip(path).frames) == 8
        assert read_metadata(path)["prompt"] == "a rocket moving up on a black background"
    page.click("#stage summary", "Sticker for")
    with Image.open(page.save("Discord emoji")) as sticker:
        assert sticker.size == (128, 128)


def test_a_clip_by_keyboard_alone(page: Page, server: Server) -> None:
    before = page.shown
    page.tab_to("Text")
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    page.tab_to("Prompt")
    page.press("a frog swaying")
    page.tab_to("Loop")
    page.press(" ")
    page.tab_to("More settings")
    page.press(Keys.ENTER)
    page.tab_to("Steps")
    page.press("2")
    page.tab_to("Sharpening steps")
    page.press("0")
    page.tab_to("Seed")
    page.press("7")
    page.press(Keys.ENTER, held=Keys.CONTROL)
    page.until(lambda: page.shown not in ("", before))
    page.wait()
    video = server.ask(f"/v1/videos/{page.shown}")
    assert (video["prompt"], video["loop"], video["seed"]) == ("a frog swaying", True, 7)
    page.tab_to("GIF")
    page.press(Keys.ENTER)
    assert page.saved().suffix == ".gif"


def test_a_region_is_painted_with_the_mouse(page: Page, server: Server) -> None:
    page.choose("cinemagraph")
    page.example()
    page.until(lambda: not page.run("document.querySelector('mask-editor').empty"))
    editor = page.driver.find_element(By.TAG_NAME, "mask-editor")
    page.driver.execute_script("arguments[0].clear(); arguments[0].tool = 'brush'", editor)
    board = page.run("arguments[0].board", editor)
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", board)
    actions = ActionChains(page.driver, duration=30).move_to_element_with_offset(board, -40, 30).click_and_hold()
    actions.move_by_offset(40, -60).move_by_offset(40, 60).release().perform()
    assert 0.01 < page.run("arguments[0].coverage", editor) < 0.5
    page.quickly(frames=8)
    page.make()
    page.wait()
    assert server.ask(f"/v1/videos/{page.shown}")["request"]["mask"] == "mask.png"
    with urlopen(f"{server.address}/v1/videos/{page.shown}/source?name=mask") as answer, Image.open(answer) as mask:
        assert mask.size == (512, 512)  # the picture's
        assert mask.convert("L").getextrema() == (0, 255)


def test_a_reload_in_the_middle_loses_nothing(page: Page, server: Server) -> None:
    page.set("Prompt", "a penguin moving right on a yellow background")
    page.quickly()
    page.set("Steps", "12")
    id = page.make()
    page.until(lambda: server.ask(f"/v1/videos/{id}")["step"] > 1)
    page.driver.refresh()
    page.ready()
    assert (page.shown, page.kind) == (id, "running")
    assert page.find("#composer textarea").get_attribute("value") == "a penguin moving right on a yellow background"
    page.until(lambda: page.run("document.querySelector('#stage .screen img')?.naturalWidth > 0"), "a live preview")
    assert "step" in page.find("#stage .doing").text
    page.wait()
    assert page.run(TILES).count("a penguin moving right on a yellow background") == 1


def test_two_tabs_see_the_same(page: Page, server: Server, made: str) -> None:
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    try:
        page.look(DESKTOP, calm=True)
        page.driver.get(server.address)
        page.ready()
        second = page.driver.current_window_handle
        page.set("Prompt", "a heart growing")
        page.quickly(frames=8)
        id = page.make()
        page.wait()
        page.driver.switch_to.window(first)
        page.until(lambda: "a heart growing" in page.run(TILES))
        # Else its picture might be asked for when it is gone.
        page.until(lambda: page.run("document.querySelector('.tile:has([title=\"a heart growing\"]) img').complete"))
        page.driver.switch_to.window(second)
        assert page.shown == id
        page.click("#stage button", "Delete")
        page.until(lambda: "a heart growing" not in page.run(TILES))
        page.driver.switch_to.window(first)
        page.until(lambda: "a heart growing" not in page.run(TILES))
    finally:
        page.driver.switch_to.window(second)
        page.driver.close()
        page.driver.switch_to.window(first)


def test_stop_frees_the_queue_and_the_next_one_is_made(page: Page, server: Server) -> None:
    page.set("Prompt", "a car")
    page.quickly()
    page.set("Steps", "200")
    page.click("button", "More clips")
    first = page.make()
    page.until(lambda: len(page.run("[...document.querySelectorAll('.job')]")) == 2)
    assert "1 before it" in page.run("document.getElementById('running').innerText")
    page.until(lambda: server.ask(f"/v1/videos/{first}")["step"] > 0)
    page.click("#stage button", "Stop")
    page.wait("failed")
    assert "Stopped" in page.find("#stage .side").text
    page.click(".job .round")
    page.until(lambda: page.run("document.getElementById('running').hidden"))


def test_again_with_the_same_seed_and_another(page: Page, server: Server, made: str) -> None:
    page.driver.get(f"{server.address}/v/{made}")
    page.ready()
    page.wait()
    page.click("#stage button", "Again")
    page.until(lambda: page.shown != made)
    again = page.shown
    page.wait()
    page.click("#stage button", "Another seed")
    page.until(lambda: page.shown not in (made, again))
    page.wait()
    asked = [server.ask(f"/v1/videos/{id}")["request"] for id in (made, again, page.shown)]
    assert asked[0] == asked[1]
    assert asked[2].pop("seed") != asked[0].pop("seed")
    assert asked[2] == asked[0]


def test_go_on_from_a_clip(page: Page, server: Server, made: str) -> None:
    page.driver.get(f"{server.address}/v/{made}")
    page.ready()
    page.wait()
    page.click("#stage .chip", "Extend")
    assert page.find("#composer .shown .name").text == "a rocket moving up on a black background"
    page.quickly(frames=8)
    id = page.make()
    page.wait()
    assert server.ask(f"/v1/videos/{id}")["num_frames"] == 16
    page.until(lambda: page.run("document.querySelector('clip-player').count") == 16)


def test_settings_come_back_from_a_clip_that_is_dropped(page: Page, server: Server, made: str) -> None:
    page.driver.get(f"{server.address}/v/{made}")
    page.ready()
    page.wait()
    script = (
        "const [path, name, done] = arguments; fetch(path).then((r) => r.blob()).then((blob) => { const data = new "
        "DataTransfer(); data.items.add(new File([blob], name, {type: blob.type})); for (const type of ['dragenter', "
        "'dragover', 'drop']) document.body.dispatchEvent(new DragEvent(type, {bubbles: true, cancelable: true, "
        "dataTransfer: data})); done(); })"
    )
    page.driver.execute_async_script(script, f"/v1/videos/{made}/content?format=mp4", "clip.mp4")
    page.find(".toast")
    assert page.find("#composer textarea").get_attribute("value") == "a rocket moving up on a black background"
    seed = server.ask(f"/v1/videos/{made}")["seed"]
    assert page.find("input[inputmode=numeric][type=text]").get_attribute("value") == str(seed)
    # Anything else is what to start from.
    page.driver.execute_async_script(script, "/page/example-cat.png", "cat.png")
    page.until(lambda: page.run("document.querySelector('.task :checked').value") == "animate")
    assert page.find("#composer .shown .name").text == "cat.png"
    (refused,) = page.complaints()
    assert "inspect" in refused
    assert "400" in refused


def test_the_gallery_is_searched_marked_and_emptied_with_undo(page: Page, server: Server, made: str) -> None:
    rocket = "a rocket moving up on a black background"
    search = page.find("input[type=search]")
    search.send_keys("rocket")
    page.until(lambda: set(page.run(TILES)) == {rocket})
    search.send_keys(" like no other")
    page.until(lambda: page.run(TILES) == [])
    page.press("a", held=Keys.CONTROL)
    page.press(Keys.BACKSPACE)
    page.until(lambda: rocket in page.run(TILES))
    page.driver.get(f"{server.address}/v/{made}")
    page.ready()
    page.click("#stage button", "Add to favourites")
    page.until(lambda: server.ask(f"/v1/videos/{made}")["favourite"])
    page.click("button", "Only favourites")
    page.until(lambda: page.run(TILES) == [rocket])
    page.click("#stage button", "Delete")
    page.until(lambda: page.run(TILES) == [])
    page.click(".toast button", "Undo")
    page.until(lambda: page.run(TILES) == [rocket])
    assert server.ask(f"/v1/videos/{made}")["favourite"]


def test_what_is_wrong_is_told_beside_its_field(page: Page) -> None:
    page.click("button[type=submit]", "Make")
    prompt = page.find("#composer textarea")
    assert page.driver.switch_to.active_element == prompt
    assert page.find(".error").text == "Say what to show."
    prompt.send_keys("a fox")
    page.quickly()
    page.driver.execute_script("document.querySelector('#composer').noValidate = true")
    page.set("Steps", "100000")
    page.click("button[type=submit]", "Make")
    page.until(lambda: "num_inference_steps" in page.find(".error").text)
    focused = page.driver.switch_to.active_element
    assert focused.accessible_name == "Steps"
    assert focused.get_attribute("aria-describedby") == page.find(".error").get_attribute("id")
    (refused,) = page.complaints()
    assert "400" in refused


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_axe_finds_nothing_serious_and_nothing_is_cut_off(
    page: Page, server: Server, made: str, size: tuple[int, int], dark: bool
) -> None:
    page.look(size, dark=dark, calm=True)
    page.driver.get(f"{server.address}/v/{made}")
    page.ready()
    page.wait()
    page.driver.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    for task in TASKS:
        page.choose(task)
        page.example()
        assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        cut = page.run(
            "[...document.querySelectorAll('button, input, .label, h2, .chip')].filter((e) => e.checkVisibility())"
            ".filter((e) => { const b = e.getBoundingClientRect(); return b.left < 0 || b.right > innerWidth; })"
            ".map((e) => e.outerHTML)"
        )
        assert cut == []
        if task in ("generate", "sticker", "animate", "inpaint", "outpaint"):
            assert page.serious() == []


def test_a_clip_on_a_phone(page: Page, server: Server) -> None:
    page.look(PHONE, calm=True)
    page.driver.get(server.address)
    page.ready()
    page.set("Prompt", "a ghost swaying")
    page.quickly(frames=8)
    page.make()
    page.wait()
    stage = "document.getElementById('stage').getBoundingClientRect()"
    page.until(lambda: -5 < page.run(f"{stage}.top") < PHONE[1] / 2)
    assert page.run("document.querySelector('clip-player').getBoundingClientRect().width") > 280
    assert read_clip(page.save("MP4")).frames.shape[0] == 8


@pytest.mark.parametrize("calm", [True, False])
def test_clips_play_unless_motion_is_unwelcome(page: Page, server: Server, made: str, calm: bool) -> None:
    page.look(DESKTOP, calm=calm)
    page.driver.get(f"{server.address}/v/{made}")
    page.ready()
    page.wait()
    page.until(lambda: page.run("document.querySelector('clip-player').count") == 8)
    assert page.run("document.querySelector('clip-player').paused") == calm
    ActionChains(page.driver).move_to_element(page.find(".tile .open")).perform()
    assert (page.run("document.querySelector('.tile video')") is None) == calm


def test_a_key_opens_the_page(browser: Page, tmp_path: Path) -> None:
    keys = ServerKeys(Settings(data=str(tmp_path)).store_url)
    _, secret = keys.add("someone")
    server = Server(tmp_path, keys=True, workers=0)
    try:
        browser.open(server.address)
        field = browser.find("input[type=password]")
        assert field.accessible_name == "Your key"
        assert browser.serious() == []
        field.send_keys("lumiere_wrong", Keys.ENTER)
        browser.until(lambda: browser.find(".error").text == "This key is not known here.")
        field.clear()
        field.send_keys(secret, Keys.ENTER)
        browser.ready()
        browser.click("button", "Sign out")
        browser.find("input[type=password]")
        assert [message for message in browser.complaints() if "401" not in message] == []
        assert browser.foreign() == set()
    finally:
        browser.driver.get("about:blank")
        server.end()
