"""`lumiere upscale`: any clip to a sharper one."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path

from openlumiere.errors import LumiereError

from . import parsing, sampling, stickers
from .parsing import Commands, add_command
from .recipe import Recipe, UpscaleRecipe
from .stages import Stopwatch


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "upscale",
        run,
        help="make a clip sharper",
        more="The clip may have any length, size and rate.",
        example=[
            "lumiere upscale soft.mp4 -o sharp.mp4",
            'lumiere upscale tiger.base.webp "a tiger on a green background" --seed 7 -o tiger.mp4',
        ],
    )
    parser.add_argument("clip", help="a video, an animated WebP or GIF, or a folder of frames")
    parser.add_argument("prompt", nargs="?", help="what it shows, default: what its metadata says")
    parser.add_argument(
        "-o", "--output",
        help="as of lumiere generate; default: the clip's own name with .sharp before its suffix, where that is of a "
        "format that holds what the clip does",
    )  # fmt: skip
    parser.add_argument(
        "--noise-level", type=parsing.timestep, metavar="0..999",
        help="noise given to the clip first: more lets more of it be drawn anew, default: the model's",
    )  # fmt: skip
    sampling.add_options(parser)
    sampling.add_transparency(parser, "where the clip has any")


def run(args: argparse.Namespace) -> None:
    from openlumiere.video import colour, read_clip, read_metadata

    watch = Stopwatch()
    if args.output is not None:
        stickers.check_output(args.output, args)
    colour(args.background)
    sampling.check_model(args.model)
    with watch.stage("read"):
        made = Recipe.from_metadata(read_metadata(args.clip))
        clip = read_clip(args.clip)
    has_alpha = clip.frames.shape[-1] == 4
    if args.transparent and not has_alpha:
        raise LumiereError(f"--transparent: {args.clip} is opaque, and sharpening keeps it so; leave it out")
    kept = has_alpha and args.transparent is not False
    output = args.output or _beside(Path(args.clip), args, transparent=kept)
    stickers.check_output(output, args)
    kept = kept and sampling.keeps_alpha(output, args)
    alpha = "kept" if kept else "laid over"
    stage = sampling.load_second_stage(args, watch)
    model, weights = sampling.identify(args.model)
    recipe = UpscaleRecipe(
        source=args.clip,
        prompt=(made.prompt if made else "") if args.prompt is None else args.prompt,
        negative_prompt=args.negative,
        seed=secrets.randbelow(2**32) if args.seed is None else args.seed,
        num_inference_steps=args.steps or stage.config.num_inference_steps,
        guidance_scale=stage.config.guidance_scale if args.guidance is None else args.guidance,
        noise_level=stage.config.noise_level if args.noise_level is None else args.noise_level,
        fps=clip.fps,
        loop=args.loop,
        alpha=alpha if has_alpha else "",
        background=args.background,
        model=model,
        weights=weights,
        device=stage.device.type,
        dtype=str(stage.unet.dtype).removeprefix("torch."),
    )
    import torch

    from openlumiere.pipelines.inputs import lay_frames_over

    with sampling.watched(stage, "sharpen", recipe.num_inference_steps, watch) as advance:
        frames = stage(
            clip.frames if kept or not has_alpha else lay_frames_over(clip.frames, args.background),
            recipe.prompt,
            negative_prompt=recipe.negative_prompt or None,
            num_inference_steps=recipe.num_inference_steps,
            guidance_scale=recipe.guidance_scale,
            noise_level=recipe.noise_level,
            generator=torch.Generator("cpu").manual_seed(recipe.seed),
            loop=recipe.loop,
            window_batch_size=args.batch,
            offload_frames=args.offload,
            callback_on_step_end=advance,
        )[0][0]
    about = sampling.write(frames, output, recipe.fps, recipe.metadata(), watch, args=args)
    print(f"wrote {output} (seed {recipe.seed}){about and f': {about}'}")
    print(watch.report())


def _beside(clip: Path, args: argparse.Namespace, *, transparent: bool) -> str:
    """A name for the sharp clip, in the soft one's format if that holds as much; else WebP or MP4; or a sticker's."""
    suffix = stickers.suffix_for(args)
    if suffix is not None:
        return f"{clip if clip.is_dir() else clip.with_suffix('')}.sharp{suffix}"
    if clip.is_dir():
        return f"{clip}.sharp/"
    own = clip.suffix if clip.suffix.lower() in (".webp", ".apng", ".webm", ".gif") else None
    return str(clip.with_suffix(".sharp" + (own or (".webp" if transparent else ".mp4"))))
