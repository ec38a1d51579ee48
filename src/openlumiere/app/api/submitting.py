"""From a request that was read to a job in the queue: its files, whether it is allowed, its row."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from openlumiere.app.jobs.store import AskedBefore, Job
from openlumiere.app.sandbox.uploads import Taken
from openlumiere.errors import LumiereError
from openlumiere.generation.requests import files_of, request_from_json

from .asking import REFERENCE, Asked, build_request, check_known, check_lengths
from .context import Context
from .errors import ApiError
from .objects import master_of

_LOG = logging.getLogger("openlumiere.app")


async def submit(parts: Context, owner: str, asked: Asked, task: str, *, key: str | None = None) -> Job:
    """Read the files of a request, and queue it."""
    texts = {"prompt": asked.fields.prompt, "negative_prompt": asked.fields.negative_prompt}
    try:
        await _check_texts(parts, owner, texts)
        abilities = await run_in_threadpool(parts.abilities, asked.fields.model)
        with parts.uploads.workspace() as folder:
            files = await _files(parts, owner, asked, folder)
            request = await run_in_threadpool(
                build_request, task, asked.fields, files, abilities, parts.settings.requests
            )
            await _classify(parts, owner, texts, {name: taken.path for name, taken in files.items()}, folder)
            return await run_in_threadpool(
                _queue, parts, owner, request.to_json(), abilities.model, {t.path.name: t.path for t in files.values()},
                callback_url=asked.fields.callback_url, idempotency_key=key,
            )  # fmt: skip
    finally:
        for file in (*asked.files.values(), *asked.references):
            if isinstance(file, UploadFile):
                await file.close()


async def submit_again(parts: Context, owner: str, job: Job, prompt: str) -> Job:
    """Queue what a job asked for with another prompt."""
    request = {**job.request, "prompt": prompt}
    texts = {"prompt": prompt, "negative_prompt": str(request.get("negative_prompt") or "")}
    await _check_texts(parts, owner, texts)
    with parts.uploads.workspace() as folder:
        files = {}
        for name in files_of(request_from_json(job.request)).values():
            files[name] = await run_in_threadpool(parts.results.fetch, job.id, name, folder)
        await _classify(parts, owner, texts, {path.stem: path for path in files.values()}, folder)
        return await run_in_threadpool(_queue, parts, owner, request, job.model, files, remixed_from=job.id)


async def _check_texts(parts: Context, owner: str, texts: dict[str, str]) -> None:
    """Refuse texts that are too long, or that the operator lists."""
    check_lengths(texts, parts.settings.requests)
    await run_in_threadpool(parts.moderator.check_words, owner, texts)


async def _classify(parts: Context, owner: str, texts: dict[str, str], files: dict[str, Path], folder: Path) -> None:
    """Ask the operator's classifier about texts and pictures; masks are none."""
    if not parts.moderator.wants_pictures:
        return
    pictures = [still for name, path in files.items() if name != "mask"
                for still in await parts.uploads.stills(path, folder)]  # fmt: skip
    await parts.moderator.classify(owner, texts, pictures)


def _queue(
    parts: Context, owner: str, request: dict[str, Any], model: str, files: dict[str, Path], **more: str | None
) -> Job:
    """Keep a job with its files, and queue it; where that fails it is told so.

    What was asked for before, with the same key, is that job; one that still waits is queued again, in case that a
    server died before it had.
    """
    try:
        job = parts.store.add(owner=owner, request=request, model=model, limits=parts.settings.limits, **more)
    except AskedBefore as before:
        job = before.job
        _check_same(job, request, model)
        if job.status != "queued":
            return job
    try:
        for name, path in files.items():
            parts.results.put(job.id, name, path)
        parts.queue.submit(job)
    except BaseException:
        parts.store.fail(job.id, "internal_error", "it could not be queued; ask for it again")
        raise
    about = repr(job.request["prompt"]) if parts.settings.log_prompts else job.request["task"]
    _LOG.info("%s: %s", job.id, about)
    return job


def _check_same(job: Job, request: dict[str, Any], model: str) -> None:
    """Refuse a key that was used for another request, or whose video is gone."""
    if job.deleted_at is not None or not job.request:
        raise ApiError(409, "Idempotency-Key: the video of that key was deleted; use another", code="video_deleted")
    seed = job.request["seed"] if request.get("seed") is None else request["seed"]
    if (job.request, job.model) != ({**request, "seed": seed}, model):
        message = "Idempotency-Key: it was used for another request; use another"
        raise ApiError(409, message, code="idempotency_key_reused")


async def _files(parts: Context, owner: str, asked: Asked, folder: Path) -> dict[str, Taken]:
    """The files that a request starts from, written anew in `folder`, by the names of `requests.files_of`."""
    if _has(asked, "input_reference") and _has(asked, "video_reference"):
        raise ApiError(400, "input_reference and video_reference are both given; leave one out")
    source = "input_reference" if _has(asked, "input_reference") else "video_reference"
    files: dict[str, Taken] = {}
    every: list[tuple[str, str, Any]] = [
        (param, name, asked.files.get(param, getattr(asked.fields, param)))
        for param, name in ((source, "source"), ("mask", "mask"), ("last_frame", "last"))
    ]
    every += [(REFERENCE, f"reference-{n}", given) for n, given in enumerate(asked.references)]
    for param, name, given in every:
        try:
            if isinstance(given, UploadFile):
                files[name] = await parts.uploads.take(given.file, param, name, folder)
            elif given is not None:
                files[name] = await run_in_threadpool(_own_clip, parts, owner, check_known(given), name, folder)
        except LumiereError as error:
            if type(error) is not LumiereError:
                raise
            message = str(error) if str(error).startswith(param) else f"{param}: {error}"
            raise ApiError(400, message, param=param) from error
    return files


def _has(asked: Asked, param: str) -> bool:
    return param in asked.files or getattr(asked.fields, param) is not None


def _own_clip(parts: Context, owner: str, id: str, to: str, folder: Path) -> Taken:
    """A finished clip of one's own, as the source of another."""
    job = parts.store.get(id, owner)
    master = None if job is None else master_of(job)
    if job is None or master is None:
        raise LumiereError(f"there is no finished video {id[:60]!r} of yours")
    (folder / to).mkdir()
    path = parts.results.fetch(id, master, folder / to)
    copy = folder / f"{to}.webp"
    copy.write_bytes(path.read_bytes())
    return Taken(path=copy, width=job.width or 0, height=job.height or 0, frames=job.num_frames or 2, fps=job.fps)
