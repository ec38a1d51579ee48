"""A page that holds one of the page's custom elements, under the server's content security policy, in Chromium."""

from __future__ import annotations

import base64
import http.server
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import axe_core_python
import numpy as np
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

import openlumiere
from chromium import start_chromium
from openlumiere.app.api.security import HEADERS

PAGE = Path(openlumiere.__file__).parent / "app" / "page"
AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
PATIENCE = 60  # seconds: machines that also train are slow
HTML = (
    "<!doctype html><html lang=en><head><title>Editor</title><meta name=viewport content='width=device-width'>"
    "<link rel=stylesheet href=/scratch.css><script type=module src=/page/{tag}.js></script></head>"
    "<body><main><h1>Editor</h1><{tag} id=it></{tag}><p id=after>After</p></main></body></html>"
)
STYLE = ":root { color-scheme: light dark; } body { margin: 12px; background: light-dark(#f6f6f4, #131416); }"


class Files(http.server.SimpleHTTPRequestHandler):
    """Serves the page's modules, pages with one element each, and the files of the tests' folder."""

    extensions_map: ClassVar[dict[str, str]] = {".js": "text/javascript", "": "application/octet-stream"}
    folder: Path

    def translate_path(self, path: str) -> str:
        room, _, name = path.lstrip("/").partition("/")
        return str((PAGE if room == "page" else self.folder) / name)

    def do_GET(self) -> None:
        if self.path == "/scratch.css":
            self._text(STYLE, "text/css")
        elif self.path.startswith("/with/"):
            self._text(HTML.format(tag=self.path.removeprefix("/with/")), "text/html")
        else:
            super().do_GET()

    def _text(self, text: str, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(text.encode())

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", HEADERS["Content-Security-Policy"])
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Editor:
    """A browser that shows one element, `it`."""

    def __init__(self, folder: Path, profile: Path) -> None:
        self.folder = folder
        handler = type("Handler", (Files,), {"folder": folder})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.driver = start_chromium(profile)
        self.driver.set_script_timeout(PATIENCE)

    def close(self) -> None:
        self.driver.quit()
        self.server.shutdown()
        self.server.server_close()

    def open(
        self,
        tag: str,
        size: tuple[int, int] = (1000, 900),
        *,
        density: float = 1,
        dark: bool = False,
        calm: bool = False,
    ) -> None:
        """Load a fresh page."""
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": density, "mobile": size[0] < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        features = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if calm else "",
        }
        media = [{"name": name, "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        self.driver.get(f"http://127.0.0.1:{self.server.server_port}/with/{tag}")
        self.run(f"await customElements.whenDefined('{tag}')")

    def run(self, script: str, *values: object) -> Any:
        """Run an asynchronous function's body in the page, `it` being the element, and return its result."""
        wrapped = (
            "const done = arguments[arguments.length - 1]; const values = [...arguments].slice(0, -1);"
            f"(async (it) => {{ {script} }})(document.getElementById('it'))"
            ".then((value) => done([true, value]), (error) => done([false, String(error.stack)]))"
        )
        well, value = self.driver.execute_async_script(wrapped, *values)
        assert well, value
        return value

    def until(self, true: Callable[[], object]) -> None:
        WebDriverWait(self.driver, PATIENCE, poll_frequency=0.02).until(lambda _: true())

    def part(self, name: str) -> WebElement:
        """A part of the element, by the name of its property, in sight."""
        part: WebElement = self.driver.execute_script(f"return document.getElementById('it').{name}")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'nearest'})", part)
        return part

    def drag(self, part: WebElement, *places: tuple[float, float], held: str = "") -> None:
        """Press the mouse's button at the first place, in fractions of the part's size, and let go at the last."""
        width, height = part.rect["width"], part.rect["height"]
        actions = ActionChains(self.driver, duration=30)
        if held:
            actions.key_down(held)
        for number, (x, y) in enumerate(places):
            actions.move_to_element_with_offset(part, round((x - 0.5) * width), round((y - 0.5) * height))
            if number == 0:
                actions.click_and_hold()
        actions.release()
        if held:
            actions.key_up(held)
        actions.perform()

    def keys(self, *keys: str, held: tuple[str, ...] = ()) -> None:
        actions = ActionChains(self.driver, duration=0)
        for key in held:
            actions.key_down(key)
        for key in keys:
            actions.send_keys(key)
        for key in held:
            actions.key_up(key)
        actions.perform()

    def picture(self, script: str) -> Image.Image:
        """The picture in a Blob that a script returns."""
        read = "const bytes = new Uint8Array(await blob.arrayBuffer()); let text = '';"
        coded = self.run(
            f"const blob = await (async () => {{ {script} }})(); {read}"
            "for (const byte of bytes) text += String.fromCharCode(byte); return btoa(text)"
        )
        return Image.open(io.BytesIO(base64.b64decode(coded)))

    def screenshot(self, part: WebElement) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(part.screenshot_as_png)).convert("RGB")).astype(float)

    def faults(self) -> list[str]:
        """What axe finds to be serious, and what the console shows."""
        self.driver.execute_script(AXE)
        found = self.run("return (await axe.run()).violations.map((v) => [v.impact, v.id, v.nodes.map((n) => n.html)])")
        serious = [str(each) for each in found if each[0] in ("serious", "critical")]
        return serious + self.complaints()

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser") if "favicon" not in entry["message"]]
