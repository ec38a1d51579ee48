"""The server with a worker and the bundled model, and its page in Chromium, handled as people handle it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import axe_core_python
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

import openlumiere
from chromium import start_chromium

AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
PATIENCE = 240  # seconds: machines that also train are slow
DESKTOP, PHONE = (1600, 1000), (360, 740)
_SERVE = (
    "import json, sys; from openlumiere.app.server import serve; "
    "from openlumiere.app.settings import settings_from_json; "
    "serve(settings_from_json(json.loads(sys.argv[1])), workers=int(sys.argv[2]))"
)


class Server:
    """The server as a process, with its worker; `more` are other settings."""

    def __init__(
        self, data: Path, *, keys: bool = False, workers: int = 1, models: tuple[str, ...] = (), **more: Any
    ) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(openlumiere.__file__).parents[1])}
        settings = {"data": str(data), "port": 0, "keys": keys or None, **more}
        if models:
            settings["models"] = list(models)
        command = [sys.executable, "-c", _SERVE, json.dumps(settings), str(workers)]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        found = re.search(r"http://127\.0\.0\.1:\d+", self.process.stdout.readline())
        assert found
        self.address = found[0]

    def ask(self, path: str, method: str = "GET") -> Any:
        with urlopen(Request(f"{self.address}{path}", method=method), timeout=30) as response:
            return json.load(response)

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        assert self.process.stdout
        self.process.stdout.close()


class Page:
    """A browser with the page."""

    def __init__(self, folder: Path) -> None:
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        self.driver = start_chromium(folder / "profile", performance="ALL")
        self.driver.set_script_timeout(PATIENCE)
        where = {"behavior": "allow", "downloadPath": str(self.downloads), "eventsEnabled": False}
        self.driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)
        self.address = ""

    def open(self, address: str, size: tuple[int, int] = DESKTOP, *, dark: bool = False, calm: bool = False) -> None:
        """Load the page as if for the first time."""
        self.driver.get("about:blank")
        self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        self.driver.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": address, "storageTypes": "all"})
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.look(size, dark=dark, calm=calm)
        self.address = address
        self.driver.get(address)
        self.driver.execute_script("sessionStorage.clear()")
        self.driver.refresh()

    def look(self, size: tuple[int, int], *, dark: bool = False, calm: bool = False) -> None:
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        motion = "reduce" if calm else ""
        wanted = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": motion}
        media = [{"name": name, "value": value} for name, value in wanted.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})

    def run(self, script: str, *values: object) -> Any:
        return self.driver.execute_script(f"return {script}", *values)

    def until(self, true: Callable[[], object], what: str = "") -> None:
        WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(lambda _: true(), what)

    def ready(self) -> None:
        self.until(lambda: self.run("document.body.dataset.state") == "ready", "the page is ready")

    def find(self, selector: str, text: str | None = None) -> WebElement:
        """The first element in sight that a selector finds, and that says a text."""
        script = (
            "[...document.querySelectorAll(arguments[0])].find((e) => e.checkVisibility() && "
            "(arguments[1] === null || (e.getAttribute('aria-label') ?? e.textContent).trim() === arguments[1]))"
        )
        self.until(lambda: self.run(script, selector, text), f"{selector} {text}")
        element: WebElement = self.run(script, selector, text)
        return element

    def click(self, selector: str, text: str | None = None) -> None:
        """Click with the mouse, in the middle of what is in sight."""
        element = self.find(selector, text)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        element.click()

    def press(self, *keys: str, held: str = "") -> None:
        actions = ActionChains(self.driver, duration=0)
        if held:
            actions.key_down(held)
        actions.send_keys(*keys)
        if held:
            actions.key_up(held)
        actions.perform()

    def tab_to(self, name: str) -> None:
        """Press Tab until an element of that name has the focus."""
        for _ in range(120):
            self.press(Keys.TAB)
            if self.driver.switch_to.active_element.accessible_name == name:
                return
        raise AssertionError(f"Tab does not lead to {name}")

    # The form

    def choose(self, task: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, f".task:has([value={task}])").click()

    def example(self) -> None:
        """Let the first example fill the form, its files included."""
        self.click(".examples .chip")
        self.until(lambda: self.run("!document.querySelector('.field:not([hidden]) > .well') || "
                                    "document.querySelector('.shown:not([hidden])') !== null"))  # fmt: skip

    def set(self, label: str, value: str) -> None:
        """Type into a field."""
        labels = "[...document.querySelectorAll('#composer label')]"
        control = self.run(f"{labels}.find((label) => label.textContent === arguments[0])?.control", label)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", control)
        control.clear()
        control.send_keys(value)

    def offers(self, label: str) -> bool:
        """Whether there is a field of this label now."""
        labels = "[...document.querySelectorAll('#composer label')]"
        found = f"{labels}.some((label) => label.textContent === arguments[0] && label.checkVisibility())"
        return bool(self.run(found, label))

    def upload(self, label: str, file: str) -> None:
        """Choose a file for a field, and wait until it is shown."""
        inputs = "[...document.querySelectorAll('#composer input[type=file]')]"
        control = self.run(f"{inputs}.find((e) => e.getAttribute('aria-label') === arguments[0])", label)
        control.send_keys(file)
        self.until(lambda: self.run("arguments[0].closest('.field').querySelector('.shown img') !== null", control))

    def quickly(self, *, frames: int | None = None, first: bool = False) -> None:
        """Settings that take seconds: two steps, few frames, and as large as the base model makes them."""
        if not self.run("document.querySelector('.more:last-child').open"):
            self.click("summary", "More settings")
        self.set("Steps", "2")
        if self.offers("Sharpening steps"):
            self.set("Sharpening steps", "0")
        if first:
            self.set("Only the first frames", "8")
        if frames is not None:
            length = self.find("#composer input[aria-valuetext$=' s']")
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", length)
            length.send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * (frames // 8 - 1))

    def make(self) -> str:
        """Ask for a clip; returns its id."""
        before = self.shown
        self.click("button[type=submit]", "Make")
        self.until(lambda: self.shown not in ("", before), "the clip is asked for")
        return self.shown

    # The clip

    @property
    def shown(self) -> str:
        """Id of the clip that is shown large."""
        return str(self.run("location.pathname")).partition("/v/")[2]

    @property
    def kind(self) -> str:
        return str(self.run("document.getElementById('stage').dataset.kind"))

    def wait(self, kind: str = "completed") -> None:
        self.until(lambda: self.kind in (kind, "failed"), f"the clip is {kind}")
        assert self.kind == kind, self.run("document.getElementById('stage').innerText")

    def save(self, words: str) -> Path:
        """Save the clip, by the button that says so; returns the file."""
        self.click("#stage .chip", words)
        return self.saved()

    def saved(self) -> Path:
        """The file that is being saved, once it is there: in a folder of its own, as names may be the same."""
        found: list[Path] = []

        def whole() -> bool:
            found[:] = [path for path in self.downloads.iterdir() if path.is_file()]
            partial = [path for path in found if path.suffix == ".crdownload" or path.name.startswith(".")]
            return len(found) == 1 and not partial and found[0].stat().st_size > 0

        self.until(whole, "a file is saved")
        folder = self.downloads / str(len(list(self.downloads.iterdir())))
        folder.mkdir()
        return found[0].rename(folder / found[0].name)

    # What may not be

    def serious(self) -> list[str]:
        """What axe finds to be serious."""
        self.driver.execute_script(AXE)
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run().then((found) => done(found.violations.map((v) => [v.impact, v.id, "
            "v.nodes.map((n) => n.html + n.failureSummary)])))"
        )
        return [str(each) for each in found if each[0] in ("serious", "critical")]

    def complaints(self) -> list[str]:
        """What the console shows, but for a preview that is gone because its clip is done."""
        return [entry["message"] for entry in self.driver.get_log("browser") if "/preview.webp" not in entry["message"]]

    def foreign(self) -> set[str]:
        """Requests to any other host."""
        messages = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        sent = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
        return {url for url in sent if not url.startswith((f"{self.address}/", "data:", "blob:", "about:"))}
