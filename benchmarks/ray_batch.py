"""Batches on Ray: clips a second by the number of processes, what handing out items costs, memory of a long stream.

`python benchmarks/ray_batch.py` makes clips in this process, then by one and two processes of a cluster on this
machine, checks that none is lost, doubled or other than without Ray, and goes on with items that wait instead, which
tell how fast the cluster hands out work; `--lines 1000000` streams a file of so many prompts.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from openlumiere.batch.cluster import Cluster, connected
from openlumiere.batch.work import Work, run
from openlumiere.generation.backends.base import Loading
from openlumiere.generation.backends.find import load_backend
from openlumiere.generation.clip_work import ClipWork
from openlumiere.generation.prompt_files import PromptFile
from openlumiere.generation.requests import GenerateRequest
from openlumiere.storage import Storage
from report import describe, machine, table, write_json

_HEAD = ["what", "processes", "items", "until first", "a second", "lost", "doubled", "failed", "same bytes"]


@dataclass(frozen=True)
class Waiting(Work[Any, None]):
    """Items that cost nothing but time."""

    seconds: float

    def name(self, item: Any) -> str:
        return str(item)

    def load(self) -> Callable[[Any], None]:
        return self._wait

    def _wait(self, item: Any) -> None:
        if self.seconds:
            time.sleep(self.seconds)


def pace(items: Any, work: Work[Any, Any], cluster: Cluster | None, count: int) -> dict[str, Any]:
    """Make a batch; seconds until the first is told, and items a second from there on."""
    started, first = time.perf_counter(), 0.0
    seen: list[int] = []
    failed = 0
    for outcome in run(items, work, cluster, left=count):
        first = first or time.perf_counter()
        seen.append(outcome.index)
        failed += bool(outcome.error)
    seconds = time.perf_counter() - first
    return {
        "items": count, "until_first": first - started, "per_second": (len(seen) - 1) / seconds if seconds else 0.0,
        "lost": count - len(set(seen)), "doubled": len(seen) - len(set(seen)), "failed": failed,
    }  # fmt: skip


def contents(folder: Path) -> dict[str, str]:
    """The hash of each file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def clips(args: argparse.Namespace, cluster: Cluster, folder: Path) -> Iterator[dict[str, Any]]:
    """Clips in this process, and by so many of a cluster."""
    requests = [
        GenerateRequest(
            prompt=f"a tiger number {n} walking", seed=n, num_frames=args.frames, num_inference_steps=1,
            upscale_steps=0, output=f"{n:05d}.webp",
        )
        for n in range(args.clips)
    ]  # fmt: skip
    loader = partial(load_backend, args.model, Loading(device="cpu"))
    for workers in (0, *args.workers):
        work = ClipWork(loader, Storage(str(folder / f"by-{workers}")))
        row = pace(requests, work, replace(cluster, workers=workers) if workers else None, len(requests))
        same = contents(folder / f"by-{workers}") == contents(folder / "by-0")
        yield {"what": "clips", "workers": workers, **row, "bytes_as_without": same}


def handing_out(args: argparse.Namespace, cluster: Cluster) -> Iterator[dict[str, Any]]:
    """Items that wait, and items that cost nothing, one a task."""
    for workers in args.workers:
        for seconds in (0.5, 0.0):
            row = pace(range(args.items), Waiting(seconds), replace(cluster, workers=workers), args.items)
            yield {"what": f"waits {seconds} s", "workers": workers, **row}


def prompts_of(lines: int, folder: Path) -> PromptFile:
    """A file of so many prompts."""
    file = folder / "prompts.txt"
    with file.open("w", encoding="utf-8") as written:
        written.writelines(f"a tiger number {n} walking to the left on a green background\n" for n in range(lines))
    return PromptFile(path=file, template=GenerateRequest, seed=0)


def checked(prompts: PromptFile, folder: Path) -> dict[str, Any]:
    """Read a file of prompts as `lumiere generate --prompts` does before anything is made: time, memory in MiB."""
    this = psutil.Process()
    before, started = _mib(this), time.process_time()
    exists = Storage(str(folder / "clips")).finder()
    lines = sum(not exists(request.output) for request in prompts.checked())
    return {"lines": lines, "cpu_seconds": time.process_time() - started, "mib": _mib(this), "mib_before": before}


def streamed(prompts: PromptFile, cluster: Cluster, lines: int) -> dict[str, Any]:
    """Stream the prompts through items that cost nothing; memory of this process and of the reader in MiB."""
    this = psutil.Process()
    memory = []
    started = time.perf_counter()
    for number, _ in enumerate(run(prompts, Waiting(0.0), cluster, left=lines), 1):
        if number % max(lines // 10, 1) == 0:
            memory.append(_mib(this))
            readers = [_mib(child) for child in _children(this) if "Items" in child.name()]
            print(f"{number} lines, {time.perf_counter() - started:.0f} s, {memory[-1]} MiB, reader {readers} MiB")
    return {"seconds": time.perf_counter() - started, "mib_at_each_tenth": memory}


def _row(row: dict[str, Any]) -> list[str]:
    return [
        row["what"], str(row["workers"] or "none of Ray"), str(row["items"]), f"{row['until_first']:.1f} s",
        f"{row['per_second']:.2f}", *(str(row[key]) for key in ("lost", "doubled", "failed")),
        {None: "-", True: "yes", False: "NO"}[row.get("bytes_as_without")],
    ]  # fmt: skip


def _children(process: psutil.Process) -> Iterator[psutil.Process]:
    for child in process.children(recursive=True):
        try:
            child.name()
        except psutil.Error:
            continue
        yield child


def _mib(process: psutil.Process) -> int:
    return process.memory_info().rss >> 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=500, help="0 = none; default: 500")
    parser.add_argument("--frames", type=int, default=4, help="of each clip, default: 4")
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes to try, default: 1 2")
    parser.add_argument("--items", type=int, default=200, help="that wait; 0 = none; default: 200")
    parser.add_argument("--lines", type=int, default=0, help="of a file of prompts that is streamed, default: 0")
    parser.add_argument("--dry", action="store_true", help="start no cluster: with --lines, only read the prompts")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(1), "batches": []}
    print(describe(found["machine"]))
    with TemporaryDirectory() as name:
        folder = Path(name)
        if args.lines:
            prompts = prompts_of(args.lines, folder)
            found["checked"] = checked(prompts, folder)
            print(found["checked"], flush=True)
        if not args.dry:
            with connected("local", workers=max(args.workers)) as cluster:
                cluster = replace(cluster, cpus=1)
                for row in chain(
                    clips(args, cluster, folder) if args.clips else (),
                    handing_out(args, cluster) if args.items else (),
                ):
                    found["batches"].append(row)
                    print(*_row(row), flush=True)
                if args.lines:
                    found["streamed"] = streamed(prompts, cluster, args.lines)
            print(table(_HEAD, [_row(row) for row in found["batches"]]))
    if args.json:
        write_json(args.json, found)
    return int(any(row["lost"] or row["doubled"] or not row.get("bytes_as_without", True) for row in found["batches"]))


if __name__ == "__main__":
    raise SystemExit(main())
