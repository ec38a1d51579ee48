"""Files on disk: written whole or not at all, hashed, read with errors of one line."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import LumiereError

PARTIAL = ".partial"  # ends the name of everything that is not finished, and is ignored by git
_COUNTER = itertools.count()
_PROCESS = re.compile(rf"\.([0-9a-f]{{6}})-(\d+)-\d+(\.old)?{re.escape(PARTIAL)}$")


def partial_path(path: str | Path) -> Path:
    """Return a name to write `path` under until it is whole, in the same folder, so that renaming is atomic.

    It is hidden, ends with `PARTIAL`, says which process of which machine writes it, and is another one at each call.
    """
    path = Path(path)
    # Long names are cut: file systems allow 255 bytes.
    return path.with_name(f".{path.name[:40]}.{_machine()}-{os.getpid()}-{next(_COUNTER)}{PARTIAL}")


@contextmanager
def replacing(path: str | Path, *, suffix: str = "") -> Iterator[Path]:
    """Write a file or a folder under another name, and rename it to `path` when all of it is there.

    What was at `path` stays until then, and stays if writing fails; the unfinished file is then removed. A folder that
    is at `path` is removed with all that it holds, so check first that it may be.

    Whoever finds a file takes it for whole and does not write it again, so its contents are on the disk (fsync) before
    it gets its name, and the name is before this returns: a power cut leaves no empty or torn file behind, nor undoes
    what a caller goes on to rely on, as when it then removes the previous checkpoint.

    Args:
        suffix: that libraries want the name to end with, such as ``.npy``.

    Yields:
        The path to write to, on the same file system; the folder of `path` is made if it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    remove(partial)  # of a process of the same number on a machine of the same name that was killed
    try:
        if suffix:  # in a folder of its own, so that nobody who looks for such files finds an unfinished one
            partial.mkdir()
        unfinished = partial / f"unfinished{suffix}" if suffix else partial
        yield unfinished
        _to_disk(unfinished)
        _put_in_place(unfinished, path)
        _to_disk_folder(path.parent)
    finally:
        with suppress(OSError):
            remove(partial)


def _put_in_place(new: Path, path: Path) -> None:
    if not (path.is_dir() and not path.is_symlink()) and not (new.is_dir() and os.path.lexists(path)):
        os.replace(new, path)
        return
    # A folder is not replaced in one step.
    old = partial_path(path)
    old = old.with_name(f"{old.name.removesuffix(PARTIAL)}.old{PARTIAL}")
    os.replace(path, old)
    try:
        os.replace(new, path)
    except BaseException:
        os.replace(old, path)
        raise
    remove(old)


def _to_disk(path: Path) -> None:
    """Have the system write a file, or all files of a folder, from its memory to the disk."""
    if path.is_dir():
        for entry in path.iterdir():
            _to_disk(entry)
        _to_disk_folder(path)
    elif path.is_file():
        with open(path, "rb+" if os.name == "nt" else "rb") as file:  # read-only files too, where that is possible
            os.fsync(file.fileno())


def _to_disk_folder(path: Path) -> None:
    """Have the system write a folder's list of names to the disk, where it can: Windows opens no folders."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove what killed processes of this machine left unfinished in a folder; return what it was.

    Files of processes that still run, and of other machines, stay. So does a folder that was to be replaced, if the
    process was killed just before the new one got its name.
    """
    removed = []
    for path in sorted(Path(folder).glob(f".*{PARTIAL}")):
        found = _PROCESS.search(path.name)
        if found and found[1] == _machine() and not found[3] and not _is_running(int(found[2])):
            remove(path)
            removed.append(path)
    return removed


def _machine() -> str:
    return hashlib.blake2s(platform.node().encode(), digest_size=3).hexdigest()


def _is_running(process: int) -> bool:
    if os.name == "nt":  # where os.kill ends the process whatever the signal
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


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


def sampled_sha256(path: str | Path, *, blocks: int = 64, block: int = 2**20) -> str:
    """Return the SHA-256 of a file's size and of blocks spread evenly over it, its start and its end among them.

    For files so large that reading all of them takes minutes; what changes between the blocks alone is missed.

    Args:
        blocks: how many, 2 at least.
        block: bytes of each.
    """
    size = Path(path).stat().st_size
    digest = hashlib.sha256(f"{size} in {blocks} blocks of {block}".encode())
    with open(path, "rb") as file:
        for number in range(blocks):
            file.seek(max(size - block, 0) * number // (blocks - 1))
            digest.update(file.read(block))
    return digest.hexdigest()


def one_line(error: BaseException | str, limit: int = 200) -> str:
    """Return an error's message in one line, cut at `limit` characters; its type where it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def machine_memory() -> int | None:
    """Return the bytes of memory in the machine, or in the container where that is less; None on Windows."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            limit = file.read().strip()
        return min(total, int(limit)) if limit.isdigit() else total
    except OSError:
        return total
