"""From a request to a finished clip: inputs, both stages, what is given pasted back, the file."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from openlumiere.errors import LumiereError
from openlumiere.pipelines.inputs import lay_frames_over
from openlumiere.pipelines.lumiere import LumierePipeline
from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline
from openlumiere.video import read_clip, write_clip
from openlumiere.video.stickers import target_for

from .inputs import EditInputs, FrameSize, check_files, read_inputs
from .jobs import wants_alpha
from .models import LoadedModel, opaque_model
from .options import sticker_words
from .progress import Cancelled, Progress, Watch, evenly
from .recipe import Recipe
from .requests import ClipRequest, EditRequest, GenerateRequest, Request, UpscaleRequest, random_seed
from .stickers import write_sticker

NUM_FRAMES = 80  # of the clips that the bundled models are trained on
_MIN_SIDE = 128  # pixels; players blur tiny clips: those of the smallest models are enlarged by whole pixels
_OPAQUE_FORMATS = {".mp4", ".png"}
_SecondStage: TypeAlias = LumiereSuperResolutionPipeline | None


@dataclass(frozen=True)
class Made:
    """A finished clip.

    Attributes:
        recipe: the request with every choice made, and the model.
        note: a line about the sticker; "" for a clip.
    """

    recipe: Recipe
    note: str = ""


def make(
    request: Request,
    model: LoadedModel,
    *,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    window_batch_size: int = 1,
    offload_frames: bool = False,
    lossless: bool = False,
) -> Made:
    """Make the clip that a request asks for, and write it to the request's `output`.

    The same request, seed included, gives the same clip on the same machine. The base model's clip lies beside the
    output while the second stage runs, as ``NAME.base.webp``; if that stage ends early, by an error, an interruption
    or cancelling, it stays there, and a note of the exception says how to go on from it.

    Args:
        progress: told of each step.
        cancelled: asked before each step of a stage; True = stop.
        window_batch_size, offload_frames: as `LumierePipeline`'s.
        lossless: as `write_clip`'s.

    Raises:
        LumiereError: a request that this model cannot fulfil, or files that cannot be read or written.
        Cancelled: `cancelled` said so.
    """
    if not request.output:
        raise LumiereError("say where the clip goes: the request's output is empty")
    check_files(request)
    run = _Run(model, Watch(progress, cancelled), window_batch_size, offload_frames, lossless)
    if isinstance(request, UpscaleRequest):
        return run.upscale(request)
    if not isinstance(request, ClipRequest):
        raise LumiereError(f"{request.task} is no task that makes a clip")
    return run.both_stages(request)


@dataclass(frozen=True)
class _Run:
    """One clip in the making."""

    model: LoadedModel
    watch: Watch
    window_batch_size: int
    offload_frames: bool
    lossless: bool

    # ------------------------------------------------------------------------------------------ the second stage alone

    def upscale(self, request: UpscaleRequest) -> Made:
        """Sharpen a clip."""
        pipe = self.model.pipe
        stage: _SecondStage = pipe.super_resolution if isinstance(pipe, LumierePipeline) else pipe
        if stage is None:
            raise LumiereError(f"{self.model.name} has no super-resolution stage; choose another --model")
        self.watch.tell("read", 0, 1)
        clip = read_clip(request.source)
        has_alpha = clip.frames.shape[-1] == 4
        if request.transparent and not has_alpha:
            raise LumiereError(f"--transparent: {request.source} is opaque, and sharpening keeps it so; leave it out")
        kept = has_alpha and request.transparent is not False and holds_alpha(request)
        config = stage.config
        request = replace(
            request,
            seed=_or(request.seed, random_seed),
            num_inference_steps=_or(request.num_inference_steps, config.num_inference_steps),
            guidance_scale=_or(request.guidance_scale, config.guidance_scale),
            noise_level=_or(request.noise_level, config.noise_level),
            transparent=kept if has_alpha else None,
        )
        frames = clip.frames if kept or not has_alpha else lay_frames_over(clip.frames, request.background)
        sharp = self._sample(
            {"sharpen": stage}, frames, request.prompt,
            negative_prompt=request.negative_prompt or None,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            noise_level=request.noise_level,
            generator=_generator(request),
            loop=request.loop,
        )  # fmt: skip
        return self._write(sharp, Recipe(request=request, model=self.model.identity, fps=clip.fps))

    # ------------------------------------------------------------------------------------------ both stages

    def both_stages(self, request: ClipRequest) -> Made:
        """Make a clip by the base model, and sharpen it where there is a second stage and it is wanted."""
        pipe = self._base_model(request)
        stage = None if request.upscale_steps == 0 else pipe.super_resolution
        if stage is None and request.upscale_steps:
            raise LumiereError("--upscale-steps: there is no super-resolution stage to take them")
        pipe.set_styles(dict(request.styles))
        request = self._settled(request, pipe, stage)
        inputs, fps = self._inputs(request, pipe, stage)
        recipe = Recipe(request=request, model=self.model.identity, fps=fps)
        frames = self._clip(recipe, pipe, stage, inputs)
        if inputs is not None:
            frames = inputs.task.finish(frames, background=request.background)
        return self._write(frames, recipe)

    def _base_model(self, request: ClipRequest) -> LumierePipeline:
        pipe, name = self.model.pipe, self.model.name
        if not isinstance(pipe, LumierePipeline):
            raise LumiereError(f"{name} holds a second stage alone; use it with: lumiere upscale CLIP --model {name}")
        completes = isinstance(request, EditRequest) and request.task != "restyle"
        if completes and not pipe.unet.config["condition_channels"]:
            raise LumiereError(f"{name} makes clips of text alone; to complete one: lumiere train conditional")
        if request.transparent and not pipe.has_alpha:
            raise opaque_model(name)
        return pipe

    def _settled(self, request: ClipRequest, pipe: LumierePipeline, stage: _SecondStage) -> ClipRequest:
        """The request with every choice made."""
        transparent = wants_alpha(request) and holds_alpha(request) if pipe.has_alpha else None
        settled: ClipRequest = replace(
            request,
            seed=_or(request.seed, random_seed),
            num_inference_steps=_or(request.num_inference_steps, pipe.config.num_inference_steps),
            guidance_scale=_or(request.guidance_scale, pipe.config.guidance_scale),
            upscale_steps=0 if stage is None else _or(request.upscale_steps, stage.config.num_inference_steps),
            transparent=transparent,
        )
        if isinstance(settled, GenerateRequest) and settled.num_frames is None:
            settled = replace(settled, num_frames=default_num_frames(settled, pipe.unet.frame_multiple))
        return settled

    def _inputs(
        self, request: ClipRequest, pipe: LumierePipeline, stage: _SecondStage
    ) -> tuple[EditInputs | None, float]:
        """What is given of the clip, at the size of what comes out at the end, and the clip's rate."""
        if isinstance(request, GenerateRequest):
            return None, request.fps
        assert isinstance(request, EditRequest)
        self.watch.tell("read", 0, 1)
        background = None if pipe.has_alpha else request.background
        frame = FrameSize(pipe.frame_size, 1 if stage is None else pipe.scale, pipe.size_multiple, background)
        window = pipe.config.window_frames
        inputs = read_inputs(request, frame, window)
        task = inputs.task.filled_up(pipe.unet.frame_multiple, window or len(inputs.task.video))
        return replace(inputs, task=task), inputs.fps

    def _clip(
        self, recipe: Recipe, pipe: LumierePipeline, stage: _SecondStage, inputs: EditInputs | None
    ) -> np.ndarray:
        """The pipeline's clip, (frames, height, width, 3 or 4) in [0, 1]."""
        request = recipe.request
        assert isinstance(request, ClipRequest)
        if inputs is None:
            own = {"num_frames": getattr(request, "num_frames", NUM_FRAMES)}
        else:
            own = {**inputs.call, **inputs.task.given, "feather": getattr(request, "feather", 0)}
        stages: dict[str, Any] = {"denoise": pipe} if stage is None else {"denoise": pipe, "sharpen": stage}
        with self._base_clip_kept(recipe) as keep:
            return self._sample(
                stages, request.prompt,
                negative_prompt=request.negative_prompt or None,
                num_inference_steps=request.num_inference_steps,
                guidance_scale=request.guidance_scale,
                generator=_generator(request),
                upscale=stage is not None,
                upscale_steps=None if stage is None else request.upscale_steps,
                on_base_clips=keep,
                transparent=bool(request.transparent),
                background=request.background,
                layout=list(request.path) or None,
                planner=request.planner,
                loop=request.loop,
                **own,
            )  # fmt: skip

    @contextmanager
    def _base_clip_kept(self, recipe: Recipe) -> Iterator[Callable[[np.ndarray], None]]:
        """Give what writes the base clip beside the output, where it lies until the second stage is done.

        If that ends early, the exception's note says how to go on from it.
        """
        request = recipe.request
        assert isinstance(request, ClipRequest)
        base, is_written = base_clip_path(request.output), False

        def keep(clips: np.ndarray) -> None:
            nonlocal is_written
            (frames,) = clips
            self.watch.tell("write", 0, len(frames), preview=lambda count: frames[evenly(count, len(frames))])
            unsharp = replace(recipe, request=replace(request, upscale_steps=0, sticker=None))
            write_clip(frames, base, fps=recipe.fps, metadata=unsharp.metadata(), lossless=True)
            is_written = True
            self.watch.ask()
            self.watch.tell("text", 0, 1)

        try:
            yield keep
        except BaseException as error:
            if is_written:
                if isinstance(error, Cancelled):
                    error.kept = base
                again = shlex.join(["lumiere", "upscale", str(base), *_upscale_options(recipe, self.model.name)])
                error.add_note(f"the base clip is kept in {base}; sharpen it with: {again}")
            raise
        if is_written:
            base.unlink()

    # ------------------------------------------------------------------------------------------ shared

    def _sample(self, stages: dict[str, Any], *inputs: Any, **options: Any) -> np.ndarray:
        """The clip of the first of the pipelines, (frames, height, width, 3 or 4) in [0, 1]; it calls the others."""
        pipe = next(iter(stages.values()))
        with self.watch.sampling(**stages) as after_step:
            frames: np.ndarray = pipe(
                *inputs,
                window_batch_size=self.window_batch_size,
                offload_frames=self.offload_frames,
                callback_on_step_end=after_step,
                callback_on_step_end_tensor_inputs=("latents", "denoised"),
                **options,
            )[0][0]
        return frames

    def _write(self, frames: np.ndarray, recipe: Recipe) -> Made:
        request, count = recipe.request, len(frames)
        # By default nothing is laid under half transparent edges: a GIF's keep their own colour then.
        background = None if request.background == "white" else request.background
        if request.sticker is not None:
            tried = 0

            def advance(note: str) -> None:
                nonlocal tried
                tried += 1
                self.watch.tell("sticker", tried, 0, note=note)

            self.watch.tell("sticker", 0, 0)
            report = write_sticker(
                frames, recipe.fps, request.sticker, request.output, background=background,
                period=count / recipe.fps if request.loop else None, metadata=recipe.metadata(), progress=advance,
            )  # fmt: skip
            return Made(recipe, report.line())
        self.watch.tell("write", 0, count)
        write_clip(
            frames, request.output, fps=recipe.fps, metadata=recipe.metadata(), min_side=_MIN_SIDE,
            lossless=self.lossless, background=background,
        )  # fmt: skip
        self.watch.tell("write", count, count)
        return Made(recipe)


def base_clip_path(output: str) -> Path:
    """Return where the base model's clip lies while the second stage makes `output`."""
    return Path(output.rstrip("/")).with_suffix(".base.webp")


def holds_alpha(request: Request) -> bool:
    """Return whether the format of the request's output holds transparency: all stickers' do."""
    output = request.output
    return request.sticker is not None or output.endswith("/") or Path(output).suffix.lower() not in _OPAQUE_FORMATS


def _upscale_options(recipe: Recipe, model: str) -> list[str]:
    """Options of `lumiere upscale` with which it makes of the base clip what the second stage would have."""
    request = recipe.request
    assert isinstance(request, ClipRequest)
    steps = ["--seed", str(request.seed), "--steps", str(request.upscale_steps)]
    loop = ["--loop"] if request.loop else []
    return ["-o", request.output, "--model", model, *steps, *loop, *sticker_words(request.sticker)]


def default_num_frames(request: GenerateRequest, multiple: int) -> int:
    """Return how many frames a clip has by default: no more than a sticker may last, so that a loop stays whole."""
    seconds = None if request.sticker is None else target_for(request.sticker.target).max_seconds
    if seconds is None:
        return NUM_FRAMES if request.sticker is None else max(NUM_FRAMES // multiple, 1) * multiple
    return max(min(int(seconds * request.fps + 1e-6), NUM_FRAMES) // multiple, 1) * multiple


def _generator(request: Request) -> torch.Generator:
    # On the CPU whatever the device, so that a seed means the same noise everywhere.
    assert request.seed is not None
    return torch.Generator("cpu").manual_seed(request.seed)


def _or(value: Any, default: Any) -> Any:
    """`value`, or the default where it is None; a function is called for it."""
    if value is not None:
        return value
    return default() if callable(default) else default
