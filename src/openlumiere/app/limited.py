"""Work on files in a process of its own, with limits of memory and time: whatever a file does to it, the server lives.

The process is started for one task: it reads one JSON object, ``{"task", "arguments", "limits"}``, limits itself, and
answers one. It runs in a folder that holds the files it may see by relative names.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openlumiere.errors import LumiereError
from openlumiere.files import one_line

_MEGABYTE = 2**20
_KEPT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV")  # of the environment


@dataclass(frozen=True, kw_only=True)
class ProcessLimits:
    """What one task may use.

    Attributes:
        memory: address space, in megabytes.
        cpu_seconds, seconds: of computing, and by the clock.
        file_megabytes: of each file that it writes.
    """

    memory: int = 3072
    cpu_seconds: int = 60
    seconds: int = 120
    file_megabytes: int = 1024


class LimitsReached(LumiereError):  # noqa: N818 - no error of ours
    """A task took more memory or time than it may, or died of it."""


async def run_limited(task: str, name: str, folder: Path, limits: ProcessLimits, **arguments: Any) -> dict[str, Any]:
    """Run one function of `app.decoding` in a limited process.

    Args:
        task: the function's name.
        name: of the file in `folder` that it reads, its first argument.
        folder: to run in.
        arguments: of the function, as plain JSON.

    Returns:
        What the function does.

    Raises:
        LumiereError: as the function's own.
        LimitsReached: it took too much, or crashed.
    """
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | {"OMP_NUM_THREADS": "1"}
    source = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [source, environment.get("PYTHONPATH", "")]))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "openlumiere.app.limited",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        cwd=folder, env=environment,
    )  # fmt: skip
    asked = json.dumps({"task": task, "arguments": {"name": name, **arguments}, "limits": asdict(limits)})
    try:
        out, _ = await asyncio.wait_for(process.communicate(asked.encode()), limits.seconds)
        answer = json.loads(out)
    except (TimeoutError, ValueError) as error:  # it answered too late, or not at all
        raise LimitsReached(f"{name} takes too much memory or time; make it smaller or shorter") from error
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if "error" in answer:
        raise LumiereError(answer["error"])
    result: dict[str, Any] = answer["result"]
    return result


def _limit(limits: ProcessLimits) -> None:
    if sys.platform == "win32":  # the clock alone limits it there
        return
    import resource

    for what, most in (
        (resource.RLIMIT_AS, limits.memory * _MEGABYTE),
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_FSIZE, limits.file_megabytes * _MEGABYTE),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _main() -> None:
    asked = json.loads(sys.stdin.buffer.read())
    _limit(ProcessLimits(**asked["limits"]))
    # What libraries print must not mix with the answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        from openlumiere.app import decoding

        answer = {"result": getattr(decoding, asked["task"])(**asked["arguments"])}
    except LumiereError as error:
        answer = {"error": str(error)}
    except MemoryError:
        return  # no answer says so
    except Exception as error:  # decoders raise whatever they like
        answer = {"error": f"{asked['arguments']['name']} is corrupt ({one_line(error)}); replace it"}
    with answers:
        json.dump(answer, answers)


if __name__ == "__main__":
    _main()
