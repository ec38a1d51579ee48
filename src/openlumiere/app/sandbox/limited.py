"""Work on files in processes of their own, with limits of memory and time: whatever a file does, the server lives.

The server keeps a few helpers, which have imported what decodes files and do nothing themselves. For each task a
helper forks a child that limits itself, does the task in a folder that holds the files it may see by relative names,
and ends. Server and helper speak in lines of JSON; a helper ends with the server, however that ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openlumiere.errors import LumiereError
from openlumiere.files import one_line

_MEGABYTE = 2**20
_KEPT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV")  # of the environment
_GRACE = 15.0  # seconds beyond a task's own, in which a helper must answer


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
    """A task took more memory or time than it may, or died of its file."""


class LimitedProcesses:
    """Helpers that run the functions of `app.decoding`.

    Args:
        count: of tasks at once; the rest wait.
    """

    def __init__(self, count: int) -> None:
        self._turns = asyncio.Semaphore(count)
        self._idle: list[asyncio.subprocess.Process] = []

    async def run(self, task: str, name: str, folder: Path, limits: ProcessLimits, **arguments: Any) -> dict[str, Any]:
        """Run a function.

        Args:
            task: its name.
            name: of the file in `folder` that it reads, its first argument.
            folder: to run in.
            arguments: the others, as plain JSON.

        Returns:
            What the function does.

        Raises:
            LumiereError: as the function's own.
            LimitsReached: it took too much, or crashed.
        """
        asked = {
            "task": task,
            "arguments": {"name": name, **arguments},
            "folder": str(folder),
            "limits": asdict(limits),
        }
        async with self._turns:
            helper = self._idle.pop() if self._idle else await _start()
            try:
                answer = await asyncio.wait_for(_ask(helper, asked), limits.seconds + _GRACE)
            except BaseException:
                await _end(helper)
                raise
            if helper.returncode is None:
                self._idle.append(helper)
        if answer is None:
            raise LimitsReached(f"{name} takes too much memory or time; make it smaller or shorter")
        if "error" in answer:
            raise LumiereError(answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    async def close(self) -> None:
        """End the helpers."""
        while self._idle:
            await _end(self._idle.pop())


async def _start() -> asyncio.subprocess.Process:
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # threads don't survive a fork
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "openlumiere.app.sandbox.limited",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env=environment, start_new_session=True,
    )  # fmt: skip


async def _ask(helper: asyncio.subprocess.Process, asked: dict[str, Any]) -> dict[str, Any] | None:
    assert helper.stdin
    assert helper.stdout
    helper.stdin.write(json.dumps(asked).encode() + b"\n")
    await helper.stdin.drain()
    line = await helper.stdout.readline()
    if not line:
        await helper.wait()
    answer: dict[str, Any] | None = json.loads(line or b"null")
    return answer


async def _end(helper: asyncio.subprocess.Process) -> None:
    """End a helper, and the task that it has under way."""
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(helper.pid, signal.SIGKILL)
        else:
            helper.kill()
    await helper.wait()


# ---------------------------------------------------------------------------------------------- the helper


def _help() -> None:
    """Do tasks until the server is gone; where processes can't fork, one."""
    import av  # noqa: F401
    from PIL import Image

    from openlumiere.app.sandbox import decoding  # noqa: F401 - so that children have all of it

    Image.init()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print must not mix with the answers
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        answer = _in_child(asked) if hasattr(os, "fork") else _do(asked)
        answers.write(f"{answer or 'null'}\n")
        answers.flush()
        if not hasattr(os, "fork"):
            return


def _in_child(asked: dict[str, Any]) -> str:
    """Do a task in a child; return its answer, "" where it gave none in time."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reads)
            _limit(ProcessLimits(**asked["limits"]))
            with os.fdopen(writes, "w", encoding="utf-8") as answers:
                answers.write(_do(asked))
        finally:
            os._exit(0)
    os.close(writes)
    answer, ends = b"", time.monotonic() + asked["limits"]["seconds"]
    try:
        while select.select([reads], [], [], max(ends - time.monotonic(), 0))[0] and (part := os.read(reads, 2**16)):
            answer += part
    finally:
        os.close(reads)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return answer.decode()


def _do(asked: dict[str, Any]) -> str:
    """Do a task here; return its answer, "" where it ran out of memory."""
    from openlumiere.app.sandbox import decoding

    os.chdir(asked["folder"])
    try:
        return json.dumps({"result": getattr(decoding, asked["task"])(**asked["arguments"])})
    except LumiereError as error:
        return json.dumps({"error": one_line(error, 300)})
    except MemoryError:
        return ""
    except Exception as error:  # decoders raise whatever they like
        return json.dumps({"error": f"{asked['arguments']['name']} is corrupt ({type(error).__name__}); replace it"})


def _limit(limits: ProcessLimits) -> None:
    import resource

    for what, most in (
        (resource.RLIMIT_AS, limits.memory * _MEGABYTE),
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_FSIZE, limits.file_megabytes * _MEGABYTE),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    _help()
