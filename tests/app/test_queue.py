"""Those who ask: what dies between keeping a job and queueing it is made good, and nothing is queued twice."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from job_tools import LIMITS, request

from openlumiere.app.jobs.queue import Queue
from openlumiere.app.jobs.store import Store
from openlumiere.app.settings import Settings
from openlumiere.errors import LumiereError


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=str(tmp_path / "data"))


def queued(settings: Settings) -> list[tuple[str, str, str]]:
    with sqlite3.connect(settings.folder / "queue.sqlite") as connection:
        rows = connection.execute(
            "SELECT workflow_uuid, status, workflow_input.inputs FROM workflow_status "
            "LEFT JOIN workflow_input USING (workflow_uuid) ORDER BY created_at"
        )
        return [tuple(row) for row in rows]


def test_a_job_is_queued_once_by_its_id_and_as_json(settings: Settings) -> None:
    queue, store = Queue(settings), Store(settings.store_url)
    job = store.add(request=request("a secret tiger").to_json(), model="emoji", limits=LIMITS)
    queue.submit(job)
    queue.submit(job)
    ((id, status, inputs),) = queued(settings)
    assert (id, status) == (job.id, "ENQUEUED")
    assert json.loads(inputs) == {"namedArgs": {}, "positionalArgs": [job.id]}
    queue.forget(job.id)
    assert queued(settings) == []
    queue.close()


def test_what_was_kept_and_not_queued_is_queued_later(settings: Settings) -> None:
    queue, store = Queue(settings), Store(settings.store_url)
    job = store.add(request=request().to_json(), model="emoji", limits=LIMITS)
    queue.repair(older_than=time.time() - 30)
    assert queued(settings) == []  # it may be on its way
    for _ in range(2):
        queue.repair(older_than=time.time() + 1)
    assert [id for id, _, _ in queued(settings)] == [job.id]
    queue.cancel(job.id)
    assert store.get(job.id).status == "cancelled"  # type: ignore[union-attr]
    queue.close()


@pytest.mark.parametrize("status", ["ERROR", "SUCCESS"])
def test_what_the_queue_let_go_is_queued_again(settings: Settings, status: str) -> None:
    queue, store = Queue(settings), Store(settings.store_url)
    job = store.add(request=request().to_json(), model="emoji", limits=LIMITS)
    queue.submit(job)
    with sqlite3.connect(settings.folder / "queue.sqlite") as connection:
        connection.execute("UPDATE workflow_status SET status = ?", (status,))
    queue.repair(older_than=time.time() + 1)
    ((id, now, _),) = queued(settings)
    assert (id, now) == (job.id, "ENQUEUED")
    queue.close()


def test_a_database_that_cannot_be_reached_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(LumiereError, match=r"cannot use the database .*\*\*\*"):
        Queue(Settings(data=str(tmp_path), database_url="postgresql://user:secret@127.0.0.1:1/none"))


@pytest.mark.slow
def test_an_asker_that_is_killed_leaves_each_job_queued_once(settings: Settings) -> None:
    """A process asks without pause until it is killed, wherever it is then."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from job_tools import Desk, request
from openlumiere.app.settings import Settings
desk = Desk(Settings(data={settings.data!r}), "emoji")
while True:
    print(desk.ask(request()).id, flush=True)
"""
    told: list[str] = []
    for _ in range(3):
        asker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert asker.stdout is not None
        told += [asker.stdout.readline().strip() for _ in range(4)]
        os.kill(asker.pid, signal.SIGKILL)
        told += asker.stdout.read().split()
        asker.wait()
        asker.stdout.close()
    store, queue = Store(settings.store_url), Queue(settings)
    kept = {job.id for job in store.changes()}
    assert {id for id in told if len(id) == 28} <= kept
    queue.repair(older_than=time.time() + 1)
    ids = [id for id, _, _ in queued(settings)]
    assert len(ids) == len(set(ids))
    assert set(ids) == kept
    queue.close()


@pytest.mark.slow
def test_asking_imports_no_torch() -> None:
    code = """
import sys
import openlumiere.app.jobs.queue, openlumiere.app.jobs.keys, openlumiere.app.jobs.results
import openlumiere.app.jobs.webhooks, openlumiere.app.workers.supervisor, openlumiere.app.workers.worker
heavy = [name for name in sys.modules if name.partition(".")[0] in ("torch", "diffusers", "transformers")]
assert not heavy, heavy[:5]
assert not [name for name in sys.modules if name.startswith("openlumiere.cli")]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
