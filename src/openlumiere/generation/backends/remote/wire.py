"""A request as a form of `POST /v1/videos`, and a model's abilities as `GET /v1/videos/models` tells them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from openlumiere.diffusion.way_points import format_way_points
from openlumiere.errors import LumiereError
from openlumiere.generation.abilities import Abilities
from openlumiere.generation.options import box_text, size_text
from openlumiere.generation.plain import from_plain
from openlumiere.generation.requests import AnimateRequest, CinemagraphRequest, Request, Sticker

_FILES = ("source", "mask", "last", "references")  # fields of a request that name files
_ON_PICTURES = (AnimateRequest, CinemagraphRequest)


def file_field(request: Request, name: str) -> str:
    """Return the API's field for one of the request's `requests.files_of`."""
    source = "input_reference" if isinstance(request, _ON_PICTURES) else "video_reference"
    return {"source": source, "mask": "mask", "last": "last_frame"}.get(name, "reference")


def form_of(request: Request) -> Iterator[tuple[str, str]]:
    """Yield what a request says beyond its defaults, as the fields of the API's form; files aside."""
    yield "task", request.task
    defaults = {field.name: None if field.default is MISSING else field.default for field in fields(request)}
    for name, value in vars(request).items():
        if value in (None, defaults[name]) or name in (*_FILES, "output"):
            continue
        match name:
            case "styles":
                yield "style", json.dumps(dict(value))
            case "path":
                yield name, format_way_points(value)
            case "box":
                yield name, box_text(value)
            case "to":
                yield name, f"{value[0]}:{value[1]}"
            case "size":
                yield name, size_text(value)
            case "sticker":
                yield from _sticker_form(value)
            case _:
                yield name, json.dumps(value) if isinstance(value, bool) else str(value)


def _sticker_form(sticker: Sticker) -> Iterator[tuple[str, str]]:
    yield "sticker", sticker.target
    for name in ("crop", "speed_up"):
        if getattr(sticker, name):
            yield name, "true"
    if sticker.outline:
        yield from (("outline", str(sticker.outline)), ("outline_colour", sticker.outline_colour))


def abilities_of(model: Mapping[str, Any], name: str) -> Abilities:
    """Return what a model object of a `lumiere serve` says, of this version or another, as the abilities of `name`.

    Raises:
        LumiereError: it says nothing of tasks, or what is no ability.
    """
    if not isinstance(model.get("tasks"), list):
        raise LumiereError("the server does not say what its models can do")
    known = {field.name for field in fields(Abilities)}
    told = {key: value for key, value in model.items() if key in known}
    return from_plain(Abilities, {**told, "model": name}, f"{name}: ")
