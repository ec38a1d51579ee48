"""`lumiere upscale`: any clip to a sharper one."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path

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
        more="The clip may have any length, size and rate; transparency is kept where the output holds it.",
        example=[
            "lumiere upscale soft.mp4 -o sharp.mp4",
            'lumiere upscale tiger.base.webp "a tiger on a green background" --seed 7 -o tiger.mp4',
        ],
    )
    parser.add_argument("clip", help="a video, an animated WebP or GIF, or a folder of frames")
    parser.add_argument("prompt", nargs="?", help="what it shows, default: what its metadata says")
    parser.add_argument(
        "-o", "--output", help="as of lumiere generate; default: the clip's own name with .sharp before its suffix"
    )
    parser.add_argument(
        "--noise-level", type=parsing.timestep, metavar="0..999",
        help="noise given to the clip first: more lets more of it be drawn anew, default: the model's",
    )  # fmt: skip
    sampling.add_options(parser)


def run(args: argparse.Namespace) -> None:
    from openlumiere.video import read_clip, read_metadata

    watch = Stopwatch()
    output = args.output or _beside(Path(args.clip), args)
    stickers.check_output(output, args)
    sampling.check_model(args.model)
    with watch.stage("read"):
        made = Recipe.from_metadata(read_metadata(args.clip))
        clip = read_clip(args.clip)
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
        model=model,
        weights=weights,
        device=stage.device.type,
        dtype=str(stage.unet.dtype).removeprefix("torch."),
    )
    import torch

    with sampling.watched(stage, "sharpen", recipe.num_inference_steps, watch) as advance:
        frames = stage(
            clip.frames,
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


def _beside(clip: Path, args: argparse.Namespace) -> str:
    """A name for the sharp clip, in a format that keeps what the soft one's may hold, or a sticker's; else MP4."""
    if args.target is not None:
        return f"{clip.with_suffix('')}.sharp{stickers.suffix_for(args)}"
    if clip.is_dir():
        return f"{clip}.sharp/"
    kept = clip.suffix.lower() in (".webp", ".apng", ".gif", ".webm")
    return str(clip.with_suffix(".sharp" + (clip.suffix if kept else ".mp4")))
