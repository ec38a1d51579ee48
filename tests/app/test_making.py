"""One job's way in this process: what is told of it, what it leaves behind, the one model, and room for it."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from failing_server import ours
from job_tools import LIMITS, request
from PIL import Image
from sqlalchemy.exc import OperationalError

from openlumiere.app.jobs.results import Results
from openlumiere.app.jobs.store import Job, Store
from openlumiere.app.settings import Settings
from openlumiere.app.workers import making
from openlumiere.app.workers.making import Maker, Stopped
from openlumiere.app.workers.resident import Resident
from openlumiere.errors import LumiereError
from openlumiere.generation.requests import AnimateRequest, Request, Sticker
from openlumiere.provenance.credentials import check
from openlumiere.provenance.identity import Identity
from openlumiere.provenance.marking import payload_in
from openlumiere.video import read_clip, read_metadata

pytestmark = pytest.mark.slow


class Bench:
    """A worker's parts, without a queue."""

    def __init__(
        self, folder: Path, model: Path, *, results: str = "", memory: int | None = None, mark: bool = True
    ) -> None:
        self.settings = Settings(data=str(folder), results=results, expiry_seconds=100, mark=mark)
        self.model = str(model)
        self.store, self.results = Store(self.settings.store_url), Results(self.settings.results_address)
        self.resident = Resident(self.store, "w", device="cpu", dtype="auto", capacity=memory)
        self.stop = threading.Event()
        self.maker = Maker(
            self.settings, store=self.store, results=self.results, resident=self.resident, worker="w", stop=self.stop
        )

    def ask(self, asked: Request | None = None) -> Job:
        plain = (asked or request()).to_json()
        return self.store.add(request=plain, model=self.model, limits=LIMITS)

    def work(self, job: Job) -> Job:
        """Do what the queue has a worker do."""
        taken = self.maker.begin(job.id)
        if taken is not None and self.maker.make(taken):
            self.maker.publish(taken)
        done = self.store.get(job.id)
        assert done is not None
        return done

    def check_tidy(self) -> None:
        assert list(self.settings.work.glob("*")) == []
        assert self.maker.state == "idle"


@pytest.fixture
def bench(tmp_path: Path, tiny_model: Path) -> Bench:
    return Bench(tmp_path / "data", tiny_model)


def each_step(monkeypatch: pytest.MonkeyPatch, then: Callable[[Any], None]) -> None:
    """Have something happen after each step."""
    call = making._Watch.__call__

    def told(self: Any, progress: Any) -> None:
        call(self, progress)
        then(progress)

    monkeypatch.setattr(making._Watch, "__call__", told)


def test_progress_is_told_with_previews_and_never_falls(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "_TELL_SECONDS", 0)
    monkeypatch.setattr(making, "_PREVIEW_SECONDS", 0)
    monkeypatch.setattr(making, "_PREVIEW_SHARE", 1e9)
    told: list[Job] = []
    previews: list[tuple[int, ...]] = []
    job = bench.ask(request(num_frames=16, num_inference_steps=3))

    def look(_: Any) -> None:
        told.append(bench.store.get(job.id))  # type: ignore[arg-type]
        if bench.results.exists(job.id, "preview.webp"):
            previews.append(read_clip(bench.results.fetch(job.id, "preview.webp")).frames.shape)

    each_step(monkeypatch, look)
    done = bench.work(job)
    percents = [now.progress for now in told]
    assert percents == sorted(percents)
    assert percents[0] < 10
    assert 90 < percents[-1] < 100
    assert {"denoise", "sharpen"} <= {now.stage for now in told}
    assert [now.step for now in told if now.stage == "denoise"] == [0, 1, 2, 3]
    assert {now.preview for now in told} == {0, 1, 2}
    assert previews[0] == (12, 16, 16, 3)
    assert any(now.seconds_left is not None for now in told)
    assert (done.progress, done.seconds_left, done.preview) == (100, None, 0)
    assert not bench.results.exists(job.id, "preview.webp")
    bench.check_tidy()


def test_a_clip_whose_second_stage_is_cancelled_keeps_the_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job = bench.ask(request(upscale_steps=4))
    each_step(monkeypatch, lambda told: told.stage == "sharpen" and bench.store.request_cancel(job.id))
    done = bench.work(job)
    assert (done.status, done.files) == ("cancelled", ("base.webp",))
    assert read_clip(bench.results.fetch(job.id, "base.webp")).frames.shape[0] == 8
    bench.check_tidy()


def test_all_files_of_a_clip_are_marked_and_signed(bench: Bench) -> None:
    done = bench.work(bench.ask(request(sticker=Sticker(target="slack"))))
    payload = payload_in(done.recipe or {})
    assert payload is not None
    assert payload.model == 256  # a model of one's own
    assert set(done.files) == {"clip.webp", "clip.mp4", "spritesheet.png", "sticker.gif", "thumbnail.webp"}
    for name in done.files:
        credentials = check(bench.results.fetch(done.id, name), identity=Identity.load())
        assert credentials is not None, name
        assert (credentials.state, credentials.soft_binding) == ("trusted", payload), name


def test_what_was_edited_is_named_in_the_credentials(bench: Bench, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    job = bench.ask(AnimateRequest(prompt="a tiger", source="source.png", num_frames=8, seed=1, upscale_steps=0))
    bench.results.put(job.id, "source.png", tmp_path / "a.png")
    done = bench.work(job)
    for name in ("clip.webp", "clip.mp4"):
        credentials = check(bench.results.fetch(done.id, name))
        assert credentials is not None
        assert [ingredient.title for ingredient in credentials.ingredients] == ["source.png"]


def test_an_operator_may_leave_clips_unmarked(
    tmp_path: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bench = Bench(tmp_path / "data", tiny_model, mark=False)
    done = bench.work(bench.ask())
    assert (done.recipe or {})["watermark"] == "none"
    assert [check(bench.results.fetch(done.id, name)) for name in done.files if name != "clip.webm"] == [None] * 4
    assert f"{done.id} is left unmarked" in caplog.text


def test_a_base_clip_that_is_all_that_is_left_is_marked(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path / "data", tiny_model)
    monkeypatch.setattr(making, "SMALLEST_SIDE", 16)  # as large as the tiny model's
    monkeypatch.setattr("openlumiere.provenance.watermark.SMALLEST_SIDE", 16)
    job = bench.ask(request(upscale_steps=4))
    each_step(monkeypatch, lambda told: told.stage == "sharpen" and bench.store.request_cancel(job.id))
    done = bench.work(job)
    base = bench.results.fetch(done.id, "base.webp")
    recipe = read_metadata(base)
    assert payload_in(recipe) is not None
    assert recipe["prompt"] == "a tiger"
    assert check(base) is not None


ERRORS = {
    "out_of_memory": MemoryError(), "invalid_request": LumiereError("bad"), "internal_error": ZeroDivisionError(),
}  # fmt: skip


@pytest.mark.parametrize("code", ERRORS)
def test_errors_end_the_job_and_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    job = bench.ask(request("a secret tiger"))

    def fail(told: Any) -> None:
        if told.stage == "sharpen":
            raise ERRORS[code]

    each_step(monkeypatch, fail)
    done = bench.work(job)
    assert (done.status, done.error_code, done.files) == ("failed", code, ("base.webp",))
    assert "\n" not in (done.error_message or "\n")
    assert "secret" not in caplog.text
    monkeypatch.undo()
    assert bench.work(bench.ask()).status == "completed"
    bench.check_tidy()


def test_a_database_that_fails_for_a_moment_stops_no_clip(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise OperationalError("SELECT", {}, Exception("the server closed the connection"))

    job = bench.ask(request(upscale_steps=0))
    taken = bench.maker.begin(job.id)
    assert taken is not None
    with monkeypatch.context() as broken:
        broken.setattr(bench.store, "tell", fails)
        broken.setattr(bench.store, "goes_on", fails)
        assert bench.maker.make(taken)
    with monkeypatch.context() as broken:
        broken.setattr(bench.store, "finish", fails)
        with pytest.raises(OperationalError):
            bench.maker.publish(taken)
    assert bench.work(job).status == "completed"  # as the queue does, which was told of no end
    bench.check_tidy()


def test_a_worker_that_stops_gives_the_job_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job = bench.ask()
    each_step(monkeypatch, lambda told: told.stage == "denoise" and bench.stop.set())
    with pytest.raises(Stopped):
        bench.work(job)
    waiting = bench.store.get(job.id)
    assert waiting is not None
    assert (waiting.status, waiting.attempts, waiting.worker) == ("queued", 0, None)
    with pytest.raises(Stopped):
        bench.maker.begin(job.id)
    bench.check_tidy()


def test_who_lost_the_job_writes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job = bench.ask()
    lost: list[str] = []

    def lose(told: Any) -> None:
        if told.stage == "denoise" and not lost:
            lost.extend(bench.store.release_worker("w"))
            bench.store.start(job.id, "another", max_attempts=3)

    each_step(monkeypatch, lose)
    now = bench.work(job)
    assert lost == [job.id]
    assert (now.status, now.worker, now.attempts) == ("in_progress", "another", 2)
    assert bench.results.names(job.id) == []
    bench.check_tidy()


def test_results_may_lie_at_an_address(tmp_path: Path, tiny_model: Path) -> None:
    bench = Bench(tmp_path / "data", tiny_model, results=f"memory://{secrets.token_hex(4)}/clips")
    picture = tmp_path / "picture.png"
    Image.new("RGB", (40, 40), "orange").save(picture)
    job = bench.ask(AnimateRequest(prompt="a tiger", source="source.png", num_frames=8, upscale_steps=0))
    bench.results.put(job.id, "source.png", picture)
    done = bench.work(job)
    assert done.status == "completed"
    assert done.files == ("clip.mp4", "clip.webp", "source.png", "spritesheet.png", "thumbnail.webp")
    assert done.recipe is not None
    assert done.recipe["source"] == "source.png"
    assert done.expires_at is not None
    assert len(read_clip(bench.results.fetch(job.id, "clip.mp4")).frames) == 8
    assert not (tmp_path / "data" / "results").exists()
    bench.check_tidy()


def test_one_model_is_loaded_once_and_swapped_when_a_job_asks_for_another(
    bench: Bench, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    first = bench.resident.load(bench.model)
    assert bench.resident.load(bench.model) is first
    assert bench.work(bench.ask()).status == "completed"
    assert bench.resident.load(bench.model) is first
    bench.model = str(copy)
    assert bench.work(bench.ask()).status == "completed"
    assert bench.resident.name == str(copy)
    bench.model = str(tmp_path / "none")
    failed = bench.work(bench.ask())
    assert (failed.status, failed.error_code) == ("failed", "model_unusable")
    monkeypatch.chdir(tmp_path)
    assert Resident(bench.store, "v", device="cpu", dtype="auto", capacity=None).load("copy").identity.name == str(copy)


def test_a_clip_that_would_not_fit_is_refused_and_one_that_fits_alone_waits(tmp_path: Path, tiny_model: Path) -> None:
    bench = Bench(tmp_path / "data", tiny_model, memory=2 * 2**30)
    refused = bench.work(bench.ask(request(num_frames=200_000)))
    assert (refused.status, refused.error_code) == ("failed", "invalid_request")
    assert "ask for fewer frames" in (refused.error_message or "")
    bench.store.heartbeat("another", model="large", state="working")
    assert bench.store.take_memory("another", bench.resident._place, 2 * 2**30, 2 * 2**30)
    waiting = bench.ask()
    taken = bench.maker.begin(waiting.id)
    assert taken is not None
    making_it = threading.Thread(target=bench.maker.make, args=(taken,))
    making_it.start()
    making_it.join(4)
    assert making_it.is_alive()
    assert not bench.results.exists(waiting.id, "clip.webp")
    bench.store.heartbeat("another", model="large", state="idle")
    making_it.join(120)
    assert bench.results.exists(waiting.id, "clip.webp")
    third = bench.ask()
    bench.store.heartbeat("another", model="large", state="working")
    taken = bench.maker.begin(third.id)
    assert taken is not None
    bench.store.request_cancel(third.id)
    assert not bench.maker.make(taken)  # one that waits can be cancelled
    assert bench.store.get(third.id).status == "cancelled"  # type: ignore[union-attr]


def test_what_another_server_has_begun_goes_on_with_the_next_worker(tmp_path: Path) -> None:
    with ours(tmp_path, polls=10**6) as server:
        bench = Bench(tmp_path / "data", Path("m"))
        bench.model = f"{server.url}#lamp"
        job = bench.ask()
        stopping = threading.Timer(0.2, bench.stop.set)

        def taken() -> None:  # the server has the clip
            while not server.posts():
                time.sleep(0.01)
            stopping.start()

        threading.Thread(target=taken).start()
        with pytest.raises(Stopped):
            bench.work(job)
        assert bench.store.get(job.id).status == "queued"  # type: ignore[union-attr]
        assert bench.results.names(job.id) == [making.TICKET]
        bench.check_tidy()
        bench.stop.clear()
        server.polls = 1
        done = bench.work(job)
        assert (done.status, len(server.jobs), server.posts()) == ("completed", 1, 1)
        assert "clip.mp4" in done.files
        assert making.TICKET not in bench.results.names(job.id)
        server.status = "failed"
        failed = bench.work(bench.ask())
        assert (failed.status, failed.error_message) == ("failed", f"{server.url}: out of lamps")
        assert bench.results.names(failed.id) == []
        bench.check_tidy()
