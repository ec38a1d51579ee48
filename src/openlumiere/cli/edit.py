"""The commands that start from a picture or a clip: `animate`, `inpaint`, `outpaint`, `cinemagraph`, `restyle`,
`extend` and `interpolate`.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openlumiere.errors import LumiereError

from . import jobs, making, parsing, sampling, stickers
from .parsing import Commands, add_command
from .recipe import EditRecipe
from .stages import Stopwatch

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from openlumiere.pipelines.lumiere import LumierePipeline
    from openlumiere.pipelines.tasks import Task
    from openlumiere.video import Fit

_FPS = 16.0  # of the clips that the bundled models are trained on


@dataclass(frozen=True)
class Prepared:
    """What a command makes of its inputs.

    Attributes:
        task: what is given of the clip.
        fps: of the result.
        call: further arguments of `LumierePipeline`.
    """

    task: Task
    fps: float
    call: dict[str, Any]


@dataclass(frozen=True)
class Frame:
    """What inputs are fitted to: the finished clip's size, and the sizes that the base model allows.

    Attributes:
        base: (height, width), pixels, of the base model's clips.
        scale: of the second stage, 1 without.
        multiple: what the base model divides its sides by.
        background: what is transparent in inputs is laid over; None = it is kept.
    """

    base: tuple[int, int]
    scale: int
    multiple: int
    background: str | None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels of the finished clip."""
        return self.base[0] * self.scale, self.base[1] * self.scale


def register(commands: Commands) -> None:
    animate = _add(
        commands, "animate", _animate, source="image",
        help="make a picture move",
        more="The clip starts with the picture; with --last it ends with another.",
        example=[
            'lumiere animate tiger.png "a tiger walking to the left" -o tiger.mp4',
            'lumiere animate closed.png --last open.png "a flower opening" -o flower.webp',
        ],
    )  # fmt: skip
    animate.add_argument("--last", metavar="IMAGE", help="the picture that the clip ends with")
    _add_length(animate)

    inpaint = _add(
        commands, "inpaint", _inpaint, source="clip",
        help="change a region of a clip, or put something into it",
        more="All that lies outside the region stays as it is.",
        example=[
            'lumiere inpaint walk.mp4 "a red hat" --mask hat.png -o hat.mp4',
            'lumiere inpaint walk.mp4 "a plain green background" --box 0,0,64,40',
        ],
    )  # fmt: skip
    _add_region(inpaint, "change")
    _add_clip_options(inpaint)

    outpaint = _add(
        commands, "outpaint", _outpaint, source="clip",
        help="make the frame of a clip larger",
        example=['lumiere outpaint square.mp4 --to 16:9 "a tiger on a green background" -o wide.mp4'],
    )  # fmt: skip
    outpaint.add_argument("--to", required=True, type=_aspect, metavar="W:H", help="the new proportions, such as 16:9")
    _add_clip_options(outpaint, fit=False)

    cinemagraph = _add(
        commands, "cinemagraph", _cinemagraph, source="image",
        help="make a region of a picture move, and nothing else",
        more="The clip is a loop unless --no-loop is given.",
        example=['lumiere cinemagraph campfire.jpg --mask flame.png "a burning fire" -o campfire.webp'],
    )  # fmt: skip
    _add_region(cinemagraph, "move")
    cinemagraph.add_argument("--no-loop", dest="loop", action="store_false", help="let the end differ from the start")
    cinemagraph.set_defaults(loop=True)
    _add_length(cinemagraph)

    restyle = _add(
        commands, "restyle", _restyle, source="clip", prompt=True,
        help="make a clip anew after a prompt, keeping how it moves",
        more="The clip gets noise, and is denoised as the prompt says (SDEdit).",
        example=['lumiere restyle walk.mp4 "a lion walking to the left" --strength 0.7 -o lion.mp4'],
    )  # fmt: skip
    restyle.add_argument(
        "--strength", type=parsing.fraction, default=0.7,
        help="0 keeps the clip, 1 keeps nothing of it, default: 0.7",
    )  # fmt: skip
    _add_clip_options(restyle, feather=False)

    extend = _add(
        commands, "extend", _extend, source="clip",
        help="make a clip go on",
        example=['lumiere extend walk.mp4 --frames 40 "a tiger walking to the left" -o longer.mp4'],
    )  # fmt: skip
    _add_clip_options(extend, feather=False, frames=False)
    extend.add_argument("--frames", type=parsing.positive_int, default=40, help="frames to add, default: 40")

    interpolate = _add(
        commands, "interpolate", _interpolate, source="clip",
        help="make new frames between those of a clip",
        more="The clip lasts as long as before, with more frames per second.",
        example=["lumiere interpolate choppy.gif --factor 4 -o smooth.webp"],
    )  # fmt: skip
    interpolate.add_argument("--factor", type=parsing.positive_int, default=2, help="times as many, default: 2")
    _add_clip_options(interpolate, feather=False, fps=False)


def _add(
    commands: Commands, name: str, prepare: Callable[[argparse.Namespace, LumierePipeline, Frame], Prepared], *,
    source: str, help: str, example: list[str], more: str = "", prompt: bool = False,
) -> parsing.Parser:  # fmt: skip
    """Add a command; what its parser is given after this are the options that its recipe carries."""
    parser = add_command(commands, name, run, help=help, more=more, example=example)
    parser.add_argument("source", metavar=source.upper(), help=_SOURCES[source])
    if prompt:
        parser.add_argument("prompt", help="what it should show")
    else:
        parser.add_argument("prompt", nargs="?", default="", help="what it should show")
    parser.add_argument(
        "-o", "--output",
        help=f"as of lumiere generate; default: a new .mp4, or .webp if transparent, named after the {source}",
    )  # fmt: skip
    making.add_options(parser)
    parser.set_defaults(task=name, prepare=prepare, common={action.dest for action in parser._actions})
    parser.set_defaults(parser=parser)
    return parser


_SOURCES = {
    "image": "any picture; of an animated one the first frame",
    "clip": "a video, an animated WebP or GIF, or a folder of frames",
}


def _add_fit(parser: parsing.Parser) -> None:
    parser.add_argument(
        "--fit", choices=["crop", "pad", "stretch"], default="crop",
        help="how inputs of other proportions are brought to the model's: cut off evenly, fill up with the colours of "
        "the edges, or stretch; default: crop",
    )  # fmt: skip


def _add_feather(parser: parsing.Parser) -> None:
    parser.add_argument(
        "--feather", type=parsing.whole, default=0, metavar="PIXELS",
        help="let what is kept fade into what is made over so many pixels of the result, default: 0",
    )  # fmt: skip


def _add_length(parser: parsing.Parser) -> None:
    parser.add_argument("--frames", type=parsing.positive_int, default=80, help="default: 80")
    parser.add_argument("--fps", type=parsing.positive_float, default=_FPS, help="frames per second, default: 16")
    _add_fit(parser)
    _add_feather(parser)


def _add_clip_options(
    parser: parsing.Parser, *, fit: bool = True, feather: bool = True, frames: bool = True, fps: bool = True
) -> None:
    if frames:
        parser.add_argument("--frames", type=parsing.positive_int, help="work on its first frames only, default: all")
    if fps:
        parser.add_argument(
            "--fps", type=parsing.positive_float, default=_FPS,
            help="the rate to work at: the clip's frames are repeated or left out to play on time; default: 16",
        )  # fmt: skip
    if fit:
        _add_fit(parser)
    if feather:
        _add_feather(parser)


def _add_region(parser: parsing.Parser, what: str) -> None:
    region = parser.add_mutually_exclusive_group(required=True)
    region.add_argument(
        "--mask", metavar="FILE",
        help=f"a picture, or a clip, white where it should {what}; of the same proportions as what it is for",
    )  # fmt: skip
    region.add_argument(
        "--box", type=_box, metavar="X,Y,W,H",
        help="a rectangle instead: left, top, width and height in pixels, or in fractions if none is above 1",
    )  # fmt: skip


def _aspect(text: str) -> str:
    """Proportions such as 16:9."""
    parts = text.split(":")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not two whole numbers such as 16:9")
    return text


def _box(text: str) -> str:
    """Four numbers."""
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not four numbers such as 10,20,64,48") from None
    if min(x, y) < 0 or not min(width, height) > 0:
        raise argparse.ArgumentTypeError(f"{text!r}: x and y from 0 on, width and height above 0")
    return text


# ------------------------------------------------------------------------------------------------ running


def run(args: argparse.Namespace) -> None:
    from openlumiere.video import colour, probe, read_picture

    watch = Stopwatch()
    sampling.check_model(args.model)
    # What can't be used should fail before the model is loaded.
    colour(args.background)
    for path in filter(None, [getattr(args, "mask", None), getattr(args, "last", None)]):
        read_picture(path)
    shows_through = _is_transparent(read_picture(args.source, background=None))
    transparent = sampling.wants_alpha(args)
    if transparent is None:
        transparent = shows_through or jobs.asks_for_transparency(args.prompt)
    planned = jobs.from_source(
        args.source, args.task, args.prompt,
        negative=args.negative, seed=args.seed, output=args.output, count=args.num, transparent=transparent,
        suffix=stickers.suffix_for(args),
    )  # fmt: skip
    for job in planned:
        stickers.check_output(job.output, args)
    if args.task in _ON_CLIPS:
        probe(args.source)
    pipe = sampling.load(args, watch)
    if args.task != "restyle" and not pipe.unet.config["condition_channels"]:
        raise LumiereError(f"{args.model} makes clips of text alone; to complete one: lumiere train conditional")
    making.set_styles(pipe, args)
    stage = making.second_stage(pipe, args)
    background = None if pipe.has_alpha else args.background
    frame = Frame(pipe.frame_size, 1 if stage is None else pipe.scale, pipe.size_multiple, background)
    with watch.stage("read"):
        prepared = args.prepare(args, pipe, frame)
    window = pipe.config.window_frames or len(prepared.task.video)
    task = prepared.task.filled_up(pipe.unet.frame_multiple, window)
    for number, job in enumerate(planned, 1):
        if len(planned) > 1:
            print(f"clip {number} of {len(planned)}: seed {job.seed}", flush=True)
        recipe = EditRecipe(
            task=args.task, source=args.source, arguments=_arguments(args), fps=prepared.fps,
            **making.recipe_of(pipe, stage, job, args),
        )  # fmt: skip
        feather = getattr(args, "feather", 0)
        making.make(pipe, stage, recipe, job.output, args, watch, task=task, feather=feather, **prepared.call)
    print(watch.report())


_ON_CLIPS = {"inpaint", "outpaint", "restyle", "extend", "interpolate"}


def _arguments(args: argparse.Namespace) -> str:
    """The command's own options, those at their defaults too, as a shell would be given them."""
    words: list[str] = []
    for action in args.parser._actions:
        value = getattr(args, action.dest, None)
        if action.dest in args.common or value is None or action.dest == "help":
            continue
        words += [action.option_strings[0], f"{value:.10g}" if isinstance(value, float) else str(value)]
    if args.task == "cinemagraph" and not args.loop:
        words.append("--no-loop")
    return shlex.join(words)


def _is_transparent(picture: Image.Image) -> bool:
    return "A" in picture.getbands() and min(picture.getchannel("A").getdata()) < 255


def _picture(path: str, args: argparse.Namespace, frame: Frame) -> np.ndarray:
    import numpy as np

    from openlumiere.video import fit, read_picture

    return np.asarray(fit(read_picture(path, background=frame.background), frame.size, args.fit))


def _clip(
    args: argparse.Namespace, frame: Frame, *, fps: float | None, size: tuple[int, int] | None = None
) -> tuple[np.ndarray, float]:
    """A clip's frames, at the finished clip's size unless another is given, and its rate."""
    from openlumiere.video import read_fitted

    limit = None if args.task == "extend" else args.frames
    how: Fit = "stretch" if args.task == "outpaint" else args.fit  # there the size has the clip's own proportions
    clip = read_fitted(args.source, size or frame.size, how=how, fps=fps, max_frames=limit, background=frame.background)
    return clip.frames, clip.fps


def _region(args: argparse.Namespace, size: tuple[int, int], num_frames: int) -> np.ndarray:
    """The mask, at the size to work at; bool, (1 or F, H, W)."""
    import numpy as np

    from openlumiere.video import fit, read_mask, read_picture

    width, height = read_picture(args.source).size
    if args.mask is None:
        box = _drawn(args.box, width, height)
        return (np.asarray(fit(box, size, args.fit)) >= 128)[None]
    return read_mask(
        args.mask, (height, width), size,
        num_frames=num_frames, fps=args.fps, how=args.fit, max_frames=args.frames,
    )  # fmt: skip


def _drawn(box: str, width: int, height: int) -> Image.Image:
    """A white rectangle on black, at a picture's own size."""
    from PIL import Image

    x, y, w, h = (float(part) for part in box.split(","))
    if max(x, y, w, h) <= 1:
        x, y, w, h = x * width, y * height, w * width, h * height
    left, top, right, bottom = (round(value) for value in (x, y, x + w, y + h))
    if left >= width or top >= height or right <= left or bottom <= top:
        raise LumiereError(f"--box {box} lies outside the picture, which is {width}x{height} pixels")
    mask = Image.new("L", (width, height), 0)
    mask.paste(255, (left, top, min(right, width), min(bottom, height)))
    return mask


# ------------------------------------------------------------------------------------------------ each command


def _animate(args: argparse.Namespace, pipe: LumierePipeline, frame: Frame) -> Prepared:
    from openlumiere.pipelines.tasks import animate

    last = None if args.last is None else _picture(args.last, args, frame)
    task = animate(_picture(args.source, args, frame), args.frames, last=last)
    return Prepared(task, args.fps, {})


def _inpaint(args: argparse.Namespace, pipe: LumierePipeline, frame: Frame) -> Prepared:
    from openlumiere.pipelines.tasks import inpaint

    clip, fps = _clip(args, frame, fps=args.fps)
    return Prepared(inpaint(clip, _region(args, frame.size, len(clip))), fps, {})


def _outpaint(args: argparse.Namespace, pipe: LumierePipeline, frame: Frame) -> Prepared:
    from openlumiere.pipelines.tasks import outpaint
    from openlumiere.video import probe

    across, down = (int(part) for part in args.to.split(":"))
    height, width = _canvas(frame, across / down)
    shape = probe(args.source)
    inner = min(height * frame.scale / shape.height, width * frame.scale / shape.width)
    # Within half a percent of the new proportions there is nothing to add; outpaint says so.
    size = max(round(shape.height * inner), 1), max(round(shape.width * inner), 1)
    clip, fps = _clip(args, frame, fps=args.fps, size=size)
    return Prepared(outpaint(clip, height * frame.scale, width * frame.scale), fps, {"height": height, "width": width})


def _canvas(frame: Frame, aspect: float) -> tuple[int, int]:
    """Height and width of a base clip of other proportions: the shorter side is the model's, the other rounded."""
    height, width = frame.base
    unit = frame.multiple
    if aspect >= width / height:
        return height, max(round(height * aspect / unit), 1) * unit
    return max(round(width / aspect / unit), 1) * unit, width


def _cinemagraph(args: argparse.Namespace, pipe: LumierePipeline, frame: Frame) -> Prepared:
    from openlumiere.pipelines.tasks import cinemagraph

    picture = _picture(args.source, args, frame)
    return Prepared(cinemagraph(picture, _region(args, frame.size, args.frames), args.frames), args.fps, {})


def _restyle(args: argparse.Namespace, pipe: LumierePipeline, frame: Frame) -> Prepared:
    from openlumiere.pipelines.tasks import restyle

    clip, fps = _clip(args, frame, fps=args.fps)
    return Prepared(restyle(clip), fps, {"strength": args.strength})


def _extend(args: argparse.Namespace, pipe: LumierePipeline, frame: Frame) -> Prepared:
    from openlumiere.pipelines.tasks import extend

    clip, fps = _clip(args, frame, fps=args.fps)
    context = (pipe.config.window_frames or len(clip) + args.frames) // 2
    return Prepared(extend(clip, args.frames, context=context), fps, {})


def _interpolate(args: argparse.Namespace, pipe: LumierePipeline, frame: Frame) -> Prepared:
    from openlumiere.pipelines.tasks import interpolate

    clip, fps = _clip(args, frame, fps=None)
    return Prepared(interpolate(clip, args.factor), fps * args.factor, {})
