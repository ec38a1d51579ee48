"""The pictures, clips and masks of a request, read and fitted to a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
from PIL import Image

from openlumiere.errors import LumiereError
from openlumiere.pipelines import tasks
from openlumiere.video import Fit, check_writable, colour, fit, probe, read_fitted, read_mask, read_picture
from openlumiere.video.stickers import target_for

from .options import box_text
from .requests import (
    AnimateRequest,
    CinemagraphRequest,
    EditRequest,
    ExtendRequest,
    InpaintRequest,
    InterpolateRequest,
    OutpaintRequest,
    Request,
    RestyleRequest,
    UpscaleRequest,
    files_of,
)

_ON_CLIPS = (InpaintRequest, OutpaintRequest, RestyleRequest, ExtendRequest, InterpolateRequest)
N = TypeVar("N", int, float)
_Fitted: TypeAlias = AnimateRequest | InpaintRequest | CinemagraphRequest | RestyleRequest | ExtendRequest


@dataclass(frozen=True)
class EditInputs:
    """What is given of a clip that is to be completed.

    Attributes:
        fps: of the result.
        call: further arguments of `LumierePipeline`.
    """

    task: tasks.Task
    fps: float
    call: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FrameSize:
    """What inputs are fitted to: the finished clip's size, and the sizes that the base model allows.

    Attributes:
        base: (height, width), pixels, of the base model's clips.
        scale: of the second stage, 1 without.
        multiple: what the base model divides its sides by.
        background: what is transparent in inputs is laid over; None = it is kept.
    """

    base: tuple[int, int]
    scale: int
    multiple: int
    background: str | None

    @property
    def finished(self) -> tuple[int, int]:
        """(height, width) in pixels of the finished clip."""
        return self.base[0] * self.scale, self.base[1] * self.scale

    def widened(self, aspect: float) -> tuple[int, int]:
        """(height, width) of a base clip of other proportions: the shorter side is the model's, the other rounded."""
        height, width = self.base
        if aspect >= width / height:
            return height, max(round(height * aspect / self.multiple), 1) * self.multiple
        return max(round(width / aspect / self.multiple), 1) * self.multiple, width


def check_files(request: Request) -> None:
    """Refuse files and colours that cannot be used, before a model is loaded.

    Raises:
        LumiereError: a source that cannot be read, an output that cannot be written, or no colour.
    """
    colour(request.background)
    if not isinstance(request, UpscaleRequest):
        for path in files_of(request).values():
            read_picture(path)
    if isinstance(request, (*_ON_CLIPS, UpscaleRequest)):
        probe(request.source)
    check_writable(request.output)
    if request.sticker is not None:
        target_for(request.sticker.target, request.output)
        colour(request.sticker.outline_colour)


def read_inputs(request: EditRequest, frame: FrameSize, context: int | None) -> EditInputs:
    """Read what a request starts from, as a model's `Backend.fit` returned it.

    Args:
        context: so many of its last frames the model sees of a clip that is to go on; None = half of what it works on.

    Raises:
        LumiereError: a file that cannot be read, or that does not fit the others.
    """
    match request:
        case AnimateRequest():
            last = None if request.last is None else _picture(request.last, request.fit, frame)
            first = _picture(request.source, request.fit, frame)
            return EditInputs(tasks.animate(first, _set(request.num_frames), last=last), _set(request.fps))
        case CinemagraphRequest():
            picture = _picture(request.source, request.fit, frame)
            num_frames = _set(request.num_frames)
            region = _region(request, frame.finished, num_frames)
            return EditInputs(tasks.cinemagraph(picture, region, num_frames), _set(request.fps))
        case InpaintRequest():
            clip, fps = _clip(request, frame, request.num_frames)
            return EditInputs(tasks.inpaint(clip, _region(request, frame.finished, len(clip))), fps)
        case RestyleRequest():
            clip, fps = _clip(request, frame, request.num_frames)
            return EditInputs(tasks.restyle(clip), fps, {"strength": request.strength})
        case ExtendRequest():
            clip, fps = _clip(request, frame, None)
            num_frames = _set(request.num_frames)
            seen = (len(clip) + num_frames) // 2 if context is None else context
            return EditInputs(tasks.extend(clip, num_frames, context=seen), fps)
        case InterpolateRequest():
            read = read_fitted(
                request.source, frame.finished, how=request.fit, max_frames=request.num_frames,
                background=frame.background,
            )  # fmt: skip
            return EditInputs(tasks.interpolate(read.frames, request.factor), read.fps * request.factor)
        case OutpaintRequest():
            return _outpaint(request, frame)
    raise LumiereError(f"{request.task} starts from no picture or clip")


def _outpaint(request: OutpaintRequest, frame: FrameSize) -> EditInputs:
    height, width = frame.widened(request.to[0] / request.to[1])
    shape = probe(request.source)
    inner = min(height * frame.scale / shape.height, width * frame.scale / shape.width)
    # Within half a percent of the new proportions there is nothing to add; the task says so.
    size = max(round(shape.height * inner), 1), max(round(shape.width * inner), 1)
    clip = read_fitted(
        request.source, size, how="stretch", fps=request.fps, max_frames=request.num_frames, background=frame.background
    )
    task = tasks.outpaint(clip.frames, height * frame.scale, width * frame.scale)
    return EditInputs(task, clip.fps, {"height": height, "width": width})


def _picture(path: str, how: Fit, frame: FrameSize) -> np.ndarray:
    return np.asarray(fit(read_picture(path, background=frame.background), frame.finished, how))


def _clip(request: _Fitted, frame: FrameSize, max_frames: int | None) -> tuple[np.ndarray, float]:
    """The source's frames at the finished clip's size, and their rate."""
    clip = read_fitted(
        request.source, frame.finished, how=request.fit, fps=request.fps, max_frames=max_frames,
        background=frame.background,
    )  # fmt: skip
    return clip.frames, clip.fps


def _region(request: InpaintRequest | CinemagraphRequest, size: tuple[int, int], num_frames: int) -> np.ndarray:
    """The mask, at the size to work at; bool, (1 or F, H, W)."""
    width, height = read_picture(request.source).size
    if request.mask is None:
        assert request.box is not None  # as the request checks
        return (np.asarray(fit(_drawn(request.box, width, height), size, request.fit)) >= 128)[None]
    return read_mask(
        request.mask, (height, width), size,
        num_frames=num_frames, fps=_set(request.fps), how=request.fit, max_frames=request.num_frames,
    )  # fmt: skip


def _drawn(box: tuple[float, float, float, float], width: int, height: int) -> Image.Image:
    """A white rectangle on black, at a picture's own size."""
    x, y, w, h = box
    if max(box) <= 1:
        x, y, w, h = x * width, y * height, w * width, h * height
    left, top, right, bottom = (round(value) for value in (x, y, x + w, y + h))
    if left >= width or top >= height or right <= left or bottom <= top:
        raise LumiereError(f"the box {box_text(box)} lies outside the picture, which is {width}x{height} pixels")
    mask = Image.new("L", (width, height), 0)
    mask.paste(255, (left, top, min(right, width), min(bottom, height)))
    return mask


def _set(value: N | None) -> N:
    """What `Backend.fit` has set."""
    assert value is not None
    return value
