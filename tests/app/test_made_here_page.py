"""What the page says of clips that are dropped on "Was this made here?", and of prompts that are not allowed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from chromium import NEEDS_CHROMIUM
from openlumiere.provenance import Payload, credentials, embed, month_of
from openlumiere.provenance.identity import Identity
from openlumiere.video import write_clip
from page_tools import DESKTOP, PHONE, Page, Server

pytestmark = [pytest.mark.browser, NEEDS_CHROMIUM]
FACTS = (
    "Object.fromEntries([...document.querySelectorAll('.told dt')].map((name) => "
    "[name.textContent, name.nextSibling.textContent]))"
)
ANSWER = "document.querySelector('.verdict, .sheet > .error:not([hidden])')?.textContent"
# As a file manager drops it, on the dialog's title.
DROP = """
    const done = arguments[0];
    fetch("/page/example-cat.png").then((answer) => answer.blob()).then((picture) => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([picture], "cat.png", { type: "image/png" }));
      const options = { dataTransfer, bubbles: true, cancelable: true };
      document.getElementById("made-here-title").dispatchEvent(new DragEvent("drop", options));
      done();
    });
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("data")
    (data / "words.txt").write_text("knife\n", encoding="utf-8")
    running = Server(data, workers=0, moderation={"block_list": str(data / "words.txt")})
    yield running
    running.end()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A clip whose first three seconds are marked, and signed; one without a mark; a marked picture."""
    folder, identity = tmp_path_factory.mktemp("files"), Identity.load()
    plain = np.full((32, 128, 128, 3), (70, 130, 190), np.uint8)
    for index in range(32):
        plain[index, 40:80, 10 + index : 40 + index] = (230, 170, 60)
    payload = Payload(model=17, version=1, month=month_of(date(2026, 11, 5)), key_id=identity.key_id)
    marked = embed(plain, payload, identity.watermark_key, clip_id="one")
    clip = write_clip(np.concatenate([marked[:24], plain[24:]]), folder / "ours.mp4", fps=8)
    assert credentials.sign(clip, identity, model="emoji", soft_binding=payload)
    return {
        "ours": clip,
        "other": write_clip(plain, folder / "other.webp", fps=8),
        "still": write_clip(marked[:1], folder / "still.webp", fps=8),
    }


@pytest.fixture
def page(browser: Page, server: Server) -> Iterator[Page]:
    browser.open(server.address, calm=True)
    browser.ready()
    yield browser
    assert browser.foreign() == set()


def choose(page: Page, path: Path) -> str:
    """Choose a file; return the verdict."""
    page.driver.execute_script("document.querySelector('.told').replaceChildren()")
    page.driver.find_element(By.CSS_SELECTOR, ".made-here input[type=file]").send_keys(str(path))
    return answer(page)


def answer(page: Page) -> str:
    page.until(lambda: page.run(ANSWER))
    return str(page.run(ANSWER))


def marked(page: Page, selector: str) -> list[bool]:
    return list(page.run(f"[...document.querySelectorAll('{selector} i')].map((e) => e.classList.contains('marked'))"))


@pytest.mark.parametrize(("size", "dark"), [(DESKTOP, False), (PHONE, True)])
def test_was_this_made_here(page: Page, files: dict[str, Path], size: tuple[int, int], dark: bool) -> None:
    page.look(size, dark=dark, calm=True)
    page.click("#made-here")
    assert choose(page, files["ours"]) == "Yes, it was made here."
    facts = page.run(FACTS)
    assert (facts["Made by"], facts["When"]) == ("emoji, openlumiere 0.1", "November 2026")
    assert facts["Certainty"].startswith("Of clips without a mark, at most 1 in a ")
    assert facts["Credentials"].startswith("Signed by this server, ")
    assert "unchanged since. Written by openlumiere" in facts["Credentials"]
    assert marked(page, ".seconds") == [True, True, True, False]
    assert page.find(".timeline .soft").text.startswith("Marked: 0 to 3 s.")
    assert len(marked(page, ".parts")) == 16
    assert sum(marked(page, ".parts")) >= 8
    assert page.serious() == []
    for box in ("document.documentElement", "document.querySelector('.sheet')"):
        assert page.run(f"{box}.scrollWidth <= {box}.clientWidth")
    page.click(".made-here .switch label", "Show the marked parts")
    assert page.run("document.querySelector('.parts').hidden")

    assert choose(page, files["other"]) == "No mark of this server was found."
    assert set(page.run(FACTS)) == {"Certainty", "Credentials"}
    assert marked(page, ".parts") == marked(page, ".seconds") == []
    assert page.serious() == []
    assert choose(page, files["still"]) == "Yes, it was made here."
    assert marked(page, ".seconds") == []  # a picture has none
    assert page.complaints() == []


def test_by_keyboard_and_what_is_no_clip(page: Page, files: dict[str, Path], tmp_path: Path) -> None:
    page.tab_to("Made here?")
    page.press(Keys.ENTER)
    page.until(lambda: page.run("document.querySelector('.made-here').open"))
    page.tab_to("Clip or picture")
    (tmp_path / "notes.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert choose(page, tmp_path / "notes.png").startswith("notes.png is corrupt or no picture")
    assert page.run("document.querySelector('.told').textContent") == ""
    assert choose(page, files["other"]) == "No mark of this server was found."
    assert page.run("document.querySelector('.sheet > .error').hidden")
    page.press(Keys.ESCAPE)
    page.until(lambda: not page.run("document.querySelector('.made-here').open"))
    assert page.run("document.activeElement.id") == "made-here"
    page.until(lambda: page.run("document.querySelector('.told').childElementCount") == 0)


def test_files_dropped_on_the_dialog_are_not_the_forms(page: Page) -> None:
    page.click("#made-here")
    page.driver.execute_async_script(DROP)
    assert answer(page) == "No mark of this server was found."
    assert page.run("[...document.querySelectorAll('#composer .shown')].every((e) => e.hidden)")


def test_a_prompt_that_is_not_allowed_is_told_beside_the_prompt(page: Page) -> None:
    page.set("Prompt", "a cat with a knife")
    page.click("button[type=submit]", "Make")
    line = page.find("#composer .error").text
    assert line == "prompt: it has words that are not allowed here; change it"
    assert page.driver.switch_to.active_element.accessible_name == "Prompt"
    assert page.shown == ""
