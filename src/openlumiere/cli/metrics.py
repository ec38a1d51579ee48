"""`lumiere evaluate fvd`, `is`, `ucf101`, `train-features`: distributions of clips against real ones."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openlumiere import extras
from openlumiere.bundled import DEFAULT_MODEL
from openlumiere.errors import LumiereError

from . import options, parsing
from .parsing import Commands, Parser, add_command

if TYPE_CHECKING:
    from openlumiere.evaluation.features.cache import Extraction

# Kept apart from evaluation/, whose import takes seconds.
_SAMPLINGS = ("centre", "start", "spread", "random")
_FILTERS = ("lanczos", "bicubic", "bilinear")
_VARIANTS = ("videopoet", "make-a-video", "stylegan-v")


def register_metrics(protocols: Commands) -> None:
    """Add the distribution metrics below `lumiere evaluate`."""
    fvd = add_command(
        protocols,
        "fvd",
        run_fvd,
        help="Fréchet video distance of generated clips from real ones, with interval and extrapolation",
        more="Of folders or WebDataset shards (.tar). Clips that are corrupt or too short are counted and named.",
        example=[
            "lumiere evaluate fvd real/ generated/ -o runs/fvd --features emoji",
            "lumiere evaluate fvd real/ generated/ -o runs/fvd --features-file i3d_torchscript.pt --size 256",
            "lumiere evaluate fvd real.tar generated.tar -o runs/fvd --clips 2048 --workers 4",
            "lumiere evaluate fvd real/ generated/ -o runs/fvd --ray auto --cache shared/features",
        ],
    )
    fvd.add_argument("real", type=Path, metavar="REAL", help="folder or .tar of real clips")
    fvd.add_argument("generated", type=Path, metavar="GENERATED", help="folder or .tar of generated clips")
    fvd.add_argument(
        "--features", choices=["i3d", "emoji"], default="i3d",
        help="i3d: FVD; emoji: FVD-emoji, which needs no file and compares emoji clips alone; default: i3d",
    )  # fmt: skip
    fvd.add_argument(
        "--replicates", type=parsing.positive_int, default=100, help="of the bootstrap, 2 or more, default: 100"
    )
    _add_clip_options(fvd)

    score = add_command(
        protocols,
        "is",
        run_is,
        help="Inception Score of generated clips",
        more="Clips that are corrupt or too short are counted and named.",
        example=[
            "lumiere evaluate is generated/ -o runs/is --features emoji",
            "lumiere evaluate is generated/ -o runs/is --features-file c3d_ucf101.pt",
        ],
    )
    score.add_argument("generated", type=Path, metavar="GENERATED", help="folder or .tar of generated clips")
    score.add_argument(
        "--features", choices=["c3d", "emoji"], default="c3d",
        help="c3d: IS on UCF101's classes; emoji: IS-emoji, which needs no file; default: c3d",
    )  # fmt: skip
    score.add_argument("--splits", type=parsing.positive_int, default=10, help="parts that are averaged, default: 10")
    _add_clip_options(score)

    ucf101 = add_command(
        protocols,
        "ucf101",
        run_ucf101,
        help="zero-shot FVD and IS on UCF101, beside the published scores",
        more="A run that was stopped goes on. Shards may run at once, on machines that share the output folder; the "
        "last one to finish prints the scores.",
        example=[
            "lumiere evaluate ucf101 --data ucf101/ --model MODEL -o runs/ucf101 "
            "--fvd-features i3d_torchscript.pt --is-features c3d_ucf101.pt",
            "lumiere evaluate ucf101 --data ucf101/ --model MODEL -o runs/ucf101 --variant stylegan-v --shard 1/4",
            "lumiere evaluate ucf101 --data ucf101/ --model MODEL -o runs/ucf101 --ray auto --cache shared/features",
            "lumiere evaluate ucf101 --data ucf101/ -o runs/quick --clips 20 --features emoji",
        ],
    )
    ucf101.add_argument("--data", type=Path, required=True, help="folder that holds UCF-101/ and ucfTrainTestlist/")
    ucf101.add_argument("--model", default=DEFAULT_MODEL, help="bundled name, local folder or hub id")
    ucf101.add_argument("--variant", choices=_VARIANTS, default="videopoet", help="how many clips, and which")
    ucf101.add_argument("--clips", type=parsing.positive_int, help="make fewer; the variant's name then says so")
    ucf101.add_argument("--split", type=int, choices=[1, 2, 3], default=1, help="training list, default: 1")
    ucf101.add_argument("--prompts", type=Path, help="JSON object, class to prompt; default: made of the class names")
    ucf101.add_argument("--metrics", nargs="+", choices=["fvd", "is"], default=["fvd", "is"], help="default: both")
    ucf101.add_argument(
        "--features", choices=["published", "emoji"], default="published",
        help="published: I3D and C3D; emoji: the package's own, to try the command; default: published",
    )  # fmt: skip
    ucf101.add_argument("--fvd-features", type=Path, metavar="FILE", help="i3d_torchscript.pt")
    ucf101.add_argument("--fvd-sha256", metavar="HEX", help="demand this hash of it")
    ucf101.add_argument("--is-features", type=Path, metavar="FILE", help="c3d_ucf101.pt")
    ucf101.add_argument("--is-sha256", metavar="HEX", help="demand this hash of it")
    ucf101.add_argument("--shard", metavar="I/N", default="1/1", help="make the I-th of N parts of the clips")
    ucf101.add_argument("--frames", type=parsing.positive_int, default=80, help="of the clips made, default: 80")
    ucf101.add_argument("--steps", type=parsing.positive_int, help="denoising steps, default: the model's")
    ucf101.add_argument("--guidance", type=parsing.guidance, help="default: the model's")
    ucf101.add_argument("--batch", type=parsing.positive_int, default=1, help="clips made at a time, default: 1")
    ucf101.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    ucf101.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")
    _add_common_options(ucf101, "make the clips and compute the features")

    features = add_command(
        protocols,
        "train-features",
        run_train_features,
        help="train the feature network of FVD-emoji and IS-emoji anew",
        more="The package brings one; scores made with another compare with nothing else.",
        example=["lumiere evaluate train-features --data data/emoji-256 -o runs/emoji-features"],
    )
    parsing.add_emoji_data(features)
    features.add_argument("-o", "--output", required=True, type=Path, help="folder for the network")
    features.add_argument("--steps", type=parsing.positive_int, help="default: the bundled one's")
    features.add_argument("--clips", type=parsing.positive_int, help="real clips to train on, likewise")
    features.add_argument("--seed", type=parsing.seed, default=0, help="default: 0")


def _add_clip_options(parser: Parser) -> None:
    """What FVD and IS take."""
    parser.add_argument(
        "--features-file", type=Path, metavar="FILE", help="its file; default: the Hugging Face cache's"
    )
    parser.add_argument("--features-sha256", metavar="HEX", help="demand this hash of the file")
    parser.add_argument("--frames", type=parsing.positive_int, default=16, help="of a clip looked at, default: 16")
    parser.add_argument("--sampling", choices=_SAMPLINGS, help="which frames; default: centre, emoji: spread")
    parser.add_argument("--fps", type=parsing.positive_float, help="bring clips to this rate first; default: their own")
    parser.add_argument(
        "--size", type=parsing.positive_int, help="bring each clip's central square to it; default: as it is"
    )
    parser.add_argument("--resize", choices=_FILTERS, default="lanczos", help="filter, default: lanczos")
    parser.add_argument("--clips", type=parsing.positive_int, help="so many of each set, drawn at random; default: all")
    parser.add_argument("--batch", type=parsing.positive_int, default=8, help="clips looked at together, default: 8")
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="of the feature network"
    )
    parser.add_argument("--strict", action="store_true", help="refuse the whole set for one clip that cannot be used")
    _add_common_options(parser)


def _add_common_options(parser: Parser, ray: str = "compute the features") -> None:
    parser.add_argument("-o", "--output", required=True, type=Path, help="folder for the score")
    parser.add_argument("--seed", type=parsing.seed, default=0, help="default: 0")
    parser.add_argument(
        "--workers", type=parsing.positive_int, metavar="N",
        help="processes for features, default: 1; with --ray: default: one for each GPU, or each machine",
    )  # fmt: skip
    options.add_ray(parser, ray, workers=False)
    parser.add_argument("--cache", type=Path, help="folder for features, default: ~/.cache/openlumiere/features")
    parser.set_defaults(again=lambda args: _command(parser, args))


def _command(parser: Parser, args: argparse.Namespace) -> str:
    """The command that was given, with all its options said, so that later defaults do not change it.

    A shard's command makes all shards, as only all of them are a score.
    """
    words = parser.prog.split()
    for action in parser._actions:
        value = getattr(args, action.dest, None)
        if action.dest in ("help", "debug", "shard") or value is None or value is False:
            continue
        flag = [action.option_strings[-1]] if action.option_strings else []
        if value is True:
            words += flag
        else:
            words += [*flag, *(map(str, value) if isinstance(value, list) else [str(value)])]
    return shlex.join(words)


def run_fvd(args: argparse.Namespace) -> None:
    extras.require("matplotlib", *_ray(args))
    from openlumiere.evaluation.protocols.distributions import FVDSettings, fvd

    settings = FVDSettings(replicates=args.replicates, **_clip_settings(args))
    with _extraction(args) as how:
        score = fvd(args.real, args.generated, args.output, settings, how, command=args.again(args))
    print(score.line())
    infinity = score.details.get("infinity")
    if infinity:
        print(f"at infinitely many clips {infinity['value']:.2f} (standard error {infinity['standard_error']:.2f})")
    _notes(score.notes)
    print(f"wrote {args.output}")


def run_is(args: argparse.Namespace) -> None:
    extras.require(*_ray(args))
    from openlumiere.evaluation.protocols.distributions import InceptionSettings, inception

    settings = InceptionSettings(splits=args.splits, **_clip_settings(args))
    with _extraction(args) as how:
        score = inception(args.generated, args.output, settings, how, command=args.again(args))
    print(f"{score.line()}, standard deviation over {args.splits} splits {score.details['std_over_splits']:.2f}")
    _notes(score.notes)
    print(f"wrote {args.output}")


def run_ucf101(args: argparse.Namespace) -> None:
    extras.require(*(["matplotlib"] if "fvd" in args.metrics else []), *_ray(args))
    from openlumiere.evaluation.protocols import ucf101
    from openlumiere.evaluation.protocols.ucf101_data import read_layout

    shard = _shard(args.shard)
    read_layout(args.data, split=args.split)  # before the model, which takes longer to load
    loading = {
        "num_frames": args.frames, "num_inference_steps": args.steps, "guidance_scale": args.guidance,
        "device": args.device, "dtype": args.dtype,
    }  # fmt: skip
    settings = ucf101.UCF101Settings(
        variant=args.variant, clips=args.clips, split=args.split, prompts=args.prompts, metrics=args.metrics,
        emoji=args.features == "emoji", fvd_file=args.fvd_features, fvd_sha256=args.fvd_sha256,
        is_file=args.is_features, is_sha256=args.is_sha256, seed=args.seed, device=_device(args),
    )  # fmt: skip
    with _extraction(args, batch=8) as how:
        if how.cluster is None:
            sample, model = ucf101.load_sample(args.model, **loading)
            made_by: dict[str, Any] = {"model": model}
        else:  # what its clips depend on, device and dtype among it, is known there
            sample, model = None, how.cluster.call(partial(ucf101.describe_sample, args.model, **loading))
            made_by = {"model": model, "load_sample": partial(ucf101.load_sample_alone, args.model, **loading)}
        report = ucf101.evaluate_ucf101(
            sample, args.data, args.output, settings, how,
            shard=shard, batch=args.batch, command=args.again(args), **made_by,
        )  # fmt: skip
    if report is None:
        print(f"made part {args.shard} of the clips in {args.output}; the last part to be made prints the scores")
        return
    print(ucf101.markdown(report), end="")
    print(f"wrote {args.output}")


def run_train_features(args: argparse.Namespace) -> None:
    from openlumiere.evaluation.features.emoji import CONFIG, EmojiFeaturesConfig, make

    sizes = {name: value for name, value in (("steps", args.steps), ("clips", args.clips)) if value is not None}
    make(args.data, args.output, config=EmojiFeaturesConfig(seed=args.seed, **sizes))
    print(f"wrote {args.output}; its metrics are in {args.output / CONFIG}")


def _clip_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return what FVD and IS have in common."""
    return {
        "features": args.features, "features_file": args.features_file, "features_sha256": args.features_sha256,
        "device": _device(args), "num_frames": args.frames, "sampling": args.sampling, "size": args.size,
        "fps": args.fps, "resize": args.resize, "clips": args.clips, "seed": args.seed,
    }  # fmt: skip


def _device(args: argparse.Namespace) -> str:
    """The device of the feature networks; "auto" is the best of this machine, with --ray too."""
    from openlumiere.evaluation.features.networks import usable_device

    return args.device if args.ray is not None and args.device != "auto" else usable_device(args.device)


@contextmanager
def _extraction(args: argparse.Namespace, *, batch: int | None = None) -> Iterator[Extraction]:
    from openlumiere.evaluation.features.cache import Extraction

    with options.cluster(args) as cluster:
        yield Extraction(
            cache=args.cache, workers=args.workers or 1, cluster=cluster, batch=batch or args.batch,
            strict=getattr(args, "strict", False),
        )  # fmt: skip


def _ray(args: argparse.Namespace) -> list[str]:
    """The module that --ray needs."""
    return [] if args.ray is None else ["ray"]


def _notes(notes: list[str]) -> None:
    for note in notes:
        print(f"  note: {note}")


def _shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal()):
        raise LumiereError(f"--shard {text}: give I/N, such as 2/4")
    return int(part), int(parts)
