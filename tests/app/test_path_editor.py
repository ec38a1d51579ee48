"""The page's path editor, by mouse and keyboard, in a real Chromium: it draws the path that a model follows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from selenium.webdriver.common.keys import Keys

from chromium import NEEDS_CHROMIUM
from editor_tools import Editor
from openlumiere.diffusion.layout import path_through

pytestmark = [pytest.mark.browser, NEEDS_CHROMIUM]

LINE = "return it.lines.line.getAttribute('d').slice(1).split('L').map((p) => p.split(' ').map(Number))"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    editor = Editor(tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("profile"))
    yield editor
    editor.close()


def test_a_path_through_way_points(browser: Editor) -> None:
    browser.open("path-editor")
    stage = browser.part("stage")
    for place in ((0.1, 0.5), (0.5, 0.2), (0.9, 0.8)):
        browser.drag(stage, place)
    assert np.allclose(browser.run("return it.value"), [(0.1, 0.5), (0.5, 0.2), (0.9, 0.8)], atol=0.01)
    browser.drag(browser.part("buttons[1]"), (0.5, 0.5), (0.5 + 2, 0.5))
    moved = browser.run("return it.value[1]")
    assert moved[0] > 0.55
    # Its line is the one that the model follows.
    drawn = browser.run(LINE)
    followed = path_through(browser.run("return it.value"), len(drawn))[:, :2].numpy() / 2 + 0.5
    assert np.allclose(drawn, followed, atol=2e-3)
    # A click on the line puts a point into it.
    browser.drag(stage, tuple(drawn[len(drawn) // 4]))
    assert len(browser.run("return it.value")) == 4
    assert np.allclose(browser.run("return it.value[1]"), drawn[len(drawn) // 4], atol=0.01)
    browser.keys(Keys.ARROW_DOWN)
    assert browser.run("return it.value[1][1]") == pytest.approx(drawn[len(drawn) // 4][1] + 0.02, abs=0.01)
    browser.keys(Keys.DELETE)
    assert len(browser.run("return it.value")) == 3
    browser.part("acts.add").click()
    assert len(browser.run("return it.value")) == 4
    browser.part("acts.remove").click()
    browser.part("acts.clear").click()
    assert browser.run("return it.value") == []
    browser.run("it.value = [[0.1, 0.2, 0.5, 90], [0.3, 0.4, 0.6, 0]]; it.buttons[0].focus()")
    browser.keys(Keys.ARROW_LEFT)
    assert browser.run("return it.value") == [[0.08, 0.2, 0.5, 90], [0.3, 0.4, 0.6, 0]]
    browser.run("it.value = [[0.2, 0.2], [0.8, 0.2], [0.5, 0.8]]; it.setAttribute('loop', '')")
    drawn = browser.run(LINE)
    followed = path_through(browser.run("return it.value"), len(drawn) - 1, loop=True)[:, :2].numpy() / 2 + 0.5
    assert np.allclose(drawn[:-1], followed, atol=2e-3)
    assert browser.complaints() == []


@pytest.mark.parametrize("loop", [False, True])
def test_what_a_point_tells_besides_its_place(browser: Editor, loop: bool) -> None:
    browser.open("path-editor")
    browser.run(f"it.toggleAttribute('loop', {str(loop).lower()})")
    assert not browser.run("return it.more.checkVisibility()")
    browser.run("it.value = [[0.1, 0.5], [0.5, 0.2], [0.5, 0.2], [0.9, 0.8]]; it.buttons[1].focus()")

    def tell(field: int, text: str) -> None:
        entry = browser.part(f"more.querySelectorAll('input')[{field}]")
        entry.clear()
        entry.send_keys(text, Keys.ENTER)

    tell(2, "20")
    browser.run("it.buttons[2].focus()")
    tell(2, "60")
    assert browser.run("return it.value") == [
        [0.1, 0.5], [0.5, 0.2, None, None, 0.2], [0.5, 0.2, None, None, 0.6], [0.9, 0.8],
    ]  # fmt: skip
    assert "their times" in browser.run("return it.said.textContent")
    drawn = browser.run(LINE)
    count = len(drawn) - loop
    followed = path_through(browser.run("return it.value"), count, loop=loop)[:, :2].numpy() / 2 + 0.5
    assert np.allclose(drawn[:count], followed, atol=2e-3)
    tell(2, "5")  # earlier than the point before it
    assert browser.run("return it.value[2][4]") == pytest.approx(0.21)
    tell(1, "90")
    assert browser.run("return it.value.map((point) => point.slice(2, 4))") == [
        [0.75, 0],
        [0.75, 0],
        [0.75, 90],
        [0.75, 0],
    ]
    tell(0, "")
    assert browser.run("return it.value.map((point) => point.slice(2, 4))") == [[], [None, None], [None, None], []]
    path_through(browser.run("return it.value"), 8, loop=loop)
    assert browser.complaints() == []
