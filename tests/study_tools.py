"""Tiny clips for studies, and the server as a process with a client."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import numpy as np

import openlumiere
from openlumiere.study.answers import Turk
from openlumiere.study.pairs import Study
from openlumiere.video import write_clip

PROMPTS = ("a red ball", "two blue kites", "some green frogs", "an old tram")
TURK = Turk(worker="A1", assignment="3X", hit="H", submit_to="https://www.mturk.com/mturk/externalSubmit")


def clip(path: Path, *, frames: int = 6, size: tuple[int, int] = (32, 32), fps: float = 8, **options: object) -> Path:
    """A tiny clip that gets brighter, of a colour that its name decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tint = np.frombuffer(hashlib.sha256(path.name.encode()).digest()[:3], np.uint8) / 255
    light = np.linspace(0.2, 1, frames)[:, None, None, None]
    return write_clip(np.broadcast_to(light * tint, (frames, *size, 3)), path, fps=fps, **options)  # type: ignore[arg-type]


def folder_of(path: Path, prompts: tuple[str, ...] = PROMPTS, **options: object) -> Path:
    for prompt in prompts:
        clip(path / f"{prompt.replace(' ', '-')}.mp4", **options)  # type: ignore[arg-type]
    return path


class Server:
    """`lumiere study serve` as a process, and a client without redirects and with cookies of its own."""

    def __init__(self, study: Study, port: int = 0) -> None:
        command = [sys.executable, "-m", "openlumiere.cli", "study", "serve", str(study.folder), "--port", str(port)]
        environment = {**os.environ, "PYTHONPATH": str(Path(openlumiere.__file__).parents[1])}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", self.process.stdout.readline())
        assert found
        self.port = int(found[1])

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        self.process.wait(20)
        assert self.process.stdout
        self.process.stdout.close()

    def ask(
        self, method: str, path: str, body: str | bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
        response = connection.getresponse()
        found = response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
        connection.close()
        return found

    def join(self, **turk: str) -> tuple[str, str]:
        """Address and cookie of a new session."""
        form = urlencode({f"turk_{key}": value for key, value in turk.items()})
        status, headers, _ = self.ask("POST", "/join", form, Content_Type="application/x-www-form-urlencoded")
        assert status == 303
        return headers["location"], headers.get("set-cookie", "").split(";")[0]

    def next(self, address: str, cookie: str) -> dict:
        status, _, body = self.ask("GET", f"{address}/next", Cookie=cookie)
        assert status == 200
        return json.loads(body)

    def answer(self, address: str, cookie: str, **fields: object) -> tuple[int, dict]:
        body = json.dumps({"choice": "left", "seconds": 1, **fields})
        status, _, text = self.ask("POST", f"{address}/answers", body, Cookie=cookie, Content_Type="application/json")
        return status, json.loads(text)
