"""The peak of a process's own memory, on every system that reports it."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_memory_mib() -> float | None:
    """Return the peak resident memory of this process in MiB; None where the system does not report it.

    Linux's `getrusage` hands a parent's peak on to its children, so `/proc` is read there. Windows has no module
    `resource`; psutil reports it, where that is installed.
    """
    if sys.platform == "linux":
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    try:
        import resource
    except ImportError:
        return _psutil_peak_mib()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _psutil_peak_mib() -> float | None:
    try:
        import psutil
    except ImportError:
        return None
    peak = getattr(psutil.Process().memory_info(), "peak_wset", None)
    return None if peak is None else peak / 2**20
