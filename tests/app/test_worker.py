"""Workers as processes: they make clips, are killed at every place, stopped, cancelled, and follow one another."""

from __future__ import annotations

import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from job_tools import FAST, Desk, request, until
from PIL import Image
from workers import PLACES, Worker

from openlumiere.app.jobs.store import Job
from openlumiere.app.settings import Settings
from openlumiere.generation.recipe import Recipe
from openlumiere.generation.requests import AnimateRequest, Sticker
from openlumiere.video import read_clip, read_metadata

pytestmark = pytest.mark.slow

FILES = ("clip.mp4", "clip.webp", "spritesheet.png", "thumbnail.webp")
SLOW = "nowhere, but slow"
DEADLY = [place for place in PLACES if place not in ("", SLOW, "in the tenth clip")]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=str(tmp_path / "data"), models=(), **FAST)


@pytest.fixture
def desk(settings: Settings, tiny_model: Path) -> Desk:
    return Desk(settings, tiny_model)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> np.ndarray:
    """The frames of `request()`, made without a disturbance."""
    folder = tmp_path_factory.mktemp("reference")
    desk = Desk(Settings(data=str(folder), models=(), **FAST), tiny_model)
    job = desk.ask(request())
    with Worker(desk.settings, folder / "log"):
        desk.wait([job.id])
    return read_clip(desk.results.fetch(job.id, "clip.webp")).frames


def check_done(desk: Desk, job: Job, reference: np.ndarray) -> None:
    assert (job.status, job.files, job.progress) == ("completed", FILES, 100)
    assert tuple(desk.results.names(job.id)) == FILES
    assert np.array_equal(read_clip(desk.results.fetch(job.id, "clip.webp")).frames, reference)
    desk.check_tidy()


def test_a_clip_is_made_with_all_that_belongs_to_it(desk: Desk, log: Path) -> None:
    job = desk.ask(request("a tiger", seed=5))
    with Worker(desk.settings, log, model=desk.model) as worker:
        (done,) = desk.wait([job.id])
        assert (done.status, done.files, done.progress, done.attempts) == ("completed", FILES, 100, 1)
        assert done.files == tuple(desk.results.names(job.id))
        assert worker.stop() == 0
    clip = desk.results.fetch(job.id, "clip.webp")
    recipe = Recipe.from_metadata(read_metadata(clip))
    assert recipe is not None
    assert recipe.metadata() == done.recipe
    assert (recipe.request.prompt, recipe.request.seed) == ("a tiger", 5)
    assert read_clip(clip).frames.shape == (done.num_frames, done.height, done.width, 3)
    assert (done.num_frames, done.fps, done.transparent) == (8, 16.0, False)
    assert "tiger" not in worker.text()
    assert "Loading pipeline" not in worker.text()
    assert desk.store.workers() == []
    desk.check_tidy()


def test_a_model_that_cannot_be_loaded_is_told_and_others_are_served(
    desk: Desk, log: Path, tiny_model: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    other = Desk(desk.settings, broken)
    jobs = [other.ask(), desk.ask()]
    with Worker(desk.settings, log, model=str(broken)) as worker:
        failed, done = desk.wait([job.id for job in jobs])
        assert done.status == "completed"
        assert (failed.status, failed.error_code) == ("failed", "model_unusable")
        assert (failed.error_message or "").startswith(f"{broken} cannot be loaded: ")
        reason = desk.store.unusable_models()[str(broken)]
        assert failed.error_message == f"{broken} cannot be loaded: {reason}"
        lines = [line for line in worker.text().splitlines() if "cannot be loaded" in line]
        assert len(lines) == 2  # when it started, and for the job
        assert lines[0].endswith(failed.error_message)
        assert "Traceback" not in worker.text()
        weights.write_bytes(whole)
        (mended,) = desk.wait([other.ask().id])
        assert mended.status == "completed"
        assert desk.store.unusable_models() == {}
        assert worker.stop() == 0


def test_pictures_are_read_by_their_names_and_stickers_made_beside_the_clip(
    desk: Desk, log: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "made-up.png"
    Image.new("RGB", (40, 40), "orange").save(picture)
    asked = AnimateRequest(
        prompt="a tiger", source="source.png", num_frames=8, num_inference_steps=1, upscale_steps=0,
        sticker=Sticker(target="slack"),
    )  # fmt: skip
    jobs = [desk.ask(asked, files={"source.png": picture}), desk.ask(replace(asked, source="missing.png"))]
    with Worker(desk.settings, log):
        done, failed = desk.wait([job.id for job in jobs])
    assert done.status == "completed"
    assert done.files == tuple(sorted([*FILES, "source.png", "sticker.gif"]))
    assert done.recipe is not None
    assert done.recipe["source"] == "source.png"
    assert "sticker" in read_metadata(desk.results.fetch(done.id, "sticker.gif"))
    assert (failed.status, failed.error_code) == ("failed", "invalid_request")
    assert "missing.png" in (failed.error_message or "")
    desk.check_tidy()


@pytest.mark.parametrize("place", DEADLY)
def test_a_worker_that_is_killed_loses_nothing_and_doubles_nothing(
    desk: Desk, log: Path, reference: np.ndarray, place: str
) -> None:
    job = desk.ask()
    with Worker(desk.settings, log, dies=place) as worker:
        assert worker.ended() == -signal.SIGKILL
    assert not desk.job(job.id).is_final
    with Worker(desk.settings, log) as worker:
        (done,) = desk.wait([job.id])
        assert worker.stop() == 0
    check_done(desk, done, reference)
    assert done.attempts == (1 if place == "before it starts" else 2)


def test_a_job_whose_worker_dies_three_times_fails(desk: Desk, log: Path) -> None:
    deadly, fine = desk.ask(), desk.ask()
    for _ in range(3):
        with Worker(desk.settings, log, dies="in a denoising step") as worker:
            assert worker.ended() == -signal.SIGKILL
    with Worker(desk.settings, log):
        failed, done = desk.wait([deadly.id, fine.id])
    assert (failed.status, failed.error_code) == ("failed", "worker_died")
    assert done.status == "completed"
    desk.check_tidy()


def test_a_worker_that_vanishes_is_followed_by_another(
    desk: Desk, log: Path, reference: np.ndarray, tmp_path: Path
) -> None:
    job = desk.ask()
    with Worker(desk.settings, log, dies=SLOW) as slow, Worker(desk.settings, log, dies=SLOW):
        until(lambda: desk.job(job.id).stage == "denoise")
        holder = desk.job(job.id).worker
        assert holder in {row.id for row in desk.store.workers()}
        slow.signal(signal.SIGSTOP)
        (done,) = desk.wait([job.id])
        slow.signal(signal.SIGCONT)
        check_done(desk, done, reference)


def test_a_worker_that_is_told_to_stop_gives_its_job_back(desk: Desk, log: Path, reference: np.ndarray) -> None:
    jobs = [desk.ask() for _ in range(3)]
    with Worker(desk.settings, log, dies=SLOW) as worker:
        until(lambda: desk.job(jobs[0].id).stage == "denoise")
        assert worker.stop() == 0
    assert [desk.job(job.id).status for job in jobs] == ["queued"] * 3
    assert desk.store.workers() == []
    desk.check_tidy()
    with Worker(desk.settings, log):
        done = desk.wait([job.id for job in jobs])
    for job in done:
        check_done(desk, job, reference)
        assert job.attempts == 1
    assert done[0].completed_at < done[1].completed_at < done[2].completed_at  # type: ignore[operator]


def test_cancelling_frees_the_place_within_a_step(desk: Desk, log: Path) -> None:
    long, waiting, after = desk.ask(request(num_inference_steps=200)), desk.ask(), desk.ask()
    with Worker(desk.settings, log, dies=SLOW):
        until(lambda: desk.job(long.id).stage == "denoise")
        desk.queue.cancel(waiting.id)
        assert desk.job(waiting.id).status == "cancelled"
        desk.queue.cancel(long.id)
        began = time.monotonic()
        desk.wait([long.id])
        assert time.monotonic() - began < 20  # two hundred steps take 80 s at least
        cancelled, done = desk.wait([long.id, after.id])
    assert (cancelled.status, cancelled.files) == ("cancelled", ())
    assert done.status == "completed"
    desk.check_tidy()
