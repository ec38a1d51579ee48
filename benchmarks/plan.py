"""What `lumiere plan` estimates beside what is measured here: parameters, FLOPs, memory and time of three shapes.

Each shape is built, and steps, in a process of its own, as training does: float32, channels last, AdamW, the moving
average. Memory is what PyTorch's allocator gave at most at once. Time is the process's own CPU time, by number of
threads, since other programs may share the machine; what the machine can do is measured in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import report

if TYPE_CHECKING:
    from shapes import Shape

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

_EXAMPLES = """
examples:
  python benchmarks/plan.py
  python benchmarks/plan.py --shapes emoji-nano --frames 80 --rounds 5 --json plan.json
"""
_SHAPES = ("emoji-nano", "emoji-nano-wide", "sd15-eighth")
_ROWS = (
    ("parameters", "parameters", 1), ("trained", "parameters", 1),
    ("forward", "FLOPs", 1e9), ("training", "FLOPs", 1e9),
    ("forward", "activations", 2**20), ("training", "memory", 2**20), ("checkpointed", "memory", 2**20),
    ("forward", "seconds", 1), ("training", "seconds", 1), ("checkpointed", "seconds", 1),
)  # fmt: skip
_UNITS = {"parameters": "", "FLOPs": "GFLOP", "activations": "MiB", "memory": "MiB", "seconds": "s of CPU"}


def main() -> int:
    """Measure, print, write."""
    args = _arguments()
    if args.worker:
        print(json.dumps(_measured(args.worker, args.frames, args.rounds, args.threads)))
        return 0
    found = report.machine(args.threads)
    print(f"{report.describe(found)}\n")
    results = {}
    for name in args.shapes:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, "--worker", name, *_same(args)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"plan.py: error: {name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return 2
        results[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{_described(name, args.frames, results[name])}\n", flush=True)
    print("seconds: of this process's CPU, by thread; memory: weights, optimizer, average and all that a step makes")
    if args.json:
        report.write_json(args.json, {"machine": found, "frames": args.frames, "results": results})
    return 0


def _described(name: str, frames: int, result: dict[str, Any]) -> str:
    """One shape's figures as a table."""
    rows = []
    for what, kind, unit in _ROWS:
        estimated, measured = (result[side][what][kind] for side in ("estimated", "measured"))
        cells = [f"{value / unit:,.4g}" if unit != 1 or kind == "seconds" else f"{value:,}" for value in
                 (estimated, measured)]  # fmt: skip
        error = "exact" if estimated == measured else f"{estimated / measured - 1:+.1%}"
        rows.append([f"{what}: {kind}", *cells, _UNITS[kind], error])
    device = result["device"]
    head = [f"{name}, {frames} frames", "estimated", "measured", "", "error"]
    return (
        f"{report.table(head, rows)}\n"
        f"this CPU: {device['peak'] / 1e9:.3g} GFLOP/s by matrix products, {device['utilisation']:.0%} of it by "
        f"convolutions, {device['bandwidth'] / 1e9:.3g} GB/s, {device['launch'] * 1e6:.3g} us an operation"
    )


def _measured(name: str, frames: int, rounds: int, threads: int) -> dict[str, Any]:
    """Estimate and measure one shape, in a process of its own."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from measure import peak_bytes
    from openlumiere.estimates.hardware import measure
    from openlumiere.estimates.training_step import Trained, Way
    from openlumiere.stunet.summary import example_inputs, work
    from openlumiere.training.config import OptimizerConfig
    from openlumiere.training.loop import make_optimizer
    from openlumiere.training.state import EMA

    torch.set_num_threads(threads)
    shape = _shape(name)
    device = measure()
    estimated: dict[str, Any] = {"parameters": {}, "trained": {}}
    measured: dict[str, Any] = {"parameters": {}, "trained": {}}
    planned = Trained(net=_net(shape, "meta"), clip=(frames, shape.size, shape.size))
    net = _net(shape, "cpu")
    for found, of in ((estimated, planned.net), (measured, net)):
        found["parameters"]["parameters"] = sum(p.numel() for p in of.parameters())
        found["trained"]["parameters"] = sum(p.numel() for p in of.parameters() if p.requires_grad)

    forward = work(planned.net, frames)
    estimated["forward"] = {
        "FLOPs": forward.flops, "activations": forward.peak_bytes, "seconds": device.seconds(forward, "float32"),
    }  # fmt: skip
    for mode, way in (("training", Way()), ("checkpointed", Way(checkpointing=True))):
        traced = planned.trace(way)
        step = planned.memory(mode, way, traced, device)
        estimated[mode] = {"FLOPs": traced.flops, "memory": step.total, "seconds": step.seconds}

    inputs = example_inputs(net, frames)
    optimizer = make_optimizer(OptimizerConfig(), [p for p in net.parameters() if p.requires_grad])
    ema = EMA(net, 0.99)

    def predict() -> None:
        with torch.no_grad():
            net(**inputs)

    def backward() -> None:
        net(**inputs).sample.square().mean().backward()

    def step_once() -> None:
        backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.update(net)

    cpu = torch.device("cpu")
    for mode, run, timed in (
        ("forward", predict, predict), ("training", step_once, backward), ("checkpointed", step_once, backward),
    ):  # fmt: skip
        if mode == "checkpointed":
            net.enable_gradient_checkpointing()
        run()  # warm, with the optimizer's state
        kept = sum(p.numel() * 4 for p in [*net.parameters(), *ema.average.values()])
        kept += sum(value.numel() * 4 for state in optimizer.state.values() for value in state.values())
        peak = peak_bytes(run, cpu)
        measured[mode] = {"activations": peak, "memory": kept + peak}
        taken = []
        for _ in range(rounds):
            started = time.process_time()
            timed()
            taken.append((time.process_time() - started) / threads)
            optimizer.zero_grad()
        measured[mode]["seconds"] = min(taken)
    net.disable_gradient_checkpointing()
    # The counter knows no fused attention of CPUs.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for mode, run in (("forward", predict), ("training", backward)):
            with FlopCounterMode(display=False) as counter:
                run()
            measured[mode]["FLOPs"] = counter.get_total_flops()
    facts = {"peak": device.peak["float32"], "utilisation": device.utilisation, "bandwidth": device.bandwidth,
             "launch": device.launch}  # fmt: skip
    return {"estimated": estimated, "measured": measured, "device": facts}


def _shape(name: str) -> Shape:
    """A shape of `shapes.py`, or a variant: wider, or Stable Diffusion 1.5's blocks at an eighth of its channels."""
    from dataclasses import replace

    from shapes import load_shape

    if name == "emoji-nano-wide":
        shape = load_shape("emoji-nano")
        return replace(shape, unet=shape.unet | {"block_out_channels": [96, 144, 192]})
    if name == "sd15-eighth":
        shape = load_shape("sd15")
        narrow = {"block_out_channels": [40, 80, 160, 160], "norm_num_groups": 8, "sample_size": 16}
        return replace(shape, unet=shape.unet | narrow)
    return load_shape(name)


def _net(shape: Shape, device: str) -> Any:
    import torch
    from diffusers import UNet2DConditionModel

    from openlumiere import STUNet

    torch.manual_seed(0)
    with torch.device(device):
        net = STUNet.from_unet(UNet2DConditionModel(**shape.unet), **shape.temporal)
    return net.to(memory_format=torch.channels_last)


def _same(args: argparse.Namespace) -> list[str]:
    return [f"--{name}={getattr(args, name)}" for name in ("frames", "rounds", "threads")]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--shapes", type=lambda text: text.split(","), default=list(_SHAPES), metavar="NAME[,NAME...]",
        help=f"of {', '.join(_SHAPES)}, or as benchmarks/step.py takes them; default: these")  # fmt: skip
    add("--frames", type=int, default=8, help="a multiple of 8; default: %(default)s")
    add("--rounds", type=int, default=3, help="of which the fastest counts; default: %(default)s")
    add("--threads", type=int, default=1, help="default: %(default)s")
    add("--json", type=Path, metavar="FILE", help="write the figures and the machine")
    add("--worker", metavar="NAME", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if min(args.frames, args.rounds, args.threads) < 1:
        parser.error("--frames, --rounds and --threads must be 1 or more")
    return args


if __name__ == "__main__":
    sys.exit(main())
