"""All clips of all entries: one model loaded at a time, what is there skipped, failures listed."""

from __future__ import annotations

import errno
import gc
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from openlumiere import files
from openlumiere.errors import LumiereError
from openlumiere.evaluation.memory import peak_mib, restart_peak
from openlumiere.generation.backends.base import Backend, Loading
from openlumiere.generation.backends.find import load_backend
from openlumiere.generation.progress import Progress
from openlumiere.video import read_clip, write_clip

from .entries import Entry
from .pictures import first_frame
from .plan import OWN, SUFFIXES, Plan, asked_of
from .prompts import Shot

_MIN_SIDE = 128  # pixels, as of the clips that are made


@dataclass(frozen=True)
class Failure:
    """A clip that could not be made, and why, in one line."""

    entry: Entry
    shot: Shot
    reason: str


def make_clips(
    plan: Plan, of_all: Loading, *, report: Callable[[str], None] = print, progress: bool = True
) -> list[Failure]:
    """Make what is missing of a comparison's clips.

    Args:
        of_all: how models are loaded, where their entries do not say otherwise.
        report: told in lines what a model changed of what it was asked for, and what failed.
        progress: show a bar for each entry, with clips a second and the time left.

    Returns:
        What failed, which the next call tries again.

    Raises:
        LumiereError: clips cannot be written.
    """
    failures: list[Failure] = []
    for number, entry in enumerate(plan.entries, 1):
        wanted = [shot for shot in plan.shots if plan.is_wanted(entry, shot)]
        missing = [shot for shot in wanted if plan.clip(entry, shot) is None]
        there = len(wanted) - len(missing)
        report(
            f"{number} of {len(plan.entries)}, {entry.name}: {len(missing)} clips to "
            f"{'copy' if entry.clips else 'make'}, {there} already there and skipped"
        )
        folder = plan.folder / entry.folder
        folder.mkdir(parents=True, exist_ok=True)
        files.remove_leftovers(folder)
        if missing and entry.clips:
            failures += _copy(plan, entry, missing, report)
        elif missing:
            failures += _make(
                plan, entry, missing, entry.loading(of_all), report, partial(_bar, entry, there, progress)
            )
    return failures


def _bar(entry: Entry, there: int, progress: bool, count: int) -> tqdm:
    """A bar with clips a second, and the time left, of the clips that are made now."""
    return tqdm(
        total=there + count, initial=there, desc=entry.name, unit="clip", disable=not progress,
        mininterval=0.1 if sys.stderr.isatty() else 5.0,
    )  # fmt: skip


def _copy(plan: Plan, entry: Entry, missing: Sequence[Shot], report: Callable[[str], None]) -> list[Failure]:
    failures = []
    for shot in missing:
        try:
            _put(plan.given[entry.name][shot.key], plan, entry, shot)
        except LumiereError as error:
            failures.append(_failed(entry, shot, error, report))
    return failures


def _put(source: Path, plan: Plan, entry: Entry, shot: Shot) -> None:
    """Bring a clip of another program into the comparison: as it is, if browsers play it."""
    files.write_json(plan.record(entry, shot), {"source": str(source)})
    suffix = source.suffix.lower()
    if suffix in SUFFIXES:
        with files.replacing(plan.path(entry, shot, suffix)) as unfinished:
            shutil.copyfile(source, unfinished)
        return
    clip = read_clip(source)
    write_clip(clip.frames, plan.path(entry, shot), fps=clip.fps, min_side=_MIN_SIDE)


def _make(
    plan: Plan,
    entry: Entry,
    missing: Sequence[Shot],
    loading: Loading,
    report: Callable[[str], None],
    new_bar: Callable[[int], tqdm],
) -> list[Failure]:
    try:
        backend = load_backend(entry.model, loading)
    except Exception as error:  # whatever a library raises: the other models can be compared all the same
        report(f"{entry.name} cannot be loaded: {files.one_line(error)}")
        return [_failed(entry, shot, error, None) for shot in missing]
    for note in backend.notes:
        report(f"{entry.name}: {note}")
    failures: list[Failure] = []
    told: set[str] = set()
    with new_bar(len(missing)) as bar:
        for shot in missing:
            try:
                changes = _make_one(plan, entry, shot, backend, bar)
            except Exception as error:
                if _is_disk_full(error):
                    raise  # no other clip can be written either
                failures.append(_failed(entry, shot, error, report))
            else:
                for change in sorted(set(changes) - told):
                    report(f"{entry.name}: {change}")
                told.update(changes)
            bar.update()
    del backend
    _release()
    return failures


def _make_one(plan: Plan, entry: Entry, shot: Shot, backend: Backend, bar: tqdm) -> tuple[str, ...]:
    from openlumiere.generation.make import make

    picture = _picture(plan, entry, shot)
    request = plan.request(entry, shot, picture)
    record: dict[str, Any] = {"asked": asked_of(entry, request)}
    files.write_json(plan.record(entry, shot), record)  # first: who finds a clip finds how it was made

    def show(now: Progress) -> None:
        bar.set_postfix_str(f"{now.stage} {now.step}/{now.total}" if now.total else now.stage, refresh=False)
        bar.update(0)

    restarted = restart_peak(backend.device)
    started = time.perf_counter()
    made = make(request, backend, progress=show)
    record |= {"seconds": time.perf_counter() - started, "changes": list(made.changes)}
    if backend.device:  # else another machine's memory
        peak = peak_mib(backend.device)
        record |= {"peak_mib": peak} if restarted and peak is not None else {}
        record |= {"peak_of": backend.device.partition(":")[0]}
    files.write_json(plan.record(entry, shot), record)
    return made.changes


def _picture(plan: Plan, entry: Entry, shot: Shot) -> Path | None:
    """What a clip starts from."""
    if not plan.starts_from_picture(entry):
        return None
    if entry.picture_from is None:
        return plan.pictures[entry.name][shot.key]
    other = plan.entry(entry.picture_from)
    first = next(each for each in plan.shots if each.key == shot.key)
    clip = plan.clip(other, shot) or plan.clip(other, first)  # folders have one clip of a prompt
    if clip is None:
        raise LumiereError(f"there is no clip of {other.name} to start from")
    return first_frame(clip, plan.folder / OWN / "pictures" / other.folder / f"{clip.stem}.png")


def _failed(entry: Entry, shot: Shot, error: BaseException, report: Callable[[str], None] | None) -> Failure:
    failure = Failure(entry, shot, files.one_line(error))
    if report is not None:
        report(f"failed: {entry.name}, {shot.prompt!r}, seed {shot.seed}: {failure.reason}")
    return failure


def _is_disk_full(error: Exception) -> bool:
    return any(getattr(each, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for each in (error, error.__cause__))


def _release() -> None:
    """Give back the memory of a model, before the next one is loaded."""
    gc.collect()
    with suppress(Exception):
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
