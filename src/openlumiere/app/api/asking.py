"""What an HTTP request asks for: its fields and files, and the `Request` that they make."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, fields
from typing import Any

from fastapi import Request as HttpRequest
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from openlumiere.app.sandbox.uploads import Taken
from openlumiere.app.settings import RequestLimits
from openlumiere.diffusion.way_points import parse_way_points
from openlumiere.errors import LumiereError
from openlumiere.files import one_line
from openlumiere.generation.abilities import Abilities
from openlumiere.generation.options import parse_box, parse_proportions
from openlumiere.generation.requests import TASKS, ClipRequest, GenerateRequest, Request, request_from_json
from openlumiere.video import colour
from openlumiere.video.stickers.targets import target_for

from .errors import ApiError
from .schemas import CreateVideo

FILES = ("input_reference", "video_reference", "mask", "last_frame")
REFERENCE, _MOST_REFERENCES = "reference", 8  # a field of several files; models say how many of them they take
_MAX_FPS = 90  # of WebP, which clips are kept as
_PART = 64 * 1024  # bytes of a field that is no file
_NESTED = re.compile(r"(\w+)\[(\w*)\]")
# Fields of a request that the API calls otherwise.
_NAMES = {"styles": "style", "last": "last_frame", "source": "input_reference", "references": REFERENCE}
_STICKER = ("crop", "outline", "outline_colour", "speed_up")
_ON_CLIPS = ("inpaint", "outpaint", "restyle", "extend", "interpolate", "upscale")


@dataclass(frozen=True)
class Asked:
    """A request's fields, and its files by their field; of references also the ids of videos, in order."""

    fields: CreateVideo
    files: dict[str, UploadFile]
    references: list[UploadFile | str]


async def read_request(http: HttpRequest, **renamed: str) -> Asked:
    """Read a form or JSON.

    Args:
        renamed: fields of this route that are others' of `CreateVideo`.

    Raises:
        ApiError: neither of them, or unknown fields or values.
    """
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        values = await _form(http)
    elif kind == "application/json":
        values = _object(await http.body(), "the body")
    else:
        raise ApiError(415, "send multipart/form-data or application/json")
    for name, other in renamed.items():
        if name in values:
            values[other] = values.pop(name)
    references = _references(values.pop(REFERENCE, None))
    files = {name: value for name, value in values.items() if isinstance(value, UploadFile)}
    for name in files:
        if name not in FILES:
            raise ApiError(400, f"{name}: that takes no file", param=name)
    plain = {name: value for name, value in values.items() if name not in files}
    if "extra_params" in plain:
        more = plain.pop("extra_params")
        more = _object(more, "extra_params") if isinstance(more, str) else more
        if not isinstance(more, dict) or set(more) & set(plain):
            raise ApiError(
                400, "extra_params: give an object of fields that aren't given besides", param="extra_params"
            )
        plain |= more
    if REFERENCE in plain:
        references += _references(plain.pop(REFERENCE))
    try:
        return Asked(CreateVideo.model_validate(plain), files, references)
    except ValidationError as error:
        first = error.errors()[0]
        param = str(first["loc"][0]) if first["loc"] else None
        known = first["type"] != "extra_forbidden"
        message = first["msg"] if known else "there is no such field"
        raise ApiError(400, one_line(f"{param}: {message}"[:300]), param=param) from None


async def _form(http: HttpRequest) -> dict[str, Any]:
    """A form's fields; ``name[key]`` are objects, ``name[]`` lists, as clients write them."""
    values: dict[str, Any] = {}
    form = await http.form(max_files=len(FILES) + _MOST_REFERENCES + 1, max_fields=100, max_part_size=_PART)
    for name, value in form.multi_items():
        if isinstance(value, UploadFile) and not value.filename and not value.size:
            continue  # a browser's field without a file
        nested = _NESTED.fullmatch(name)
        if nested and nested[2]:
            inner = values.setdefault(nested[1], {})
            if not isinstance(inner, dict) or nested[2] in inner:
                raise ApiError(400, f"{name} is given twice", param=nested[1])
            inner[nested[2]] = value
        elif nested:
            values.setdefault(nested[1], [])
            if not isinstance(values[nested[1]], list):
                raise ApiError(400, f"{name} is given twice", param=nested[1])
            values[nested[1]].append(value)
        elif name == REFERENCE:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise ApiError(400, f"{name} is given twice", param=name)
        elif value != "" or name in ("prompt", "negative_prompt"):
            values[name] = value
    return values


def _references(given: Any) -> list[UploadFile | str]:
    found = [] if given in (None, "") else given if isinstance(given, list) else [given]
    if len(found) > _MOST_REFERENCES or not all(isinstance(each, (UploadFile, str)) for each in found):
        message = f"{REFERENCE}: give at most {_MOST_REFERENCES} pictures, as files or ids of videos"
        raise ApiError(400, message, param=REFERENCE)
    return found


def _object(text: str | bytes, what: str) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise ApiError(400, f"{what} is no JSON object")
    return read


def task_of(asked: Asked, default: str | None = None) -> str:
    """Return the task: what is said, else what the files are for."""
    given = asked.fields
    task = given.task or default
    if task is None:
        has = {name for name in FILES if name in asked.files or getattr(given, name) is not None}
        task = "animate" if "input_reference" in has else "restyle" if "video_reference" in has else "generate"
    if task not in TASKS:
        raise ApiError(400, f"task: unknown task {task[:40]!r}; choose one of {', '.join(TASKS)}", param="task")
    return task


def check_lengths(texts: dict[str, str], limits: RequestLimits) -> None:
    """Refuse texts, by their fields, that are too long.

    Raises:
        ApiError: one is.
    """
    for name, text in texts.items():
        if len(text) > limits.prompt:
            raise ApiError(400, f"{name}: give at most {limits.prompt} characters", param=name)


def build_request(
    task: str, given: CreateVideo, files: dict[str, Taken], abilities: Abilities, limits: RequestLimits
) -> Request:
    """Make the request that fields and files ask for.

    Args:
        files: "source", "mask", "last" and "reference-0" and so on, by these names.

    Raises:
        ApiError: a field that the task does not know, or a value that it cannot have.
    """
    try:
        return _build(task, given, files, abilities, limits)
    except LumiereError as error:
        message = re.sub(r"^(\w+)(?=:)", lambda found: _NAMES.get(found[1], found[1]), one_line(error))
        words = re.findall(r"\w+", message)[:2]  # the field, or, as of "generate: ", the task before it
        param = next((word for word in words if word in CreateVideo.model_fields), None)
        raise ApiError(400, message, param=param) from error


def _build(
    task: str, given: CreateVideo, files: dict[str, Taken], abilities: Abilities, limits: RequestLimits
) -> Request:
    kind = TASKS[task]
    known = {field.name for field in fields(kind)}
    names = {name: taken.path.name for name, taken in files.items()}
    references = [names.pop(name) for name in list(names) if name.startswith(REFERENCE)]
    data = _values(given) | names | ({"references": references} if references else {})
    if given.seconds is not None:
        data["num_frames"] = _frames(given, task, abilities)
    if given.sticker is not None:
        data["sticker"] = _sticker(given)
        if kind is GenerateRequest:
            data.setdefault("loop", True)  # as stickers of the command line are
    for name in data:
        if name not in known:
            called = _NAMES.get(name, name)
            raise ApiError(400, f"{called}: {task} takes none; leave it out", param=called)
    if "source" in known and "source" not in data:
        raise ApiError(400, f"{task}: give what it starts from as input_reference", param="input_reference")
    if "background" in data:
        colour(data["background"])
    _check_sticker(given)
    size = _size(given, kind, abilities)
    if size is not None:
        data["size"] = size
    source = files.get("source")
    if source is not None and task in _ON_CLIPS and source.frames == 1:
        raise ApiError(400, f"{task} wants a clip; animate the picture first", param="input_reference")
    request = request_from_json({"task": task, **data, "output": "clip.webp"})
    _check_steps(request, limits)
    abilities.check_styles(request)  # a folder of the server's is no style of its users'
    _check_extent(abilities.fit(request).request, source, abilities, limits)
    return request


_SAME = (
    "prompt", "negative_prompt", "seed", "num_inference_steps", "guidance_scale", "loop", "transparent", "background",
    "num_frames", "fps", "strength", "factor", "fit", "feather", "upscale_steps", "noise_level", "planner",
    "rigid",
)  # fmt: skip


def _values(given: CreateVideo) -> dict[str, Any]:
    """The fields of a `Request` that are given, as plain JSON."""
    data = {name: getattr(given, name) for name in _SAME}
    if given.box is not None:
        data["box"] = parse_box(given.box) if isinstance(given.box, str) else given.box
    if given.to is not None:
        data["to"] = parse_proportions(given.to) if isinstance(given.to, str) else given.to
    if given.path is not None:
        data["path"] = parse_way_points(given.path) if isinstance(given.path, str) else given.path
    if given.style is not None or given.lora is not None:
        if given.style is not None and given.lora is not None:
            raise ApiError(400, "lora: that is the same as style; give one of them", param="lora")
        data["styles"] = _styles("style", given.style) if given.lora is None else _styles("lora", given.lora)
    return {name: value for name, value in data.items() if value is not None and value != ""}


def _styles(param: str, value: Any) -> list[tuple[str, float]]:
    """Styles: a name, or strengths by name; of vLLM-Omni's ``lora`` also ``{"name", "scale"}``."""
    if isinstance(value, str):
        if not value.startswith("{"):
            return [(value, 1.0)]
        value = _object(value, param)
    if param == "lora" and set(value) <= {"name", "scale"} and isinstance(value.get("name"), str):
        value = {value["name"]: value.get("scale", 1.0)}
    try:
        return [(name, float(strength)) for name, strength in value.items()]
    except (TypeError, ValueError):
        raise ApiError(400, f'{param}: give a name, or strengths such as {{"flat": 0.7}}', param=param) from None


def _frames(given: CreateVideo, task: str, abilities: Abilities) -> int:
    """How many frames so many seconds are."""
    try:
        seconds = float(given.seconds or "")
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e6:
        raise ApiError(400, "seconds: give a number above 0", param="seconds")
    if given.num_frames is not None:
        raise ApiError(400, "seconds and num_frames are both given; leave one out", param="seconds")
    if task == "interpolate":
        raise ApiError(400, "seconds: interpolate takes none; leave it out", param="seconds")
    frames = seconds * (abilities.fps if given.fps is None else given.fps)
    if not 0 <= frames < 1e9:
        raise ApiError(400, "fps: give a number above 0", param="fps")
    return abilities.nearest_length(frames) if task == "generate" else max(round(frames), 1)


def _sticker(given: CreateVideo) -> dict[str, Any]:
    assert given.sticker is not None
    target_for(given.sticker)
    if given.outline_colour is not None:
        colour(given.outline_colour)
    shape = {name: getattr(given, name) for name in _STICKER if getattr(given, name) is not None}
    return {"target": given.sticker, **shape}


def _check_sticker(given: CreateVideo) -> None:
    if given.sticker is None:
        for name in _STICKER:
            if getattr(given, name) is not None:
                raise ApiError(400, f"{name}: that shapes stickers; give sticker, too, or leave it out", param=name)


def _size(given: CreateVideo, kind: type[Request], abilities: Abilities) -> tuple[int, int] | None:
    """The size that is asked for; None = the model's."""
    asked = given.width, given.height
    if given.size is not None:
        found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", given.size)
        if found is None:
            raise ApiError(400, "size: give WIDTHxHEIGHT, or leave it out", param="size")
        asked = int(found[1]), int(found[2])
    own = abilities.width, abilities.height
    if asked[0] in (None, own[0]) and asked[1] in (None, own[1]):
        return None
    if (kind.task == "outpaint" and not abilities.resizable) or not issubclass(kind, ClipRequest):
        raise ApiError(400, f"size: that of {kind.task} follows from its source; leave it out", param="size")
    width, height = (own[i] if side is None else side for i, side in enumerate(asked))
    if width is None or height is None:
        raise ApiError(400, "size: give width and height, or leave both out", param="size")
    return width, height


def _check_steps(request: Request, limits: RequestLimits) -> None:
    check_lengths({"prompt": request.prompt, "negative_prompt": request.negative_prompt}, limits)
    for name in ("num_inference_steps", "upscale_steps"):
        if (getattr(request, name, None) or 0) > limits.num_inference_steps:
            raise ApiError(400, f"{name}: give at most {limits.num_inference_steps}", param=name)


def _check_extent(fitted: Request, source: Taken | None, abilities: Abilities, limits: RequestLimits) -> None:
    """Refuse a clip, as a model would make it, that is too long, or too large."""
    frames, fps = _length(fitted, source)
    if frames > limits.num_frames:
        raise ApiError(400, f"{frames} frames are asked for; at most {limits.num_frames} are made", param="num_frames")
    if fps > _MAX_FPS:
        raise ApiError(400, f"{fps:.4g} frames a second are asked for; at most {_MAX_FPS} are made", param="fps")
    own = abilities.width or 0, abilities.height or 0
    size, to = getattr(fitted, "size", None) or own, getattr(fitted, "to", None)
    if to is None and size == own:
        return
    if to is not None:  # one side stays, see `generation.inputs.FrameSize.widened`
        width, height = size
        wider = to[0] * height >= to[1] * width
        size = (height * to[0] // to[1], height) if wider else (width, width * to[1] // to[0])
    pixels = size[0] * size[1]
    if pixels > limits.frame_pixels:
        param = "size" if to is None else "to"
        message = f"{param}: {size[0]}x{size[1]} are {pixels} pixels; at most {limits.frame_pixels} are made"
        raise ApiError(400, message, param=param)
    if pixels * frames > limits.video_pixels:
        message = f"size: {frames} frames of {size[0]}x{size[1]} are too many; ask for a smaller or a shorter clip"
        raise ApiError(400, message, param="size")


def _length(fitted: Request, source: Taken | None) -> tuple[int, float]:
    """Frames and rate of the clip that is asked for."""
    frames: int = getattr(fitted, "num_frames", None) or 0
    fps: float = getattr(fitted, "fps", None) or 0.0
    if source is None or source.fps is None:
        return frames, fps
    at_rate = max(round(source.frames / source.fps * fps), 1)
    match fitted.task:
        case "extend":
            return at_rate + frames, fps
        case "interpolate":
            factor: int = getattr(fitted, "factor", 1)
            return min(frames or source.frames, source.frames) * factor, source.fps * factor
        case "upscale":
            return source.frames, source.fps
        case "inpaint" | "outpaint" | "restyle":
            return min(frames or at_rate, at_rate), fps
    return frames, fps


def check_known(id: object) -> str:
    """Return the id of a video that a field gives, as text or as ``{"id"}``.

    Raises:
        LumiereError: it is neither.
    """
    if isinstance(id, str) and id.startswith("{"):
        id = _object(id, "the reference")
    if isinstance(id, dict) and set(id) == {"id"}:
        id = id["id"]
    if not isinstance(id, str):
        raise LumiereError("give a file, or the id of a video")
    return id
