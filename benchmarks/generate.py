"""`lumiere generate` as a user runs it: a new process each time, from start to the written file.

Wall clock is from fork to exit; CPU time and peak resident memory are what the kernel counted for the process (wait4).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import report

_PROMPT = "a tiger walking to the left on a green background"
_EXAMPLES = """
examples:
  python benchmarks/generate.py
  python benchmarks/generate.py --no-upscale
  python benchmarks/generate.py --runs 5 --threads 1 --json generate.json
  python benchmarks/generate.py --model FOLDER --frames 16 --steps 2
"""
# ru_maxrss is in KiB, but on macOS in bytes.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Run:
    """One process.

    Attributes:
        wall, user, system: seconds.
        peak_rss: bytes.
        stages: seconds of each, as the command prints them.
    """

    wall: float
    user: float
    system: float
    peak_rss: int
    stages: dict[str, float]


def main() -> int:
    """Measure, print, write."""
    args = _arguments()
    print(report.describe(found := report.machine(args.threads)))
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "openlumiere.cli", "generate", args.prompt, "--seed", "0"]
        for key in ("model", "frames", "steps", "device"):
            value = getattr(args, key)
            command += [] if value is None else [f"--{key}", str(value)]
        command += ["--no-upscale"] if args.no_upscale else []
        for number in range(args.runs):
            print(f"run {number + 1} of {args.runs}", file=sys.stderr, flush=True)
            clip = Path(folder) / f"{number}.mp4"
            try:
                runs.append(_run([*command, "-o", str(clip)], args.threads))
            except RuntimeError as error:
                print(f"generate.py: error: {error}", file=sys.stderr)
                return 2
            if not clip.exists():
                print(f"generate.py: error: the command succeeded but wrote no {clip}", file=sys.stderr)
                return 1
    rows = [
        [str(i + 1), f"{r.wall:.1f}", f"{r.user:.1f}", f"{r.system:.1f}", f"{r.peak_rss / 1e9:.2f}", _stages(r.stages)]
        for i, r in enumerate(runs)
    ]
    print("\n" + report.table(["run", "wall s", "user s", "system s", "peak GB", "stages"], rows))
    wall, peak = [r.wall for r in runs], max(r.peak_rss for r in runs)
    print(f"\nwall clock: min {min(wall):.1f} s, median {median(wall):.1f} s; peak memory {peak / 1e9:.2f} GB")
    for what, value, aim, unit in (
        ("wall clock, median", median(wall), args.max_seconds, "s"),
        ("peak memory", peak / 1e9, args.max_gb, "GB"),
    ):
        print(f"{what}: {value:.2f} {unit}, aim {aim:g} {unit}: {'reached' if value <= aim else 'missed'}")
    if args.json:
        settings = {key: value for key, value in vars(args).items() if key != "json"}
        report.write_json(args.json, {"machine": found, "settings": settings, "runs": [asdict(r) for r in runs]})
    return 0


def _run(command: list[str], threads: int) -> Run:
    """Run the command to its end.

    Raises:
        RuntimeError: it failed; with its last line.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            said = errors.read().strip().splitlines() or ["(it said nothing)"]
            raise RuntimeError(f"lumiere generate ended with {process.returncode}: {said[-1]}")
        stages = {name: float(s) for name, s in re.findall(r"(\w+) ([\d.]+) s(?:,|$)", output.read().strip())}
    return Run(wall, usage.ru_utime, usage.ru_stime, usage.ru_maxrss * _RSS_UNIT, stages)


def _stages(stages: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in stages.items())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prompt", nargs="?", default=_PROMPT, help="default: %(default)s")
    parser.add_argument("--runs", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--model", default="emoji", help="default: %(default)s")
    parser.add_argument("--frames", type=int, default=80, help="default: %(default)s")
    parser.add_argument("--steps", type=int, help="default: the model's")
    parser.add_argument("--device", help="default: the command's")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all cores, %(default)s")
    parser.add_argument("--no-upscale", action="store_true", help="the base model alone")
    parser.add_argument("--max-seconds", type=float, help="the aim, default: 120, and 60 with --no-upscale")
    parser.add_argument("--max-gb", type=float, help="the aim, default: 4, and 3 with --no-upscale")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and the machine")
    args = parser.parse_args()
    if args.runs < 1 or args.threads < 1:
        parser.error("--runs and --threads must be 1 or more")
    args.max_seconds = args.max_seconds or (60 if args.no_upscale else 120)
    args.max_gb = args.max_gb or (3 if args.no_upscale else 4)
    return args


if __name__ == "__main__":
    sys.exit(main())
