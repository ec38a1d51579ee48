"""How near a GPU comes to its own ceiling with STUNet, and what makes it faster: one command, under nine minutes.

Sections; what the time does not allow is left out and named:
  ceilings     the matrix product and the copy that this device manages itself
  contestants  STUNet beside fixed-rate and UNetMotionModel, of the same T2I, as clips grow
  convolutions the temporal convolution as it is, as conv3d, and as three matrix products
  clip         a whole clip of the bundled model
  ways         one step in single and half precision, channels last, as a CUDA graph, compiled: forward and training
  correct      each way against double precision, by relative norm
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import report

if TYPE_CHECKING:
    import torch

    from contestants import Contestant
    from shapes import Shape

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

_WAYS = ("float32", "bfloat16", "channels-last", "CUDA graph", "blocks compiled", "compiled")
_CONTESTANTS = ("STUNet", "fixed-rate", "UNetMotionModel")
_CORRECT_FRAMES = 8
_PROMPT = "a tiger walking to the left on a green background"
_EXAMPLES = """
examples:
  python benchmarks/gpu.py --json gpu.json                                # sd15's shape at 80 frames, then the rest
  python benchmarks/gpu.py --shape emoji-nano --minutes 3
  python benchmarks/gpu.py --device cpu --shape emoji-nano --frames 8     # on the CPU, to see that it runs
"""
Row = dict[str, Any]


@dataclass
class _Run:
    """What all sections measure on."""

    shape: Shape
    device: torch.device
    frames: list[int]
    rounds: int
    ways: list[str]
    deadline: float

    def late(self) -> bool:
        return time.monotonic() > self.deadline


def main() -> int:
    """Measure, print, write."""
    args = _arguments()
    import torch
    import torch._dynamo
    from diffusers.utils import logging

    from openlumiere.errors import LumiereError
    from shapes import load_shape

    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")  # diffusers' own
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("gpu.py: error: no CUDA device; --device cpu runs the same on the CPU", file=sys.stderr)
        return 2
    try:
        shape = load_shape(args.shape)
    except LumiereError as error:
        print(f"gpu.py: error: {error}", file=sys.stderr)
        return 2
    shape = shape.at(args.size) if args.size else shape
    torch._dynamo.config.recompile_limit = 64  # each level of the network has shapes of its own
    run = _Run(shape, device, args.frames, args.rounds, args.ways, time.monotonic() + 60 * args.minutes)
    found: dict[str, Any] = {"machine": _machine(device), "shape": shape.name, "size": shape.size}
    print(report.describe(found["machine"]))
    left_out: list[str] = []
    for name in args.sections:
        if run.late():
            left_out.append(name)
            continue
        started = time.monotonic()
        rows: list[Row] = []
        for row in _SECTIONS[name](run, found):
            rows.append(row)
            if run.late():
                left_out.append(f"the rest of {name}")
                break
        found[name] = rows
        _print(name, rows, time.monotonic() - started)
    if left_out:
        print(f"\nleft out, as {args.minutes:g} minutes were over: {', '.join(left_out)}")
    found["left_out"] = left_out
    if args.json is not None:
        report.write_json(args.json, found)
    return 0


# ---------------------------------------------------------------------------------------------------- sections


def _ceilings(run: _Run, found: dict[str, Any]) -> Iterator[Row]:
    import torch

    cuda = run.device.type == "cuda"
    side = 8192 if cuda else 512
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(side, side, device=run.device, dtype=dtype) for _ in range(2))
        took = _fastest(lambda a=a, b=b: a @ b, run)  # type: ignore[misc]
        yield {"what": f"matrix product, {_short(dtype)}", "TFLOP/s": 2 * side**3 / took / 1e12}
    source = torch.empty((2**30 if cuda else 2**24) // 4, device=run.device)
    target = torch.empty_like(source)
    took = _fastest(lambda: target.copy_(source), run)
    yield {"what": "copy, read and written", "GB/s": 2 * source.numel() * 4 / took / 1e9}


def _ways(run: _Run, found: dict[str, Any]) -> Iterator[Row]:
    import torch

    import measure

    frames = run.frames[0]
    counted: dict[str, int] = {}
    for mode in ("forward", "training"):
        meta = _build("STUNet", run.shape, frames, torch.device("meta"), torch.float32)
        counted[mode] = measure.count_flops(meta, run.shape.clip(frames), run.shape.text[0], mode).total  # type: ignore[arg-type]
    for way in run.ways:
        if way == "CUDA graph" and run.device.type != "cuda":
            continue
        contestant = _build("STUNet", run.shape, frames, run.device, _dtype_of(way))
        _prepare(contestant, way)
        for mode in ("forward", "training"):
            if way == "CUDA graph" and mode == "training":
                continue
            step = measure.stepper(contestant, run.shape.clip(frames), run.shape.text[0], mode)  # type: ignore[arg-type]
            row: Row = {"way": way, "mode": mode, "frames": frames}
            try:
                began = time.perf_counter()
                step = _graphed(step) if way == "CUDA graph" else step
                step()
                row["first_s"] = time.perf_counter() - began
                row["ms"] = 1e3 * _fastest(step, run)
                row["peak_GiB"] = measure.peak_bytes(step, run.device) / 2**30 + _weights(contestant)
                row["TFLOP/s"] = counted[mode] / row["ms"] / 1e9
                row["of_peak"] = row["TFLOP/s"] / _ceiling(found, _dtype_of(way))
            except (RuntimeError, torch.OutOfMemoryError) as error:  # said, and the others measured
                row["failed"] = " ".join(str(error).split())[:120]
            measure.forget_gradients(contestant)
            yield row
            if run.late():
                return
        del contestant, step
        _free(run.device)


def _correct(run: _Run, found: dict[str, Any]) -> Iterator[Row]:
    import torch

    exact = _build("STUNet", run.shape, _CORRECT_FRAMES, run.device, torch.float32)
    generator = torch.Generator("cpu").manual_seed(0)
    sample = torch.randn(run.shape.clip(_CORRECT_FRAMES), generator=generator).to(run.device)
    text = torch.randn(1, *run.shape.text, generator=generator).to(run.device)
    t = torch.full((1,), 500.0, device=run.device)
    weights = copy.deepcopy(exact.net.state_dict())
    exact.net.double()
    with torch.no_grad():
        truth = exact.predict(sample.double(), t.double(), text.double())
    del exact
    for way in run.ways:
        if way == "CUDA graph":  # the same kernels
            continue
        dtype = _dtype_of(way)
        contestant = _build("STUNet", run.shape, _CORRECT_FRAMES, run.device, dtype)
        contestant.net.load_state_dict(weights)
        _prepare(contestant, way)
        try:
            with torch.no_grad():
                out = contestant.predict(sample.to(dtype), t, text.to(dtype))
            error = float((out.double() - truth).norm() / truth.norm())
            yield {"way": way, "frames": _CORRECT_FRAMES, "relative_error": error}
        except RuntimeError as failure:
            yield {"way": way, "failed": " ".join(str(failure).split())[:120]}
        _free(run.device)


def _contestants(run: _Run, found: dict[str, Any]) -> Iterator[Row]:
    import torch

    import measure

    for frames in run.frames:
        for name in _CONTESTANTS:
            contestant = _build(name, run.shape, max(run.frames), run.device, torch.bfloat16)
            _prepare(contestant, "channels-last")
            for mode in ("forward", "training"):
                row: Row = {"contestant": name, "mode": mode, "frames": frames}
                step = measure.stepper(contestant, run.shape.clip(frames), run.shape.text[0], mode)  # type: ignore[arg-type]
                try:
                    step()
                    row["ms"] = 1e3 * _fastest(step, run)
                    row["peak_GiB"] = measure.peak_bytes(step, run.device) / 2**30 + _weights(contestant)
                except (RuntimeError, torch.OutOfMemoryError) as error:
                    row["failed"] = " ".join(str(error).split())[:120]
                measure.forget_gradients(contestant)
                yield row
            del contestant, step
            _free(run.device)


def _convolutions(run: _Run, found: dict[str, Any]) -> Iterator[Row]:
    import torch
    import torch.nn.functional as F

    from openlumiere.stunet.blocks import TemporalConv

    frames = run.frames[0]
    for level, channels in enumerate(run.shape.unet["block_out_channels"]):
        side, length = max(run.shape.size >> level, 1), max(frames >> level, 1)
        layer = TemporalConv(channels).to(run.device, torch.bfloat16)
        layer.init_he()
        x = torch.randn(length, channels, side, side, device=run.device, dtype=torch.bfloat16)
        x = x.to(memory_format=torch.channels_last)
        weight, bias = layer.conv.weight, layer.conv.bias
        taps = [weight[:, :, i, 0].T.contiguous() for i in range(3)]

        def whole(x: torch.Tensor = x, weight: torch.Tensor = weight, bias: Any = bias) -> torch.Tensor:
            clip = torch.cat([x[:1], x, x[-1:]]).transpose(0, 1)[None]
            return F.conv3d(clip, weight[..., None], bias)[0].transpose(0, 1)

        def products(x: torch.Tensor = x, taps: list[torch.Tensor] = taps, bias: Any = bias) -> torch.Tensor:
            rows = torch.cat([x[:1], x, x[-1:]]).permute(0, 2, 3, 1)
            count = len(x)
            return (bias + rows[:count] @ taps[0] + rows[1:-1] @ taps[1] + rows[2:] @ taps[2]).permute(0, 3, 1, 2)

        ways: dict[str, Callable[[], torch.Tensor]] = {
            "as it is": lambda layer=layer, x=x, n=length: layer(x, n),  # type: ignore[misc]
            "conv3d": whole,
            "three products": products,
        }
        row: Row = {"channels": channels, "frames": length, "side": side}
        with torch.no_grad():
            expected = ways["as it is"]().double()
            for name, way in ways.items():
                error = float((way().double() - expected).norm() / expected.norm())
                assert error < 0.02, f"{name} is not the same convolution: {error:.3f}"
                row[f"{name}, ms"] = 1e3 * _fastest(way, run)
        yield row


def _clip(run: _Run, found: dict[str, Any]) -> Iterator[Row]:
    import torch

    from openlumiere import load_pipeline

    pipe = load_pipeline("emoji", device=run.device.type)
    pipe.set_progress_bar_config(disable=True)
    frames = run.frames[0] // 4 * 4 or 4

    def make() -> Any:
        return pipe(_PROMPT, num_frames=frames, generator=torch.Generator().manual_seed(0))

    make()
    yield {"clip of": "emoji", "frames": frames, "s": _fastest(make, run)}


_SECTIONS: dict[str, Callable[[_Run, dict[str, Any]], Iterator[Row]]] = {
    "ceilings": _ceilings,
    "contestants": _contestants,
    "convolutions": _convolutions,
    "clip": _clip,
    "ways": _ways,
    "correct": _correct,
}


# ---------------------------------------------------------------------------------------------------- parts


def _build(name: str, shape: Shape, frames: int, device: torch.device, dtype: torch.dtype) -> Contestant:
    import contestants

    return contestants.build(name, shape, max_frames=frames, device=device, dtype=dtype)


def _dtype_of(way: str) -> torch.dtype:
    import torch

    return torch.float32 if way == "float32" else torch.bfloat16


def _prepare(contestant: Contestant, way: str) -> None:
    """Put a network into one of `_WAYS`: all that come after channels-last have it too."""
    import torch
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.resnet import ResnetBlock2D

    from openlumiere.stunet.blocks import AttentionBlock, ConvolutionBlock

    if way in ("float32", "bfloat16"):
        return
    contestant.net.to(memory_format=torch.channels_last)
    if way == "blocks compiled":
        for module in contestant.net.modules():
            if isinstance(module, (BasicTransformerBlock, ResnetBlock2D, AttentionBlock, ConvolutionBlock)):
                module.compile(dynamic=False)
    elif way == "compiled":
        contestant.net.compile(dynamic=False)


def _graphed(step: Callable[[], None]) -> Callable[[], None]:
    """Record a step once, and replay it: no time of the CPU between its kernels."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _fastest(step: Callable[[], Any], run: _Run) -> float:
    import measure

    step()
    return min(measure.seconds(step, run.device) for _ in range(run.rounds))


def _weights(contestant: Contestant) -> float:
    import measure

    return measure.weight_bytes(contestant) / 2**30


def _ceiling(found: dict[str, Any], dtype: torch.dtype) -> float:
    for row in found.get("ceilings", ()):
        if row["what"] == f"matrix product, {_short(dtype)}":
            return float(row["TFLOP/s"])
    return float("nan")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _free(device: torch.device) -> None:
    import gc

    import torch

    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _machine(device: torch.device) -> dict[str, Any]:
    import torch

    found = report.machine(torch.get_num_threads())
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _print(name: str, rows: list[Row], took: float) -> None:
    print(f"\n{name} ({took:.0f} s)")
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "failed"))
    if rows:
        print(report.table(columns, [[_cell(key, row.get(key)) for key in columns] for row in rows]), flush=True)
    for row in rows:
        if "failed" in row:
            print(f"failed: {', '.join(str(value) for value in row.values())}", flush=True)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "of_peak":
        return f"{value:.0%}"
    if name == "relative_error":
        return f"{value:.1e}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="sd15", help="sd15, or a folder as of step.py, default: %(default)s")
    parser.add_argument("--size", type=int, help="height and width of the network's input, default: the shape's own")
    parser.add_argument(
        "--frames", type=lambda text: [int(part) for part in text.split(",")], default=[80, 16, 160, 320],
        help="of the clips, the first for all sections, default: 80,16,160,320",
    )  # fmt: skip
    parser.add_argument("--sections", nargs="+", choices=tuple(_SECTIONS), default=list(_SECTIONS), metavar="NAME")
    parser.add_argument("--ways", nargs="+", choices=_WAYS, default=list(_WAYS), metavar="NAME", help="default: all")
    parser.add_argument("--minutes", type=float, default=8.5, help="begin nothing after so many, default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="the fastest counts, default: %(default)s")
    parser.add_argument("--device", default="cuda", help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and the machine")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
