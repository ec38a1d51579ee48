"""Files of prompts: the requests that they ask for, read as they are wanted."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from openlumiere.errors import LumiereError

from . import jobs
from .requests import GenerateRequest, random_seed

_KEYS = {"prompt", "negative_prompt", "seed", "output"}


@dataclass(frozen=True, kw_only=True)
class PromptFile:
    """The requests of a file of prompts, one prompt or one JSON object a line; each iteration reads it anew.

    A clip's name and seed depend on its line alone, so a run that was stopped goes on as it would have. Outputs are
    names in the folder for the clips.

    Attributes:
        path: the file.
        template: makes a request of what a line says.
        seed: of the first clip; None = drawn for each line, anew at each iteration.
        count: clips of each prompt.
    """

    path: Path
    template: Callable[..., GenerateRequest]
    seed: int | None = None
    count: int = 1

    def __iter__(self) -> Iterator[GenerateRequest]:
        for number, entry in read_prompts(self.path):
            try:
                yield from self._requests(number, entry)
            except LumiereError as error:
                raise LumiereError(f"{self.path}, line {number}: {error}") from error

    def _requests(self, number: int, entry: dict[str, Any]) -> Iterator[GenerateRequest]:
        own = entry.pop("seed", None)
        if own is None:
            own = random_seed() if self.seed is None else self.seed + (number - 1) * self.count
        job = self.template(**{"prompt": "", **entry, "seed": own})
        output = job.output or f"{number:05d}-{jobs.slug(job.prompt)}{jobs.default_suffix(job)}"
        if Path(output).is_absolute() or ".." in Path(output).parts:
            raise LumiereError(f"the output {output!r} is not inside the folder given with -o")
        slash = "/" if output.endswith("/") else ""
        job = replace(job, output=f"{Path(output).as_posix()}{slash}")
        yield from [job] if self.count == 1 else jobs.several(job, "", count=self.count)

    def checked(self) -> Iterator[GenerateRequest]:
        """Yield the requests; then refuse two of one name. A clip takes eight bytes of memory.

        Raises:
            LumiereError: an unreadable file, a bad line (told by number), two clips of one name.
        """
        hashes = array("q")
        for request in self:
            hashes.append(hash(request.output))
            yield request
        ordered = np.sort(np.frombuffer(hashes, np.int64))
        twice = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
        if not twice:
            return
        seen: set[str] = set()
        for name in (request.output for request in self if hash(request.output) in twice):
            if name in seen:
                raise LumiereError(f"{self.path}: two clips would be written to {name}; give each its own output")
            seen.add(name)


def read_prompts(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield what each line of a file of prompts says, one prompt or one JSON object a line, with its number from 1 on.

    Raises:
        LumiereError: an unreadable or empty file, or a bad line (told by number).
    """
    is_empty = True
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    is_empty = False
                    yield number, _parse(line.strip(), f"{path}, line {number}: ")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise LumiereError(f"cannot read the prompts from {path}: {reason}") from error
    if is_empty:
        raise LumiereError(f"{path} holds no prompts; write one a line")


def _parse(line: str, where: str) -> dict[str, Any]:
    if not line.startswith("{"):
        return {"prompt": line}
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise LumiereError(f"{where}no valid JSON ({error.msg}); write a prompt, or an object with one") from error
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        raise LumiereError(f"{where}unknown key {unknown[0]!r}; known: {', '.join(sorted(_KEYS))}")
    for key in ("prompt", "negative_prompt", "output"):
        if not isinstance(entry.get(key, ""), str):
            raise LumiereError(f"{where}{key} is not text")
    seed = entry.get("seed")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise LumiereError(f"{where}the seed {seed!r} is not a whole number from 0 to 2^63 - 1")
    return entry
