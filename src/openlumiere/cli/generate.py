"""`lumiere generate`: prompts to clips."""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from openlumiere.errors import LumiereError

from . import jobs, parsing
from .jobs import Job
from .parsing import Commands, add_command
from .recipe import Recipe
from .stages import Stopwatch, bar

if TYPE_CHECKING:
    import numpy as np

    from openlumiere.pipelines.base import LumierePipeline

DEFAULT_MODEL = "emoji-nano"
# Players blur tiny clips: those of the smallest models are enlarged by whole pixels.
_MIN_SIDE = 128


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "generate",
        run,
        help="make a clip that shows what a prompt says",
        more="The same seed gives the same clip on the same machine.",
        example=[
            'lumiere generate "a tiger walking to the left on a green background" -o tiger.mp4',
            'lumiere generate "a red heart growing" --seed 7 --num 4 -o heart.webp',
            "lumiere generate --prompts prompts.txt -o clips    # stop it and start it again: it goes on",
        ],
    )
    parser.add_argument("prompt", nargs="?", help="what to show")
    parser.add_argument(
        "-o",
        "--output",
        help=".mp4 (H.264), .webp or .gif (looping), .png (contact sheet), no suffix: a folder of frames; "
        "default: a new .mp4 named after the prompt; with --prompts: the folder for the clips",
    )
    parser.add_argument("--frames", type=parsing.positive_int, default=80, help="default: 80")
    parser.add_argument("--fps", type=parsing.positive_float, default=16.0, help="frames per second, default: 16")
    parser.add_argument("--seed", type=parsing.seed, help="default: a random one, which is printed")
    parser.add_argument("--steps", type=parsing.positive_int, help="denoising steps, default: the model's")
    parser.add_argument("--guidance", type=parsing.guidance, help="how closely to follow, default: the model's")
    parser.add_argument("--negative", default="", metavar="PROMPT", help="what to keep away from")
    parser.add_argument("--num", type=parsing.positive_int, default=1, help="clips of each prompt, with rising seeds")
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help=f"bundled name, local folder or hub id, default: {DEFAULT_MODEL}"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help='one prompt a line, or JSON such as {"prompt": ..., "seed": 1, "output": "a.webp"}; '
        "clips that are there are skipped",
    )


def run(args: argparse.Namespace) -> None:
    watch = Stopwatch()
    planned = _plan(args)
    if not planned:
        return
    _check_model(args.model)
    pipe = _load(args, watch)
    model, weights = _identify(args.model)
    for number, job in enumerate(planned, 1):
        if len(planned) > 1:
            print(f"clip {number} of {len(planned)}: {job.prompt}", flush=True)
        recipe = Recipe(
            prompt=job.prompt,
            negative_prompt=job.negative_prompt,
            seed=job.seed,
            num_inference_steps=args.steps or pipe.config.num_inference_steps,
            guidance_scale=pipe.config.guidance_scale if args.guidance is None else args.guidance,
            num_frames=args.frames,
            fps=args.fps,
            model=model,
            weights=weights,
            device=pipe.device.type,
            dtype=str(pipe.unet.dtype).removeprefix("torch."),
        )
        frames = _denoise(pipe, recipe, watch)
        _write(frames, job.output, recipe, watch)
        print(f"wrote {job.output} (seed {job.seed})", flush=True)
    print(watch.report())


def _plan(args: argparse.Namespace) -> list[Job]:
    """The clips to make, each with a file that can be written, before anything slow is done."""
    from openlumiere.video import check_writable

    if args.prompts is None:
        if args.prompt is None:
            raise LumiereError('say what to show: lumiere generate "a tiger walking to the left", or give --prompts')
        planned = jobs.from_prompt(
            args.prompt, negative=args.negative, seed=args.seed, output=args.output, count=args.num
        )
    else:
        if args.prompt is not None:
            raise LumiereError("give either a prompt or --prompts FILE, not both")
        if args.output is None:
            raise LumiereError("--prompts needs a folder for the clips: add -o FOLDER")
        folder = Path(args.output)
        every = jobs.from_file(
            Path(args.prompts), negative=args.negative, seed=args.seed, folder=folder, count=args.num
        )
        planned = [job for job in every if not Path(job.output).exists()]
        print(f"{len(planned)} clips to make, {len(every) - len(planned)} already there and skipped", flush=True)
        for job in planned:
            Path(job.output).parent.mkdir(parents=True, exist_ok=True)
    for job in planned:
        check_writable(job.output)
    return planned


def _check_model(name: str) -> None:
    """Refuse a model that is nowhere, before PyTorch is imported."""
    from openlumiere.bundled import bundled_models

    is_hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if name not in bundled_models() and not Path(name).is_dir() and not is_hub_id:
        known = ", ".join(bundled_models()) or "none"
        raise LumiereError(f"unknown model {name!r}: give a bundled one ({known}), a folder, or a hub id")


def _load(args: argparse.Namespace, watch: Stopwatch) -> LumierePipeline:
    with watch.stage("load"), bar("loading", 3, "part") as progress:
        logging.getLogger("diffusers").setLevel(logging.ERROR)
        if not args.debug:
            warnings.simplefilter("ignore")  # of libraries, about themselves
        import torch  # noqa: F401

        progress.update()
        from diffusers.utils.logging import disable_progress_bar

        from openlumiere.pipelines.load import load_pipeline

        disable_progress_bar()  # one bar at a time

        progress.update()
        pipe = load_pipeline(args.model, device=args.device, dtype=args.dtype)
        progress.update()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _identify(name: str) -> tuple[str, str]:
    """The model's name as another working folder would find it, and its weights' fingerprint where they are local."""
    from openlumiere.bundled import bundled_folder, bundled_models, fingerprint

    if name in bundled_models():
        return name, fingerprint(bundled_folder(name))
    if Path(name).is_dir():
        return str(Path(name).resolve()), fingerprint(Path(name))
    return name, ""


def _denoise(pipe: LumierePipeline, recipe: Recipe, watch: Stopwatch) -> np.ndarray:
    """One clip, (frames, height, width, 3) in [0, 1]."""
    import torch

    # On the CPU whatever the device, so that a seed means the same noise everywhere.
    generator = torch.Generator("cpu").manual_seed(recipe.seed)
    progress = bar("denoising", recipe.num_inference_steps, "step")
    times = [time.perf_counter()]

    def begin(*_: object) -> None:
        # Text is encoded by the time that the network is first called.
        times.append(time.perf_counter())
        progress.reset(len(pipe.scheduler.timesteps))
        hook.remove()

    def advance(_pipe: object, _step: int, _timestep: object, tensors: dict) -> dict:
        progress.update()
        return tensors

    hook = pipe.unet.register_forward_pre_hook(begin)
    try:
        with progress:
            frames = pipe(
                recipe.prompt,
                negative_prompt=recipe.negative_prompt or None,
                num_frames=recipe.num_frames,
                num_inference_steps=recipe.num_inference_steps,
                guidance_scale=recipe.guidance_scale,
                generator=generator,
                callback_on_step_end=advance,
            )[0][0]
    finally:
        hook.remove()
    times.append(time.perf_counter())
    watch.add("text", times[1] - times[0])
    watch.add("denoise", times[2] - times[1])
    return frames


def _write(frames: np.ndarray, output: str, recipe: Recipe, watch: Stopwatch) -> None:
    from openlumiere.video import write_clip

    with watch.stage("write"), bar("writing", len(frames), "frame") as progress:
        write_clip(frames, output, fps=recipe.fps, metadata=recipe.metadata(), min_side=_MIN_SIDE)
        progress.update(len(frames))
