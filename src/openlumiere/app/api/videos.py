"""``/v1/videos``: asking for clips, following them, and what becomes of them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response, StreamingResponse
from starlette.datastructures import UploadFile

from openlumiere.app.jobs.store import AskedBefore, Job
from openlumiere.app.sandbox.uploads import Taken
from openlumiere.errors import LumiereError
from openlumiere.generation.python_code import python_code
from openlumiere.generation.recipe import Recipe
from openlumiere.generation.requests import files_of, request_from_json

from . import objects
from .asking import REFERENCE, Asked, build_request, check_known, read_request, task_of
from .contents import content_of
from .context import Context, Owner, Parts
from .errors import ApiError, missing
from .objects import master_of
from .schemas import CreateVideo, Deleted, Favourite, Inspected, ModelList, Remix, Video, VideoList

router = APIRouter()
_LOG = logging.getLogger("openlumiere.app")
POLL_MS = {"openai-poll-after-ms": "1000"}


def _body(model: type, *, files: tuple[str, ...] = ()) -> dict[str, Any]:
    """What OpenAPI says of a body that is a form or JSON: fields of a model, some of which a form takes as files."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")  # type: ignore[attr-defined]
    form = {**schema, "properties": dict(schema["properties"])}
    for name in files:
        form["properties"][name] = {"type": "string", "format": "binary"}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema}, "multipart/form-data": {"schema": form}},
        }
    }


_FILE = {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}}
_INSPECT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": {**_FILE, "examples": [{"file": "tiger.webp"}]}}},
    }
}
_Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key", min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$",
        description="Unguessable: whoever sends the same request again with it gets the same video.",
    ),
]  # fmt: skip
_CREATE = _body(CreateVideo, files=("input_reference", "video_reference", "mask", "last_frame", "reference"))


@router.post("/v1/videos", response_model=Video, openapi_extra=_CREATE)
async def create(http: Request, parts: Parts, owner: Owner, key: _Key = None) -> Video:
    """Ask for a clip."""
    asked = await read_request(http)
    return await _shown(parts, await _ask(parts, owner, asked, task_of(asked), key=key))


@router.post("/v1/videos/sync", response_class=FileResponse, openapi_extra=_CREATE)
async def create_and_wait(http: Request, parts: Parts, owner: Owner, key: _Key = None) -> Response:
    """Ask for a clip, wait for it, and get its MP4; who hangs up cancels it."""
    asked = await read_request(http)
    job = await _ask(parts, owner, asked, task_of(asked), key=key)
    async for state in parts.changes.follow(owner, job):
        if await http.is_disconnected():
            await run_in_threadpool(parts.queue.cancel, job.id)
        job = state or job
    if job.status != "completed":
        message = job.error_message or "it was cancelled"
        raise ApiError(400 if job.status == "failed" else 409, message, code=job.error_code or "cancelled")
    return await content_of(http, parts, job, "video", None, None, download=False)


@router.post("/v1/videos/edits", response_model=Video, openapi_extra=_CREATE)
async def edit(http: Request, parts: Parts, owner: Owner, key: _Key = None) -> Video:
    """Change a clip, a file or the id of one as `video`: restyle, or inpaint where a mask or box is given."""
    asked = await read_request(http, video="video_reference")
    region = "mask" in asked.files or asked.fields.mask is not None or asked.fields.box is not None
    task = "inpaint" if region else "restyle" if asked.fields.to is None else "outpaint"
    return await _shown(parts, await _ask(parts, owner, asked, task_of(asked, task), key=key))


@router.post("/v1/videos/extensions", response_model=Video, openapi_extra=_CREATE)
async def extend(http: Request, parts: Parts, owner: Owner, key: _Key = None) -> Video:
    """Let a clip, a file or the id of one as `video`, go on for `seconds`."""
    asked = await read_request(http, video="video_reference")
    return await _shown(parts, await _ask(parts, owner, asked, task_of(asked, "extend"), key=key))


@router.post("/v1/videos/inspect", openapi_extra=_INSPECT)
async def inspect(http: Request, parts: Parts, owner: Owner) -> Inspected:
    """Read the settings inside a clip of ours."""
    if not http.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(415, "send multipart/form-data with a file")
    async with http.form(max_files=1, max_fields=1) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise ApiError(400, "file: give a clip", param="file")
        with parts.uploads.workspace() as folder:
            metadata = await parts.uploads.inspect(file.file, "file", folder)
    recipe = Recipe.from_metadata(metadata, output="clip.webp")
    assert recipe is not None  # as the limited process found
    return Inspected(
        request=recipe.request.to_json(), model=recipe.model.name, fps=recipe.fps, command=recipe.command(),
        python=python_code(recipe),
    )  # fmt: skip


async def _ask(parts: Context, owner: str, asked: Asked, task: str, *, key: str | None = None) -> Job:
    """Read the files of a request, and queue it."""
    try:
        abilities = await run_in_threadpool(parts.abilities, asked.fields.model)
        with parts.uploads.workspace() as folder:
            files = await _files(parts, owner, asked, folder)
            request = await run_in_threadpool(
                build_request, task, asked.fields, files, abilities, parts.settings.requests
            )
            return await run_in_threadpool(
                _queue, parts, owner, request.to_json(), abilities.model, {t.path.name: t.path for t in files.values()},
                callback_url=asked.fields.callback_url, idempotency_key=key,
            )  # fmt: skip
    finally:
        for file in (*asked.files.values(), *asked.references):
            if isinstance(file, UploadFile):
                await file.close()


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


@router.get("/v1/videos")
async def list_videos(
    parts: Parts,
    owner: Owner,
    after: Annotated[str | None, Query(description="The last id of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    search: Annotated[str, Query(max_length=200, description="Words of the prompt.")] = "",
    favourites: bool = False,
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled"] | None = None,
) -> VideoList:
    """List one's own clips."""
    found = await run_in_threadpool(
        parts.store.list, owner, after=after, limit=limit + 1, newest_first=order == "desc", search=search,
        favourites=favourites, status=status,
    )  # fmt: skip
    page = found[:limit]
    data = await run_in_threadpool(lambda: [_show(parts, job) for job in page])
    first, last = (page[0].id, page[-1].id) if page else (None, None)
    return VideoList(data=data, first_id=first, last_id=last, has_more=len(found) > limit)


@router.get("/v1/videos/models")
async def models(parts: Parts, owner: Owner) -> ModelList:
    """Say what each model can do."""
    every = await run_in_threadpool(parts.every_abilities)
    errors = await run_in_threadpool(parts.store.unusable_models)
    default = parts.default_model
    data = [objects.model(one, default=one.model == default, error=errors.get(one.model)) for one in every]
    return ModelList(data=data)


_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


@router.get("/v1/videos/events", response_class=StreamingResponse, responses=_STREAM)
async def all_events(parts: Parts, owner: Owner) -> Response:
    """Stream all changes of one's own clips, those under way first."""

    async def stream() -> AsyncIterator[str]:
        with parts.changes.watch(owner) as watcher:
            for job in await run_in_threadpool(parts.store.changes, owner):
                yield await _event(parts, job)
            while not watcher.is_over:
                changed = await watcher.next(15)
                for job in changed:
                    yield await _event(parts, job)
                if not changed:
                    yield ": keep-alive\n\n"

    return _streaming(stream())


@router.get("/v1/videos/{id}/events", response_class=StreamingResponse, responses=_STREAM)
async def events(parts: Parts, owner: Owner, id: str) -> Response:
    """Stream a clip's changes, until it is done."""
    job = await run_in_threadpool(parts.job, id, owner)

    async def stream() -> AsyncIterator[str]:
        async for state in parts.changes.follow(owner, job):
            yield ": keep-alive\n\n" if state is None else await _event(parts, state)

    return _streaming(stream())


def _streaming(stream: AsyncIterator[str]) -> Response:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _event(parts: Context, job: Job) -> str:
    if job.deleted_at is not None:
        return f'event: deleted\ndata: {{"id": "{job.id}"}}\n\n'
    return f"event: video\ndata: {(await _shown(parts, job)).model_dump_json()}\n\n"


@router.get("/v1/videos/{id}")
async def retrieve(parts: Parts, owner: Owner, id: str, response: Response) -> Video:
    """Return a clip, or what becomes one."""
    response.headers.update(POLL_MS)
    return await _shown(parts, await run_in_threadpool(parts.job, id, owner))


@router.delete("/v1/videos/{id}")
def delete(parts: Parts, owner: Owner, id: str) -> Deleted:
    """Delete a clip; one that is being made is cancelled."""
    if not parts.store.delete(id, owner):
        raise missing()
    return Deleted(id=id, undo_seconds=parts.settings.undo_seconds)


@router.post("/v1/videos/{id}/restore")
async def restore(parts: Parts, owner: Owner, id: str) -> Video:
    """Take a deletion back."""
    if not await run_in_threadpool(parts.store.restore, id, owner):
        raise missing()
    return await _shown(parts, await run_in_threadpool(parts.job, id, owner))


@router.post("/v1/videos/{id}/cancel")
async def cancel(parts: Parts, owner: Owner, id: str) -> Video:
    """Stop a clip that waits or is being made; what there is of it stays."""
    await run_in_threadpool(parts.job, id, owner)
    await run_in_threadpool(parts.queue.cancel, id)
    return await _shown(parts, await run_in_threadpool(parts.job, id, owner))


@router.put("/v1/videos/{id}/favourite")
async def favourite(parts: Parts, owner: Owner, id: str, given: Favourite) -> Video:
    """Keep a clip whatever its age, or no longer."""
    if not await run_in_threadpool(parts.store.set_favourite, id, owner, given.favourite):
        raise missing()
    return await _shown(parts, await run_in_threadpool(parts.job, id, owner))


@router.post("/v1/videos/{id}/remix")
def remix(parts: Parts, owner: Owner, id: str, given: Remix) -> Video:
    """Make a clip anew with another prompt, and all else the same, the seed included."""
    job = parts.job(id, owner)
    if len(given.prompt) > parts.settings.requests.prompt:
        raise ApiError(400, f"prompt: give at most {parts.settings.requests.prompt} characters", param="prompt")
    with parts.uploads.workspace() as folder:
        files = {}
        for name in files_of(request_from_json(job.request)).values():
            files[name] = parts.results.fetch(job.id, name, folder)
        again = {**job.request, "prompt": given.prompt}
        return _show(parts, _queue(parts, owner, again, job.model, files, remixed_from=job.id))


async def _shown(parts: Context, job: Job) -> Video:
    return await run_in_threadpool(_show, parts, job)


def _show(parts: Context, job: Job) -> Video:
    try:
        abilities = parts.abilities(job.model)
    except (ApiError, LumiereError):  # a model that was there
        abilities = None
    return objects.video(job, abilities, parts.store.place(job.id) if job.status == "queued" else None)
