"""Content credentials (C2PA): who made a file, when, of what and by which model, signed and kept inside it.

Sign last: a byte that changes afterwards breaks the signature, and a program that writes the file anew drops it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from openlumiere.errors import LumiereError
from openlumiere.files import one_line, replacing

from . import certificates, manifest_store
from .identity import Identity, anchors_folder
from .manifest import Credentials, Ingredient, created, credentials_of, sources_of
from .manifest_store import MIME, DamagedManifestError, can_hold
from .payload import Payload

__all__ = ["Credentials", "Ingredient", "can_hold", "certificates_in", "check", "room", "sign"]


def sign(
    path: str | Path,
    identity: Identity,
    *,
    title: str = "",
    model: str = "",
    edited: str | Path | None = None,
    placed: Sequence[str | Path] = (),
    soft_binding: Payload | None = None,
) -> bool:
    """Sign a finished file in place: it is replaced when the signed one is whole. Pixels and recipe stay.

    Args:
        path: MP4, M4V, MOV, WebP, GIF, PNG or APNG.
        title: of the file, as users know it; "" = its name.
        model: that made the clip, as users name it.
        edited: the file that this one is an edit of.
        placed: files of which pictures were put into it: first frames, keyframes.
        soft_binding: what the watermark in its frames says; None = it has none.

    Returns:
        Whether it was signed; see `can_hold`.

    Raises:
        LumiereError: the file can't be signed; it stays as it was.
    """
    path = Path(path)
    if not can_hold(path):
        return False
    sources = sources_of(edited, placed)
    try:
        with replacing(path) as unfinished, path.open("rb") as source, unfinished.open("w+b") as target:
            manifest_store.write(
                source,
                target,
                MIME[path.suffix.lower()],
                created(title or path.name, model=model, sources=sources, soft_binding=soft_binding),
                certificate=identity.certificate,
                private_key=identity.private_key,
                ingredients=sources,
            )
    except LumiereError as error:
        raise LumiereError(f"{path}: {error}") from error
    except OSError as error:
        raise LumiereError(f"{path} can't be signed ({one_line(error.strerror or error)})") from error
    return True


def room(
    path: str | Path,
    identity: Identity,
    *,
    title: str = "",
    model: str = "",
    edited: str | Path | None = None,
    placed: Sequence[str | Path] = (),
    soft_binding: Payload | None = None,
) -> int:
    """Return how many bytes `sign` would add to a file at most: what a limit on its size must leave free.

    What a file was made from brings its own credentials along, so an edit needs more: about 5 kB a generation.

    Args:
        path: need not be there yet; others as of `sign`.

    Returns:
        0 where its format has no place for credentials.

    Raises:
        LumiereError: it can't be signed.
    """
    path = Path(path)
    if not can_hold(path):
        return 0
    sources = sources_of(edited, placed)
    manifest = created(title or path.name, model=model, sources=sources, soft_binding=soft_binding)
    size = manifest_store.size(manifest, identity.certificate, identity.private_key, sources)
    return size + size // 200 + 256  # a GIF counts every 255 bytes; headers differ


def check(
    path: str | Path, anchors: Sequence[str | Path] | None = None, *, identity: Identity | None = None
) -> Credentials | None:
    """Read a file's credentials and check them, offline.

    Args:
        anchors: PEM files, or folders of them, of authorities to trust; None = the folder ``anchors`` beside the one
            of the keys, if there is one.
        identity: whose own root is trusted too; None = no one's.

    Returns:
        None where the file holds none, or is of a kind that can't.

    Raises:
        LumiereError: the file or an anchor is missing or can't be read.
    """
    path = Path(path)
    trusted = certificates_in([anchors_folder()] if anchors is None and anchors_folder().is_dir() else anchors or ())
    own = certificates_in([identity.root]) if identity is not None else ""
    if not path.exists():
        raise LumiereError(f"{path} does not exist; check the name")
    if not can_hold(path):
        return None
    try:
        report = manifest_store.read(path, own)
        if report is None:
            return None
        found = credentials_of(report)
        if own and found.state == "trusted":
            return replace(found, signed_here=True)
        if trusted and found.state == "untrusted":
            found = credentials_of(manifest_store.read(path, trusted) or {})
    except DamagedManifestError as error:
        return Credentials(state="invalid", problem=str(error))
    return found


def certificates_in(paths: Sequence[str | Path]) -> str:
    """Return all certificates of PEM files, and of folders of .pem and .crt files, as one text.

    Raises:
        LumiereError: one of them is missing or damaged, or a folder holds none.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(each for each in path.iterdir() if each.suffix in (".pem", ".crt")) if path.is_dir() else [path]
        if not inside:
            raise LumiereError(f"{path} holds no .pem files; put certificates of authorities there")
        files += inside
    return "".join(certificates.to_pem(certificate) for file in files for certificate in certificates.read(file))
