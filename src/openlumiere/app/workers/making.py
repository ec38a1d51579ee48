"""One job, from its request to its files: what a worker does between taking it and ending it.

Nothing here is done twice in its result. The clip is made from a seed that the store drew, put into the job's folder
whole, and made no second time once it is there; what belongs to it is made from it alone; the row is ended last, by
whoever holds the job then.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sqlalchemy.exc import SQLAlchemyError

from openlumiere.app.jobs.results import Results
from openlumiere.app.jobs.store import Job, Store
from openlumiere.app.settings import Settings
from openlumiere.errors import LumiereError
from openlumiere.files import one_line, remove
from openlumiere.generation.backends.remote.ticket import ticket_path
from openlumiere.generation.backends.stunet import base_clip_path
from openlumiere.generation.make import make, sources_of
from openlumiere.generation.progress import Cancelled, Paused, Progress
from openlumiere.generation.recipe import WATERMARK_KEY, Recipe
from openlumiere.generation.requests import request_from_json
from openlumiere.generation.stickers import sticker_from_file
from openlumiere.provenance.marking import Marker
from openlumiere.provenance.watermark import SMALLEST_SIDE
from openlumiere.video import read_clip, read_metadata, write_clip
from openlumiere.video.stickers import target_for

from .pace import Pace
from .planning import MASTER, clip_values, master_request, sampling_steps
from .resident import ModelUnusable, Resident

BASE, PREVIEW = "base.webp", "preview.webp"
TICKET = str(ticket_path(MASTER))  # of a clip that another server makes, see `generation.backends.remote.ticket`
_FILM, _THUMBNAIL, _SHEET = "clip.mp4", "thumbnail.webp", "spritesheet.png"
_INPUTS = ("source.", "mask.", "last.", "reference-", TICKET)
_TELL_SECONDS = 0.5  # between two notes of progress
_PREVIEW_SECONDS, _PREVIEW_SHARE = 2.0, 0.1  # between two previews, and of the time that they may take
_PREVIEW_SIDE, _PREVIEW_FRAMES = 128, 12
_THUMBNAIL_SIDE = 256

_LOG = logging.getLogger(__name__)


class Stopped(BaseException):
    """The worker is to stop. No `Exception`: the queue would note it as the job's end."""


class Maker:
    """Makes the clips of jobs, with the model that is loaded.

    Args:
        worker: id.
        stop: set when the worker is to stop; a job under way is then given back.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store,
        results: Results,
        resident: Resident,
        worker: str,
        stop: threading.Event,
    ) -> None:
        self._settings, self._store, self._results, self._resident = settings, store, results, resident
        self._worker, self._stop = worker, stop
        self._marker = Marker.load() if settings.mark else None
        self._known: dict[tuple[str, str], float] = {}
        self.state = "starting"

    def begin(self, job_id: str) -> Job | None:
        """Take a job; None = there is nothing to be done."""
        if self._stop.is_set():
            raise Stopped
        self.state = "working"
        self._store.heartbeat(self._worker, model=self._resident.name, state=self.state)
        self._results.remove_leftovers(job_id)  # of whoever died of it
        job = self._store.start(job_id, self._worker, max_attempts=self._settings.max_attempts)
        if job is None:
            self.state = "idle"
            return None
        told = f": {job.request.get('prompt', '')!r}" if self._settings.log_prompts else ""
        _LOG.info("%s, %s with %s, attempt %d%s", job.id, job.request.get("task"), job.model, job.attempts, told)
        return job

    def remove_leftovers(self, worker: str) -> None:
        """Remove the folders of clips that a worker had begun when it died."""
        for folder in self._settings.work.glob(f"*-{worker}"):
            remove(folder)

    def make(self, job: Job) -> bool:
        """Make the clip, unless it is there; return whether it is now. If not, the job has ended."""
        if self._results.exists(job.id, MASTER):
            return True
        with self._ending(job), self._folder(job) as folder:
            try:
                self._make(job, folder)
                return True
            finally:
                base = folder / base_clip_path(MASTER)
                if base.exists() and self._holds(job):
                    self._mark(base)
                    self._results.put(job.id, BASE, base)
        return False

    def publish(self, job: Job) -> bool:
        """Make what belongs to a clip, and complete the job; return whether it was still held."""
        with self._ending(job), self._folder(job) as folder:
            master = self._results.fetch(job.id, MASTER, folder)
            made = Recipe.from_metadata(read_metadata(master), MASTER)
            assert made is not None
            clip = read_clip(master)
            request, recipe = request_from_json(job.request), made.metadata()
            self._tell(job, "write", progress=98)
            names = [_FILM, _SHEET, _THUMBNAIL]
            self._fetch_inputs(job, folder)  # which credentials name
            with _inside(folder):
                for name in names[:2]:
                    write_clip(clip.frames, name, fps=clip.fps, metadata=recipe, background=request.background)
                _thumbnail(clip.frames).save(_THUMBNAIL, "WEBP", lossless=True)
                if request.sticker is not None:
                    self._tell(job, "sticker", progress=98)
                    names.append(f"sticker{target_for(request.sticker.target).suffixes[0]}")
                    below = None if request.background == "white" else request.background
                    sticker_from_file(str(master), request.sticker, names[-1], background=below, marker=self._marker)
                edited, placed = sources_of(request)
                mark = None
                if self._marker is not None:
                    mark = self._marker.carried(recipe, edited=edited, placed=placed)
                if mark is not None:
                    for name in names[:3]:
                        mark.sign(name)
            if not self._holds(job):
                raise Cancelled
            for name in names:
                self._results.put(job.id, name, folder / name)
            for name in (BASE, PREVIEW, TICKET):
                self._results.remove(job.id, name)
            expiry = self._settings.expiry_seconds
            height, width, channels = clip.frames.shape[1:]
            done = self._store.finish(
                job.id, attempt=job.attempts, recipe=recipe, width=width, height=height,
                num_frames=len(clip.frames), fps=clip.fps, transparent=channels == 4,
                files=self._results.names(job.id), expires_at=None if expiry is None else time.time() + expiry,
            )  # fmt: skip
            _LOG.info("%s %s", job.id, "completed" if done else "was taken over by another worker")
            self.state = "idle"
            return done
        return False

    # ------------------------------------------------------------------------------------------ the clip

    def _make(self, job: Job, folder: Path) -> None:
        self._tell(job, "read")
        self._fetch_inputs(job, folder)
        if self._marker is None:
            _LOG.info("%s is left unmarked", job.id)
        if self._resident.name != job.model:
            self._tell(job, "load")
        model = self._resident.load(job.model)
        with _inside(folder):
            request = master_request(request_from_json(job.request), model.abilities)
            values = clip_values(request, model.abilities)
            with self._resident.room(values, lambda: self._check(job)):
                pace = Pace(sampling_steps(request, model.abilities), f"{job.model} {values}", self._known)
                watch = _Watch(self, job, pace, folder)
                make(
                    request, model, marker=self._marker, progress=watch, cancelled=lambda: self._is_to_stop(job),
                    lossless=True,
                )  # fmt: skip
        if not self._holds(job):
            raise Cancelled
        self._results.put(job.id, MASTER, folder / MASTER)

    def _fetch_inputs(self, job: Job, folder: Path) -> None:
        for name in self._results.names(job.id):
            if name.startswith(_INPUTS):
                path = self._results.fetch(job.id, name, folder)
                if path.parent != folder:
                    shutil.copyfile(path, folder / name)

    def _mark(self, base: Path) -> None:
        """Mark and sign a base model's clip that is all that becomes of a job."""
        if self._marker is None:
            return
        clip, recipe = read_clip(base), read_metadata(base)
        if min(clip.frames.shape[1:3]) < SMALLEST_SIDE:
            return
        mark = self._marker.of(recipe)
        marked = mark.put_into(clip.frames)
        write_clip(marked, base, fps=clip.fps, metadata={**recipe, WATERMARK_KEY: mark.words}, lossless=True)
        mark.sign(base)

    @contextmanager
    def _folder(self, job: Job) -> Iterator[Path]:
        """A folder of this attempt's own, removed afterwards."""
        folder = self._settings.work / f"{job.id}.{job.attempts}-{self._worker}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            yield folder
        finally:
            remove(folder)

    @contextmanager
    def _ending(self, job: Job) -> Iterator[None]:
        """End the job by what stops it; what is raised goes no further, but for `Stopped`."""
        try:
            yield
            return
        except Cancelled:
            if self._stop.is_set() and self._store.give_back(job.id, job.attempts):
                self.state = "idle"
                _LOG.info("%s waits again", job.id)
                raise Stopped from None
            ended = self._store.cancelled(job.id, files=self._leftover_files(job), attempt=job.attempts)
            _LOG.info("%s %s", job.id, "cancelled" if ended else "was taken over by another worker")
        except ModelUnusable as error:
            self._fail(job, "model_unusable", one_line(error, 500))
        except LumiereError as error:
            self._fail(job, "invalid_request", one_line(error, 500))
        except (MemoryError, torch.OutOfMemoryError):
            self._fail(
                job, "out_of_memory", "the clip does not fit into memory; ask for fewer frames, or a smaller one"
            )
            torch.cuda.empty_cache()
        except SQLAlchemyError:
            self.state = "idle"
            raise  # no fault of the job's: the queue runs it again, see `Queue.repair`
        except Exception:
            _LOG.exception("%s failed", job.id)
            self._fail(job, "internal_error", "something went wrong here; the server's log says what")
        self.state = "idle"

    def _fail(self, job: Job, code: str, message: str) -> None:
        _LOG.warning("%s failed: %s%s", job.id, code, f", {message}" if self._settings.log_prompts else "")
        self._store.fail(job.id, code, message, files=self._leftover_files(job), attempt=job.attempts)

    def _leftover_files(self, job: Job) -> list[str]:
        for name in (PREVIEW, TICKET):
            self._results.remove(job.id, name)
        return self._results.names(job.id)

    # ------------------------------------------------------------------------------------------ progress

    def _asked_to_stop(self, job: Job) -> bool:
        if self._stop.is_set():
            return True
        try:
            return not self._store.goes_on(job.id, job.attempts)
        except SQLAlchemyError as error:  # a database that restarts stops no clip
            _LOG.warning("%s: %s", job.id, one_line(error))
            return False

    def _is_to_stop(self, job: Job) -> bool:
        """Whether a clip is not wanted any more; where it goes back to the queue, `Paused` says so."""
        if self._stop.is_set():
            raise Paused
        return self._asked_to_stop(job)

    def _check(self, job: Job) -> None:
        if self._asked_to_stop(job):
            raise Cancelled

    def _holds(self, job: Job) -> bool:
        return self._store.is_held(job.id, job.attempts)

    def _tell(
        self, job: Job, stage: str, *, step: int = 0, total: int = 0, progress: int = 0,
        seconds_left: float | None = None, preview: int = 0,
    ) -> None:  # fmt: skip
        with suppress(SQLAlchemyError):
            self._store.tell(
                job.id, stage=stage, step=step, total_steps=total, progress=progress, seconds_left=seconds_left,
                preview=preview, attempt=job.attempts,
            )  # fmt: skip


class _Watch:
    """Tells the store of a clip's steps, not too often, and keeps a preview."""

    def __init__(self, maker: Maker, job: Job, pace: Pace, folder: Path) -> None:
        self._maker, self._job, self._pace, self._folder = maker, job, pace, folder
        self._told_at = self._previewed_at = time.monotonic() - _TELL_SECONDS
        self._cost, self._preview = 0.0, 0
        self._ticket = b""

    def __call__(self, told: Progress) -> None:
        self._keep_ticket()
        self._pace.tell(told.stage, told.step, told.total)
        now = time.monotonic()
        if told.preview is not None and 0 < told.step < told.total:
            pause = max(_PREVIEW_SECONDS, self._cost / _PREVIEW_SHARE)
            if not self._preview or now - self._previewed_at >= pause:
                self._keep_preview(told.preview)
                self._previewed_at = time.monotonic()
                self._cost = self._previewed_at - now
        if now - self._told_at < _TELL_SECONDS:
            return
        self._told_at = now
        self._maker._tell(
            self._job, told.stage, step=told.step, total=told.total, progress=self._pace.progress,
            seconds_left=self._pace.seconds_left, preview=self._preview,
        )  # fmt: skip

    def _keep_ticket(self) -> None:
        """Keep where whoever takes the job over finds it what another server has begun: it is told of before that."""
        path = self._folder / TICKET
        if path.exists() and (ticket := path.read_bytes()) != self._ticket:
            self._maker._results.put(self._job.id, TICKET, path)
            self._ticket = ticket

    def _keep_preview(self, decode: Callable[[int], np.ndarray]) -> None:
        frames = decode(_PREVIEW_FRAMES)
        small = np.stack([np.asarray(_shrunk(frame, _PREVIEW_SIDE)) for frame in frames])
        path = self._folder / PREVIEW
        write_clip(small, path, fps=8)
        self._maker._results.put(self._job.id, PREVIEW, path)
        self._preview += 1


def _thumbnail(frames: np.ndarray) -> Image.Image:
    """The middle frame."""
    return _shrunk(frames[len(frames) // 2], _THUMBNAIL_SIDE)


def _shrunk(frame: np.ndarray, side: int) -> Image.Image:
    pixels = frame if frame.dtype == np.uint8 else np.rint(frame.clip(0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    scale = side / max(picture.size)
    if scale >= 1:
        return picture
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    return picture.resize(size, Image.Resampling.LANCZOS)


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder, so that files are named in metadata, and in errors, as they are in the job's own."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
