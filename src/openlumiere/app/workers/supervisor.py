"""Workers as children of the server: started again when they die, stopped with it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time

from openlumiere.app.settings import Settings

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds before a worker that died is started again, doubled each time
_STEADY_SECONDS = 60.0  # a worker that lived so long died of something new
_STOP_SECONDS = 15.0  # for so long a worker may finish its step when the server stops
_LOG = logging.getLogger(__name__)


class Supervisor:
    """Keeps worker processes running.

    Args:
        count: of workers.
        model, device, dtype: as `worker.run`'s.
        log_level: of the workers' logs, which go where the server's do.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        count: int = 1,
        model: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        log_level: str = "INFO",
    ) -> None:
        given = {"settings": settings.to_json(), "model": model, "device": device, "dtype": dtype}
        self._options = json.dumps({**given, "log_level": log_level}) + "\n"
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep, name=f"supervisor-{number}", daemon=True) for number in range(count)
        ]
        self._processes: set[subprocess.Popen[str]] = set()

    @property
    def pids(self) -> list[int]:
        """Return the process numbers of the workers that run now."""
        return [process.pid for process in tuple(self._processes) if process.poll() is None]

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the workers: each after the step that it is in, or at once when that takes long."""
        self._stop.set()
        processes, deadline = tuple(self._processes), time.monotonic() + _STOP_SECONDS
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(timeout=max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                process.kill()  # its job is taken over by the next that is started
        for thread in self._threads:
            thread.join()

    def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stop.is_set():
            began = time.monotonic()
            code = self._run()
            if self._stop.is_set():
                return
            pause = _FIRST_PAUSE if time.monotonic() - began > _STEADY_SECONDS else min(2 * pause, _LONGEST_PAUSE)
            _LOG.error("a worker ended with code %d; started again in %.0f s", code, pause)
            self._stop.wait(pause)

    def _run(self) -> int:
        """Run one worker to its end; return its code."""
        # Settings hold passwords, so that they go by a pipe, not as arguments that everyone sees. The pipe stays open:
        # when this process dies, however it does, its end tells the worker to stop.
        command = [sys.executable, "-m", "openlumiere.app.workers.worker"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        self._processes.add(process)
        try:
            assert process.stdin is not None
            process.stdin.write(self._options)
            process.stdin.flush()
            if self._stop.is_set():  # too late for `stop` to see it
                process.terminate()
            return process.wait()
        except BrokenPipeError:
            return process.wait()
        finally:
            self._processes.discard(process)
            if process.stdin is not None:
                process.stdin.close()
