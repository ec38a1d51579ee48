"""Many clients of one `lumiere serve`: is anything lost or doubled, is memory flat, does the page keep answering?

A real server with real workers; each client asks for a short clip, waits for it, fetches it, and asks for the next. All
seeds differ. In the end every clip that was taken must be there once, finished, and made with its own seed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

import report
from openlumiere.video import read_metadata

_PROMPT = "a tiger walking to the left on a green background"
_FINAL = ("completed", "failed")
_POLL_SECONDS = 1.0  # as the server asks clients to
_PROBE_SECONDS = 0.5  # between two looks at the page
_MEMORY_SECONDS = 2.0  # between two looks at the processes
_PAGES = {"page": "/", "list": "/v1/videos?limit=20"}
_MEDIAN_SECONDS = 0.1  # that the page may take, in the median
_GROWTH = 0.05  # that memory may grow by, from the second quarter of the time to the last
_EXAMPLES = """
examples:
  python benchmarks/serve_load.py                                  # 50 clients, 10 minutes
  python benchmarks/serve_load.py --minutes 1 --clients 8 --json load.json
  python benchmarks/serve_load.py --workers 2 --database-url postgresql://lumiere@127.0.0.1/lumiere
"""


@dataclass
class Seen:
    """What was seen in all the time.

    Attributes:
        seeds: of the clips that the server took, by id.
        ended: status of each that ended, by id.
        clips: hash of each finished file, by id.
        seconds: from asking for a clip to having it.
        answers: seconds to each answer, of each of `_PAGES`.
        memory: (seconds since the start, bytes of the server, bytes of all workers).
        problems: what went wrong, counted.
        refused: answers that the queue is full.
    """

    seeds: dict[str, int] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    clips: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    answers: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _PAGES})
    memory: list[tuple[float, int, int]] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)
    refused: int = 0


def main() -> int:
    """Measure, print, write; 1 if something is not as it should be."""
    args = _arguments()
    found = report.machine(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    print(report.describe(found), file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="lumiere-load-") as folder:
        data = args.data or Path(folder)
        server, url = _started(args, data)
        began = time.monotonic()
        try:
            seen = asyncio.run(_load(args, url, psutil.Process(server.pid)))
            taken = time.monotonic() - began
            asyncio.run(_check_list(url, seen))
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
        if not args.results:
            _check_files(data / "results", seen)
    rows, wrong = _judged(seen, taken)
    print(report.table(["", "figure"], rows))
    for line in wrong:
        print(f"WRONG: {line}")
    if args.json:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
        settings.pop("database_url")  # may hold a password
        figures = {"clips": len(seen.clips), "seconds": seen.seconds, "answers": seen.answers, "memory": seen.memory,
                   "refused": seen.refused, "problems": dict(seen.problems), "wall_seconds": taken}  # fmt: skip
        content = {"machine": found, "settings": settings, "table": dict(rows), "wrong": wrong, "results": figures}
        report.write_json(args.json, content)
    return 1 if wrong else 0


# ------------------------------------------------------------------------------------------------ the load


def _started(args: argparse.Namespace, data: Path) -> tuple[subprocess.Popen[str], str]:
    """The server, and its address."""
    room = str(2 * args.clients)
    command = [
        sys.executable, "-m", "openlumiere.cli", "serve", "--port", "0", "--data", str(data), "--workers",
        str(args.workers), "--model", args.model, "--queue-limit", room, "--queue-limit-per-key", room,
        "--rate", "1000000", "--database-url", args.database_url, "--results", args.results,
    ]  # fmt: skip
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    words = server.stdout.readline().split()
    if len(words) < 2:
        raise SystemExit("the server did not start; what it said stands above")
    return server, words[1].rstrip("/")


async def _load(args: argparse.Namespace, url: str, server: psutil.Process) -> Seen:
    seen, stop = Seen(), asyncio.Event()
    limits = httpx.Limits(max_connections=args.clients + 10)
    crowd = httpx.AsyncClient(base_url=url, timeout=120, limits=limits, trust_env=False)
    visitor = httpx.AsyncClient(base_url=url, timeout=120, trust_env=False)
    async with crowd, visitor:
        await _ready(crowd)
        until = time.monotonic() + 60 * args.minutes
        watching = [asyncio.create_task(_visit(visitor, seen, stop)), asyncio.create_task(_weigh(server, seen, stop))]
        await asyncio.gather(*(_client(crowd, seen, args, number, until) for number in range(args.clients)))
        stop.set()
        await asyncio.gather(*watching)
    return seen


async def _ready(http: httpx.AsyncClient) -> None:
    """Wait until a worker has loaded its model: starting is not what is measured."""
    for _ in range(1200):
        if (await http.get("/readyz")).status_code == 200:
            answer = await http.post("/v1/videos", json={"prompt": _PROMPT, "num_frames": 8, "num_inference_steps": 1})
            while (await http.get(f"/v1/videos/{answer.json()['id']}")).json()["status"] not in _FINAL:
                await asyncio.sleep(_POLL_SECONDS)
            await http.delete(f"/v1/videos/{answer.json()['id']}")
            return
        await asyncio.sleep(0.5)
    raise SystemExit("no worker was ready after ten minutes")


async def _client(http: httpx.AsyncClient, seen: Seen, args: argparse.Namespace, number: int, until: float) -> None:
    """Ask for one clip after the other; the last is waited for after the time is over."""
    seed = 1_000_000 * number
    while time.monotonic() < until:
        seed += 1
        try:
            await _one(http, seen, args, seed)
        except httpx.HTTPError as error:
            seen.problems[f"{type(error).__name__} of a client"] += 1
            await asyncio.sleep(_POLL_SECONDS)


async def _one(http: httpx.AsyncClient, seen: Seen, args: argparse.Namespace, seed: int) -> None:
    began = time.monotonic()
    asked = {"prompt": _PROMPT, "seed": seed, "num_frames": args.frames, "num_inference_steps": args.steps}
    answer = await http.post("/v1/videos", json=asked)
    if answer.status_code == 429:
        seen.refused += 1
        await asyncio.sleep(min(float(answer.headers["retry-after"]), 10))
        return
    if answer.status_code != 200:
        seen.problems[f"status {answer.status_code} to a request"] += 1
        return
    id = answer.json()["id"]
    seen.seeds[id] = seed
    video = await _followed(http, seen, id)
    seen.ended[id] = video["status"]
    if video["status"] == "completed":
        clip = await http.get(f"/v1/videos/{id}/content", params={"format": "webp"})
        if clip.status_code == 200:
            seen.clips[id] = hashlib.sha256(clip.content).hexdigest()
            seen.seconds.append(time.monotonic() - began)
        else:
            seen.problems[f"status {clip.status_code} to a finished clip"] += 1
        if video["seed"] != seed:
            seen.problems["another seed was told"] += 1


async def _followed(http: httpx.AsyncClient, seen: Seen, id: str) -> dict[str, Any]:
    """Ask for a clip's state until it is over, after connections that broke too."""
    while True:
        try:
            video: dict[str, Any] = (await http.get(f"/v1/videos/{id}")).json()
            if video["status"] in _FINAL:
                return video
        except httpx.TransportError as error:
            seen.problems[f"{type(error).__name__} of a client"] += 1
        await asyncio.sleep(_POLL_SECONDS)


async def _visit(http: httpx.AsyncClient, seen: Seen, stop: asyncio.Event) -> None:
    """Open the page and the list of clips, again and again."""
    while not stop.is_set():
        for name, address in _PAGES.items():
            began = time.perf_counter()
            answer = await http.get(address)
            seen.answers[name].append(time.perf_counter() - began)
            if answer.status_code != 200:
                seen.problems[f"status {answer.status_code} of the {name}"] += 1
        await asyncio.sleep(_PROBE_SECONDS)


async def _weigh(server: psutil.Process, seen: Seen, stop: asyncio.Event) -> None:
    """Note the memory of the server and of its workers."""
    began = time.monotonic()
    while not stop.is_set():
        workers = [child for child in server.children() if "openlumiere.app.workers.worker" in child.cmdline()]
        memory = server.memory_info().rss, sum(worker.memory_info().rss for worker in workers)
        seen.memory.append((round(time.monotonic() - began, 1), *memory))
        await asyncio.sleep(_MEMORY_SECONDS)


# ------------------------------------------------------------------------------------------------ what must hold


async def _check_list(url: str, seen: Seen) -> None:
    """Compare the server's list with what clients were told."""
    listed: list[dict[str, Any]] = []
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as http:
        more: dict[str, Any] = {"has_more": True, "last_id": None}
        while more["has_more"]:
            after = {} if more["last_id"] is None else {"after": more["last_id"]}
            more = (await http.get("/v1/videos", params={"limit": 100, "order": "asc", **after})).json()
            listed += more["data"]
    ids = Counter(video["id"] for video in listed)
    seen.problems["lost from the list"] += len(set(seen.seeds) - set(ids))
    seen.problems["listed twice"] += sum(count - 1 for count in ids.values())
    seen.problems["listed, and never asked for"] += len(set(ids) - set(seen.seeds))
    for video in listed:
        if video["status"] != seen.ended.get(video["id"]):
            seen.problems[f"listed as {video['status']}, and told otherwise"] += 1


def _check_files(results: Path, seen: Seen) -> None:
    """Read each finished clip: one for each id, made with its seed, and no two alike."""
    for id, digest in seen.clips.items():
        path = results / id / "clip.webp"
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            seen.problems["another file is kept than was given"] += 1
        elif read_metadata(path).get("seed") != seen.seeds[id]:
            seen.problems["another seed in the file"] += 1
    seen.problems["clips alike"] += len(seen.clips) - len(set(seen.clips.values()))
    seen.problems["unfinished files"] += len(list(results.rglob(".*")))


def _judged(seen: Seen, taken: float) -> tuple[list[list[str]], list[str]]:
    """The table, and what is not as it should be."""
    wrong = [f"{count} x {what}" for what, count in sorted(seen.problems.items()) if count]
    lost = len(seen.seeds) - len(seen.clips)
    if lost:
        wrong.append(f"{lost} clips were taken and not made: {dict(Counter(seen.ended.values()))}")
    rows = [
        ["clips asked for, made", f"{len(seen.seeds)}, {len(seen.clips)}"],
        ["clips a minute", f"{60 * len(seen.clips) / taken:.1f}"],
        ["seconds to a clip, median, p95", _two(seen.seconds, 1, "s")],
        ["refused for a full queue", str(seen.refused)],
    ]
    for name, answers in seen.answers.items():
        rows.append([f"GET {_PAGES[name]}, median, p95, of {len(answers)}", _two(answers, 1000, "ms")])
        if answers and statistics.median(answers) >= _MEDIAN_SECONDS:
            wrong.append(f"GET {_PAGES[name]} takes {statistics.median(answers) * 1000:.0f} ms in the median")
    for place, name in enumerate(("server", "workers"), 1):
        early, late = _quarter(seen.memory, place, 1), _quarter(seen.memory, place, 3)
        rows.append([f"memory of the {name}, second and last quarter", f"{early / 2**20:.0f}, {late / 2**20:.0f} MiB"])
        if late > early * (1 + _GROWTH):
            wrong.append(f"memory of the {name} grew by {(late / early - 1) * 100:.1f} %")
    return rows, wrong


def _quarter(memory: list[tuple[float, int, int]], place: int, number: int) -> float:
    """The median of one quarter of the time, bytes."""
    part = memory[len(memory) * number // 4 : len(memory) * (number + 1) // 4] or memory
    return statistics.median(sample[place] for sample in part)


def _two(values: list[float], scale: float, unit: str) -> str:
    if not values:
        return "-"
    p95 = sorted(values)[min(int(0.95 * len(values)), len(values) - 1)]
    return f"{statistics.median(values) * scale:.1f}, {p95 * scale:.1f} {unit}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=10, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--model", default="emoji", help="default: %(default)s")
    parser.add_argument("--frames", type=int, default=16, help="of a clip, default: %(default)s")
    parser.add_argument("--steps", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--data", type=Path, metavar="DIR", help="empty folder for the server; default: one for now")
    parser.add_argument("--database-url", default="", metavar="URL", help="an empty one; default: SQLite")
    parser.add_argument("--results", default="", metavar="ADDRESS", help="as of lumiere serve")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and the machine")
    args = parser.parse_args()
    if min(args.clients, args.workers, args.frames, args.steps) < 1 or args.minutes <= 0:
        parser.error("all numbers must be above 0")
    return args


if __name__ == "__main__":
    sys.exit(main())
