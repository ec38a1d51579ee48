"""Content credentials (C2PA): who made a file, when, of what and by which model, signed and kept inside it.

Sign last: a byte that changes afterwards breaks the signature, and a program that writes the file anew drops it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from .identity import Identity

SOFT_BINDING = "io.github.openlumiere.watermark.1"  # the watermark of this package, as C2PA names algorithms


@dataclass(frozen=True, kw_only=True)
class Ingredient:
    """A file that another was made from.

    Attributes:
        title: its name.
        relation: ``parentOf``: what was edited; ``componentOf``: what was placed in it.
    """

    title: str
    relation: str


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What a file's credentials say, and whether to believe them.

    Attributes:
        state: ``trusted``: unchanged, and the signer is vouched for by an anchor; ``untrusted``: unchanged, by a signer
            whom no anchor vouches for; ``changed``: the file was changed since it was signed; ``invalid``: the
            credentials are broken, such as signed with an outdated certificate.
        problem: what is wrong, for people; "" where nothing is.
        signer: who signed, as the certificate says.
        signed_by_us: whether this installation's own root vouches for the signer.
        when: the time that the signer claims; None where it claims none.
        generator: program that wrote the file, with its version.
        model: that made the clip; "" where not said.
        actions: what was done, as C2PA names it, such as ``c2pa.created``.
        ai_generated: whether an action says that a model made the media, or a part of it.
        ingredients: what it was made from.
        soft_binding: payload of the watermark that the file should carry, hexadecimal; "" where none is named.
    """

    state: Literal["trusted", "untrusted", "changed", "invalid"]
    problem: str = ""
    signer: str = ""
    signed_by_us: bool = False
    when: datetime | None = None
    generator: str = ""
    model: str = ""
    actions: tuple[str, ...] = ()
    ai_generated: bool = False
    ingredients: tuple[Ingredient, ...] = ()
    soft_binding: str = ""


def sign(
    path: str | Path,
    identity: Identity,
    *,
    model: str = "",
    edited: str | Path | None = None,
    placed: Sequence[str | Path] = (),
    soft_binding: str = "",
) -> bool:
    """Sign a finished file in place: it is replaced when the signed one is whole. Pixels and recipe stay.

    Args:
        path: MP4, M4V, MOV, WebP, GIF, PNG or APNG.
        model: that made the clip, as users name it.
        edited: the file that this one is an edit of.
        placed: files of which pictures were put into it: first frames, keyframes, style pictures.
        soft_binding: payload of the watermark in its frames, hexadecimal; "" = it has none.

    Returns:
        Whether it was signed: WebM, MKV and folders of frames have no place for credentials.

    Raises:
        LumiereError: the file can't be signed; it stays as it was.
    """
    raise NotImplementedError


def check(
    path: str | Path, anchors: Sequence[str | Path] = (), *, identity: Identity | None = None
) -> Credentials | None:
    """Read a file's credentials and check them, offline.

    Args:
        anchors: PEM files, or folders of them, of authorities to trust.
        identity: whose root is trusted too; None = no one's.

    Returns:
        None where the file has none, or is of a kind that can't have any.

    Raises:
        LumiereError: the file or an anchor is missing or can't be read.
    """
    raise NotImplementedError
