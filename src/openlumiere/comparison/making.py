"""All clips of all entries: one model loaded at a time, what is there skipped, failures listed."""

from __future__ import annotations

import gc
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from openlumiere import files
from openlumiere.batch.cluster import Cluster
from openlumiere.batch.work import Work, run
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
    plan: Plan,
    of_all: Loading,
    *,
    cluster: Cluster | None = None,
    report: Callable[[str], None] = print,
    progress: bool = True,
) -> list[Failure]:
    """Make what is missing of a comparison's clips.

    Args:
        of_all: how models are loaded, where their entries do not say otherwise.
        cluster: makes the clips; None = this process.
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
        for each in (folder, plan.folder / OWN / entry.folder):
            files.remove_leftovers(each)
        if missing and entry.clips:
            failures += _copy(plan, entry, missing, report)
        elif missing:
            with _bar(entry, there, progress, len(missing)) as bar:
                failures += _make(EntryWork(plan, entry, entry.loading(of_all)), missing, cluster, report, bar)
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
            failures.append(_failed(entry, shot, files.one_line(error), report))
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


@dataclass(frozen=True)
class EntryWork(Work[Shot, "tuple[str, ...]"]):
    """Makes an entry's clips; tells of each the model's notes, and what was changed of what it was asked for."""

    plan: Plan
    entry: Entry
    loading: Loading
    show: Callable[[Progress], None] | None = None

    def name(self, item: Shot) -> str:
        return self.plan.path(self.entry, item).name

    def folder(self) -> Path:
        return self.plan.folder

    def is_done(self, item: Shot) -> bool:
        return self.plan.clip(self.entry, item) is not None

    def load(self) -> Callable[[Shot], tuple[str, ...]]:
        return partial(self._make, load_backend(self.entry.model, self.loading))

    def _make(self, backend: Backend, shot: Shot) -> tuple[str, ...]:
        from openlumiere.generation.make import make

        picture = _picture(self.plan, self.entry, shot)
        request = self.plan.request(self.entry, shot, picture)
        record: dict[str, Any] = {"asked": asked_of(self.entry, request)}
        path = self.plan.record(self.entry, shot)
        files.write_json(path, record)  # first: who finds a clip finds how it was made
        restarted = restart_peak(backend.device)
        started = time.perf_counter()
        made = make(request, backend, progress=self.show)
        record |= {"seconds": time.perf_counter() - started, "changes": list(made.changes)}
        if backend.device:  # else another machine's memory
            peak = peak_mib(backend.device)
            record |= {"peak_mib": peak} if restarted and peak is not None else {}
            record |= {"peak_of": backend.device.partition(":")[0]}
        files.write_json(path, record)
        return (*backend.notes, *made.changes)


def _make(
    work: EntryWork, missing: Sequence[Shot], cluster: Cluster | None, report: Callable[[str], None], bar: tqdm
) -> list[Failure]:
    """Make an entry's clips; whatever a library raises, the other entries can be compared all the same."""

    def show(now: Progress) -> None:
        bar.set_postfix_str(f"{now.stage} {now.step}/{now.total}" if now.total else now.stage, refresh=False)
        bar.update(0)

    entry, left = work.entry, dict(enumerate(missing))
    failures: list[Failure] = []
    told: set[str] = set()
    here = replace(work, show=show) if cluster is None else work
    try:
        for outcome in run(missing, here, cluster, left=len(missing), report=report):
            shot = left.pop(outcome.index)
            if outcome.error:
                failures.append(_failed(entry, shot, outcome.error, report))
            for line in dict.fromkeys(outcome.value or ()):
                if line not in told:
                    report(f"{entry.name}: {line}")
            told.update(outcome.value or ())
            bar.update()
    except Exception as error:
        if files.is_disk_full(error):
            raise  # no other clip can be written either
        reason = files.one_line(error)
        report(f"{entry.name} cannot be loaded: {reason}")
        failures += [_failed(entry, shot, reason, None) for shot in left.values()]
    finally:
        _release()
    return failures


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


def _failed(entry: Entry, shot: Shot, reason: str, report: Callable[[str], None] | None) -> Failure:
    if report is not None:
        report(f"failed: {entry.name}, {shot.prompt!r}, seed {shot.seed}: {reason}")
    return Failure(entry, shot, reason)


def _release() -> None:
    """Give back the memory of a model, before the next one is loaded."""
    gc.collect()
    with suppress(Exception):
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
