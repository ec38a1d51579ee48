"""What is compared: models and folders of clips under names, and what is asked of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from openlumiere.errors import LumiereError
from openlumiere.generation.backends.base import Loading
from openlumiere.generation.backends.source import INDEX
from openlumiere.generation.jobs import slug
from openlumiere.generation.options import parse_size
from openlumiere.generation.plain import from_plain
from openlumiere.training.settings import read_yaml

O = TypeVar("O", bound="Options")  # noqa: E741

_NAME = re.compile(r"[\w][\w .+-]{0,39}")  # as a study takes it
_NO_NAME = re.compile(r"[^\w .+-]+")
_LOADING = ("device", "dtype", "offload", "quantize")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What may be asked of one model, or of all; None leaves it to what is asked of all, and then to the model.

    Attributes:
        num_frames, fps, size, num_inference_steps, guidance_scale, negative_prompt: as a request's.
        pictures: folder of pictures to start from, see `pictures.Pictures`.
        picture_from: name of the model, or folder of clips, with whose clips' first frames to start.
        device, dtype, offload, quantize: as `Loading`'s.
    """

    num_frames: int | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    negative_prompt: str | None = None
    pictures: str | None = None
    picture_from: str | None = None
    device: str | None = None
    dtype: str | None = None
    offload: Literal["frames", "model", "group"] | None = None
    quantize: Literal["int8", "int4", "float8"] | None = None

    def __post_init__(self) -> None:
        if self.pictures is not None and self.picture_from is not None:
            raise LumiereError("give either pictures or picture_from, not both")


@dataclass(frozen=True, kw_only=True)
class Entry(Options):
    """One of those that are compared: either a model, or a folder of clips that another program made.

    Attributes:
        name: in tables, on the page and in the study.
        model: as `find.load_backend` takes it.
        clips: a folder, whose clips are told apart by prompt, see `study.pairs.read_folder`.
    """

    name: str = ""
    model: str = ""
    clips: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.model) == bool(self.clips):
            raise LumiereError(f"{self.name or 'an entry'}: give either a model or a folder of clips")
        if self.clips:
            named = [field.name for field in fields(Options) if getattr(self, field.name) is not None]
            if named:
                raise LumiereError(f"{self.name or self.clips}: {named[0]}: its clips are there already; leave it out")
        if not self.name:
            object.__setattr__(self, "name", _name_of(self.model or self.clips))
        if not _NAME.fullmatch(self.name):
            raise LumiereError(f"{self.name!r} is no name; use up to 40 letters, digits, spaces and . + -")

    @property
    def folder(self) -> str:
        """The name of its folder of clips in the comparison's."""
        return slug(self.name)

    def loading(self, of_all: Loading) -> Loading:
        """Return how it is loaded."""
        own: dict[str, Any] = {name: getattr(self, name) for name in _LOADING if getattr(self, name) is not None}
        return replace(of_all, **own)


@dataclass(frozen=True, kw_only=True)
class Settings(Options):
    """A comparison, as a YAML file describes it.

    Attributes:
        models: the entries.
        prompts: file of prompts.
        seed: of the first clip of each prompt.
        seeds: clips of each prompt, with rising seeds.
        study: name of the entry that is "ours" in the study; "" = no study.
    """

    models: tuple[Entry, ...] = ()
    prompts: str = ""
    seed: int = 0
    seeds: int = 1
    study: str = ""


def read_settings(path: str | Path) -> Settings:
    """Read a YAML file.

    Raises:
        LumiereError: it cannot be read, or holds what no comparison has.
    """
    data = _sized(read_yaml(path))
    if isinstance(data.get("models"), list):
        data["models"] = [_sized(entry) if isinstance(entry, dict) else entry for entry in data["models"]]
    return from_plain(Settings, data, f"{path}: ")


def _sized(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "size": parse_size(data["size"])} if isinstance(data.get("size"), str) else data


def read_entry(word: str) -> Entry:
    """Read ``MODEL``, ``NAME=MODEL`` or ``NAME=FOLDER_OF_CLIPS``, as the command line has it.

    Raises:
        LumiereError: a name that is none.
    """
    name, equals, source = word.partition("=")
    if not equals or not _NAME.fullmatch(name) or Path(word).exists():
        name, source = "", word
    if not source:
        raise LumiereError(f"{word!r}: give a model or a folder of clips after the equals sign")
    return Entry(name=name, clips=source) if is_clip_folder(source) else Entry(name=name, model=source)


def is_clip_folder(name: str) -> bool:
    """Return whether something is a folder, and holds no model."""
    folder = Path(name)
    return folder.is_dir() and not any((folder / file).exists() for file in (INDEX, "config.json"))


def with_defaults(entries: Iterable[Entry], of_all: Options) -> tuple[Entry, ...]:
    """Return entries that ask for what is asked of all where they ask for nothing themselves.

    Pictures are left out: not all models start from one.

    Raises:
        LumiereError: there are none, or two of one name.
    """
    shared = [field.name for field in fields(Options) if field.name not in ("pictures", "picture_from")]
    filled = []
    for entry in entries:
        own = {name: getattr(of_all, name) for name in shared if getattr(entry, name) is None}
        filled.append(entry if entry.clips else replace(entry, **own))
    if not filled:
        raise LumiereError("nothing to compare; name models, e.g. --models emoji owner/name Pika=clips/pika")
    _check_names(filled)
    return tuple(filled)


def _check_names(entries: Sequence[Entry]) -> None:
    by_folder: dict[str, Entry] = {}
    for entry in entries:
        other = by_folder.setdefault(entry.folder, entry)
        if other is not entry:
            names = repr(entry.name) if entry.name == other.name else f"{other.name!r} and {entry.name!r}"
            raise LumiereError(f"two entries of one name, {names}; name them apart, e.g. --models A=MODEL B=MODEL")


def overridden(options: O, **values: Any) -> O:
    """Return options with those values that are not None."""
    return replace(options, **{name: value for name, value in values.items() if value is not None})


def _name_of(source: str) -> str:
    """A model's short name: without owner, revision, address and further parts."""
    whole = source.rpartition("#")[2] if source.startswith(("http://", "https://")) else source.partition("+")[0]
    return _NO_NAME.sub("-", Path(whole.partition("@")[0]).name).lstrip(" .+-")[:40] or "model"
