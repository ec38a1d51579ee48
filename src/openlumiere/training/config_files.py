"""YAML files to the configuration of the stage that they name, and keys of earlier versions to today's."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openlumiere.data.emoji.scenes import subject_set
from openlumiere.errors import LumiereError

from .settings import override, read_yaml, typed
from .stages import STAGES, stage_class

# Keys of earlier versions, (section, key), and what they are called today.
_RENAMED = {("data", "every"): "frame_stride"}


def load(path: str | Path, overrides: list[str] | None = None) -> Any:
    """Read a YAML configuration, with what it includes, and apply overrides such as ``optim.lr=1e-4``.

    Returns:
        The `TrainConfig` of the stage that it names.

    Raises:
        LumiereError: a file that is missing or no YAML, an unknown key or stage, a value of the wrong type.
    """
    return parse(read_yaml(path), overrides, str(path))


def parse(tree: dict[str, Any], overrides: list[str] | None = None, where: str = "configuration") -> Any:
    """Build the configuration of a stage from plain data; errors say `where` that comes from."""
    tree = _renamed(override(tree, overrides or []), where)
    stage = tree.get("stage")
    if stage is None:
        raise LumiereError(f"{where} names no stage; write stage: and one of {', '.join(STAGES)}")
    kind = stage_class(str(stage)).Config
    data = tree.get("data")
    if isinstance(data, dict) and isinstance(data.get("subjects"), str):
        # Written out, so that a run's own copy of its settings tells what it was.
        tree = tree | {"data": data | {"subjects": subject_set(data["subjects"])}}
    return typed(kind, _own_keys(tree, kind, (), str(stage), where), where)


def _renamed(tree: dict[str, Any], where: str) -> dict[str, Any]:
    """Return settings with the keys of earlier versions under today's names."""
    for (section, old), new in _RENAMED.items():
        found = tree.get(section)
        if isinstance(found, dict) and old in found:
            if new in found:
                raise LumiereError(f"{where}: {section}.{old} is the old name of {section}.{new}: leave it out")
            tree = tree | {section: {new if key == old else key: value for key, value in found.items()}}
    return tree


def _own_keys(tree: dict[str, Any], kind: type, path: tuple[str, ...], stage: str, where: str) -> dict[str, Any]:
    """Return the keys of a section that the stage knows.

    Keys that only other stages know are left out where they have their default, since runs of earlier versions wrote
    down the keys of all stages.

    Raises:
        LumiereError: such a key with another value, which would change nothing.
    """
    hints = typing.get_type_hints(kind)
    own: dict[str, Any] = {}
    for key, value in tree.items():
        if key in hints:
            nested = isinstance(value, dict) and dataclasses.is_dataclass(hints[key])
            own[key] = _own_keys(value, hints[key], (*path, key), stage, where) if nested else value
            continue
        defaults = dict(_defaults_elsewhere(path, key))
        if not defaults:
            own[key] = value  # no stage knows it: refused where the section is built
        elif value not in defaults.values():
            name = ".".join((*path, key))
            known = f"stage{'s' if len(defaults) > 1 else ''} {', '.join(defaults)}"
            raise LumiereError(f"{where}: {name} means nothing to stage {stage}, only to {known}; leave it out")
    return own


def _defaults_elsewhere(path: tuple[str, ...], key: str) -> Iterator[tuple[str, Any]]:
    """Yield each stage that knows a key of a section, and the key's default there as plain data."""
    for name in STAGES:
        section: Any = stage_class(name).Config
        for part in path:
            section = typing.get_type_hints(section).get(part)
        found = {f.name: f for f in dataclasses.fields(section)} if dataclasses.is_dataclass(section) else {}
        if key not in found:
            continue
        default, factory = found[key].default, found[key].default_factory
        value = factory() if factory is not dataclasses.MISSING else default
        yield name, dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
