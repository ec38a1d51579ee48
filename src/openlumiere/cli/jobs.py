"""The clips that one command is to make: which prompt, seed and file."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

from openlumiere.errors import LumiereError

_TRANSPARENT = re.compile(r"\b(transparent|no|without( an?y?)?) (background|backdrop)", re.IGNORECASE)
_KEYS = {"prompt", "negative_prompt", "seed", "output"}


@dataclass(frozen=True)
class Job:
    """One clip.

    Attributes:
        output: text, as a trailing slash asks for a folder of frames.
        transparent: it is to keep alpha, where model and format have it.
    """

    prompt: str
    negative_prompt: str
    seed: int
    output: str
    transparent: bool = False


def asks_for_transparency(prompt: str) -> bool:
    """Whether a prompt says "on a transparent background", "no background", "without a background"."""
    return _TRANSPARENT.search(prompt) is not None


def from_prompt(
    prompt: str, *, negative: str, seed: int | None, output: str | None, count: int, transparent: bool | None = False,
    suffix: str | None = None,
) -> list[Job]:  # fmt: skip
    """`count` clips of one prompt, seeds counting up; names derived from the prompt never replace a file.

    Args:
        transparent: whether they are to be; None = if the prompt asks for it. Then their names end on .webp.
        suffix: that their names end on instead.
    """
    _check_prompt(prompt, "")
    clear = asks_for_transparency(prompt) if transparent is None else transparent
    return _several(
        prompt, slug(prompt),
        negative=negative, seed=seed, output=output, count=count, transparent=clear, suffix=suffix,
    )  # fmt: skip


def from_source(
    source: str, task: str, prompt: str, *, negative: str, seed: int | None, output: str | None, count: int,
    transparent: bool = False, suffix: str | None = None,
) -> list[Job]:  # fmt: skip
    """`count` clips made of a picture or clip, seeds counting up; default names say of which, and what was done."""
    stem = f"{Path(source).stem or 'clip'}.{task}"
    return _several(
        prompt, stem,
        negative=negative, seed=seed, output=output, count=count, transparent=transparent, suffix=suffix,
    )  # fmt: skip


def _several(
    prompt: str, stem: str, *, negative: str, seed: int | None, output: str | None, count: int, transparent: bool,
    suffix: str | None,
) -> list[Job]:  # fmt: skip
    seed = random_seed() if seed is None else seed
    if output is None:
        names = _free_names(stem, count, suffix or _suffix(transparent))
    elif count == 1:
        names = [output]
    else:
        names = _numbered(output, count)
    return [Job(prompt, negative, seed + i, name, transparent) for i, name in enumerate(names)]


def from_file(
    path: Path, *, negative: str, seed: int | None, folder: Path, count: int, transparent: bool | None = False,
    suffix: str | None = None,
) -> list[Job]:  # fmt: skip
    """The clips that a file of prompts asks for, one prompt or one JSON object a line.

    The seed of a clip hangs on its place in the file alone, so a run that was stopped goes on as it would have.

    Args:
        folder: where the clips go; JSON lines may name their ``output`` in it.
        count: clips of each prompt.
        transparent, suffix: as `from_prompt`.

    Raises:
        LumiereError: an unreadable file, a bad line (told by number), two clips of one name.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise LumiereError(f"cannot read the prompts from {path}: {reason}") from error
    jobs: list[Job] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path}, line {number}: "
            jobs += _from_line(
                line.strip(), where, number,
                negative=negative, seed=seed, folder=folder, count=count, transparent=transparent, suffix=suffix,
            )  # fmt: skip
    if not jobs:
        raise LumiereError(f"{path} holds no prompts; write one a line")
    names = [job.output for job in jobs]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice:
        raise LumiereError(f"{path}: two clips would be written to {twice}; give each its own output")
    return jobs


def _from_line(
    line: str, where: str, number: int, *, negative: str, seed: int | None, folder: Path, count: int,
    transparent: bool | None, suffix: str | None,
) -> list[Job]:  # fmt: skip
    entry = _parse(line, where)
    prompt = entry.get("prompt", "")
    _check_prompt(prompt, where)
    own = entry.get("seed")
    if own is not None and (isinstance(own, bool) or not isinstance(own, int) or not 0 <= own < 2**63):
        raise LumiereError(f"{where}the seed {own!r} is not a whole number from 0 to 2^63 - 1")
    for key in ("negative_prompt", "output"):
        if not isinstance(entry.get(key, ""), str):
            raise LumiereError(f"{where}{key} is not text")
    clear = asks_for_transparency(prompt) if transparent is None else transparent
    output = entry.get("output") or f"{number:05d}-{slug(prompt)}{suffix or _suffix(clear)}"
    if Path(output).is_absolute() or ".." in Path(output).parts:
        raise LumiereError(f"{where}the output {output!r} is not inside the folder given with -o")
    first = own if own is not None else random_seed() if seed is None else seed + (number - 1) * count
    base = f"{folder}/{output}"
    names = [base] if count == 1 else _numbered(base, count)
    against = entry.get("negative_prompt", negative)
    return [Job(prompt, against, first + i, name, clear) for i, name in enumerate(names)]


def _parse(line: str, where: str) -> dict:
    if not line.startswith("{"):
        return {"prompt": line}
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise LumiereError(f"{where}no valid JSON ({error.msg}); write a prompt, or an object with one") from error
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        raise LumiereError(f"{where}unknown key {unknown[0]!r}; known: {', '.join(sorted(_KEYS))}")
    return entry


def _check_prompt(prompt: object, where: str) -> None:
    if not isinstance(prompt, str) or not prompt.strip():
        raise LumiereError(f'{where}the prompt is empty; say what to show, e.g. "a tiger walking to the left"')


def slug(prompt: str) -> str:
    """A file name without suffix: the prompt's letters and digits, words joined by dashes, 60 characters at most."""
    return re.sub(r"[^\w]+|_", "-", prompt.lower()).strip("-")[:60].strip("-") or "clip"


def random_seed() -> int:
    """A seed short enough to be typed again."""
    return random.SystemRandom().randrange(2**31)


def _numbered(name: str, count: int) -> list[str]:
    slash = "/" if name.endswith("/") else ""
    path = Path(name)
    stem, suffix = (path.name, "") if slash else (path.stem, path.suffix)
    width = len(str(count - 1))
    return [f"{path.parent / f'{stem}-{i:0{width}d}{suffix}'}{slash}" for i in range(count)]


def _suffix(transparent: bool) -> str:
    return ".webp" if transparent else ".mp4"


def _free_names(stem: str, count: int, suffix: str) -> list[str]:
    attempt = 1
    while True:
        base = f"{stem}{suffix}" if attempt == 1 else f"{stem}-v{attempt}{suffix}"
        names = [base] if count == 1 else _numbered(base, count)
        if not any(Path(name).exists() for name in names):
            return names
        attempt += 1
