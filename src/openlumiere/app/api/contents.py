"""Files of clips: what the worker wrote, and other formats, made when they are first asked for."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response
from starlette.background import BackgroundTask

from openlumiere.app.jobs.store import Job
from openlumiere.app.sandbox.limited import ProcessLimits
from openlumiere.files import remove
from openlumiere.generation.jobs import slug
from openlumiere.generation.requests import files_of, request_from_json
from openlumiere.video.stickers.targets import target_for

from .context import Context, Owner, Parts
from .errors import ApiError, missing
from .objects import FORMATS, master_of

router = APIRouter()
# Of our own clips: sticker formats try many settings.
_CONVERSION = ProcessLimits(memory=4096, cpu_seconds=600, seconds=900)
_VARIANTS = {"thumbnail": "thumbnail.webp", "spritesheet": "spritesheet.png"}
_making: dict[tuple[str, str], asyncio.Lock] = {}  # one conversion of a file at a time

Format = Literal["mp4", "webp", "gif", "apng", "webm", "mov", "png"]
Variant = Literal["video", "thumbnail", "spritesheet"]
_ANY_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}


@router.get("/v1/videos/{id}/content", response_class=FileResponse, responses=_ANY_FILE)
async def content(
    request: Request,
    parts: Parts,
    owner: Owner,
    id: str,
    variant: Variant = "video",
    format: Annotated[Format | None, Query(description="Of the clip; default: mp4.")] = None,
    sticker: Annotated[str | None, Query(description="A service: the clip as its sticker.")] = None,
    download: Annotated[bool, Query(description="To be saved, not shown.")] = False,
) -> Response:
    """Give a clip, or a picture of it; parts of it, where ``Range`` asks for them."""
    job = await run_in_threadpool(parts.job, id, owner)
    return await content_of(request, parts, job, variant, format, sticker, download=download)


async def content_of(
    request: Request,
    parts: Context,
    job: Job,
    variant: Variant,
    format: Format | None,
    sticker: str | None,
    *,
    download: bool,
) -> Response:
    """Give a file of a finished job."""
    master = master_of(job)
    if master is None:
        state = "could not be made" if job.is_final else "is not finished yet"
        raise ApiError(409, f"the video {state}", code="video_not_ready")
    name = _name(job, master, variant, format, sticker)
    if not await run_in_threadpool(parts.results.exists, job.id, name):
        if variant != "video" and name in _VARIANTS.values():
            raise missing(variant)
        await _make(parts, job, master, name, sticker)
    filename = f"{slug(job.request.get('prompt', ''))}{Path(name).suffix}" if download else None
    return await send(request, parts, job.id, name, filename=filename)


def _name(job: Job, master: str, variant: Variant, format: Format | None, sticker: str | None) -> str:
    """The name of the file that is asked for."""
    if variant != "video":
        if format is not None or sticker is not None:
            raise ApiError(400, f"format and sticker are of the video, not of its {variant}; leave them out")
        return _VARIANTS[variant]
    if sticker is None:
        if format == "png" and "spritesheet.png" in job.files:
            return "spritesheet.png"
        return f"{Path(master).stem}.{format or 'mp4'}"
    if format is not None:
        raise ApiError(400, "a sticker's format is its service's choice; leave format out", param="format")
    suffix = target_for(sticker).suffixes[0]
    asked = job.request.get("sticker") or {}
    if asked.get("target") == sticker and f"sticker{suffix}" in job.files:
        return f"sticker{suffix}"
    return f"sticker-{sticker}{suffix}"


async def _make(parts: Context, job: Job, master: str, name: str, sticker: str | None) -> None:
    """Make another format, once."""
    async with _alone(job.id, name):
        if await run_in_threadpool(parts.results.exists, job.id, name):
            return
        with parts.uploads.workspace() as folder:
            clip = await run_in_threadpool(parts.results.fetch, job.id, master, folder)
            if clip.parent != folder:
                await run_in_threadpool(shutil.copyfile, clip, folder / master)
            task = "convert" if sticker is None else "make_sticker"
            mark = None if parts.marker is None else parts.marker.carried(job.recipe or {})
            to, more = f"made{Path(name).suffix}", {}
            if sticker is not None:
                spare = 0 if mark is None else await run_in_threadpool(mark.room, folder / to)
                more = {"target": sticker, "spare": spare}
            background = job.request.get("background", "white")
            await parts.uploads.run(task, master, folder, _CONVERSION, to=to, background=background, **more)
            if mark is not None:
                await run_in_threadpool(mark.sign, folder / to)
            await run_in_threadpool(parts.results.put, job.id, name, folder / to)
        await run_in_threadpool(parts.store.add_files, job.id, [name])
        if await run_in_threadpool(parts.store.get, job.id) is None:  # purged meanwhile
            await run_in_threadpool(parts.results.remove, job.id)


@asynccontextmanager
async def _alone(id: str, name: str) -> AsyncIterator[None]:
    lock = _making.setdefault((id, name), asyncio.Lock())
    try:
        async with lock:
            yield
    finally:
        if not lock.locked():
            _making.pop((id, name), None)


@router.get("/v1/videos/{id}/preview.webp", response_class=FileResponse, responses=_ANY_FILE)
async def preview(request: Request, parts: Parts, owner: Owner, id: str, v: int | None = None) -> Response:
    """Give the clip as it looks while it is made; `v` only tells versions apart."""
    job = await run_in_threadpool(parts.job, id, owner)
    if not job.preview:
        raise missing("preview")
    return await send(request, parts, job.id, "preview.webp", version=job.preview)


@router.get("/v1/videos/{id}/source", response_class=FileResponse, responses=_ANY_FILE)
async def source(
    request: Request,
    parts: Parts,
    owner: Owner,
    id: str,
    name: Annotated[
        str, Query(pattern=r"^(source|mask|last_frame|reference-\d)$", description="Of several references, its place.")
    ] = "source",
) -> Response:
    """Give what a clip was made from."""
    job = await run_in_threadpool(parts.job, id, owner)
    stored = files_of(request_from_json(job.request)).get("last" if name == "last_frame" else name)
    if stored is None:
        raise missing(name)
    return await send(request, parts, job.id, stored)


async def send(
    request: Request, parts: Context, id: str, name: str, *, version: int = 0, filename: str | None = None
) -> Response:
    """Give a file, or say that whoever asks has it already.

    Args:
        version: of a file that changes.
        filename: to save it under; None = show it.
    """
    etag = f'"{hashlib.sha256(f"{id}/{name}/{version}".encode()).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in known or known == ["*"]:
        return Response(status_code=304, headers=headers)
    folder, after = None, None
    if not parts.results.is_local:
        folder = Path(mkdtemp(prefix="lumiere-"))
        after = BackgroundTask(remove, folder)
    try:
        path = await run_in_threadpool(parts.results.fetch, id, name, folder)
    except BaseException as error:
        if folder is not None:
            remove(folder)
        if isinstance(error, FileNotFoundError):
            raise missing("file") from error
        raise
    kind = FORMATS.get(path.suffix.removeprefix("."), "application/octet-stream")
    return FileResponse(path, media_type=kind, headers=headers, filename=filename, background=after)
