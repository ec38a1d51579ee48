"""Frozen dataclasses to plain JSON and back, every type checked and unknown keys refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from openlumiere.errors import LumiereError

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Return dataclasses as dictionaries and tuples as lists, as `json.dumps` takes them."""
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: type[T], data: object, where: str = "") -> T:
    """Build a dataclass from what `to_plain` gave, or the same read from JSON; missing keys take their defaults.

    Args:
        kind: a dataclass of texts, numbers, booleans, literals, tuples, other such dataclasses, and None.
        where: begins the messages of errors.

    Raises:
        LumiereError: an unknown key, a missing one without a default, or a value of another type.
    """
    if not isinstance(data, Mapping):
        raise LumiereError(f"{where}{data!r} is not an object with keys")
    hints, known = _hints(kind), {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            raise LumiereError(f"{where}unknown key {key!r}; known: {', '.join(known)}")
    for name, field in known.items():
        if name not in data and field.default is MISSING and field.default_factory is MISSING:
            raise LumiereError(f"{where}{name} is missing")
    return kind(**{name: _value(hints[name], value, f"{where}{name}: ") for name, value in data.items()})


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _value(kind: Any, value: object, where: str) -> Any:
    """Return `value` as the type `kind`."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (UnionType, Union):  # the latter of a Literal and None
        if value is None and NoneType in args:
            return None
        (inner,) = (arg for arg in args if arg is not NoneType)
        return _value(inner, value, where)
    if origin is Literal and isinstance(value, str) and value in args:
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        if args[-1] is Ellipsis:
            return tuple(_value(args[0], item, where) for item in value)
        if len(args) == len(value):
            return tuple(_value(arg, item, where) for arg, item in zip(args, value, strict=True))
    if isinstance(kind, type) and is_dataclass(kind):
        return from_plain(kind, value, where)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind is int and isinstance(value, bool):
        raise LumiereError(f"{where}{value!r} is not a whole number")
    if kind in (str, int, bool) and isinstance(value, kind):
        return value
    raise LumiereError(f"{where}{value!r} is not {_described(kind)}")


def _described(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    names = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false"}
    return names.get(kind, "a list of the right length")
