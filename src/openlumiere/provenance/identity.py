"""Who marks and signs: the keys of an installation, made on first use, or those of its operator.

They lie in one folder, by default ``identity`` in ``$LUMIERE_HOME``, else in ``$XDG_CONFIG_HOME/openlumiere``, else in
``~/.config/openlumiere``, and only the user may read them:

- `watermark.key`: 32 bytes, hexadecimal, which put the watermark in and find it again;
- `private_key.pem`, `certificate.pem`: what content credentials are signed with, and the certificate that says so;
- `root.pem`: who vouches for that certificate. Others who trust it trust all that is signed here.

Copy the folder to have several machines mark as one. Whoever loses it can no longer tell the clips of before.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from openlumiere.errors import LumiereError
from openlumiere.files import one_line, partial_path, remove, remove_leftovers

from . import certificates, manifest_store

HOME_VARIABLE = "LUMIERE_HOME"
CERTIFICATE_VARIABLE = "LUMIERE_CERTIFICATE"  # the operator's own, with the chain up to its authority
PRIVATE_KEY_VARIABLE = "LUMIERE_PRIVATE_KEY"
KEY_BYTES = 32
_WATERMARK_KEY, _PRIVATE_KEY, _CERTIFICATE, _ROOT = "watermark.key", "private_key.pem", "certificate.pem", "root.pem"
_HEXADECIMAL = re.compile(rb"\s*([0-9a-fA-F]{%d})\s*" % (2 * KEY_BYTES))


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The keys of an installation.

    Attributes:
        watermark_key: secret, 32 bytes.
        key_id: number of that key in watermarks, 0 to 255; part of its hash, which doesn't give it away.
        certificate: PEM file of the signer's certificate, and of those between it and its authority.
        private_key: PEM file of the key that belongs to it.
        root: PEM file of the authority that this installation made for itself.
    """

    watermark_key: bytes = field(repr=False)
    key_id: int
    certificate: Path
    private_key: Path
    root: Path

    @classmethod
    def load(cls, folder: str | Path | None = None) -> Identity:
        """Read the keys; make them if there is no folder yet. Several processes may do so at once.

        Where ``$LUMIERE_CERTIFICATE`` and ``$LUMIERE_PRIVATE_KEY`` name files, credentials are signed with these; one
        pixel is signed to see that C2PA takes them.

        Args:
            folder: of the keys; None = see the module.

        Raises:
            LumiereError: a file is missing, damaged, or no fit for the others; nothing is replaced then. Or the folder
                can't be made.
        """
        folder = default_folder() if folder is None else Path(folder)
        if not folder.exists():
            _make(folder)
        found = cls._read(folder)
        if found.certificate.parent == folder:
            certificates.check(found.certificate, found.private_key)
            certificates.read(found.root)
        else:
            manifest_store.rehearse(found.certificate, found.private_key)
        return found

    @classmethod
    def find(cls, folder: str | Path | None = None) -> Identity | None:
        """Read the keys to tell marks by, and leave out whether they can sign; None where there are none yet.

        Raises:
            LumiereError: the watermark key is missing or damaged.
        """
        folder = default_folder() if folder is None else Path(folder)
        return cls._read(folder) if folder.exists() else None

    @classmethod
    def _read(cls, folder: Path) -> Identity:
        watermark_key = _read_key(folder / _WATERMARK_KEY)
        certificate, private_key = _operators_own() or (folder / _CERTIFICATE, folder / _PRIVATE_KEY)
        return cls(
            watermark_key=watermark_key,
            key_id=hashlib.sha256(watermark_key).digest()[0],
            certificate=certificate,
            private_key=private_key,
            root=folder / _ROOT,
        )


def default_folder() -> Path:
    """Return the folder of the keys that are used where none is named.

    Raises:
        LumiereError: the user has no home folder.
    """
    home = os.environ.get(HOME_VARIABLE)
    if home:
        return Path(home) / "identity"
    try:
        configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    except RuntimeError as error:  # a user without a home
        raise LumiereError(f"this user has no home folder for keys; set {HOME_VARIABLE} to one") from error
    return configuration / "openlumiere" / "identity"


def anchors_folder() -> Path:
    """Return the folder of authorities that are trusted where none are named: ``anchors``, beside that of the keys."""
    return default_folder().with_name("anchors")


def _operators_own() -> tuple[Path, Path] | None:
    certificate, private_key = (os.environ.get(name) for name in (CERTIFICATE_VARIABLE, PRIVATE_KEY_VARIABLE))
    if not certificate and not private_key:
        return None
    if not certificate or not private_key:
        raise LumiereError(f"give both {CERTIFICATE_VARIABLE} and {PRIVATE_KEY_VARIABLE}, or neither")
    return Path(certificate), Path(private_key)


def _read_key(path: Path) -> bytes:
    try:
        found = _HEXADECIMAL.fullmatch(path.read_bytes())
    except OSError as error:
        raise LumiereError(
            f"the watermark key {path} can't be read ({one_line(error.strerror or error)}); put it back, or remove its "
            "folder for new keys, which don't find the marks of before"
        ) from error
    if not found:
        raise LumiereError(
            f"{path} is no watermark key of {2 * KEY_BYTES} hexadecimal digits; put the right one back, or remove its "
            "folder for new keys, which don't find the marks of before"
        )
    return bytes.fromhex(found[1].decode())


def _make(folder: Path) -> None:
    """Make all keys in a folder that gets its name when they are whole: whoever comes second takes the first one's."""
    made = certificates.make()
    contents = {
        _WATERMARK_KEY: f"{secrets.token_hex(KEY_BYTES)}\n".encode(),
        _PRIVATE_KEY: made.private_key,
        _CERTIFICATE: made.certificate,
        _ROOT: made.root,
    }
    partial = partial_path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder.parent)
        partial.mkdir(mode=0o700)
        try:
            for name, data in contents.items():
                _write_private(partial / name, data)
            partial.rename(folder)  # fails where there are keys already
        except OSError:
            if not (folder / _WATERMARK_KEY).exists():
                raise
        finally:
            remove(partial)
    except OSError as error:
        raise LumiereError(
            f"no keys could be made in {folder} ({one_line(error.strerror or error)}); set {HOME_VARIABLE} to a folder "
            "that can be written"
        ) from error


def _write_private(path: Path, data: bytes) -> None:
    """Write a file that nobody else can read at any moment, and have it on the disk."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
