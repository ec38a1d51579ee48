"""`lumiere train` and `lumiere export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from openlumiere.errors import LumiereError

from . import parsing
from .parsing import Commands, add_command


def register(commands: Commands) -> None:
    train = add_command(
        commands,
        "train",
        run_train,
        help="train a text-to-image model (t2i), temporal layers on top (t2v), conditioning on top; super-resolution",
        more="A run that was stopped goes on from its last checkpoint.",
        example=[
            "lumiere train t2i --config configs/emoji-nano/t2i.yaml",
            "lumiere train t2v --config configs/emoji-nano/t2v.yaml optim.lr=1e-4 time_budget=60",
            "accelerate launch -m openlumiere.cli train t2i --config configs/emoji-nano/t2i.yaml",
        ],
    )
    train.add_argument("stage", choices=["t2i", "t2v", "conditional", "ssr-image", "ssr"])
    train.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change, e.g. optim.lr=1e-4")
    train.add_argument("--config", required=True, metavar="FILE", help="YAML, see configs/")
    train.add_argument("--no-resume", action="store_true", help="start anew, whatever checkpoints there are")

    export = add_command(
        commands,
        "export",
        run_export,
        help="turn a training run into a model that generate can use",
        more="The run may still be going on: the moving average of its newest checkpoint is taken.",
        example=[
            "lumiere export runs/emoji-nano/t2v -o models/my-model --steps 25 --guidance 2",
            "lumiere export runs/emoji-nano/t2v --super-resolution runs/emoji-nano/ssr -o models/my-model",
            "lumiere export models/my-model --super-resolution runs/emoji-nano/ssr -o models/my-sharper-model",
        ],
    )
    export.add_argument("training", metavar="RUN", type=Path, help="output folder of a t2v run, or a model")
    export.add_argument("-o", "--output", required=True, type=Path, help="folder for the model")
    export.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float16", help="of the file")
    export.add_argument("--steps", type=parsing.positive_int, help="the model's default, else the run's sample_steps")
    export.add_argument("--guidance", type=parsing.guidance, help="the model's default, else the run's")
    export.add_argument("--rescale", type=float, metavar="0..1", help="guidance rescaling, the model's default")
    export.add_argument("--super-resolution", metavar="RUN", type=Path, help="output folder of an ssr run to add")
    export.add_argument("--upscale-steps", type=parsing.positive_int, help="its default, else the run's sample_steps")
    export.add_argument("--noise-level", type=parsing.timestep, metavar="0..999", help="its default, else the run's")


def run_train(args: argparse.Namespace) -> None:
    from openlumiere.training.config import load

    config = load(args.config, args.overrides)
    if config.stage != args.stage:
        raise LumiereError(f"{args.config} is for stage {config.stage}: say lumiere train {config.stage}")
    from accelerate import PartialState

    from openlumiere.training.loop import train

    exported = train(config, resume=not args.no_resume)
    if PartialState().is_main_process:
        print(f"wrote {exported}")


def run_export(args: argparse.Namespace) -> None:
    import torch

    from openlumiere.training.export import export

    target = export(
        args.training,
        args.output,
        dtype=getattr(torch, args.dtype),
        num_inference_steps=args.steps,
        guidance_scale=args.guidance,
        guidance_rescale=args.rescale,
        super_resolution=args.super_resolution,
        upscale_steps=args.upscale_steps,
        noise_level=args.noise_level,
    )
    print(f"wrote {target}; try it: lumiere generate PROMPT --model {target}")
