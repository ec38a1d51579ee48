"""`lumiere serve` as a process, as users start it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import psutil

import openlumiere

COMMAND = [sys.executable, "-m", "openlumiere.cli"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(openlumiere.__file__).parents[1]), "HF_HUB_OFFLINE": "1"}
PATIENCE = 300.0  # seconds, on a busy machine
SMALL = {"num_frames": 16, "num_inference_steps": 2}


def lumiere(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [*COMMAND, *map(str, words)]
    return subprocess.run(command, env={**ENVIRONMENT, **environment}, capture_output=True, text=True, check=False)


class Serving:
    """A server with its worker; ended with the block if it is not before."""

    def __init__(self, data: Path, *words: str, key: str = "") -> None:
        command = [*COMMAND, "serve", "--port", "0", "--data", str(data), *words]
        self.process = subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        found = re.fullmatch(r"open (http://127\.0\.0\.1:\d+)/  \(Ctrl-C ends\)\n", line)
        assert found, (line, self.process.communicate(timeout=30))
        self.url = found[1]
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def ask(self, prompt: str, **fields: Any) -> str:
        """Ask for a clip; its id."""
        answer = self.http.post("/v1/videos", json={"prompt": prompt, **SMALL, **fields})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def video(self, id: str) -> dict[str, Any]:
        """A clip as the server tells of it."""
        answer = self.http.get(f"/v1/videos/{id}")
        assert answer.status_code == 200, answer.text
        video: dict[str, Any] = answer.json()
        return video

    def until(self, id: str, *statuses: str) -> dict[str, Any]:
        """Wait until a clip has one of these statuses."""
        end = time.monotonic() + PATIENCE
        while (video := self.video(id))["status"] not in statuses:
            assert time.monotonic() < end, video
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.2)
        return video

    def content(self, id: str, **parameters: str) -> bytes:
        """A finished clip's file."""
        answer = self.http.get(f"/v1/videos/{id}/content", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.content

    def end(self, how: signal.Signals) -> tuple[int, str, str]:
        """Stop it; its code and what it said. No process of it stays."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(how)
        stdout, stderr = self.process.communicate(timeout=60)
        assert psutil.wait_procs(children, timeout=30)[1] == []
        return self.process.returncode, stdout, stderr
