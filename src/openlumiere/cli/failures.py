"""What went wrong, in one line that says what to do."""

from __future__ import annotations

import errno
import sys

from openlumiere import extras
from openlumiere.errors import LumiereError
from openlumiere.files import one_line

_OUT_OF_MEMORY = (
    "out of memory; close other programs, or ask for less: a smaller --batch, fewer --frames, a smaller --model, "
    "--dtype bfloat16"
)


def explain(error: Exception) -> tuple[str, int]:
    """The line to print for an error, and the exit code: 2 where the user can help it, 1 for a bug."""
    if isinstance(error, LumiereError):
        return one_line(error, 500), 2
    if _is_out_of_memory(error):
        return _OUT_OF_MEMORY, 2
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        return f"the disk is full{where}; free some space, or choose another place with -o", 2
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename or 'a file'}; choose another place, or change its permissions", 2
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {(error.strerror or one_line(error, 500)).lower()}; check the path", 2
    if isinstance(error, ModuleNotFoundError) and error.name:
        module = error.name.partition(".")[0]
        if module in extras.MODULES:
            return extras.missing(module), 2
    name = type(error).__name__
    said = one_line(error, 500)
    return f"unexpected {name}: {said}; this is a bug: run again with --debug and report what it prints", 1


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
