"""What went wrong, in one line that says what to do."""

from __future__ import annotations

import errno
import sys

from openlumiere.errors import LumiereError

_OUT_OF_MEMORY = (
    "out of memory; close other programs, or ask for less: a smaller --batch, fewer --frames, a smaller --model, "
    "--dtype bfloat16"
)
_EXTRAS = {
    "emoji": "train",
    "tensorboard": "train",
    "resvg_py": "train",
    "markdown": "train",
    "matplotlib": "train",
    "lumiere_pytorch": "bench",
    "fastapi": "app",
    "uvicorn": "app",
}


def explain(error: Exception) -> tuple[str, int]:
    """The line to print for an error, and the exit code: 2 where the user can help it, 1 for a bug."""
    if isinstance(error, LumiereError):
        return _one_line(error), 2
    if _is_out_of_memory(error):
        return _OUT_OF_MEMORY, 2
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        return f"the disk is full{where}; free some space, or choose another place with -o", 2
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename or 'a file'}; choose another place, or change its permissions", 2
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {(error.strerror or _one_line(error)).lower()}; check the path", 2
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if package in _EXTRAS:
            return f"{package} is not installed; install it with: pip install 'openlumiere[{_EXTRAS[package]}]'", 2
    name = type(error).__name__
    return f"unexpected {name}: {_one_line(error)}; this is a bug: run again with --debug and report what it prints", 1


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")  # never imported for the sake of an error
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(
        phrase in str(error) for phrase in ("not enough memory", "can't allocate memory", "out of memory")
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
