"""Files on disk: written whole or not at all, hashed, read with errors of one line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import LumiereError

_PARTIAL = ".partial"  # ends the names of files that are being written


def partial_path(path: str | Path) -> Path:
    """Return where `path` is written before it takes its place: beside it, named for whoever writes it."""
    path = Path(path)
    return path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")


@contextmanager
def replacing(path: str | Path, *, suffix: str = "") -> Iterator[Path]:
    """Write a file or a folder beside `path`, and rename it to `path` when all of it is there.

    What was at `path` stays until then, and stays if writing fails; the unfinished file is then removed. A folder that
    is at `path` is removed with all that it holds, so check first that it may be.

    Args:
        suffix: added to the temporary name, for libraries that look at it, such as ``.npy``.

    Yields:
        The path to write to, in the same folder, which is made if it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    partial = partial.with_name(partial.name + suffix)
    remove(partial)  # of a process of the same number that was killed
    try:
        yield partial
        if path.is_dir() and not path.is_symlink():
            aside = partial.with_name(partial.name + ".old")
            os.replace(path, aside)
            os.replace(partial, path)
            remove(aside)
        else:
            os.replace(partial, path)
    except BaseException:
        remove(partial)
        raise


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, UTF-8, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any, *, indent: int | None = 2) -> None:
    """Write `value` as JSON, whole or not at all; a non-finite number is an error, as JSON has none."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path, *, otherwise: str = "make it again") -> Any:
    """Read JSON.

    Args:
        otherwise: what the error tells the user to do.

    Raises:
        LumiereError: the file is missing or damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LumiereError(f"{path} is missing or damaged ({one_line(error)}); {otherwise}") from error


def remove(path: str | Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's contents, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def one_line(error: BaseException | str, limit: int = 200) -> str:
    """Return an error's message in one line, cut at `limit` characters; its type where it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
