"""Settings as plain data: YAML files that include others, keys changed from the command line, typed sections."""

from __future__ import annotations

import copy
import dataclasses
import types
import typing
from pathlib import Path
from typing import Any

import yaml

from openlumiere.errors import LumiereError
from openlumiere.files import one_line

_INCLUDE = "include"


def read_yaml(path: str | Path, *, included_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a YAML file and the files that it includes.

    ``include: [a.yaml, ../b.yaml]`` names files relative to the one that it stands in. Their sections are merged key by
    key; of two values the later file's wins, and the including file's own over all of them.

    Args:
        included_by: the files that led here, the first first.

    Raises:
        LumiereError: a file that is missing, no YAML or no mapping, or that includes itself.
    """
    path = Path(path)
    origin = f", included by {included_by[-1]}" if included_by else ""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LumiereError(f"cannot read the configuration {path}{origin}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LumiereError(f"{path}{origin} is not valid YAML: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise LumiereError(f"{path}{origin} holds no configuration; see configs/ for examples")
    names = tree.pop(_INCLUDE, [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise LumiereError(f"{path}: include: expected names of files, got {names!r}")
    merged: dict[str, Any] = {}
    for name in names:
        other = path.parent / name
        if other.resolve() in [file.resolve() for file in (*included_by, path)]:
            raise LumiereError(f"{path} includes {other}, which leads back to it; leave one of them out")
        merged = merge(merged, read_yaml(other, included_by=(*included_by, path)))
    return merge(merged, tree)


def merge(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return both mappings in one, sections merged key by key; of two values that of `more` counts."""
    merged = dict(base)
    for key, value in more.items():
        known = base.get(key)
        merged[key] = merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def override(tree: dict[str, Any], words: list[str]) -> dict[str, Any]:
    """Return settings with the keys changed that overrides such as ``optim.lr=1e-4`` name.

    Raises:
        LumiereError: an override that cannot be read, or that leads through a value that is no section.
    """
    tree = copy.deepcopy(tree)
    for word in words:
        key, separator, text = word.partition("=")
        if not separator:
            raise LumiereError(f"cannot read the override {word!r}; write KEY=VALUE, e.g. optim.lr=1e-4")
        *sections, leaf = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise LumiereError(f"{key}: {section} is not a section of the configuration")
        node[leaf] = _scalar(text)  # set, not merged: model.unet={} empties a section
    return tree


def _scalar(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise LumiereError(f"cannot read the value {text!r}; quote it, or close its brackets") from error
    if isinstance(value, str):  # YAML reads 1e-4 as a string
        try:
            return float(value)
        except ValueError:
            return value
    return value


def typed(kind: Any, value: Any, where: str) -> Any:
    """Build `kind`, a dataclass or a type of its fields, out of plain YAML data.

    Raises:
        LumiereError: an unknown key, a value of another type; it names `where`.
    """
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise LumiereError(f"{where}: expected a section with keys, got {value!r}")
        hints = typing.get_type_hints(kind)
        unknown = sorted(set(value) - set(hints))
        if unknown:
            raise LumiereError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(hints)}")
        try:
            return kind(**{key: typed(hints[key], item, f"{where}: {key}") for key, item in value.items()})
        except TypeError as error:
            raise LumiereError(f"{where}: {error}") from error
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return typed(next(a for a in arguments if a is not type(None)), value, where)
    if origin is tuple and isinstance(value, (list, tuple)) and len(value) == len(arguments):
        return tuple(typed(a, item, where) for a, item in zip(arguments, value, strict=True))
    if origin is list and isinstance(value, list):
        return [typed(arguments[0], item, where) for item in value]
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    plain = origin or kind
    if isinstance(value, plain) and not (plain is int and isinstance(value, bool)):
        return value
    raise LumiereError(f"{where}: expected {getattr(kind, '__name__', kind)}, got {value!r}")
