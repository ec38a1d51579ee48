"""What requests hold as the command line's options, and back: files carry some of a request in this form."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from openlumiere.diffusion.way_points import format_way_points, parse_way_points
from openlumiere.errors import LumiereError

from .requests import ClipRequest, EditRequest, Request, Sticker

_NAMES = {"num_frames": "--frames"}  # where the option is called otherwise than the field
_NO = "--no-"  # of a switch that is off
_SHARED = {field.name for field in fields(EditRequest)}


def option_of(field: str) -> str:
    """Return the name of the option that sets a field of a request."""
    return _NAMES.get(field, f"--{field}")


def own_fields(kind: type[Request]) -> list[str]:
    """Return the names of what only this task has, of all that start from a picture or clip."""
    return [field.name for field in fields(kind) if field.name not in _SHARED]


def arguments_of(request: EditRequest) -> str:
    """Return the task's own options, those at their defaults too, quoted for a shell."""
    words = []
    for name in own_fields(type(request)):
        value = getattr(request, name)
        if isinstance(value, bool):
            words.append(option_of(name) if value else _NO + name)
        elif value is not None:
            words += with_value(option_of(name), _text(name, value))
    if request.task == "cinemagraph" and not request.loop:
        words.append(_NO + "loop")
    return shlex.join(words)


def read_arguments(kind: type[Request], arguments: str) -> dict[str, Any]:
    """Read what `arguments_of` gave, as plain JSON.

    Raises:
        LumiereError: an option that the task does not have, or a value that is none of its own.
    """
    names, values = {option_of(name): name for name in own_fields(kind)}, {}
    hints: dict[str, Any] = {field.name: field.type for field in fields(kind)}
    for option, value in _options_in(arguments):
        if option == _NO + "loop":
            continue
        switch = option.removeprefix(_NO) if option.startswith(_NO) else names.get(option, "")
        if str(hints.get(switch, "")).startswith("bool"):
            values[switch] = not option.startswith(_NO)
            continue
        if option not in names:
            raise LumiereError(f"{kind.task} has no option {option}")
        values[names[option]] = _parsed(names[option], str(hints[names[option]]), value)
    return values


def with_value(option: str, value: str) -> list[str]:
    """Return an option and its value as words; in one word where the value would pass for an option itself."""
    return [f"{option}={value}"] if value.startswith("-") else [option, value]


def _options_in(text: str) -> Iterator[tuple[str, str]]:
    """Yield the options of a shell's words, each with its value; "" where it has none."""
    words = shlex.split(text)
    for word, after in zip(words, [*words, "--"][1:], strict=True):
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            yield option, value if equals or after.startswith("--") else after


def styles_of(request: ClipRequest) -> str:
    """Return the options that name the styles, quoted for a shell."""
    return shlex.join(
        word
        for name, alpha in request.styles
        for word in (*with_value("--style", name), "--style-strength", f"{alpha:.10g}")
    )


def read_styles(words: str) -> list[list[Any]]:
    """Read what `styles_of` gave, as plain JSON."""
    values = [value for _, value in _options_in(words)]
    return [[name, float(alpha)] for name, alpha in zip(values[::2], values[1::2], strict=True)]


def references_of(request: ClipRequest) -> str:
    """Return the options that name the reference pictures, quoted for a shell."""
    return shlex.join(word for path in request.references for word in with_value("--reference", path))


def read_references(words: str) -> list[str]:
    """Read what `references_of` gave, as plain JSON."""
    return [value for _, value in _options_in(words)]


def layout_of(request: ClipRequest) -> str:
    """Return the options that say where the subject goes, quoted for a shell."""
    words = [f"--path={format_way_points(request.path)}"] if request.path else []
    return shlex.join([*words, *([] if request.planner else ["--no-planner"])])


def read_layout(words: str) -> dict[str, Any]:
    """Read what `layout_of` gave, as plain JSON: `path` and `planner`."""
    every = shlex.split(words)
    path = next((word.removeprefix("--path=") for word in every if word.startswith("--path=")), "")
    return {"path": parse_way_points(path) if path else [], "planner": "--no-planner" not in every}


def sticker_words(sticker: Sticker | None) -> list[str]:
    """Return the options that make a sticker, as a shell would be given them; none where there is none."""
    return [] if sticker is None else ["--for", sticker.target, *shape_words(sticker)]


def shape_words(sticker: Sticker) -> list[str]:
    """Return the options that shape a sticker, without its target's."""
    return [
        *(["--crop", "subject"] if sticker.crop else []),
        *(["--outline", str(sticker.outline)] if sticker.outline else []),
        *(["--outline-colour", sticker.outline_colour] if sticker.outline_colour != "white" else []),
        *(["--speed-up"] if sticker.speed_up else []),
    ]


def read_sticker(options: str) -> dict[str, Any]:
    """Read what `sticker_words` gave, quoted for a shell, as plain JSON."""
    sticker: dict[str, Any] = {}
    words = iter(shlex.split(options))
    for word in words:
        match word:
            case "--for":
                sticker["target"] = next(words, "")
            case "--crop":
                sticker["crop"] = next(words, "") == "subject"
            case "--outline":
                sticker["outline"] = int(next(words, ""))
            case "--outline-colour":
                sticker["outline_colour"] = next(words, "")
            case "--speed-up":
                sticker["speed_up"] = True
            case _:
                raise LumiereError(f"stickers have no option {word}")
    if not sticker.get("target"):
        raise LumiereError(f"the sticker {options!r} is for no service")
    return sticker


def parse_box(text: str) -> tuple[float, float, float, float]:
    """Read a rectangle such as ``10,20,64,48``.

    Raises:
        LumiereError: not four numbers, or none that span a rectangle.
    """
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise LumiereError(f"{text!r} is not four numbers such as 10,20,64,48") from None
    if min(x, y) < 0 or not min(width, height) > 0 or not all(map(math.isfinite, (x, y, width, height))):
        raise LumiereError(f"{text!r}: x and y from 0 on, width and height above 0")
    return x, y, width, height


def parse_proportions(text: str) -> tuple[int, int]:
    """Read proportions such as ``16:9``.

    Raises:
        LumiereError: not two whole numbers above 0.
    """
    parts = text.split(":")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise LumiereError(f"{text!r} is not two whole numbers such as 16:9")
    return int(parts[0]), int(parts[1])


def parse_size(text: str) -> tuple[int, int]:
    """Read a width and a height such as ``832x480``.

    Raises:
        LumiereError: not two whole numbers above 0.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and 0 < int(part) <= 65536 for part in parts):
        raise LumiereError(f"{text!r} is not a width and a height such as 832x480")
    return int(parts[0]), int(parts[1])


def size_text(size: tuple[int, int]) -> str:
    """Return a width and a height as `parse_size` reads them."""
    return f"{size[0]}x{size[1]}"


def box_text(box: tuple[float, ...]) -> str:
    """Return a rectangle as `parse_box` reads it."""
    return ",".join(_number(value) for value in box)


def _text(name: str, value: Any) -> str:
    if name == "box":
        return box_text(value)
    if name == "to":
        return f"{value[0]}:{value[1]}"
    return _number(value) if isinstance(value, float) else str(value)


def _parsed(name: str, kind: str, text: str) -> Any:
    if name == "box":
        return parse_box(text)
    if name == "to":
        return parse_proportions(text)
    return int(text) if kind.startswith("int") else float(text) if kind.startswith("float") else text


def _number(value: float) -> str:
    return f"{value:.10g}"
