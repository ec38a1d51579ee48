"""Jobs as rows: who sees them, in which order, what becomes of them, and what two processes may do at once."""

from __future__ import annotations

import multiprocessing
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openlumiere.app.jobs.store import FINAL, AskedBefore, Job, QueueFull, QuotaReached, Store
from openlumiere.app.settings import Limits, Settings, settings_from_json
from openlumiere.errors import LumiereError
from openlumiere.generation.requests import GenerateRequest

LIMITS = Limits()
DONE: dict[str, Any] = {
    "recipe": {"seed": 3}, "width": 8, "height": 8, "num_frames": 16, "fps": 16.0, "transparent": False,
    "files": ["clip.webp", "clip.mp4"],
}  # fmt: skip


@pytest.fixture
def url(tmp_path: Path) -> str:
    return Settings(data=str(tmp_path)).store_url


@pytest.fixture
def store(url: str) -> Store:
    return Store(url, webhooks=["https://hooks.example/a", "https://hooks.example/b"])


def add(store: Store, prompt: str = "a tiger", *, owner: str = "local", limits: Limits = LIMITS, **more: Any) -> Job:
    request = GenerateRequest(prompt=prompt, output="clip.webp").to_json()
    return store.add(owner=owner, request=request, model="emoji", limits=limits, **more)


def started(store: Store, id: str, worker: str = "w") -> Job:
    job = store.start(id, worker, max_attempts=3)
    assert job is not None
    return job


def test_a_job_gets_an_id_and_a_seed_and_is_kept(store: Store, url: str) -> None:
    job = add(store)
    assert job.status == "queued"
    assert len(job.id) == len("video_") + 22
    assert isinstance(job.request["seed"], int)
    assert Store(url).get(job.id) == job
    assert add(store).id != job.id


def test_bad_requests_and_addresses_that_are_not_listed_are_refused(store: Store) -> None:
    with pytest.raises(LumiereError, match="unknown task"):
        store.add(request={"task": "fly"}, model="emoji", limits=LIMITS)
    with pytest.raises(LumiereError, match="does not list"):
        add(store, callback_url="https://elsewhere.example")
    assert store.list("local") == []


def test_jobs_are_seen_by_their_owner_only(store: Store) -> None:
    job = add(store, owner="key_a")
    assert store.get(job.id, "key_a") == job
    assert store.get(job.id, "key_b") is None
    assert store.list("key_b") == []
    assert not store.delete(job.id, "key_b")
    assert not store.set_favourite(job.id, "key_b", True)
    assert store.get(job.id) == job


def test_lists_are_paged_searched_and_filtered(store: Store) -> None:
    made = [add(store, prompt) for prompt in ("A red tiger", "a blue 100% bird", "ein Löwe", "a RED heart")]
    ids = [job.id for job in made]
    assert [job.id for job in store.list("local")] == ids[::-1]
    first = store.list("local", limit=2)
    assert [job.id for job in store.list("local", after=first[-1].id, limit=2)] == ids[1::-1]
    assert [job.id for job in store.list("local", newest_first=False, after=ids[0])] == ids[1:]
    assert [job.id for job in store.list("local", search="red a")] == [ids[3], ids[0]]
    assert [job.id for job in store.list("local", search="LÖWE")] == [ids[2]]
    assert [job.id for job in store.list("local", search="%")] == [ids[1]]
    assert store.set_favourite(ids[1], "local", True)
    assert [job.id for job in store.list("local", favourites=True)] == [ids[1]]
    started(store, ids[2])
    assert [job.id for job in store.list("local", status="in_progress")] == [ids[2]]


def test_the_place_counts_what_runs_and_what_waits_before(store: Store) -> None:
    first, second, third = (add(store).id for _ in range(3))
    assert [store.place(id) for id in (first, second, third)] == [0, 1, 2]
    started(store, first)
    assert [store.place(id) for id in (first, second, third)] == [0, 1, 2]
    store.finish(first, **DONE)
    assert [store.place(id) for id in (second, third)] == [0, 1]


def test_a_job_goes_from_the_queue_to_its_result(store: Store) -> None:
    job = started(store, add(store).id)
    assert (job.status, job.worker, job.attempts) == ("in_progress", "w", 1)
    told: dict[str, Any] = {"stage": "denoise", "total_steps": 4, "seconds_left": 2.5, "attempt": 1}
    assert store.tell(job.id, step=2, progress=50, preview=1, **told)
    assert store.tell(job.id, step=1, progress=25, preview=2, **told)
    told_of = store.get(job.id)
    assert told_of is not None
    assert (told_of.step, told_of.progress, told_of.preview, told_of.seconds_left) == (1, 50, 2, 2.5)
    assert store.finish(job.id, **DONE, attempt=1, expires_at=5.0)
    done = store.get(job.id)
    assert done is not None
    assert (done.status, done.progress, done.files) == ("completed", 100, ("clip.mp4", "clip.webp"))
    assert done.recipe == {"seed": 3}
    assert done.completed_at is not None
    assert not store.finish(job.id, **DONE, attempt=1)  # once
    assert not store.fail(job.id, "x", "y")
    assert store.start(job.id, "w", max_attempts=3) is None


def test_who_lost_a_job_to_another_writes_nothing(store: Store) -> None:
    id = add(store).id
    first, second = started(store, id, "a"), started(store, id, "b")
    assert (first.attempts, second.attempts) == (1, 2)
    told: dict[str, Any] = {"stage": "denoise", "step": 1, "total_steps": 2, "seconds_left": None, "preview": 0}
    assert not store.tell(id, progress=9, **told, attempt=1)
    assert not store.is_held(id, 1)
    assert not store.goes_on(id, 1)
    assert store.is_held(id, 2)
    assert store.goes_on(id, 2)
    assert not store.finish(id, **DONE, attempt=1)
    assert not store.fail(id, "bad", "bad", attempt=1)
    assert not store.give_back(id, 1)
    assert store.finish(id, **DONE, attempt=2)


def test_a_job_that_kills_its_workers_fails_and_one_given_back_does_not(store: Store) -> None:
    id = add(store).id
    for _ in range(5):
        assert store.give_back(id, started(store, id).attempts)
    for attempt in (1, 2, 3):
        assert started(store, id).attempts == attempt
    assert store.start(id, "w", max_attempts=3) is None
    job = store.get(id)
    assert job is not None
    assert (job.status, job.error_code) == ("failed", "worker_died")


def test_cancelling(store: Store) -> None:
    waiting, running, done = (add(store).id for _ in range(3))
    started(store, running)
    started(store, done)
    store.finish(done, **DONE)
    for id in (waiting, running, done):
        store.request_cancel(id)
    assert [store.get(id).status for id in (waiting, running, done)] == [  # type: ignore[union-attr]
        "cancelled", "in_progress", "completed",
    ]  # fmt: skip
    assert store.cancel_requested(running)
    assert not store.cancel_requested(done)
    assert store.is_held(running, 1)
    assert not store.goes_on(running, 1)
    assert store.start(running, "other", max_attempts=3) is None  # its worker died before it stopped
    assert store.get(running).status == "cancelled"  # type: ignore[union-attr]
    assert store.cancel_requested("video_unknown")


def test_deleting_hides_and_cancels_and_can_be_undone_until_it_is_purged(store: Store) -> None:
    running, done = add(store), add(store)
    started(store, running.id)
    started(store, done.id)
    store.finish(done.id, **DONE)
    assert store.delete(running.id, "local")
    assert store.delete(done.id, "local")
    assert not store.delete(done.id, "local")
    assert store.list("local") == []
    assert store.get(done.id, "local") is None
    assert store.cancel_requested(running.id)
    assert store.purge(undo_seconds=60) == []
    assert store.restore(done.id, "local")
    assert [job.id for job in store.list("local")] == [done.id]
    assert store.purge(undo_seconds=0) == []  # the other one is still under way
    store.cancelled(running.id)
    assert store.purge(undo_seconds=0) == [running.id]
    assert store.purge(undo_seconds=0) == [running.id]  # until its files are gone
    assert not store.restore(running.id, "local")
    assert store.get(running.id) is None
    store.forget(running.id)
    assert store.purge(undo_seconds=0) == []
    store.forget(done.id)  # was not purged
    assert store.get(done.id) is not None


def test_results_expire_unless_they_are_favourites(store: Store) -> None:
    kept, old, young = (add(store).id for _ in range(3))
    for id, at in ((kept, 1.0), (old, 1.0), (young, time.time() + 60)):
        started(store, id)
        store.finish(id, **DONE, expires_at=at)
    store.set_favourite(kept, "local", True)
    assert store.purge(undo_seconds=60) == [old]


def test_limits_say_when_to_come_back(store: Store) -> None:
    small = replace(LIMITS, max_queued=2)
    first, _ = add(store), add(store)
    with pytest.raises(QueueFull, match="2 jobs wait") as full:
        add(store, limits=small)
    assert full.value.retry_after >= 1
    with pytest.raises(QuotaReached, match="2 of your jobs"):
        add(store, limits=replace(LIMITS, max_queued_per_owner=2))
    assert add(store, owner="key_a", limits=replace(LIMITS, max_queued_per_owner=2))
    with pytest.raises(QuotaReached, match="quota") as reached:
        add(store, limits=replace(LIMITS, max_jobs_per_day=2))
    assert 86300 < reached.value.retry_after <= 86400
    started(store, first.id)
    store.finish(first.id, **DONE)
    assert add(store, limits=replace(LIMITS, max_queued=3))


def test_deleting_gives_no_quota_back(store: Store) -> None:
    job = add(store, "a secret tiger")
    store.delete(job.id, "local")
    assert store.purge(undo_seconds=0) == [job.id]
    store.forget(job.id)
    with pytest.raises(QuotaReached, match="quota"):
        add(store, limits=replace(LIMITS, max_jobs_per_day=1))
    database = Path(store._engine.url.database or "")
    assert store.get(job.id) is None
    with sqlite3.connect(database) as connection:
        assert "secret" not in str(connection.execute("SELECT * FROM jobs").fetchall())


def test_changes_are_those_that_wait_or_run_or_became_another(store: Store) -> None:
    first, second = add(store), add(store, owner="key_a")
    assert [job.id for job in store.changes()] == [first.id, second.id]
    known = {job.id: job.version for job in store.changes("local")}
    assert store.changes("local", known) == []
    started(store, first.id)
    store.finish(first.id, **DONE)
    assert [job.status for job in store.changes("local", known)] == ["completed"]
    assert store.changes("local") == []


def test_workers_are_known_by_their_heartbeats(store: Store) -> None:
    store.heartbeat("a", model=None, state="starting")
    store.heartbeat("b", model="emoji", state="idle")
    store.heartbeat("a", model="emoji", state="working")
    assert [(row.id, row.model, row.state) for row in store.workers()] == [
        ("a", "emoji", "working"), ("b", "emoji", "idle"),
    ]  # fmt: skip
    assert abs(store.workers()[0].seen_at - time.time()) < 5
    store.dismiss("a")
    assert [row.id for row in store.workers()] == ["b"]
    store.dismiss("a")
    assert store.vanished(60) == []
    assert store.vanished(-60) == ["b"]


def test_who_holds_jobs_and_vanishes_leaves_them_to_others(store: Store) -> None:
    lost, kept = add(store).id, add(store).id
    started(store, lost, "a")
    started(store, kept, "b")
    assert store.release_worker("a") == [lost]
    assert not store.is_held(lost, 1)
    assert store.is_held(kept, 1)
    again = started(store, lost, "b")
    assert again.attempts == 2


def test_jobs_that_do_not_fit_together_wait(store: Store) -> None:
    for id in "abc":
        store.heartbeat(id, model=None, state="working")
    assert store.take_memory("a", "gpu", 6, 10)
    assert not store.take_memory("b", "gpu", 6, 10)
    assert store.take_memory("b", "other", 6, 10)
    assert store.take_memory("c", "gpu", 4, 10)
    store.heartbeat("a", model="emoji", state="idle")
    assert store.take_memory("b", "gpu", 6, 10)
    store.heartbeat("b", model="emoji", state="idle")
    store.heartbeat("c", model="emoji", state="idle")
    assert store.take_memory("a", "gpu", 99, 10)  # alone it need not wait


def _hammer(url: str, prompt: str, results: Any) -> None:
    store = Store(url)
    for _ in range(8):
        try:
            results.put(("added", add(store, prompt, limits=Limits(max_queued=20)).id))
        except QueueFull:
            results.put(("full", ""))
    for job in store.list("local", limit=100):
        if store.start(job.id, prompt, max_attempts=1000) is not None:
            results.put(("finished" if store.finish(job.id, **DONE) else "late", job.id))


@pytest.mark.slow
def test_processes_that_write_at_once_exceed_no_limit_and_finish_each_job_once(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    Store(url)
    processes = [context.Process(target=_hammer, args=(url, name, results)) for name in "abcd"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    told = [results.get(timeout=5) for _ in range(32)]
    while not results.empty():
        told.append(results.get())
    finished = [id for what, id in told if what == "finished"]
    assert len(finished) == len(set(finished))
    assert {job.status for job in Store(url).list("local", limit=100)} <= {*FINAL, "queued", "in_progress"}
    added = sum(what == "added" for what, _ in told)
    assert added + sum(what == "full" for what, _ in told) == 32
    assert added >= 20


def test_settings_go_through_json_and_say_what_is_wrong(tmp_path: Path) -> None:
    settings = Settings(
        data=str(tmp_path),
        webhooks=("https://hooks.example/a",),
        webhook_secret="whsec_c2VjcmV0",
        limits=Limits(max_queued=3),
    )
    assert settings_from_json(settings.to_json()) == settings
    with pytest.raises(LumiereError, match="secret"):
        Settings(data="x", webhooks=("https://hooks.example",))
    with pytest.raises(LumiereError, match="http or https"):
        Settings(data="x", webhooks=("file:///etc/passwd",), webhook_secret="whsec_c2VjcmV0")
    with pytest.raises(LumiereError, match="postgresql"):
        Settings(data="x", database_url="mysql://host/name")
    with pytest.raises(LumiereError, match="1 or more"):
        Limits(max_queued=0)


def test_a_database_that_cannot_be_used_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_text("no database, and long enough that SQLite looks at its header" * 20)
    with pytest.raises(LumiereError, match="cannot use the database"):
        Store(Settings(data=str(tmp_path)).store_url)
    with pytest.raises(LumiereError, match=r"cannot use the database postgresql\+psycopg://user:\*\*\*@"):
        Store("postgresql://user:secret@127.0.0.1:1/none")


def test_a_key_is_of_one_job_however_many_ask_at_once(store: Store) -> None:
    def ask(owner: str) -> str:
        try:
            return add(store, owner=owner, idempotency_key="k").id
        except AskedBefore as before:
            return before.job.id

    with ThreadPoolExecutor(8) as pool:
        mine, others = set(pool.map(ask, ["a"] * 8)), set(pool.map(ask, ["b"] * 8))
    assert (len(mine), len(others), len(mine | others)) == (1, 1, 2)
    (id,) = mine
    store.delete(id, "a")
    assert store.purge(undo_seconds=0) == [id]
    store.forget(id)
    assert ask("a") == id  # as long as it counts for the quota, the key makes no second one
