"""A file's manifest store: written, signed and read by c2pa-python. `manifest` says what stands in it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from openlumiere.errors import LumiereError
from openlumiere.files import one_line

from . import certificates
from .manifest import Source, created

MIME = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".webp": "image/webp", ".gif": "image/gif",
    ".png": "image/png", ".apng": "image/png",
}  # fmt: skip
_UNKNOWN = "application/octet-stream"  # of which no credentials are looked for
# A thumbnail would be 0.6 MB of an animated picture. What was signed is read back and checked.
_SIGNING = {"builder": {"thumbnail": {"enabled": False}}, "verify": {"verify_after_sign": True}}
_OFFLINE = {"remote_manifest_fetch": False, "ocsp_fetch": False}

_UNREADABLE = ("Io:", "Other:", "NotSupported:")  # how c2pa's errors of the file begin, not of the manifest


class DamagedManifestError(LumiereError):
    """A file has credentials, or had, but they make no sense."""


def can_hold(path: str | Path) -> bool:
    """Return whether a file of this name has a place for credentials: WebM, MKV and folders have none."""
    return Path(path).suffix.lower() in MIME


def write(
    source: BinaryIO,
    target: BinaryIO,
    mime: str,
    manifest: Mapping[str, Any],
    *,
    certificate: Path,
    private_key: Path,
    ingredients: Sequence[Source] = (),
) -> None:
    """Copy a file with a manifest put in, signed and read back.

    Args:
        target: open for writing and reading.
        mime: one of `MIME`.
        manifest: as c2pa's `Builder` takes it.
        certificate, private_key: PEM files; see `Identity`.

    Raises:
        LumiereError: they are no pair, or c2pa refuses the file, the certificate or the manifest.
    """
    import c2pa

    algorithm = certificates.check(certificate, private_key)
    info = c2pa.C2paSignerInfo(algorithm, certificate.read_bytes(), private_key.read_bytes(), None)
    try:
        with (
            c2pa.Context.from_dict(_SIGNING, signer=c2pa.Signer.from_info(info)) as context,
            c2pa.Builder(json.dumps(manifest), context) as builder,
        ):
            for ingredient in ingredients:
                _add(builder, ingredient)
            builder.sign(mime, source, target)
    except c2pa.C2paError as error:
        raise LumiereError(f"it can't be signed with {certificate} ({one_line(error)})") from error


def _add(builder: Any, ingredient: Source) -> None:
    """Add an ingredient with the credentials that it has; without, where they can't be read."""
    import c2pa

    description = json.dumps(ingredient.description)
    if can_hold(ingredient.path):
        try:
            with ingredient.path.open("rb") as file:
                builder.add_ingredient(description, MIME[ingredient.path.suffix.lower()], file)
            return
        except (c2pa.C2paError, OSError):  # our decoders take files that c2pa doesn't
            pass
    builder.add_ingredient(description, _UNKNOWN, io.BytesIO())


def size(manifest: Mapping[str, Any], certificate: Path, private_key: Path, ingredients: Sequence[Source] = ()) -> int:
    """Return how many bytes a manifest adds to a PNG, by signing one pixel; arguments and errors as of `write`."""
    from PIL import Image

    pixel, target = io.BytesIO(), io.BytesIO()
    Image.new("L", (1, 1)).save(pixel, "PNG")
    before = len(pixel.getvalue())
    write(
        pixel, target, MIME[".png"], manifest,
        certificate=certificate, private_key=private_key, ingredients=ingredients,
    )  # fmt: skip
    return len(target.getvalue()) - before


def rehearse(certificate: Path, private_key: Path) -> None:
    """Sign one pixel, so that a certificate that C2PA doesn't take is known before anything is computed.

    Raises:
        LumiereError: C2PA doesn't take it; says what C2PA asks for. Or they are no pair.
    """
    certificates.check(certificate, private_key)
    try:
        size(created("pixel"), certificate, private_key)
    except LumiereError as error:
        raise LumiereError(
            f"{error}; C2PA asks for a certificate of version 3, from an authority rather than signed by itself, for "
            "digital signatures, with an extended key usage such as e-mail protection"
        ) from error


def read(path: Path, anchors: str) -> dict[str, Any] | None:
    """Read and check a file's manifest store, offline.

    Args:
        path: a file that `can_hold` credentials.
        anchors: certificates of authorities to trust, PEM; "" = none.

    Returns:
        c2pa's report; None where the file holds no manifest.

    Raises:
        DamagedManifestError: the manifest makes no sense.
        LumiereError: the file can't be read.
    """
    import c2pa

    settings: dict[str, Any] = {"verify": _OFFLINE, "trust": {"user_anchors": anchors} if anchors else {}}
    try:
        with c2pa.Context.from_dict(settings) as context, path.open("rb") as file:
            reader = c2pa.Reader.try_create(MIME[path.suffix.lower()], file, context=context)
            if reader is None:
                return None
            with reader:
                report: dict[str, Any] = json.loads(reader.json())
                return report
    except c2pa.C2paError as error:
        reason = one_line(error)
        if reason.startswith("Remote:"):  # it lies elsewhere, and nothing is fetched
            return None
        if reason.startswith(_UNREADABLE):
            raise LumiereError(f"{path} can't be read for credentials ({reason}); replace it") from error
        raise DamagedManifestError(f"the credentials of {path} are damaged ({reason})") from error
    except OSError as error:
        raise LumiereError(f"{path} can't be read ({one_line(error.strerror or error)})") from error
