"""`lumiere train` and `lumiere export`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from openlumiere.errors import LumiereError

from . import parsing
from .parsing import Commands, add_command

if TYPE_CHECKING:
    from openlumiere.training.config import TrainConfig


def register(commands: Commands) -> None:
    train = add_command(
        commands,
        "train",
        run_train,
        help="train a text-to-image model (t2i), temporal layers on top (t2v), conditioning; super-resolution; styles; "
        "a planner of paths",
        more="A run that was stopped goes on from its last checkpoint.",
        example=[
            "lumiere train t2i --config configs/emoji-nano/t2i.yaml",
            "lumiere train t2v --config configs/emoji-nano/t2v.yaml optim.lr=1e-4 time_budget=60",
            "lumiere train style --images my-drawings/ -o runs/mine    # generate takes it: --style runs/mine/export",
            "lumiere train plan --config configs/emoji/plan.yaml --minutes 8.5 --state carried/",
            "accelerate launch -m openlumiere.cli train t2i --config configs/emoji-nano/t2i.yaml",
        ],
    )
    stages = ["autoencoder", "t2i", "t2v", "conditional", "ssr-image", "ssr", "style", "planner", "plan"]
    train.add_argument("stage", choices=stages, help="plan: several, one after the other, see docs/gpu.md")
    train.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change, e.g. optim.lr=1e-4")
    train.add_argument("--config", metavar="FILE", help="YAML, see configs/; stage style can do without")
    train.add_argument(
        "--images", metavar="PATH", help="style: a picture or a folder of pictures, see openlumiere.data.style_images"
    )
    train.add_argument("--model", default="emoji-nano", help="style: what it is for, default: emoji-nano")
    train.add_argument("-o", "--output", metavar="FOLDER", help="style: where it goes")
    train.add_argument(
        "--minutes", type=parsing.positive_float, help="plan: train for so long, then stop; default: all"
    )
    train.add_argument(
        "--state", metavar="FOLDER", type=Path, help="plan: small files to go on from on another machine"
    )
    train.add_argument(
        "--budget", type=parsing.positive_int, default=56, metavar="MIB", help="plan: what they may take together: 56"
    )
    train.add_argument("--unpack", action="store_true", help="plan: put back what --state holds, and train nothing")
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
    export.add_argument(
        "--planner",
        metavar="RUN",
        type=Path,
        help="output folder of a planner run to add; for models that take layouts",
    )
    export.add_argument("--upscale-steps", type=parsing.positive_int, help="its default, else the run's sample_steps")
    export.add_argument("--noise-level", type=parsing.timestep, metavar="0..999", help="its default, else the run's")


def run_train(args: argparse.Namespace) -> None:
    if args.stage == "plan":
        _run_plan(args)
        return
    config = _config(args)
    if config.stage != args.stage:
        raise LumiereError(f"{args.config} is for stage {config.stage}: say lumiere train {config.stage}")
    from accelerate import PartialState

    from openlumiere.training.loop import train

    exported = train(config, resume=not args.no_resume)
    if PartialState().is_main_process:
        print(f"wrote {exported}")


def _run_plan(args: argparse.Namespace) -> None:
    if args.config is None or args.no_resume:
        raise LumiereError("a plan needs --config FILE, such as configs/emoji/plan.yaml, and always resumes")
    if args.unpack and args.state is None:
        raise LumiereError("--unpack needs --state FOLDER: where the packed files are")
    from openlumiere.training.plan import load_plan, run

    stages = load_plan(Path(args.config), args.overrides)
    if args.unpack:
        from openlumiere.training.carried import unpack

        unpack(stages, args.state)
        return
    if run(stages, minutes=args.minutes, folder=args.state, budget=args.budget * 2**20):
        print(f"all {len(stages)} stages are finished")


def _config(args: argparse.Namespace) -> TrainConfig:
    from openlumiere.training.config import load, parse

    if args.config is not None:
        return load(args.config, args.overrides)
    if args.stage != "style":
        raise LumiereError(f"stage {args.stage} needs --config FILE; see configs/")
    if not args.images or not args.output:
        raise LumiereError("a style needs --images PATH and -o FOLDER, or --config FILE")
    from openlumiere.pipelines.load import resolve_model
    from openlumiere.training.stages.style import recipe

    tree = recipe(images=args.images, model=resolve_model(args.model), output=args.output)
    return parse(tree, args.overrides, "the style's settings")


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
        planner=args.planner,
        upscale_steps=args.upscale_steps,
        noise_level=args.noise_level,
    )
    print(f"wrote {target}; try it: lumiere generate PROMPT --model {target}")
