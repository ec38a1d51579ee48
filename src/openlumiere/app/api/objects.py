"""Jobs and models as the API shows them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from openlumiere.app.jobs.store import Job
from openlumiere.errors import LumiereError
from openlumiere.generation.abilities import Abilities, Fitted
from openlumiere.generation.python_code import python_code
from openlumiere.generation.recipe import Recipe
from openlumiere.generation.requests import Sticker, request_from_json
from openlumiere.video.stickers.targets import TARGETS, target_for

from .schemas import ErrorDetail, Model, Video

MASTERS = ("clip.webp", "base.webp")  # the second is what is there where the second stage ended early
FORMATS = {
    "mp4": "video/mp4", "webp": "image/webp", "gif": "image/gif", "apng": "image/apng", "webm": "video/webm",
    "mov": "video/quicktime", "png": "image/png",
}  # fmt: skip


def master_of(job: Job) -> str | None:
    """Return the name of the file that a job's other formats are made of; None = there is none yet."""
    if not job.is_final:
        return None
    return next((name for name in MASTERS if name in job.files), None)


def recipe_of(job: Job) -> Recipe | None:
    """Return how a finished clip was made, or the sticker of it where one was asked for."""
    recipe = None if job.recipe is None else Recipe.from_metadata(job.recipe, output="clip.webp")
    if recipe is None or not job.request.get("sticker"):
        return recipe
    sticker = Sticker(**job.request["sticker"])
    output = f"sticker{target_for(sticker.target).suffixes[0]}"
    return replace(recipe, request=replace(recipe.request, sticker=sticker, output=output))


def video(job: Job, abilities: Abilities | None, position: int | None) -> Video:
    """Return a job as a video object.

    Args:
        abilities: of its model, which say how large its clip will be.
        position: how many are to be made before it.
    """
    asked, recipe = job.request, recipe_of(job)
    fitted = None if abilities is None else _fitted(asked, abilities)
    width, height, frames, fps = job.width, job.height, job.num_frames, job.fps
    if fitted is not None and abilities is not None:
        if width is None and asked["task"] not in ("outpaint", "upscale"):
            width, height = getattr(fitted.request, "size", None) or (abilities.width, abilities.height)
        if frames is None and asked["task"] in ("generate", "animate", "cinemagraph"):
            frames, fps = getattr(fitted.request, "num_frames", None), getattr(fitted.request, "fps", None)
    error = ErrorDetail(code=job.error_code or "failed", message=job.error_message or "it failed")
    if job.status == "cancelled":
        error = ErrorDetail(code="cancelled", message="it was cancelled")
    sticker = asked.get("sticker")
    return Video(
        id=job.id,
        status="failed" if job.status == "cancelled" else job.status,
        progress=job.progress,
        created_at=int(job.created_at),
        completed_at=None if job.completed_at is None else int(job.completed_at),
        expires_at=None if job.expires_at is None else int(job.expires_at),
        model=job.model,
        prompt=asked.get("prompt", ""),
        seconds=f"{frames / fps:.4g}" if frames and fps else "0",
        size=f"{width or 0}x{height or 0}",
        remixed_from_video_id=job.remixed_from,
        error=error if job.status in ("failed", "cancelled") else None,
        task=asked["task"],
        stage=job.stage,
        step=job.step,
        total_steps=job.total_steps,
        seconds_left=job.seconds_left,
        position=position,
        seed=asked.get("seed"),
        width=width,
        height=height,
        num_frames=frames,
        fps=fps,
        changes=[] if fitted is None else list(fitted.changes),
        loop=bool(asked.get("loop")),
        transparent=asked.get("transparent") if job.transparent is None else job.transparent,
        favourite=job.favourite,
        preview=job.preview,
        request=asked if recipe is None else recipe.request.to_json(),
        source=asked.get("source") is not None,
        command=None if recipe is None else recipe.command(),
        python=None if recipe is None else python_code(recipe),
        formats=[] if master_of(job) is None else list(FORMATS),
        sticker=sticker["target"] if sticker else None,
    )


def _fitted(asked: dict[str, Any], abilities: Abilities) -> Fitted | None:
    """What a request comes to with a model; None where the model is no longer what it was when it was asked."""
    try:
        return abilities.fit(request_from_json(asked))
    except LumiereError:
        return None


def model(abilities: Abilities, *, default: bool, error: str | None = None) -> Model:
    """Return what a model can do as a model object.

    Args:
        error: why it cannot be loaded.
    """
    plain: dict[str, Any] = dict(vars(abilities))
    return Model(id=plain.pop("model"), default=default, stickers=list(TARGETS), error=error, **plain)
