"""What a request comes to with a model, before it is made: which clip, how large, how many steps."""

from __future__ import annotations

from dataclasses import replace

from openlumiere.generation.make import NUM_FRAMES, default_num_frames
from openlumiere.generation.requests import (
    ClipRequest,
    EditRequest,
    ExtendRequest,
    GenerateRequest,
    InterpolateRequest,
    Request,
    UpscaleRequest,
)
from openlumiere.pipelines.lumiere import LumierePipeline
from openlumiere.video import probe
from openlumiere.video.fitting import is_clip

MASTER = "clip.webp"  # lossless; everything else is made of it


def master_request(request: Request, pipe: LumierePipeline) -> Request:
    """Return the request of the clip itself, as a sticker of it needs it; the sticker is made of it afterwards."""
    settled = replace(request, output=MASTER, sticker=None)
    if request.sticker is None or not isinstance(settled, ClipRequest):
        return settled
    if request.transparent is None and pipe.has_alpha:
        settled = replace(settled, transparent=True)
    if isinstance(request, GenerateRequest) and isinstance(settled, GenerateRequest) and request.num_frames is None:
        settled = replace(settled, num_frames=default_num_frames(request, pipe.unet.frame_multiple))
    return settled


def clip_values(request: Request, pipe: LumierePipeline) -> int:
    """Return how many numbers make up the finished clip: frames x height x width x 4.

    Raises:
        LumiereError: the source cannot be read.
    """
    second = pipe.super_resolution
    if isinstance(request, UpscaleRequest):
        source = probe(request.source)
        pixels = source.height * source.width
        return round(source.duration * source.fps) * pixels * (second.scale if second is not None else 1) ** 2 * 4
    height, width = pipe.frame_size
    scale = 1 if second is None or getattr(request, "upscale_steps", None) == 0 else pipe.scale
    across, down = getattr(request, "to", (width, height))
    aspect = (across / down) / (width / height)  # the shorter side is the model's
    return round(_frames(request) * height * width * scale**2 * max(aspect, 1 / aspect)) * 4


def _frames(request: Request) -> int:
    frames = getattr(request, "num_frames", None)
    if not isinstance(request, EditRequest) or not is_clip(request.source):
        return frames or NUM_FRAMES
    source = probe(request.source)
    given = max(round(source.duration * getattr(request, "fps", source.fps)), 1)
    if isinstance(request, ExtendRequest):
        return given + request.num_frames
    if frames is not None:
        given = min(given, frames)
    return given * request.factor if isinstance(request, InterpolateRequest) else given


def sampling_steps(request: Request, pipe: LumierePipeline) -> dict[str, int]:
    """Return the steps of each stage that samples, as far as they are known before."""
    second, asked = pipe.super_resolution, request.num_inference_steps
    if isinstance(request, UpscaleRequest):
        return {} if second is None else {"sharpen": asked or second.config.num_inference_steps}
    steps = {"denoise": asked or pipe.config.num_inference_steps}
    upscale = getattr(request, "upscale_steps", None)
    if second is not None and upscale != 0:
        steps["sharpen"] = upscale or second.config.num_inference_steps
    return steps
