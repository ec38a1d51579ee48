"""How memory and time grow with a clip's length, in windows and in one pass.

A model's second stage (or its base) takes denoising steps over clips of several lengths: in its windows, merged at
every step, and over all frames at once. Memory is what PyTorch allocated beyond the weights; see measure.py. What the
windows' memory still grows by from length to length is the clip itself: its noise, the soft clip beside it, the
solver's own copies, and the frames that are returned.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import report

if TYPE_CHECKING:
    import torch

# Read when PyTorch loads: by OpenMP, as `lumiere` sets it, and by the profiler, which would log its every start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

_EXAMPLES = """
examples:
  python benchmarks/windows.py
  python benchmarks/windows.py --frames 80,400 --batch 4
  python benchmarks/windows.py --stage base --frames 80,160,240,400 --json base.json
"""


def main() -> int:
    """Measure, print, write."""
    args = _arguments()
    import torch

    from measure import peak_bytes, seconds
    from openlumiere.errors import LumiereError
    from openlumiere.pipelines.load import load_pipeline

    torch.set_num_threads(args.threads)
    print(report.describe(found := report.machine(args.threads)))
    try:
        pipe = load_pipeline(args.model, device=args.device)
    except LumiereError as error:
        print(f"windows.py: error: {error}", file=sys.stderr)
        return 2
    pipe.set_progress_bar_config(disable=True)
    stage = pipe if args.stage == "base" else pipe.super_resolution
    if stage is None:
        print(f"windows.py: error: {args.model} has no second stage; say --stage base", file=sys.stderr)
        return 2
    side = pipe.unet.spatial.config["sample_size"] * pipe.config.pixel_unshuffle
    window = stage.config.window_frames
    rows: list[dict[str, Any]] = []
    for num_frames in args.frames:
        for way, length in (("windows", window), ("one pass", num_frames)):
            if way == "one pass" and num_frames <= window:
                continue  # one window is one pass

            def step(num_frames: int = num_frames, length: int = length) -> None:
                options: dict[str, Any] = {
                    "num_inference_steps": args.steps,
                    "window_frames": length,
                    "window_batch_size": args.batch,
                    "offload_frames": args.offload,
                    "generator": torch.Generator().manual_seed(0),
                }
                if args.stage == "base":
                    pipe("a tiger", num_frames=num_frames, upscale=False, **options)
                else:
                    stage(soft(num_frames, side), **options)

            print(f"{num_frames} frames, {way}", file=sys.stderr, flush=True)
            step()
            taken = min(seconds(step, stage.device) for _ in range(args.rounds))
            rows.append({"frames": num_frames, "way": way, "seconds": taken, "bytes": peak_bytes(step, stage.device)})
    print(f"\n{args.stage} of {args.model}, windows of {window}, {args.batch} at a time, {args.steps} step(s)")
    print(_table(rows, args.frames))
    if args.json:
        settings = {key: value for key, value in vars(args).items() if key != "json"}
        report.write_json(args.json, {"machine": found, "settings": settings, "window": window, "results": rows})
    return 0


def soft(num_frames: int, side: int) -> torch.Tensor:
    """A clip to sharpen, (F, 3, side, side) in [0, 1]."""
    import torch

    return torch.rand(num_frames, 3, side, side, generator=torch.Generator().manual_seed(0))


def _table(rows: list[dict[str, Any]], frames: list[int]) -> str:
    by = {(row["frames"], row["way"]): row for row in rows}
    cells = []
    for num_frames in frames:
        line = [str(num_frames)]
        for way in ("windows", "one pass"):
            row = by.get((num_frames, way))
            line += [f"{row['seconds']:.2f}", f"{row['bytes'] / 2**20:.0f}"] if row else ["-", "-"]
        cells.append(line)
    return report.table(["frames", "windows: s", "MiB", "one pass: s", "MiB"], cells)


def _frames(text: str) -> list[int]:
    return sorted({int(part) for part in text.split(",")})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="emoji", help="default: %(default)s")
    parser.add_argument("--stage", choices=["upscale", "base"], default="upscale", help="default: %(default)s")
    parser.add_argument(
        "--frames", type=_frames, default=[16, 80, 160, 240, 320, 400], help="default: 16,80,160,240,320,400"
    )
    parser.add_argument("--steps", type=int, default=1, help="denoising steps, default: %(default)s")
    parser.add_argument("--rounds", type=int, default=1, help="the fastest counts, default: %(default)s")
    parser.add_argument("--batch", type=int, default=1, help="windows at a time, default: %(default)s")
    parser.add_argument("--offload", action="store_true", help="keep the clip in the CPU's memory")
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all cores, %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and the machine")
    args = parser.parse_args()
    if min(args.steps, args.rounds, args.batch, args.threads, *args.frames) < 1:
        parser.error("all numbers must be 1 or more")
    return args


if __name__ == "__main__":
    sys.exit(main())
