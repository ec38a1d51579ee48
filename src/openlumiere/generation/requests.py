"""What can be asked for: one frozen request for each task, as a command, a web page or a queue makes it.

Requests are plain data: text, numbers and paths of files. They import neither torch nor NumPy.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

from openlumiere.diffusion.way_points import check_way_points
from openlumiere.errors import LumiereError

from .plain import from_plain, to_plain

Fit = Literal["crop", "pad", "stretch"]  # as video.fitting's, which imports NumPy

_LARGEST_SEED = 2**63 - 1
# The smallest and the largest value of each number, wherever it stands, and how to say so.
_LIMITS: dict[str, tuple[float, float, str]] = {
    "seed": (0, _LARGEST_SEED, "a whole number from 0 to 2^63 - 1"),
    "fps": (math.ulp(0.0), math.inf, "a number above 0"),
    "guidance_scale": (0, math.inf, "0 or more"),
    "strength": (0, 1, "a number from 0 to 1"),
    "noise_level": (0, 999, "a whole number from 0 to 999"),
    **dict.fromkeys(("num_frames", "num_inference_steps", "factor"), (1, math.inf, "1 or more")),
    **dict.fromkeys(("upscale_steps", "feather", "outline"), (0, math.inf, "0 or more")),
}


def _check_limits(request: Any) -> None:
    for field in fields(request):
        value, limits = getattr(request, field.name), _LIMITS.get(field.name)
        if value is not None and limits is not None and not limits[0] <= value <= limits[1]:
            raise LumiereError(f"{field.name} {value}: choose {limits[2]}")


@dataclass(frozen=True, kw_only=True)
class Sticker:
    """A clip brought to what a messenger or chat takes, see `video.stickers.make_sticker`.

    Attributes:
        target: one of `video.stickers.TARGETS`.
        crop: cut to the subject, all that is not transparent, with a margin.
        outline: width in pixels of a line around it; 0 = none.
        speed_up: play what is too long faster, rather than cut it.
    """

    target: str
    crop: bool = False
    outline: int = 0
    outline_colour: str = "white"
    speed_up: bool = False

    def __post_init__(self) -> None:
        _check_limits(self)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What all tasks share. None leaves a choice to the model, or to what the request says elsewhere.

    Attributes:
        task: the command's name.
        seed: None = drawn when the clip is made.
        num_inference_steps, guidance_scale: as diffusers', of the stage that the task runs first.
        loop: make the clip's end flow into its start.
        transparent: keep alpha, where model and format have it; None = for stickers, where the prompt asks for it, and
            where the source has it.
        background: a colour's name or ``#rrggbb``, which transparency is laid over where it is not kept.
        sticker: make one of the clip; None = write it as it is.
        output: path of the file; a trailing slash asks for a folder of frames.
    """

    task: ClassVar[str]

    prompt: str = ""
    negative_prompt: str = ""
    seed: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    loop: bool = False
    transparent: bool | None = None
    background: str = "white"
    sticker: Sticker | None = None
    output: str = ""

    def __post_init__(self) -> None:
        _check_limits(self)

    def to_json(self) -> dict[str, Any]:
        """Return the request as plain JSON, with its task; `request_from_json` reads it back."""
        return {"task": self.task, **to_plain(self)}


@dataclass(frozen=True, kw_only=True)
class ClipRequest(Request):
    """What the tasks that run the base model share.

    Attributes:
        upscale_steps: denoising steps of the second stage; None = the model's, where it has one; 0 = leave it out.
        styles: name, or folder, and strength of each, see `LumierePipeline.set_styles`.
        path: way points (x, y[, size[, degrees[, time]]]) of the subject, see `diffusion.layout.path_through`.
        planner: let the model plan where its subject goes, if it can.
        size: width and height of the clip, pixels, of a model that makes several.
        references: paths of pictures of what is to be in the clip, of a model that takes some.
    """

    upscale_steps: int | None = None
    styles: tuple[tuple[str, float], ...] = ()
    path: tuple[tuple[float | None, ...], ...] = ()
    planner: bool = True
    size: tuple[int, int] | None = None
    references: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None and min(self.size) < 1:
            raise LumiereError(f"size {self.size[0]}x{self.size[1]}: choose two numbers above 0, such as 832x480")
        if len({name for name, _ in self.styles}) < len(self.styles):
            raise LumiereError("the same style twice; give it once, with a strength")
        if self.path:
            check_way_points(self.path)


@dataclass(frozen=True, kw_only=True)
class GenerateRequest(ClipRequest):
    """Text to a clip.

    Attributes:
        num_frames: None = the model's, or as many as a sticker may last.
        fps: frames per second.
    """

    task = "generate"

    num_frames: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prompt.strip():
            raise LumiereError('the prompt is empty; say what to show, e.g. "a tiger walking to the left"')


@dataclass(frozen=True, kw_only=True)
class EditRequest(ClipRequest):
    """A picture or a clip to a clip. The fields of each subclass are the options of its command, in this order.

    Attributes:
        source: path of the picture or clip.
        mask, box: what may change: a picture or clip that is white there, or left, top, width and height in pixels, or
            in fractions if none is above 1.
        num_frames: of the result, None = the model's; where the source is a clip, read no more than so many, None =
            all that the model can work on.
        fps: frames per second that the clip is read and made at, None = the model's.
        fit: how inputs of other proportions are brought to the model's, see `video.fitting.fit`.
        feather: pixels over which what is given fades into what is made.
        rigid: keep the subject of whole frames as it was drawn wherever it moves; False = it moves by itself, too;
            None = as the model knows what it shows, or does not.
    """

    source: str


@dataclass(frozen=True, kw_only=True)
class RegionRequest(EditRequest):
    """What the tasks share that change a region only."""

    mask: str | None = None
    box: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.mask is None) == (self.box is None):
            raise LumiereError(f"{self.task}: say what may change, by either a mask or a box")
        if self.box is not None and not (min(self.box[:2]) >= 0 and min(self.box[2:]) > 0):
            raise LumiereError(f"a box of {self.box}: x and y from 0 on, width and height above 0")


@dataclass(frozen=True, kw_only=True)
class AnimateRequest(EditRequest):
    """A picture that starts to move; `last` is the picture that the clip ends with."""

    task = "animate"

    last: str | None = None
    num_frames: int | None = None
    fps: float | None = None
    fit: Fit = "crop"
    feather: int = 0
    rigid: bool | None = None


@dataclass(frozen=True, kw_only=True)
class InpaintRequest(RegionRequest):
    """A clip of which a region is made anew."""

    task = "inpaint"

    num_frames: int | None = None
    fps: float | None = None
    fit: Fit = "crop"
    feather: int = 0


@dataclass(frozen=True, kw_only=True)
class OutpaintRequest(EditRequest):
    """A clip in a larger frame, of the proportions `to` (width, height)."""

    task = "outpaint"

    to: tuple[int, int]
    num_frames: int | None = None
    fps: float | None = None
    feather: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.to) < 1:
            raise LumiereError(f"proportions {self.to[0]}:{self.to[1]}: choose two numbers above 0, such as 16:9")


@dataclass(frozen=True, kw_only=True)
class CinemagraphRequest(RegionRequest):
    """A picture of which a region moves and nothing else; a loop unless told otherwise."""

    task = "cinemagraph"

    loop: bool = True
    num_frames: int | None = None
    fps: float | None = None
    fit: Fit = "crop"
    feather: int = 0


@dataclass(frozen=True, kw_only=True)
class RestyleRequest(EditRequest):
    """A clip made anew from a noisy version of it (SDEdit): `strength` 0 keeps it, 1 keeps nothing of it."""

    task = "restyle"

    strength: float = 0.7
    num_frames: int | None = None
    fps: float | None = None
    fit: Fit = "crop"


@dataclass(frozen=True, kw_only=True)
class ExtendRequest(EditRequest):
    """A clip that goes on for `num_frames` more, by default half as many as the model makes at once."""

    task = "extend"

    fps: float | None = None
    fit: Fit = "crop"
    num_frames: int | None = None
    rigid: bool | None = None


@dataclass(frozen=True, kw_only=True)
class InterpolateRequest(EditRequest):
    """A clip of `factor` times the frame rate, with new frames between its own."""

    task = "interpolate"

    factor: int = 2
    num_frames: int | None = None
    fit: Fit = "crop"
    rigid: bool | None = None


@dataclass(frozen=True, kw_only=True)
class UpscaleRequest(Request):
    """A clip made sharper by the second stage alone.

    Attributes:
        source: path of the clip.
        noise_level: timestep of the noise that it is given first; None = the model's.
    """

    task = "upscale"

    source: str
    noise_level: int | None = None


TASKS: dict[str, type[Request]] = {
    kind.task: kind
    for kind in (
        GenerateRequest, AnimateRequest, InpaintRequest, OutpaintRequest, CinemagraphRequest, RestyleRequest,
        ExtendRequest, InterpolateRequest, UpscaleRequest,
    )
}  # fmt: skip


_REFERENCE = "reference-"


def files_of(request: Request) -> dict[str, str]:
    """Return the paths of files that a request starts from: "source", "mask", "last", "reference-0" and so on."""
    named = {name: getattr(request, name, None) for name in ("source", "mask", "last")}
    references = {f"{_REFERENCE}{n}": path for n, path in enumerate(getattr(request, "references", ()))}
    return {name: path for name, path in (named | references).items() if path is not None}


def with_files(request: Request, files: Mapping[str, str]) -> Request:
    """Return the same request of other files, named as `files_of` names them."""
    named: dict[str, Any] = {name: path for name, path in files.items() if not name.startswith(_REFERENCE)}
    if len(named) < len(files):
        named["references"] = tuple(path for name, path in files.items() if name.startswith(_REFERENCE))
    return replace(request, **named)


def request_from_json(data: Mapping[str, Any]) -> Request:
    """Read what `Request.to_json` gave; missing keys take their defaults.

    Raises:
        LumiereError: an unknown task or key, a missing one, or a value of another type or out of its range.
    """
    task = data.get("task")
    if task not in TASKS:
        raise LumiereError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
    return from_plain(TASKS[task], {key: value for key, value in data.items() if key != "task"}, f"{task}: ")


def random_seed() -> int:
    """Draw a seed short enough to be typed again."""
    return random.SystemRandom().randrange(2**31)
