"""Marking and signing what is written for a user: every clip of the commands and of the server goes through here.

The watermark goes into the frames that are written, at their size, and the recipe in the file says so; credentials are
signed when the file is whole. Of an edit only what was made anew is marked: what was kept stays as it was, to the
pixel. Training samples, comparisons and measured clips are not marked, since a mark would move what is measured.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

import openlumiere

from . import credentials
from .identity import Identity
from .model_numbers import model_name, model_number
from .payload import BITS, Payload, month_of
from .watermark import embed

RECIPE_KEY = "watermark"  # of a file's recipe: what its mark says
UNMARKED = "none"  # there, for clips that were left unmarked
_HEXADECIMAL = re.compile(rf"([0-9a-f]{{{BITS // 4}}})( |$)")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The mark of one clip.

    Attributes:
        payload: what it says.
        clip_id: how it lies, see `watermark.embed`.
        is_there: the frames have it already, as those of a marked file.
        model, edited, placed: as of `credentials.sign`.
    """

    identity: Identity
    payload: Payload
    clip_id: str
    is_there: bool = False
    model: str = ""
    edited: str | None = None
    placed: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What the recipe says of it: the payload, hexadecimal and in words."""
        return f"{to_hexadecimal(self.payload)} ({in_words(self.payload)})"

    def put_into(self, frames: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
        """Return a marked copy of a clip.

        Args:
            frames: as of `watermark.embed`.
            where: bool (F, H, W), what was made anew; None = everything. The rest keeps every pixel.
        """
        if self.is_there:
            return frames
        return embed(frames, self.payload, self.identity.watermark_key, clip_id=self.clip_id, where=where)

    def sign(self, path: str | Path) -> bool:
        """Sign a finished file in place; return whether its format has room for credentials."""
        return credentials.sign(path, self.identity, **self._said)

    def room(self, path: str | Path) -> int:
        """Return how many bytes signing adds to a file at most, see `credentials.room`."""
        return credentials.room(path, self.identity, **self._said)

    @property
    def _said(self) -> dict[str, Any]:
        return {
            "model": self.model, "edited": self.edited, "placed": self.placed, "soft_binding": self.payload,
        }  # fmt: skip


@dataclass(frozen=True)
class Marker:
    """Marks and signs clips with the keys of this installation."""

    identity: Identity

    @classmethod
    def load(cls) -> Marker:
        """Return the one of this installation, whose keys are made on first use.

        Raises:
            LumiereError: the keys can't be read or made.
        """
        return cls(Identity.load())

    def of(
        self,
        recipe: Mapping[str, Any],
        *,
        family: str = "",
        edited: str | None = None,
        placed: Sequence[str] = (),
        today: date | None = None,
    ) -> Mark:
        """Return the mark of a clip: the same for the same recipe, within a month.

        Args:
            recipe: as its file tells it. One that says what a mark says is that of a clip that has it.
            family: of the model, see `model_numbers.model_number`.
            edited, placed: files that it was made from, see `credentials.sign`.
        """
        model = str(recipe.get("model", ""))
        told = payload_in(recipe)
        payload = told or Payload(
            model=model_number(model, family),
            version=version_number(openlumiere.__version__),
            month=month_of(today or date.today()),
            key_id=self.identity.key_id,
        )
        decisive = {key: value for key, value in recipe.items() if key != RECIPE_KEY}
        clip_id = sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
        return Mark(
            identity=self.identity, payload=payload, clip_id=clip_id, is_there=told is not None, model=model,
            edited=edited, placed=tuple(placed),
        )  # fmt: skip

    def carried(self, recipe: Mapping[str, Any], **sources: Any) -> Mark | None:
        """Return the mark that a clip has already, to sign what is made of it; None where it has none; as `of`."""
        mark = self.of(recipe, **sources)
        return mark if mark.is_there else None


def payload_in(recipe: Mapping[str, Any]) -> Payload | None:
    """Return what a recipe says that the clip's mark says; None where it says nothing of one."""
    found = _HEXADECIMAL.match(str(recipe.get(RECIPE_KEY, "")))
    return None if found is None else Payload.from_bits(np.array(list(format(int(found[1], 16), f"0{BITS}b"))))


def to_hexadecimal(payload: Payload) -> str:
    """Return a payload's bits as hexadecimal digits."""
    return format(int("".join(map(str, payload.to_bits())), 2), f"0{BITS // 4}x")


def in_words(payload: Payload) -> str:
    """Return what a payload says, such as ``emoji, openlumiere 0.1, 2026-11, key 57``."""
    release = release_of(payload.version)
    return f"{model_name(payload.model)}, openlumiere {release}, {payload.made:%Y-%m}, key {payload.key_id}"


def version_number(version: str) -> int:
    """Return a release's number in marks: 100 for each major release, and the minor one; 0.1.2 is 1."""
    major, minor = map(int, re.findall(r"\d+", version)[:2])
    return 100 * major + minor


def release_of(number: int) -> str:
    """Return the release that a `version_number` stands for."""
    return f"{number // 100}.{number % 100}"
