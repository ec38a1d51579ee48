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


def restart_peak(device: str = "cpu") -> bool:
    """Let the peak of a device's memory start anew from what is in use; return whether that could be done.

    Args:
        device: a GPU of CUDA, or any other: this process's own memory, whose peak Linux alone can restart.
    """
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_mib(device: str = "cpu") -> float | None:
    """Return the peak of a device's memory in MiB, since `restart_peak`; None where nothing reports it."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_memory_mib()
