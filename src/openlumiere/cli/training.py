"""`lumiere train` and `lumiere export`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openlumiere.bundled import DEFAULT_MODEL
from openlumiere.errors import LumiereError
from openlumiere.training.stages import STAGES

from . import parsing
from .parsing import Commands, add_command

if TYPE_CHECKING:
    from openlumiere.training.config import TrainConfig

_PLAN = "plan"  # what plans of several stages were called beside stages


def register(commands: Commands) -> None:
    train = add_command(
        commands,
        "train",
        run_train,
        help="train a network as a configuration says",
        more="The configurations in configs/ name their stage, data and output; configs/README.md explains them. A run "
        "that was stopped goes on from its last checkpoint.",
        example=[
            "lumiere train configs/emoji/t2i.yaml",
            "lumiere train configs/emoji/conditional.yaml -o runs/mine optim.lr=1e-4 time_budget=60",
            "lumiere train style --images my-drawings/ -o runs/mine    # generate takes it: --style runs/mine/export",
            "lumiere train configs/emoji/plan.yaml --minutes 8.5 --state carried/",
            "torchrun --nproc-per-node 2 -m openlumiere.cli train configs/emoji/t2i.yaml    # see docs/scale.md",
        ],
    )
    train.add_argument(
        "target", metavar="CONFIG", help='YAML file, of one stage or of a plan of several; or "style" with --images'
    )
    train.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change, e.g. optim.lr=1e-4")
    train.add_argument("--config", metavar="FILE", type=Path, help="the same as CONFIG, after the name of its stage")
    train.add_argument("-o", "--output", metavar="FOLDER", help="where the run goes; default: the file's output")
    train.add_argument(
        "--images", metavar="PATH", help="style: a picture or a folder of pictures, see openlumiere.data.style_images"
    )
    train.add_argument(
        "--model", help=f"the model to start from; default: the file's, of a style without one {DEFAULT_MODEL}"
    )
    train.add_argument(
        "--minutes", type=parsing.positive_float, help="plan: train for so long, then stop; default: all"
    )
    train.add_argument(
        "--state", metavar="FOLDER", type=Path, help="plan: small files to go on from on another machine"
    )
    train.add_argument(
        "--budget", type=parsing.positive_int, metavar="MIB", help="plan: what they may take together: 56"
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
            "lumiere export runs/emoji/conditional -o models/my-model --steps 8 --guidance 3",
            "lumiere export runs/emoji/conditional --super-resolution runs/emoji/ssr -o models/my-model",
            "lumiere export models/my-model --super-resolution runs/emoji/ssr -o models/my-sharper-model",
        ],
    )
    export.add_argument("training", metavar="RUN", type=Path, help="output folder of a t2v run, or a model")
    export.add_argument("-o", "--output", required=True, type=Path, help="folder for the model")
    export.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float16", help="of the file")
    export.add_argument("--steps", type=parsing.positive_int, help="the model's default, else the run's sample_steps")
    export.add_argument("--guidance", type=parsing.guidance, help="the model's default, else the run's")
    export.add_argument("--rescale", type=float, metavar="0..1", help="guidance rescaling, the model's default")
    export.add_argument(
        "--guidance-interval", type=parsing.interval, metavar="LOW,HIGH",
        help="guide only at noise between these shares of the schedule, 0.4,1 for instance: faster",
    )  # fmt: skip
    export.add_argument("--super-resolution", metavar="RUN", type=Path, help="output folder of an ssr run to add")
    export.add_argument(
        "--planner",
        metavar="RUN",
        type=Path,
        help="output folder of a planner run to add, or the folder planner of a model; for models that take layouts",
    )
    export.add_argument("--upscale-steps", type=parsing.positive_int, help="its default, else the run's sample_steps")
    export.add_argument("--noise-level", type=parsing.timestep, metavar="0..999", help="its default, else the run's")


def run_train(args: argparse.Namespace) -> int:
    stage, file = _target(args)
    if file is None:
        config = _style(args)
    else:
        from openlumiere.training.settings import read_yaml

        tree = read_yaml(file)
        if "stages" in tree:
            if stage not in (None, _PLAN):
                raise LumiereError(f"{file} is a plan of several stages: say lumiere train {file}")
            return _run_plan(args, file)
        config = _configured(args, stage, file, tree)
    for name in ("minutes", "state", "budget", "unpack"):
        if getattr(args, name):
            raise LumiereError(
                f"--{name} is for plans of several stages, such as configs/emoji/plan.yaml; leave it out"
            )
    from accelerate import PartialState

    from openlumiere.training.loop import train
    from openlumiere.training.parallel import AlikeError, lost_others

    try:
        exported = train(config, resume=not args.no_resume)
    except AlikeError:
        if PartialState().is_main_process:
            raise
        return 2  # the main process says it for all
    except RuntimeError as error:
        if not lost_others(error):
            raise
        raise LumiereError("another process of this training is gone: its own message says why") from error
    if PartialState().is_main_process:
        print(f"wrote {exported}")
    return 0


def _target(args: argparse.Namespace) -> tuple[str | None, Path | None]:
    """Return the stage and the file that a command names, each None where it names none."""
    if args.target not in (*STAGES, _PLAN):
        if args.config is not None:
            raise LumiereError(f"two configurations, {args.target} and {args.config}: leave --config out")
        return None, Path(args.target)
    if args.config is None and args.target != "style":
        raise LumiereError(f"{args.target} needs a configuration: lumiere train FILE, see configs/")
    return args.target, args.config


def _run_plan(args: argparse.Namespace, file: Path) -> int:
    for name in ("output", "model", "images", "no_resume"):
        if getattr(args, name):
            raise LumiereError(f"{file} is a plan, which knows no --{name.replace('_', '-')}; leave it out")
    if args.unpack and args.state is None:
        raise LumiereError("--unpack needs --state FOLDER: where the packed files are")
    from openlumiere.training import carried
    from openlumiere.training.plan import load_plan, run

    stages = load_plan(file, args.overrides)
    if args.unpack:
        carried.unpack(stages, args.state)
        return 0
    budget = carried.BUDGET if args.budget is None else args.budget * 2**20
    if run(stages, minutes=args.minutes, folder=args.state, budget=budget):
        print(f"all {len(stages)} stages are finished")
    return 0


def _configured(args: argparse.Namespace, stage: str | None, file: Path, tree: dict[str, Any]) -> TrainConfig:
    """Return a file's configuration, with what the command says otherwise."""
    from openlumiere.bundled import bundled_folder, bundled_models
    from openlumiere.training.config_files import parse

    config = parse(tree, args.overrides, str(file))
    if stage not in (None, config.stage):
        raise LumiereError(f"{file} is for stage {config.stage}: say lumiere train {file}")
    if args.output is not None:
        config = replace(config, output=args.output)
    if args.model is not None:
        if not hasattr(config.model, "t2i"):
            raise LumiereError(f"stage {config.stage} starts from no model: leave --model out")
        model = str(bundled_folder(args.model)) if args.model in bundled_models() else args.model
        config = replace(config, model=replace(config.model, t2i=model))
    if args.images is not None:
        if config.stage != "style":
            raise LumiereError(f"--images is for styles; what stage {config.stage} is trained on: data.folder=FOLDER")
        config = replace(config, data=replace(config.data, folder=args.images))
    return config


def _style(args: argparse.Namespace) -> TrainConfig:
    """Return the configuration of a style for which no file was written."""
    if not args.images or not args.output:
        raise LumiereError("a style needs --images PATH and -o FOLDER, or a configuration: lumiere train FILE")
    from openlumiere.pipelines.load import resolve_model
    from openlumiere.training.config_files import parse
    from openlumiere.training.stages.style import recipe

    model = resolve_model(args.model or DEFAULT_MODEL)
    return parse(recipe(images=args.images, model=model, output=args.output), args.overrides, "the style's settings")


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
        guidance_interval=args.guidance_interval,
        super_resolution=args.super_resolution,
        planner=args.planner,
        upscale_steps=args.upscale_steps,
        noise_level=args.noise_level,
    )
    print(f"wrote {target}; try it: lumiere generate PROMPT --model {target}")
