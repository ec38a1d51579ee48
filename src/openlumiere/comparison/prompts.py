"""Which clips are made: each prompt of a file with each of its seeds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from openlumiere.errors import LumiereError
from openlumiere.generation.jobs import slug
from openlumiere.generation.prompt_files import read_prompts
from openlumiere.study.pairs import prompt_key

_SLUG = 60  # characters that `slug` keeps


@dataclass(frozen=True)
class Shot:
    """One clip of each model.

    Attributes:
        prompt, seed: what is asked for.
        negative_prompt: "" = as the entry says.
        index: 0 for the first of its prompt's clips.
    """

    prompt: str
    seed: int
    negative_prompt: str = ""
    index: int = 0

    @property
    def key(self) -> str:
        """What prompts are matched by."""
        return prompt_key(self.prompt)

    @property
    def stem(self) -> str:
        """Name of its files, without suffix: by prompt and seed alone, so that more prompts rename none."""
        name = slug(self.prompt)
        if len(name) >= _SLUG:
            name += f"-{hashlib.blake2s(self.key.encode(), digest_size=3).hexdigest()}"
        return f"{name}-{self.seed}"


def read_shots(path: Path, *, seed: int = 0, seeds: int = 1) -> tuple[Shot, ...]:
    """Read a file of prompts, one prompt or one JSON object (prompt, negative_prompt, seed) a line.

    Args:
        seed: of the first clip of each prompt whose line names none.
        seeds: clips of each prompt, with rising seeds.

    Raises:
        LumiereError: an unreadable file, a bad line, or the same prompt twice, told by number.
    """
    shots: list[Shot] = []
    lines: dict[str, int] = {}
    for number, entry in read_prompts(path):
        prompt = entry.get("prompt", "").strip()
        if "output" in entry:
            raise LumiereError(f"{path}, line {number}: output: clips are named after prompt and seed; leave it out")
        key = prompt_key(prompt)
        if not key:
            raise LumiereError(f"{path}, line {number}: the prompt {prompt!r} has neither letters nor digits")
        if key in lines:
            raise LumiereError(f"{path}, line {number}: the prompt of line {lines[key]} again; remove one of them")
        lines[key] = number
        first = entry.get("seed")
        first = seed if first is None else first
        shots += [Shot(prompt, first + i, entry.get("negative_prompt", ""), i) for i in range(seeds)]
    return tuple(shots)
