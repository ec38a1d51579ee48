"""`lumiere plan`: what a model's clips and its training take, before anything is loaded or paid for."""

from __future__ import annotations

import argparse
import json

from openlumiere.errors import LumiereError
from openlumiere.generation.options import parse_size

from . import parsing
from .parsing import Commands, add_command


def register(commands: Commands) -> None:
    plan = add_command(
        commands,
        "plan",
        run,
        help="estimate parameters, FLOPs, memory, time and cost of clips and of a training",
        more="Computed of configurations alone: no weights are read, and of the hub's models small files only. "
        "Without a model: what is known of hardware.",
        example=[
            "lumiere plan",
            "lumiere plan emoji",
            "lumiere plan stable-diffusion-v1-5/stable-diffusion-v1-5 --hardware h100 --price 2.5 --levels",
            "lumiere plan configs/emoji/t2v.yaml --hardware rtx4090 --price 0.4",
            "lumiere plan my-t2i --frames 80 --size 512x512 --hardware h200 --devices 64 --train-steps 20000",
            "lumiere plan Wan-AI/Wan2.1-T2V-1.3B-Diffusers --hardware rtx4090 --json",
        ],
    )
    add = plan.add_argument
    add("model", nargs="?", help="as --model of lumiere generate; a text-to-image model's or a STUNet's folder or hub "
        "id; or a training's configuration, a YAML file")  # fmt: skip
    add("overrides", nargs="*", metavar="KEY=VALUE",
        help="of a configuration; or options of STUNet.from_unet, of a text-to-image model")  # fmt: skip
    add("--frames", type=parsing.positive_int, help="of a clip; default, as of what follows: the model's own")
    add("--size", type=parsing.of(parse_size), metavar="WxH", help="of a clip, pixels")
    add("--batch", type=parsing.positive_int, help="clips at once, and that a process trains on in a step")
    add("--steps", type=parsing.positive_int, help="of sampling")
    add("--guidance", type=parsing.guidance, help="1 or less = none, which halves a step")
    add("--train-steps", type=parsing.positive_int, help="of a training; default: the configuration's")
    add("--dtype", choices=["float32", "bfloat16", "float16"],
        help="of making clips; default: bfloat16 on GPUs, float32 on CPUs")  # fmt: skip
    add("--levels", action="store_true", help="say what each level of the network takes")
    add("--json", action="store_true", help="print all as JSON, in bytes, seconds and FLOPs")
    device = plan.add_argument_group("hardware")
    add = device.add_argument
    add("--hardware", default="here", metavar="NAME",
        help="here (the default: this machine, measured in seconds), laptop, rtx4090, a100, h100, h200")  # fmt: skip
    add("--devices", type=parsing.positive_int, default=1, metavar="N", help="that share a training; default: 1")
    add("--peak-tflops", type=parsing.positive_float, help="own figure: dense TFLOP/s")
    add("--memory", type=parsing.memory, metavar="24GB", help="own figure: of one device")
    add("--bandwidth", type=parsing.positive_float, metavar="GB/S", help="own figure: of its memory")
    add("--utilisation", type=parsing.fraction, metavar="0.4", help="own figure: share of the peak that is reached")
    add("--price", type=parsing.positive_float, help="of a device an hour, in any currency")


def run(args: argparse.Namespace) -> None:
    from openlumiere.estimates import hardware

    if args.model is None:
        from openlumiere.estimates.text import hardware_table

        print(hardware_table(hardware.TABLE))
        return
    if args.utilisation == 0:
        raise LumiereError("--utilisation 0: nothing would ever be done; choose a share above 0")
    from dataclasses import asdict

    from openlumiere.estimates import target
    from openlumiere.estimates.estimate import Asked, estimate
    from openlumiere.estimates.text import describe

    device = hardware.find(args.hardware).with_own(
        peak_flops=None if args.peak_tflops is None else args.peak_tflops * 1e12,
        memory=args.memory,
        bandwidth=None if args.bandwidth is None else args.bandwidth * 1e9,
        utilisation=args.utilisation,
    )
    found = estimate(
        target.find(args.model, args.overrides),
        Asked(
            hardware=device, num_frames=args.frames, size=args.size, batch=args.batch, steps=args.steps,
            guidance=args.guidance, train_steps=args.train_steps, devices=args.devices, price=args.price,
            dtype=args.dtype,
        ),
    )  # fmt: skip
    print(json.dumps(asdict(found), indent=2) if args.json else describe(found, with_levels=args.levels))
