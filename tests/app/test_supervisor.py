"""Workers as the server's children: started again when killed, gone when it is, and what they do beside their work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from job_tools import FAST, Desk, request, until
from test_webhooks import SECRET, Receiver

from openlumiere.app.settings import Settings
from openlumiere.app.workers.supervisor import Supervisor

pytestmark = pytest.mark.slow


def test_a_worker_is_started_again_tells_webhooks_and_removes_what_is_over(tmp_path: Path, tiny_model: Path) -> None:
    with Receiver() as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        settings = Settings(
            data=str(tmp_path / "data"), models=(), webhooks=(receiver.url(),), webhook_secret=SECRET,
            undo_seconds=1, **FAST,
        )  # fmt: skip
        desk, supervisor = Desk(settings, tiny_model), Supervisor(settings, device="cpu")
        supervisor.start()
        try:
            until(desk.store.workers)
            (first,) = supervisor.pids
            (worker,) = desk.store.workers()
            os.kill(first, signal.SIGKILL)
            job = desk.ask()
            (done,) = desk.wait([job.id])
            assert (done.status, done.worker) == ("completed", worker.id)  # the same slot, so the same worker
            assert supervisor.pids != [first]
            until(lambda: receiver.heard)
            assert desk.store.delete(job.id, "local")
            until(lambda: desk.store.get(job.id) is None and not desk.results.names(job.id))
        finally:
            supervisor.stop()
            receiver.shutdown()
        assert supervisor.pids == []
        assert desk.store.workers() == []
        desk.check_tidy()


def test_a_worker_ends_when_its_server_is_killed(tmp_path: Path, tiny_model: Path) -> None:
    settings = Settings(data=str(tmp_path / "data"), models=(), **FAST)
    desk = Desk(settings, tiny_model)
    job = desk.ask(request(num_inference_steps=500))
    code = f"""
import time
from openlumiere.app.settings import Settings
from openlumiere.app.workers.supervisor import Supervisor
supervisor = Supervisor(Settings(data={settings.data!r}, models=()), device="cpu")
supervisor.start()
time.sleep(1000)
"""
    server = subprocess.Popen([sys.executable, "-c", code])
    try:
        until(lambda: desk.job(job.id).stage == "denoise")
        (child,) = psutil.Process(server.pid).children()
    finally:
        server.kill()
        server.wait()
    until(lambda: not child.is_running())
    assert desk.job(job.id).status == "queued"
    assert desk.job(job.id).attempts == 0
    desk.check_tidy()
