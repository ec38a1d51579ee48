"""The server as a process with its worker, for clients that know nothing of us."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import httpx

import openlumiere

_SERVE = """
import json, sys
from openlumiere.app.server import serve
from openlumiere.app.settings import settings_from_json
try:
    serve(settings_from_json(json.loads(sys.argv[1])), workers=int(sys.argv[2]), device="cpu")
except KeyboardInterrupt:
    pass
"""


class Server:
    """A server that listens on a free port.

    Args:
        settings: as `Settings.to_json` gives them.
    """

    def __init__(self, settings: str, log: Path, *, workers: int = 1) -> None:
        self.log = log
        environment = {**os.environ, "PYTHONPATH": str(Path(openlumiere.__file__).parents[1])}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, settings, str(workers)], env=environment, stdout=subprocess.PIPE,
            stderr=open(log, "w"), text=True,
        )  # fmt: skip
        assert self.process.stdout
        found = re.search(r"http://127\.0\.0\.1:\d+", self.process.stdout.readline())
        assert found, log.read_text()
        self.address = found[0]

    def ready(self, seconds: float = 300) -> None:
        """Wait until a worker takes jobs."""
        deadline = time.monotonic() + seconds
        while httpx.get(f"{self.address}/readyz").status_code != 200:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.5)

    def stop(self) -> int:
        """Interrupt it; return its code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.stop()
        assert self.process.stdout
        self.process.stdout.close()
