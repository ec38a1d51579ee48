"""``/v1/videos``: asking for clips, following them, and what becomes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response, StreamingResponse

from openlumiere.app.jobs.store import Job
from openlumiere.errors import LumiereError
from openlumiere.generation.python_code import python_code
from openlumiere.generation.recipe import Recipe

from . import objects
from .asking import read_request, task_of
from .contents import content_of
from .context import Context, Owner, Parts
from .errors import ApiError, missing
from .files import one_file, uploaded
from .schemas import CreateVideo, Deleted, Favourite, Inspected, ModelList, Remix, Video, VideoList
from .submitting import submit, submit_again

router = APIRouter()
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
    return await _shown(parts, await submit(parts, owner, asked, task_of(asked), key=key))


@router.post("/v1/videos/sync", response_class=FileResponse, openapi_extra=_CREATE)
async def create_and_wait(http: Request, parts: Parts, owner: Owner, key: _Key = None) -> Response:
    """Ask for a clip, wait for it, and get its MP4; who hangs up cancels it."""
    asked = await read_request(http)
    job = await submit(parts, owner, asked, task_of(asked), key=key)
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
    return await _shown(parts, await submit(parts, owner, asked, task_of(asked, task), key=key))


@router.post("/v1/videos/extensions", response_model=Video, openapi_extra=_CREATE)
async def extend(http: Request, parts: Parts, owner: Owner, key: _Key = None) -> Video:
    """Let a clip, a file or the id of one as `video`, go on for `seconds`."""
    asked = await read_request(http, video="video_reference")
    return await _shown(parts, await submit(parts, owner, asked, task_of(asked, "extend"), key=key))


@router.post("/v1/videos/inspect", openapi_extra=one_file("tiger.webp"))
async def inspect(http: Request, parts: Parts, owner: Owner) -> Inspected:
    """Read the settings inside a clip of ours."""
    async with uploaded(http, "a clip") as file:
        with parts.uploads.workspace() as folder:
            metadata = await parts.uploads.inspect(file, "file", folder)
    recipe = Recipe.from_metadata(metadata, output="clip.webp")
    assert recipe is not None  # as the limited process found
    return Inspected(
        request=recipe.request.to_json(), model=recipe.model.name, fps=recipe.fps, command=recipe.command(),
        python=python_code(recipe),
    )  # fmt: skip


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
async def remix(parts: Parts, owner: Owner, id: str, given: Remix) -> Video:
    """Make a clip anew with another prompt, and all else the same, the seed included."""
    job = await run_in_threadpool(parts.job, id, owner)
    return await _shown(parts, await submit_again(parts, owner, job, given.prompt))


async def _shown(parts: Context, job: Job) -> Video:
    return await run_in_threadpool(_show, parts, job)


def _show(parts: Context, job: Job) -> Video:
    try:
        abilities = parts.abilities(job.model)
    except (ApiError, LumiereError):  # a model that was there
        abilities = None
    return objects.video(job, abilities, parts.store.place(job.id) if job.status == "queued" else None)
