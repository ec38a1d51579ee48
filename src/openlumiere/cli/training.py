"""`lumiere train` and `lumiere evaluate`."""

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

    evaluate = add_command(
        commands,
        "evaluate",
        lambda _args: None,  # a subcommand is required, and has its own
        help="measure a model",
        example=["lumiere evaluate emoji --model emoji-nano --data data/emoji -o runs/evaluation"],
    )
    protocols = evaluate.add_subparsers(title="protocols", metavar="PROTOCOL", required=True)
    emoji = add_command(
        protocols,
        "emoji",
        run_evaluate_emoji,
        help="say how often clips show the subject, background and motion that were asked for",
        more="Combinations that were trained on and such as were held out are counted apart, beside real clips.",
        example=[
            "lumiere evaluate emoji --model emoji-nano --data data/emoji -o runs/evaluation",
            "lumiere evaluate emoji --model runs/emoji-nano/t2v/export --data data/emoji -o runs/quick --clips 20",
        ],
    )
    emoji.add_argument("--model", default="emoji-nano", help="bundled name, local folder or hub id")
    emoji.add_argument("--data", default=Path("data/emoji"), type=Path, help="folder that lumiere data emoji wrote")
    emoji.add_argument("-o", "--output", required=True, type=Path, help="folder for the report, goes on if stopped")
    emoji.add_argument("--clips", type=parsing.positive_int, default=100, help="clips of each split, default: 100")
    emoji.add_argument("--frames", type=parsing.positive_int, default=80, help="default: 80")
    emoji.add_argument("--steps", type=parsing.positive_int, help="denoising steps, default: the model's")
    emoji.add_argument("--guidance", type=parsing.guidance, help="default: the model's")
    emoji.add_argument("--seed", type=parsing.seed, default=0, help="default: 0")
    emoji.add_argument("--batch", type=parsing.positive_int, default=1, help="clips made at a time, default: 1")
    emoji.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    emoji.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")

    seams = add_command(
        protocols,
        "seams",
        run_evaluate_seams,
        help="say whether the windows of the super-resolution stage show",
        more="Differences between adjacent frames, with MultiDiffusion, without, and of the real clip; and a plot.",
        example=["lumiere evaluate seams --model emoji-nano --data data/emoji -o runs/seams"],
    )
    seams.add_argument("--model", default="emoji-nano", help="bundled name, local folder or hub id")
    seams.add_argument("--data", default=Path("data/emoji"), type=Path, help="folder that lumiere data emoji wrote")
    seams.add_argument("-o", "--output", required=True, type=Path, help="folder for the report")
    seams.add_argument("--clips", type=parsing.positive_int, default=12, help="default: 12")
    seams.add_argument("--frames", type=parsing.positive_int, default=80, help="default: 80")
    seams.add_argument("--seed", type=parsing.seed, default=0)
    seams.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    seams.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")

    loops = add_command(
        protocols,
        "loops",
        run_evaluate_loops,
        help="say whether clips made with --loop jump where they start again",
        example=["lumiere evaluate loops --model emoji-nano -o runs/loops"],
    )
    loops.add_argument("--model", default="emoji-nano", help="bundled name, local folder or hub id")
    loops.add_argument("-o", "--output", required=True, type=Path, help="folder for the report")
    loops.add_argument("--clips", type=parsing.positive_int, default=6, help="with and without, default: 6")
    loops.add_argument("--frames", type=parsing.positive_int, default=80, help="default: 80")
    loops.add_argument("--no-upscale", action="store_true", help="measure the base clips")
    loops.add_argument("--seed", type=parsing.seed, default=0)
    loops.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    loops.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")

    upscale = add_command(
        protocols,
        "upscale",
        run_evaluate_upscaling,
        help="compare the super-resolution stage with bicubic and Lanczos interpolation, by the number of steps",
        more="PSNR, SSIM, perceptual distance, flicker and time on held-out clips; plots, and frames side by side.",
        example=[
            "lumiere evaluate upscale --model emoji-nano --data data/emoji -o runs/upscale",
            "lumiere evaluate upscale -o runs/upscale-100 --steps 1 2 4 --noise-level 100",
        ],
    )
    upscale.add_argument("--model", default="emoji-nano", help="bundled name, local folder or hub id")
    upscale.add_argument("--data", default=Path("data/emoji"), type=Path, help="folder that lumiere data emoji wrote")
    upscale.add_argument("-o", "--output", required=True, type=Path, help="folder for the report")
    upscale.add_argument("--clips", type=parsing.positive_int, default=12, help="default: 12")
    upscale.add_argument("--frames", type=parsing.positive_int, default=80, help="default: 80")
    upscale.add_argument(
        "--steps", type=parsing.positive_int, nargs="+", default=[1, 2, 4, 8], help="to try, default: 1 2 4 8"
    )
    upscale.add_argument("--noise-level", type=parsing.timestep, metavar="0..999", help="default: the model's")
    upscale.add_argument("--seed", type=parsing.seed, default=0)
    upscale.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    upscale.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")


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


def run_evaluate_emoji(args: argparse.Namespace) -> None:
    from openlumiere.evaluation.emoji import evaluate, summary

    report = evaluate(
        args.model,
        args.data,
        args.output,
        clips=args.clips,
        num_frames=args.frames,
        num_inference_steps=args.steps,
        guidance_scale=args.guidance,
        seed=args.seed,
        batch=args.batch,
        device=args.device,
        dtype=args.dtype,
    )
    print(summary(report))
    print(f"wrote {args.output}")


def run_evaluate_seams(args: argparse.Namespace) -> None:
    from openlumiere.evaluation.seams import evaluate_seams
    from openlumiere.pipelines.load import load_super_resolution

    stage = load_super_resolution(args.model, device=args.device, dtype=args.dtype)
    stage.set_progress_bar_config(disable=True)
    report = evaluate_seams(stage, args.data, args.output, clips=args.clips, num_frames=args.frames, seed=args.seed)
    print("difference between adjacent frames, at window borders against elsewhere:")
    for name, ratio in report["ratio_at_borders"].items():
        print(f"  {name:<20} {ratio:.3f}")
    print(f"wrote {args.output}")


def run_evaluate_loops(args: argparse.Namespace) -> None:
    from openlumiere.evaluation.seams import evaluate_loops
    from openlumiere.pipelines.load import load_pipeline

    pipe = load_pipeline(args.model, device=args.device, dtype=args.dtype)
    pipe.set_progress_bar_config(disable=True)
    report = evaluate_loops(
        pipe, args.output, clips=args.clips, num_frames=args.frames, seed=args.seed,
        upscale=False if args.no_upscale else None,
    )  # fmt: skip
    print("difference between the last frame and the first, against that between adjacent ones:")
    for name, ratio in report["ratio_at_wrap"].items():
        print(f"  {name:<20} {ratio:.2f}")
    print(f"wrote {args.output}")


def run_evaluate_upscaling(args: argparse.Namespace) -> None:
    from openlumiere.evaluation.upscaling import evaluate_upscaling, markdown
    from openlumiere.pipelines.load import load_super_resolution

    stage = load_super_resolution(args.model, device=args.device, dtype=args.dtype)
    stage.set_progress_bar_config(disable=True)
    report = evaluate_upscaling(
        stage, args.data, args.output,
        clips=args.clips, num_frames=args.frames, steps=sorted(set(args.steps)), noise_level=args.noise_level,
        seed=args.seed,
    )  # fmt: skip
    print(markdown(report), end="")
    print(f"wrote {args.output}")
