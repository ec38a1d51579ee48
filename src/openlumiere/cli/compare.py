"""`lumiere compare`: several models on the same prompts, side by side."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openlumiere import extras
from openlumiere.errors import LumiereError
from openlumiere.generation.options import parse_size

from . import options, parsing, running
from .parsing import Commands, Parser, add_command

if TYPE_CHECKING:
    from openlumiere.comparison.compare import Real
    from openlumiere.comparison.entries import Settings


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "compare",
        run,
        help="make clips of several models, and show, measure and judge them side by side",
        more="Clips that are there are skipped, so a run that was stopped goes on. The output has the clips, a page, "
        "index.html, and tables of what was measured.",
        example=[
            "lumiere compare --models emoji Wan-AI/Wan2.1-T2V-1.3B-Diffusers --prompts prompts.txt -o comparison",
            "lumiere compare --models Few=emoji Pika=clips/pika --prompts prompts.txt --steps 4 -o comparison",
            "lumiere compare --models emoji stabilityai/stable-video-diffusion-img2vid-xt "
            "--picture-from emoji --prompts prompts.txt -o comparison",
            "lumiere compare --models emoji my-model --prompts prompts.txt -o comparison --ray auto",
            "lumiere compare --config configs/compare/lumiere-paper.yaml --models Ours=my-model --prompts prompts.txt "
            "--study Ours -o comparison",
        ],
    )
    parser.add_argument(
        "--models", nargs="+", default=[], metavar="[NAME=]MODEL",
        help="bundled names, folders, hub ids, or servers' http://HOST:PORT#name; NAME=FOLDER for clips that another "
        "program made, told apart by prompt as lumiere study create does",
    )  # fmt: skip
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML with options for each model; see docs")
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE",
        help='one prompt a line, or JSON such as {"prompt": ..., "negative_prompt": ..., "seed": 1}',
    )  # fmt: skip
    parser.add_argument("-o", "--output", required=True, type=Path, help="folder for all of it")
    parser.add_argument("--seeds", type=parsing.positive_int, metavar="N", help="clips of each prompt, default: 1")
    parser.add_argument("--seed", type=parsing.seed, help="of the first clip of each prompt, default: 0")
    parser.add_argument("--fps", type=parsing.positive_float, help="frames per second, default: each model's")
    add_making(parser)
    options.add_ray(parser, "make the clips")
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="real clips to measure FVD from")
    parser.add_argument(
        "--features", choices=["i3d", "emoji"], default="i3d",
        help="of FVD: i3d, or emoji, which needs no file and compares emoji clips alone; default: i3d",
    )  # fmt: skip
    parser.add_argument("--features-file", type=Path, metavar="FILE", help="i3d's; default: the Hugging Face cache's")
    parser.add_argument("--features-sha256", metavar="SHA256", help="that --features-file may have, if not i3d's own")
    parser.add_argument(
        "--study", metavar="NAME", help="make a preference study, OUTPUT/study: which of the models is ours"
    )


def add_making(parser: Parser) -> None:
    """Add what is asked of all models, and how they are loaded."""
    parser.add_argument("--frames", type=parsing.positive_int, help="of each clip, default: each model's")
    parser.add_argument("--size", type=parsing.of(parse_size), metavar="WxH", help="default: each model's")
    parser.add_argument("--steps", type=parsing.positive_int, help="denoising steps, default: each model's")
    parser.add_argument("--guidance", type=parsing.guidance, help="how closely to follow, default: each model's")
    parser.add_argument("--negative", metavar="PROMPT", help="what to keep away from")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--pictures", metavar="FOLDER",
        help="what models without a prompt start from: pictures named after the prompts, or one for each in order",
    )  # fmt: skip
    start.add_argument("--picture-from", metavar="NAME", help="the same: the first frames of this one's clips")
    options.add_loading(parser)


def asked_of_all(args: argparse.Namespace) -> dict[str, Any]:
    """Return what `add_making` asks of all models, as fields of `entries.Options`."""
    return {
        "num_frames": args.frames, "size": args.size, "num_inference_steps": args.steps,
        "guidance_scale": args.guidance, "negative_prompt": args.negative, "pictures": args.pictures,
        "picture_from": args.picture_from,
    }  # fmt: skip


def say(line: str) -> None:
    """Print at once, between bars."""
    print(line, flush=True)


def run(args: argparse.Namespace) -> int:
    extras.require("torchmetrics")
    options.check_ray(args)
    from openlumiere.comparison.compare import compare
    from openlumiere.comparison.entries import read_entry, with_defaults
    from openlumiere.comparison.plan import make_plan
    from openlumiere.comparison.prompts import read_shots

    settings = _settings(args)
    if not settings.prompts:
        raise LumiereError("say what to show: --prompts FILE, one prompt a line")
    entries = with_defaults([*settings.models, *map(read_entry, args.models)], settings)
    shots = read_shots(Path(settings.prompts), seed=settings.seed, seeds=settings.seeds)
    plan = make_plan(args.output, entries, shots, pictures=settings.pictures, picture_from=settings.picture_from)
    real = _real(args)
    running.silence_libraries(args.debug)
    with options.cluster(args) as cluster:
        failures = compare(
            plan, options.loading(args),
            cluster=cluster, ours=settings.study, real=real, command=_command(args), report=say,
        )  # fmt: skip
    return ended(len(failures), args)


def ended(failures: int, args: argparse.Namespace) -> int:
    """Say how many clips are missing; return the exit code."""
    if failures:
        print(f"lumiere: {failures} clips could not be made; run it again to try them again", file=sys.stderr)
    return 1 if failures else 0


def _settings(args: argparse.Namespace) -> Settings:
    """What the file says, with what options say instead."""
    from dataclasses import replace

    from openlumiere.comparison.entries import Settings, overridden, read_settings

    settings = read_settings(args.config) if args.config else Settings()
    if args.pictures or args.picture_from:
        settings = replace(settings, pictures=None, picture_from=None)
    more = {"prompts": None if args.prompts is None else str(args.prompts), "study": args.study}
    return overridden(settings, **asked_of_all(args), fps=args.fps, seed=args.seed, seeds=args.seeds, **more)


def _real(args: argparse.Namespace) -> Real | None:
    if args.real is None:
        for name in ("features_file", "features_sha256"):
            if getattr(args, name) is not None:
                option = f"--{name.replace('_', '-')}"
                raise LumiereError(f"{option}: there are no real clips to compare with; add --real FOLDER")
        return None
    from openlumiere.comparison.compare import FEATURE_SIZE, Real
    from openlumiere.evaluation.features.networks import usable_device
    from openlumiere.evaluation.protocols.distributions import FVDSettings

    size = FEATURE_SIZE if args.features == "i3d" else None
    settings = FVDSettings(
        features=args.features, features_file=args.features_file, features_sha256=args.features_sha256, size=size,
        device=usable_device(args.device),
    )  # fmt: skip
    return Real(folder=args.real, settings=settings)


def _command(_args: argparse.Namespace) -> str:
    words = sys.argv[1:]
    return shlex.join(["lumiere", *words]) if words[:1] == ["compare"] else ""
