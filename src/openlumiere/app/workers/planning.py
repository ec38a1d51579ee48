"""What a request comes to with a model, before it is made: which clip, how large, how many steps."""

from __future__ import annotations

from dataclasses import replace

from openlumiere.generation.abilities import Abilities
from openlumiere.generation.requests import (
    ClipRequest,
    EditRequest,
    ExtendRequest,
    GenerateRequest,
    InterpolateRequest,
    Request,
    UpscaleRequest,
)
from openlumiere.video import probe
from openlumiere.video.fitting import is_clip

MASTER = "clip.webp"  # lossless; everything else is made of it


def master_request(request: Request, abilities: Abilities) -> Request:
    """Return the request of the clip itself, as a sticker of it needs it; the sticker is made of it afterwards."""
    settled = replace(request, output=MASTER, sticker=None)
    if request.sticker is None or not isinstance(settled, ClipRequest):
        return settled
    if request.transparent is None and abilities.transparent:
        settled = replace(settled, transparent=True)
    if isinstance(settled, GenerateRequest) and settled.num_frames is None:
        fitted = abilities.fit(request).request  # as long as the sticker may last
        assert isinstance(fitted, GenerateRequest)
        settled = replace(settled, num_frames=fitted.num_frames)
    return settled


def clip_values(request: Request, abilities: Abilities) -> int:
    """Return how many numbers make up the finished clip: frames x height x width x 4.

    Raises:
        LumiereError: the source cannot be read.
    """
    if isinstance(request, UpscaleRequest):
        source = probe(request.source)
        return round(source.duration * source.fps) * source.height * source.width * abilities.scale**2 * 4
    assert isinstance(request, ClipRequest)
    fitted = abilities.fit(request).request
    width, height = getattr(fitted, "size", None) or (abilities.width or 0, abilities.height or 0)
    if request.upscale_steps == 0:
        width, height = width // abilities.scale, height // abilities.scale
    across, down = getattr(request, "to", (width, height))
    aspect = (across / down) / (width / height) if width and height else 1.0  # the shorter side is the model's
    return round(_frames(fitted, abilities) * height * width * max(aspect, 1 / aspect)) * 4


def _frames(request: Request, abilities: Abilities) -> int:
    frames: int | None = getattr(request, "num_frames", None)
    if not isinstance(request, EditRequest) or not is_clip(request.source):
        return frames or abilities.num_frames
    source = probe(request.source)
    given = max(round(source.duration * (getattr(request, "fps", None) or source.fps)), 1)
    if isinstance(request, ExtendRequest):
        return given + (frames or 0)
    if frames is not None:
        given = min(given, frames)
    return given * request.factor if isinstance(request, InterpolateRequest) else given


def sampling_steps(request: Request, abilities: Abilities) -> dict[str, int]:
    """Return the steps of each stage that samples, as far as they are known before."""
    fitted = abilities.fit(request).request
    steps = fitted.num_inference_steps or 0
    if isinstance(fitted, UpscaleRequest):
        return {"sharpen": steps}
    upscale = getattr(fitted, "upscale_steps", 0)
    return {"denoise": steps, **({"sharpen": upscale} if upscale else {})}
