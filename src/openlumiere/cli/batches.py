"""Batches of clips: made here one by one, or on a cluster; what came of each, and what failed."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from openlumiere.errors import LumiereError
from openlumiere.files import remove_leftovers
from openlumiere.generation.requests import GenerateRequest, Request

from . import marking, options, running
from .progress import ProgressBars, Stopwatch

if TYPE_CHECKING:
    from openlumiere.batch.work import Outcome
    from openlumiere.generation.clip_work import ClipMade
    from openlumiere.generation.prompt_files import PromptFile
    from openlumiere.storage import Storage

_LISTED = 20  # of the failed ones, at the end: each was told when it failed


def make_batch(prompts: PromptFile, storage: Storage, args: argparse.Namespace) -> int:
    """Make the clips of a file of prompts that are not there yet, here or on a cluster; return the exit code."""
    from openlumiere.batch.work import run
    from openlumiere.generation.clip_work import ClipWork

    count, there = _checked(prompts, storage)
    print(f"{count - there} clips to make, {there} already there and skipped", flush=True)
    if count == there:
        return 0
    if storage.folder is not None:
        remove_leftovers(storage.folder)
    watch = Stopwatch()
    marker = marking.marker(args)  # first: without keys nothing slow is begun
    with options.cluster(args) as cluster:
        shown: _OneByOne | _Together
        if cluster is None:
            shown = _OneByOne(count - there, watch)
            work = ClipWork(partial(running.load, args, watch), storage, shown.bars, marker)
        else:
            shown = _Together(count, there)
            load = partial(running.load_quietly, args.model, options.loading(args), args.debug)
            work = ClipWork(load, storage, marker=marker)
        with closing(shown):
            outcomes = run(
                prompts, work, cluster, left=count - there, starting=shown.starting, report=shown.say,
            )  # fmt: skip
            failed = _follow(outcomes, storage, shown)
    print(watch.report())
    return list_failed(failed)


def _checked(prompts: PromptFile, storage: Storage) -> tuple[int, int]:
    """Count a batch's clips, and those that are there; refuse what cannot be made or written."""
    from openlumiere.generation.inputs import check_files

    exists = storage.finder()
    kinds: dict[str, GenerateRequest] = {}  # one of each kind of file
    count = there = 0
    for request in prompts.checked():
        count += 1
        there += exists(request.output)
        kinds.setdefault("/" if request.output.endswith("/") else Path(request.output).suffix, request)
    if storage.folder is None and not {"", "/"}.isdisjoint(kinds):
        raise LumiereError(f"folders of frames cannot go to {storage}; choose a file format, such as .webp")
    folder = storage.folder or Path(tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    for kind, request in kinds.items():
        check_files(replace(request, output=f"{folder}/new{kind}"))
    return count, there


def _follow(
    outcomes: Iterable[Outcome[ClipMade]], storage: Storage, shown: _OneByOne | _Together
) -> list[tuple[str, str]]:
    """Tell what comes of the clips; return those that failed, with the reasons."""
    failed, told = [], set()
    for outcome in outcomes:
        shown.finished()
        if outcome.error:
            failed.append((outcome.name, outcome.error))
            shown.say(f"failed: {outcome.name}: {outcome.error}")
        if outcome.value is None:
            continue
        for line in outcome.value.lines:
            if line not in told:
                told.add(line)
                shown.say(options.in_options(line))
        shown.made(f"{storage}/{outcome.name}", outcome.value)
    return failed


def list_failed(failed: Sequence[tuple[str, str]]) -> int:
    """List what could not be made, each with its reason, at the end; return the exit code."""
    if not failed:
        return 0
    for name, reason in failed[:_LISTED]:
        print(f"  {name}: {reason}", file=sys.stderr)
    if len(failed) > _LISTED:
        print(f"  and {len(failed) - _LISTED} more", file=sys.stderr)
    print(f"lumiere: {len(failed)} clips could not be made; run it again to try them again", file=sys.stderr)
    return 1


class _OneByOne:
    """Shows clips that this process makes: of each its prompt and its steps."""

    def __init__(self, count: int, watch: Stopwatch) -> None:
        self.bars = ProgressBars(watch)
        self._count, self._done, self._started = count, 0, 0.0

    def starting(self, request: Request) -> None:
        """Say which clip is made, and from the second on how long all that are left will take."""
        pace = ""
        if self._done:
            each = (time.perf_counter() - self._started) / self._done
            pace = f" ({each:.1f} s each, {tqdm.format_interval(each * (self._count - self._done))} left)"
        else:
            self._started = time.perf_counter()
        if self._count > 1:
            self.say(f"clip {self._done + 1} of {self._count}{pace}: {request.prompt}")

    def finished(self) -> None:
        """End a clip's bars."""
        self.close()
        self._done += 1

    def made(self, path: str, clip: ClipMade) -> None:
        """Say where a clip is."""
        self.say(f"wrote {path} (seed {clip.seed}){f': {clip.note}' if clip.note else ''}")

    def say(self, line: str) -> None:
        """Print a line."""
        print(line, flush=True)

    def close(self) -> None:
        """End all bars."""
        self.bars.close()


class _Together:
    """Shows clips that a cluster makes: one bar, with their rate and the time left."""

    def __init__(self, count: int, there: int) -> None:
        self._bar = tqdm(
            total=count, initial=there, desc="clips", unit="clip", mininterval=0.1 if sys.stderr.isatty() else 5.0
        )

    def starting(self, request: Request) -> None:
        """Say nothing: many start at once."""

    def finished(self) -> None:
        """Count a clip."""
        self._bar.update()

    def made(self, path: str, clip: ClipMade) -> None:
        """Say nothing: there may be a million."""

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.clear()
        print(line, flush=True)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()
