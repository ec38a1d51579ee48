"""One denoising step of STUNet, beside other ways to make clips out of the same text-to-image U-Net.

Contestants, all around T2Is of the same channels and blocks, with random weights:
  STUNet           ours: time shrinks wherever space does
  fixed-rate       STUNet's blocks, but all frames at all levels
  UNetMotionModel  diffusers' AnimateDiff
  lumiere-pytorch  the PyPI package (pip install 'openlumiere[bench]')

FLOPs are counted at the T2I's own size; time and memory are measured in one process, the contestants taking turns.
"""

from __future__ import annotations

import argparse
import os
import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import report

if TYPE_CHECKING:
    import torch

    from shapes import Shape

# Read when PyTorch loads: by OpenMP, as `lumiere` sets it, and by the profiler, which would log its every start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

_NAMES = ("STUNet", "fixed-rate", "UNetMotionModel", "lumiere-pytorch")
_MODES = ("forward", "training")
_EXAMPLES = """
examples:
  python benchmarks/step.py                                       # emoji-nano, 80 frames
  python benchmarks/step.py --frames 16,32,48,64,80,160,240,320 --rounds 3 --json growth.json
  python benchmarks/step.py --shape sd15 --flops-only             # seconds, and the same on any machine
  python benchmarks/step.py --shape sd15 --size 8 --rounds 3      # a large network on small pictures
  python benchmarks/step.py --shape sd15 --device cuda --dtype bfloat16
"""


def main() -> int:
    """Measure, print, write."""
    args = _arguments()
    import torch
    from diffusers.utils import logging

    from openlumiere.errors import LumiereError
    from shapes import load_shape

    logging.set_verbosity_error()  # of casts, and of options that a peer ignores: the notes name them
    device = torch.device(args.device)
    torch.set_num_threads(args.threads or torch.get_num_threads())
    try:
        shape = load_shape(args.shape)
    except LumiereError as error:
        return _fail(str(error))
    if device.type == "cuda" and not torch.cuda.is_available():
        return _fail("--device cuda: this PyTorch sees no GPU; leave it out")
    found = report.machine(torch.get_num_threads())
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    print(f"{report.describe(found)}\n")

    missing: dict[str, str] = {}
    notes: dict[str, None] = {}
    rows = _count(args, shape, missing, notes)
    if not args.flops_only:
        _measure(args, shape.at(args.size) if args.size else shape, device, rows, missing)
    spatial = _spatial(rows)
    _print(args, shape, rows, spatial, missing, notes)
    if args.json:
        settings = {
            key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items() if key != "json"
        }
        report.write_json(
            args.json,
            {"machine": found, "settings": settings, "counted_at": shape.size, "measured_at": args.size or shape.size,
             "spatial_layers": spatial, "results": list(rows.values()), "missing": missing, "notes": list(notes)},
        )  # fmt: skip
    return 0


Row = dict[str, Any]
Rows = dict[tuple[int, str, str], Row]


def _count(args: argparse.Namespace, shape: Shape, missing: dict[str, str], notes: dict[str, None]) -> Rows:
    """FLOPs of every contestant, at the T2I's full size."""
    import torch

    from contestants import CannotRunError, build
    from measure import count_flops

    rows: Rows = {}
    for name in args.contestants:
        _progress(f"counting {name}")
        own: Rows = {}
        try:
            net = build(name, shape, max_frames=max(args.frames), device=torch.device("meta"), dtype=torch.float32)
            for frames, mode in product(args.frames, args.modes):
                flops = count_flops(net, shape.clip(frames), shape.text[0], mode)
                own[frames, mode, name] = {"frames": frames, "mode": mode, "contestant": name, "flops": flops.total}
                if flops.spatial is not None:
                    own[frames, mode, name]["spatial_flops"] = flops.spatial
        except CannotRunError as error:
            missing[name] = str(error)
        except Exception as error:  # a peer's own limits: told, not raised
            missing[name] = _why("step on the meta device", error)
        else:
            rows |= own
            notes.update(dict.fromkeys(net.notes))
    return rows


def _measure(args: argparse.Namespace, shape: Shape, device: torch.device, rows: Rows, missing: dict[str, str]) -> None:
    """Time and memory, the contestants taking turns."""
    import torch

    from contestants import build
    from measure import Bench, faster_layout, forget_gradients, peak_bytes, seconds, stepper, summary, weight_bytes

    nets = {}
    for name in dict.fromkeys(name for _, _, name in rows):
        _progress(f"building {name}")
        nets[name] = build(name, shape, max_frames=max(args.frames), device=device, dtype=getattr(torch, args.dtype))
    for frames, mode in product(args.frames, args.modes):
        benches: dict[str, Bench] = {}
        for name, net in nets.items():
            _progress(f"{frames} frames, {mode}: warming up {name}")
            row = rows[frames, mode, name]
            try:
                bench = Bench(net, stepper(net, shape.clip(frames), shape.text[0], mode))
                bench.use(faster_layout(bench, device) if args.layout == "auto" else args.layout)
                bench.step()
                forget_gradients(net)
                row["layout"], row["weight_bytes"] = bench.layout, weight_bytes(net)
                row["work_bytes"] = peak_bytes(bench.step, device)
                row["peak_bytes"] = row["weight_bytes"] + row["work_bytes"]
            except Exception as error:  # out of memory, above all: told, not raised
                row["failed"] = missing[f"{name}, {frames} frames, {mode}"] = _why("step", error)
            else:
                row["seconds"] = []
                benches[name] = bench
            forget_gradients(net)
        for number, (name, bench) in product(range(args.rounds), benches.items()):
            _progress(f"{frames} frames, {mode}: round {number + 1} of {args.rounds}, {name}")
            bench.use(bench.layout)
            rows[frames, mode, name]["seconds"].append(seconds(bench.step, device))
            forget_gradients(bench.contestant)
        for name in benches:
            row = rows[frames, mode, name]
            row["seconds_min"], row["seconds_median"] = summary(row["seconds"])
    _progress("")


def _spatial(rows: Rows) -> list[Row]:
    """What time resampling saves in the T2I's own layers: forward passes with and without."""
    found = []
    for (frames, mode, name), row in rows.items():
        fixed = rows.get((frames, mode, "fixed-rate"))
        if name == "STUNet" and mode == "forward" and fixed is not None:
            found.append({
                "frames": frames,
                "resampled_flops": row["spatial_flops"],
                "fixed_rate_flops": fixed["spatial_flops"],
                "ratio": fixed["spatial_flops"] / row["spatial_flops"],
            })  # fmt: skip
    return found


_COLUMNS = [("GFLOPs", "flops", 1e9), ("min s", "seconds_min", 1), ("median s", "seconds_median", 1),
            ("peak MiB", "peak_bytes", 2**20), ("work MiB", "work_bytes", 2**20)]  # fmt: skip


def _print(
    args: argparse.Namespace,
    shape: Shape,
    rows: Rows,
    spatial: list[Row],
    missing: dict[str, str],
    notes: dict[str, None],
) -> None:
    columns = [c for c in _COLUMNS if any(c[1] in row for row in rows.values())]
    size = args.size or shape.size
    for frames, mode in product(args.frames, args.modes):
        chosen = [row for key, row in rows.items() if key[:2] == (frames, mode)]
        if chosen:
            told = "forward" if mode == "forward" else "forward + backward, temporal layers alone trained"
            head = [f"{frames} frames"] + [text for name, *_ in columns for text in (name, "x")]
            head += ["convolutions"] if len(columns) > 1 else []
            cells = [_cells(row, chosen[0], columns) for row in chosen]
            print(f"{shape.name}, {told}\n{report.table(head, cells)}\n")
    if len(args.frames) > 1:
        _print_growth(args, rows, columns)
    print("x: how many times the first row's. GFLOPs: a multiply-add is two.")
    if len(columns) > 1:
        full = f"{shape.size} x {shape.size}"
        print("peak: weights and work; work: activations and gradients, without an optimizer's state.")
        print(f"FLOPs counted at {full} positions, time and memory measured at {size} x {size}." if size != shape.size
              else f"All at {full} positions.")  # fmt: skip
    for row in spatial:
        fixed, resampled = (_figure(row[key] / 1e9) for key in ("fixed_rate_flops", "resampled_flops"))
        print(
            f"the T2I's layers alone, forward, {row['frames']} frames: {fixed} GFLOPs at a fixed frame rate, "
            f"{resampled} with time resampled: {row['ratio']:.2f} times fewer"
        )
    for note in notes:
        print(f"note: {note}")
    for name, reason in missing.items():
        print(f"cannot run {name}: {reason}")


def _cells(row: Row, first: Row, columns: list[tuple[str, str, float]]) -> list[str]:
    cells = [row["contestant"]]
    for _, key, unit in columns:
        known = key in row
        cells.append(_figure(row[key] / unit) if known else "-")
        cells.append(f"{row[key] / first[key]:.2f}" if known and key in first else "-")
    if len(columns) > 1:
        cells.append(row.get("layout", "-"))
    return cells


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _print_growth(args: argparse.Namespace, rows: Rows, columns: list[tuple[str, str, float]]) -> None:
    """One table for each figure: frames down, contestants across."""
    names = list(dict.fromkeys(name for _, _, name in rows))
    for mode in args.modes:
        for title, key, unit in columns:
            if key == "seconds_median":
                continue
            body = [
                [str(frames)] + [
                    _figure(row[key] / unit) if key in (row := rows.get((frames, mode, name), {})) else "-"
                    for name in names
                ]
                for frames in args.frames
            ]  # fmt: skip
            print(f"{mode}: {title} as frames grow\n{report.table(['frames', *names], body)}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--shape", default="emoji-nano", help="a name in configs/, such a folder, or sd15; default: %(default)s")
    add("--size", type=int, help="positions along a side, for time and memory; default: the T2I's own")
    add("--frames", type=_numbers, default=[80], metavar="N[,N...]", help="default: 80")
    add("--modes", type=_words(*_MODES), default=list(_MODES), metavar="MODE[,MODE]",
        help="forward, training (forward + backward); default: both")  # fmt: skip
    add("--contestants", type=_words(*_NAMES), default=list(_NAMES), metavar="NAME[,NAME...]",
        help="the others are compared with the first; default: all")  # fmt: skip
    add("--rounds", type=int, default=5, help="default: %(default)s")
    add("--layout", choices=["auto", "channels-first", "channels-last"], default="auto",
        help="of convolutions; auto, the default: for each contestant the one in which it is faster")  # fmt: skip
    add("--device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    add("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    add("--threads", type=int, help="default: PyTorch's")
    add("--flops-only", action="store_true", help="count, run nothing")
    add("--json", type=Path, metavar="FILE", help="write the figures and the machine")
    args = parser.parse_args()
    if args.rounds < 1 or (args.size is not None and args.size < 1):
        parser.error("--rounds and --size must be 1 or more")
    return args


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: give whole numbers, 1 or more, with commas between them")
    return [int(part) for part in parts]


def _words(*known: str) -> Any:
    def words(text: str) -> list[str]:
        found = text.split(",")
        for word in found:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
        return found

    return words


def _why(what: str, error: Exception) -> str:
    return f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def _fail(message: str) -> int:
    print(f"step.py: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
