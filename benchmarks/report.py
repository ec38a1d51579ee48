"""What every benchmark says beside its figures: the machine; and how it writes them down."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from openlumiere import files


def machine(threads: int) -> dict[str, Any]:
    """The machine, the versions, and how busy the machine was when the measuring began."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "load_average": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("openlumiere", "torch", "diffusers") if _installed(name)},
    }


def describe(found: dict[str, Any]) -> str:
    """The machine in one or two lines."""
    line = f"{found['cpu']}, {found['cores']} cores, {found['threads']} threads, torch {found['torch']}"
    line += f", {found['gpu']}" if "gpu" in found else ""
    if found["load_average"] > 0.5:
        line += f"\nnote: load average {found['load_average']}: other programs are running, so times are too long"
    return line


def table(head: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as they need; the first one to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(row: list[str]) -> str:
        return "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])

    lines = [line(row) for row in [head, *rows]]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a report whole or not at all, and say so."""
    files.write_json(path, content)
    print(f"wrote {path}")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except Exception:
        return False
