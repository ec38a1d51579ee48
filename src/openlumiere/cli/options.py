"""The options that the commands that make clips share, and the fields of a request that they set."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from openlumiere import extras
from openlumiere.batch.cluster import Cluster, connected
from openlumiere.bundled import DEFAULT_MODEL
from openlumiere.errors import LumiereError
from openlumiere.generation.abilities import Abilities
from openlumiere.generation.backends.base import Loading
from openlumiere.generation.backends.find import read_abilities
from openlumiere.generation.models import for_model
from openlumiere.generation.options import parse_size
from openlumiere.generation.requests import Request

from . import marking, parsing, stickers

R = TypeVar("R", bound=Request)

# Options of the fields that `Abilities` refuses or changes.
_OPTIONS = {
    "num_frames": "--frames", "negative_prompt": "--negative", "upscale_steps": "--upscale-steps",
    "references": "--reference",
    **{name: f"--{name}" for name in ("transparent", "size", "path", "last", "loop")},
}  # fmt: skip


def add_sampling(parser: parsing.Parser) -> None:
    """Add what every command that samples takes."""
    parser.add_argument("--seed", type=parsing.seed, help="default: a random one, which is printed")
    parser.add_argument("--steps", type=parsing.positive_int, help="denoising steps, default: the model's")
    parser.add_argument("--guidance", type=parsing.guidance, help="how closely to follow, default: the model's")
    parser.add_argument("--negative", default="", metavar="PROMPT", help="what to keep away from")
    parser.add_argument("--loop", action="store_true", help="make the end flow into the start")
    parser.add_argument(
        "--model", default=DEFAULT_MODEL,
        help="a bundled model, a folder, a hub id (owner/name, owner/name@revision), parts joined by +, or a server's "
        f"http://HOST:PORT#name; lumiere models NAME says what it can do; default: {DEFAULT_MODEL}",
    )  # fmt: skip
    add_loading(parser)
    marking.add_no_mark(parser)
    stickers.add_options(parser)


def add_loading(parser: parsing.Parser) -> None:
    """Add how models are loaded, see `loading`."""
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    parser.add_argument(
        "--devices", type=parsing.names, default=(), metavar="A,B",
        help="cuda:0,cuda:1 for instance: several share each clip, its windows and the halves of guidance; the clip is "
        "the same however many they are",
    )  # fmt: skip
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")
    parser.add_argument(
        "--batch", type=parsing.positive_int, default=1, metavar="WINDOWS",
        help="windows of a long clip that are denoised at once: more are faster on a GPU, and take more memory",
    )  # fmt: skip
    parser.add_argument(
        "--offload", nargs="?", choices=["frames", "model", "group"], const="frames",
        help="keep in the CPU's memory what is not computed with: the frames of long clips (the default), each network "
        "as a whole, or groups of its layers, which is slowest and takes the least",
    )  # fmt: skip
    parser.add_argument(
        "--quantize", choices=["int8", "int4", "float8"],
        help="store the weights of a large model's networks so, which takes less memory: needs openlumiere[quantize]",
    )  # fmt: skip
    parser.add_argument(
        "--compile", action="store_true", help="compile the blocks of large networks: slow at first, then faster"
    )
    parser.add_argument(
        "--memory", type=parsing.memory, metavar="12GB",
        help="that the device may give: --offload and --quantize are then chosen for it",
    )  # fmt: skip


def add_transparency(parser: parsing.Parser, kept: str) -> None:
    """Add what becomes of transparency.

    Args:
        kept: when it is kept without being asked for.
    """
    parser.add_argument(
        "--transparent", action=argparse.BooleanOptionalAction,
        help=f"keep transparency in the output, if its format can: the default {kept}",
    )  # fmt: skip
    parser.add_argument(
        "--background", default="white", metavar="COLOUR",
        help="what is transparent lies over this where it is not kept, a name or #rrggbb; default: white",
    )  # fmt: skip


def add_both_stages(parser: parsing.Parser) -> None:
    """Add what every command that makes clips by both stages takes."""
    parser.add_argument("--num", type=parsing.positive_int, default=1, help="clips of each prompt, with rising seeds")
    parser.add_argument("--no-upscale", action="store_true", help="leave out the super-resolution stage")
    parser.add_argument("--upscale-steps", type=parsing.positive_int, help="its denoising steps, default: the model's")
    parser.add_argument(
        "--style", action="append", default=[], metavar="NAME|FOLDER",
        help="draw in a style that comes with the model, or one of lumiere train style, or a LoRA; twice to mix two",
    )  # fmt: skip
    parser.add_argument(
        "--style-strength", action="append", type=parsing.strength, metavar="A",
        help="0 = none of the style, 1 = all of it, default: 1; once for each --style, or once for all",
    )  # fmt: skip
    parser.add_argument(
        "--reference", action="append", default=[], metavar="IMAGE",
        help="a picture of what is to be in the clip, a face or a thing, of a model that takes some (Wan VACE); "
        "again for more",
    )  # fmt: skip
    parser.add_argument(
        "--path", type=parsing.way_points, default=(), metavar="POINTS",
        help='where the subject goes: way points x,y[,size[,degrees]][@time] such as "0.1,0.5 0.9,0.5", as parts of '
        'the frame from its left and its top; evenly spaced in time, or met when they say, from 0 to 1 of the clip: '
        '"0.1,0.5 0.5,0.5@0.2 0.5,0.5@0.8 0.9,0.5" rests in the middle; default: what the model plans after the prompt',
    )  # fmt: skip
    parser.add_argument(
        "--no-planner", action="store_true", help="don't let the model plan where its subject goes: text alone decides"
    )
    parser.add_argument(
        "--size", type=parsing.of(parse_size), metavar="WxH", help="of the clip, of a model that makes several"
    )
    add_sampling(parser)
    add_transparency(parser, "where the prompt asks for no or a transparent background, or the source has one")


def add_ray(parser: parsing.Parser, what: str, *, workers: bool = True) -> None:
    """Add that a batch may be made on a cluster.

    Args:
        what: is done there.
        workers: add --workers too.
    """
    parser.add_argument(
        "--ray", metavar="ADDRESS|local",
        help=f"{what} on a cluster of Ray that this machine is part of, auto or HOST:PORT, or by several processes of "
        "this machine, local; needs openlumiere[ray]",
    )  # fmt: skip
    if workers:
        parser.add_argument(
            "--workers", type=parsing.positive_int, metavar="N",
            help="with --ray: processes, each with a model of its own; default: one for each GPU, or each machine",
        )  # fmt: skip


def check_ray(args: argparse.Namespace) -> None:
    """Refuse --workers without --ray, and --ray where it is not installed, before anything slow is done."""
    if args.ray is not None:
        extras.require("ray")
    elif args.workers is not None:
        raise LumiereError("--workers: it is of --ray, such as --ray local --workers 2")


@contextmanager
def cluster(args: argparse.Namespace) -> Iterator[Cluster | None]:
    """Be connected to the cluster that --ray names, while the context lasts; None without it."""
    if args.ray is None:
        yield None
        return
    with connected(args.ray, workers=args.workers, device=args.device, debug=args.debug) as found:
        print(f"on Ray: {found.workers} processes, {found.each()} each", flush=True)
        yield found


def loading(args: argparse.Namespace) -> Loading:
    """Return how the model is to be loaded."""
    return Loading(
        device=args.device, devices=args.devices, dtype=args.dtype, window_batch_size=args.batch, offload=args.offload,
        quantize=args.quantize, compile=args.compile, memory=args.memory,
    )  # fmt: skip


def abilities(args: argparse.Namespace) -> Abilities:
    """Return what the model that `add_sampling` names can do; refuses what is no model."""
    return read_abilities(args.model, may_download=True)


def fitted(request: R, abilities: Abilities) -> R:
    """Return a request as a model takes it, before it is loaded; see `generation.models.for_model`."""
    try:
        return for_model(request, abilities)
    except LumiereError as error:
        raise LumiereError(in_options(str(error))) from error


def in_options(line: str) -> str:
    """Return a line about a field of a request, ``field: …``, with the option that sets it instead."""
    field, colon, rest = line.partition(":")
    return f"{_OPTIONS.get(field, field)}{colon}{rest}"


def sampling_fields(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of any request that `add_sampling` and `add_transparency` set, without the prompt."""
    return {
        "negative_prompt": args.negative,
        "seed": args.seed,
        "num_inference_steps": args.steps,
        "guidance_scale": args.guidance,
        "loop": args.loop,
        "transparent": args.transparent,
        "background": args.background,
        "sticker": stickers.sticker_of(args),
        "output": args.output or "",
    }


def both_stages_fields(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of a request that `add_both_stages` sets."""
    if args.no_upscale and args.upscale_steps:
        raise LumiereError("--upscale-steps: there is no super-resolution stage to take them")
    return {
        **sampling_fields(args),
        "upscale_steps": 0 if args.no_upscale else args.upscale_steps,
        "styles": _styles(args),
        "path": tuple(args.path),
        "planner": not args.no_planner,
        "size": args.size,
        "references": tuple(args.reference),
    }


def _styles(args: argparse.Namespace) -> tuple[tuple[str, float], ...]:
    strengths = args.style_strength or [1.0]
    if args.style_strength and not args.style:
        raise LumiereError("--style-strength: say of which --style")
    if len(strengths) not in (1, max(len(args.style), 1)):
        raise LumiereError(f"{len(strengths)} strengths for {len(args.style)} styles: give one, or one each")
    if len(set(args.style)) < len(args.style):
        raise LumiereError("--style: the same one twice; give it once, with a --style-strength")
    return tuple((style, strengths[i % len(strengths)]) for i, style in enumerate(args.style))
