"""A real PostgreSQL, of Debian's packages: one queue for several workers, one of which is killed within a step.

Skipped where it is not installed, unless OPENLUMIERE_REQUIRE_POSTGRES is 1.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from job_tools import FAST, LIMITS, Desk, request, until
from workers import Worker

from openlumiere.app.jobs.keys import Keys
from openlumiere.app.jobs.queue import Queue
from openlumiere.app.jobs.store import QueueFull, Store
from openlumiere.app.settings import Settings
from openlumiere.video import read_clip

pytestmark = pytest.mark.slow

_INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server's own database."""
    if not _INSTALLED:
        if os.environ.get("OPENLUMIERE_REQUIRE_POSTGRES") == "1":
            pytest.fail("PostgreSQL is not installed: apt-get install postgresql")
        pytest.skip("PostgreSQL is not installed")
    # Not in pytest's folder, which is closed to the user that the server runs as: it refuses to run as root.
    folder, port = Path(tempfile.mkdtemp(prefix="lumiere-postgres-")), _free_port()
    user: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        user = ["runuser", "-u", "postgres", "--"]
    log = open(tmp_path_factory.mktemp("postgres") / "log", "wb")

    def call(program: str, *words: str) -> None:
        subprocess.run([*user, str(_INSTALLED[-1] / program), *words], check=True, cwd="/", stdout=log, stderr=log)

    data = str(folder / "data")
    call("initdb", "-D", data, "-U", "lumiere", "--auth=trust", "--no-sync", "--encoding=UTF8")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    call("pg_ctl", "-D", data, "-w", "-o", options, "-l", str(folder / "server.log"), "start")
    try:
        yield f"postgresql://lumiere@127.0.0.1:{port}"
    finally:
        call("pg_ctl", "-D", data, "-m", "immediate", "stop")
        log.close()
        shutil.rmtree(folder)


@pytest.fixture
def settings(server: str, tmp_path: Path) -> Settings:
    name = f"jobs_{abs(hash(tmp_path)):x}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return Settings(
        data=str(tmp_path / "a"), database_url=f"{server}/{name}", results=str(tmp_path / "results"), models=(), **FAST
    )


def test_servers_that_start_at_once_make_the_tables_once(settings: Settings) -> None:
    with ThreadPoolExecutor(4) as threads:
        for queue in threads.map(lambda _: Queue(settings), range(4)):
            queue.close()
    key, secret = Keys(settings.store_url).add("Ada")
    found = Keys(settings.store_url).check(secret)
    assert found is not None
    assert found.id == key.id


def test_the_queue_never_grows_beyond_its_limit(settings: Settings) -> None:
    store, plain = Store(settings.store_url), request().to_json()
    small = replace(LIMITS, max_queued=5)

    def add(_: int) -> bool:
        try:
            return bool(store.add(request=plain, model="m", limits=small))
        except QueueFull:
            return False

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(add, range(20))) == 5
    assert store.count() == {"queued": 5}
    oldest = store.list("local", newest_first=False)[0]
    assert store.delete(oldest.id, "local")
    assert store.purge(undo_seconds=0) == [oldest.id]
    store.forget(oldest.id)
    assert [job.id for job in store.list("local", search="TIGER")] == [
        job.id for job in store.changes()[::-1]
    ]  # fmt: skip


def test_forty_jobs_two_workers_one_killed_within_a_step(settings: Settings, tiny_model: Path, tmp_path: Path) -> None:
    desk = Desk(settings, tiny_model)
    asked = [
        desk.ask(request(f"a tiger, take {n}", seed=n % 4, num_inference_steps=2, upscale_steps=0)) for n in range(40)
    ]
    other = replace(settings, data=str(tmp_path / "b"))
    with (
        Worker(settings, tmp_path / "a.log", dies="in the tenth clip") as first,
        Worker(other, tmp_path / "b.log") as second,
    ):
        assert first.ended() == -9
        done = desk.wait([job.id for job in asked], seconds=400)
        assert second.stop() == 0
    assert Counter(job.status for job in done) == {"completed": 40}
    assert Counter(job.attempts for job in done) == {1: 39, 2: 1}
    frames = [read_clip(desk.results.fetch(job.id, "clip.webp")).frames.tobytes() for job in done]
    assert [job.recipe["prompt"] for job in done if job.recipe] == [f"a tiger, take {n}" for n in range(40)]
    assert len(set(frames)) == 40
    for job in done:
        assert desk.results.names(job.id) == list(job.files)
    text = first.text() + second.text()
    assert all(text.count(f"{job.id} completed") == 1 for job in done)
    assert [row.id for row in desk.store.workers()] == []
    with psycopg.connect(settings.database_url) as connection:
        rows = connection.execute("SELECT status, count(*) FROM dbos.workflow_status GROUP BY status").fetchall()
        kinds = connection.execute("SELECT DISTINCT serialization FROM dbos.workflow_status").fetchall()
    assert rows == [("SUCCESS", 40)]
    assert kinds == [("portable_json",)]


def test_a_worker_waits_for_a_database_that_restarts(settings: Settings, tiny_model: Path, tmp_path: Path) -> None:
    desk = Desk(settings, tiny_model)
    with Worker(settings, tmp_path / "log"):
        first = desk.ask()
        desk.wait([first.id])
        with psycopg.connect(settings.database_url, autocommit=True) as connection:
            others = "pid <> pg_backend_pid() AND datname = current_database()"
            connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}".encode())
        again = desk.ask()
        (done,) = desk.wait([again.id])
    assert done.status == "completed"
    until(lambda: desk.store.place(again.id) == 0)
