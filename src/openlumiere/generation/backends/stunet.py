"""Our own models: STUNet, with or without a second stage, and second stages alone."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openlumiere.errors import LumiereError
from openlumiere.generation.abilities import NUM_FRAMES, Fitted
from openlumiere.generation.jobs import has_alpha, holds_alpha, wants_alpha
from openlumiere.generation.options import sticker_words
from openlumiere.generation.progress import Cancelled, Watch, evenly
from openlumiere.generation.recipe import ModelIdentity, Recipe
from openlumiere.generation.requests import ClipRequest, EditRequest, GenerateRequest, Request, UpscaleRequest

from .base import Backend, Clip, Loading
from .source import Source
from .stunet_abilities import SECOND_STAGE, read_abilities

if TYPE_CHECKING:
    import numpy as np
    import torch

    from openlumiere.generation.inputs import EditInputs
    from openlumiere.pipelines.lumiere import LumierePipeline
    from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline


@dataclass(frozen=True)
class STUNetBackend(Backend):
    """A pipeline of ours.

    Attributes:
        pipe: a second stage alone sharpens clips only.
        window_batch_size, offload_frames, devices: as `LumierePipeline`'s.
    """

    pipe: LumierePipeline | LumiereSuperResolutionPipeline
    window_batch_size: int = 1
    offload_frames: bool = False
    devices: tuple[str, ...] | None = None

    @classmethod
    def of(cls, name: str, pipe: LumierePipeline | LumiereSuperResolutionPipeline, **options: Any) -> STUNetBackend:
        """Return the backend of a pipeline that was loaded from `name`, as of `find.load_backend`."""
        source = Source(name)
        dtype = str(pipe.unet.dtype).removeprefix("torch.")
        identity = ModelIdentity(
            name=source.known_as, weights=source.weights, device=pipe.device.type, dtype=dtype, licence=source.licence
        )
        return cls(read_abilities(source), identity, pipe, **options)

    @property
    def base(self) -> LumierePipeline | None:
        """The pipeline, unless it is a second stage alone."""
        from openlumiere.pipelines.lumiere import LumierePipeline

        return self.pipe if isinstance(self.pipe, LumierePipeline) else None

    @property
    def second(self) -> LumiereSuperResolutionPipeline | None:
        """The second stage, if there is one."""
        stage: Any = self.pipe if self.base is None else self.base.super_resolution
        found: LumiereSuperResolutionPipeline | None = stage
        return found

    @property
    def device(self) -> str:
        """The device whose memory it takes."""
        return str(self.pipe.device)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the pipeline's parameters, its second stage's included."""
        from openlumiere.generation.backends.memory import weight_bytes

        second = self.second
        return weight_bytes([*self.pipe.components.values(), *(() if second is None else second.components.values())])

    # ------------------------------------------------------------------------------------------ what is fitted

    def fit(self, request: Request) -> Fitted:
        """Make every choice that a request leaves to the model; see `Backend.fit`."""
        fitted = self.abilities.fit(request)
        settled = self._sharpened(fitted.request) if isinstance(request, UpscaleRequest) else self._made(fitted.request)
        return replace(fitted, request=settled)

    def _sharpened(self, request: Request) -> UpscaleRequest:
        assert isinstance(request, UpscaleRequest)
        assert self.second is not None  # as the abilities say
        config = self.second.config
        alpha = has_alpha(Path(request.source))
        if request.transparent and not alpha:
            raise LumiereError(f"--transparent: {request.source} is opaque, and sharpening keeps it so; leave it out")
        return replace(
            request,
            transparent=(request.transparent is not False and holds_alpha(request)) if alpha else None,
            num_inference_steps=_or(request.num_inference_steps, config.num_inference_steps),
            guidance_scale=_or(request.guidance_scale, config.guidance_scale),
            noise_level=_or(request.noise_level, config.noise_level),
        )

    def _made(self, request: Request) -> ClipRequest:
        assert isinstance(request, ClipRequest)
        transparent = wants_alpha(request) and holds_alpha(request) if self.abilities.transparent else None
        return replace(request, transparent=transparent)

    # ------------------------------------------------------------------------------------------ the second stage alone

    def make(self, request: Request, watch: Watch) -> Clip:
        """Make a clip by the base model, and sharpen it where there is a second stage and it is wanted; or sharpen one.

        The base model's clip lies beside the request's output while the second stage runs, see `base_clip_path`. If
        that stage ends early, by an error, an interruption or cancelling, it stays there, and a note of the exception
        says how to go on from it.
        """
        if isinstance(request, UpscaleRequest):
            return self._sharpen(request, watch)
        assert isinstance(request, ClipRequest)
        return self._make(request, watch)

    def _sharpen(self, request: UpscaleRequest, watch: Watch) -> Clip:
        from openlumiere.pipelines.inputs import lay_frames_over
        from openlumiere.video import read_clip

        watch.tell("read", 0, 1)
        clip = read_clip(request.source)
        laid_over = request.transparent is False
        frames = lay_frames_over(clip.frames, request.background) if laid_over else clip.frames
        sharp = self._sample(
            watch, {"sharpen": self.second}, frames, request.prompt,
            negative_prompt=request.negative_prompt or None,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            noise_level=request.noise_level,
            generator=_generator(request),
            loop=request.loop,
        )  # fmt: skip
        return Clip(sharp, clip.fps)

    # ------------------------------------------------------------------------------------------ both stages

    def _make(self, request: ClipRequest, watch: Watch) -> Clip:
        pipe = self.base
        assert pipe is not None  # as the abilities say
        stage = None if request.upscale_steps == 0 else pipe.super_resolution
        pipe.set_styles(dict(request.styles))
        inputs, fps = self._inputs(request, pipe, stage, watch)
        if inputs is None:
            own = {"num_frames": getattr(request, "num_frames", NUM_FRAMES)}
        else:
            of_request = {"feather": getattr(request, "feather", 0), "rigid": getattr(request, "rigid", None)}
            own = {**inputs.call, **inputs.task.given, **of_request}
        stages: dict[str, Any] = {"denoise": pipe} if stage is None else {"denoise": pipe, "sharpen": stage}
        with self._base_clip_kept(request, fps, watch) as keep:
            frames = self._sample(
                watch, stages, request.prompt,
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
        if inputs is None:
            return Clip(frames, fps)
        task = inputs.task
        return Clip(task.finish(frames, background=request.background), fps, task.made_anew)

    def _inputs(
        self, request: ClipRequest, pipe: LumierePipeline, stage: Any, watch: Watch
    ) -> tuple[EditInputs | None, float]:
        """What is given of the clip, at the size of what comes out at the end, and the clip's rate."""
        if isinstance(request, GenerateRequest):
            return None, _or(request.fps, self.abilities.fps)
        from openlumiere.generation.inputs import FrameSize, read_inputs

        assert isinstance(request, EditRequest)
        watch.tell("read", 0, 1)
        background = None if pipe.has_alpha else request.background
        frame = FrameSize(pipe.frame_size, 1 if stage is None else pipe.scale, pipe.size_multiple, background)
        window = pipe.config.window_frames
        inputs = read_inputs(request, frame, None if window is None else window // 2)
        enough = self.abilities.lengths.enough(len(inputs.task.video))
        return replace(inputs, task=inputs.task.filled_up(enough)), inputs.fps

    @contextmanager
    def _base_clip_kept(self, request: ClipRequest, fps: float, watch: Watch) -> Iterator[Callable[[np.ndarray], None]]:
        """Give what writes the base clip beside the output, where it lies until the second stage is done.

        If that ends early, the exception's note says how to go on from it.
        """
        from openlumiere.video import write_clip

        base, is_written = base_clip_path(request.output), False

        def keep(clips: np.ndarray) -> None:
            nonlocal is_written
            (frames,) = clips
            watch.tell("write", 0, len(frames), preview=lambda count: frames[evenly(count, len(frames))])
            unsharp = Recipe(request=replace(request, upscale_steps=0, sticker=None), model=self.identity, fps=fps)
            write_clip(frames, base, fps=fps, metadata=unsharp.metadata(), lossless=True)
            is_written = True
            watch.ask()
            watch.tell("text", 0, 1)

        try:
            yield keep
        except BaseException as error:
            if is_written:
                if isinstance(error, Cancelled):
                    error.kept = base
                again = shlex.join(["lumiere", "upscale", str(base), *_upscale_options(request, self.name)])
                error.add_note(f"the base clip is kept in {base}; sharpen it with: {again}")
            raise
        if is_written:
            base.unlink()

    def _sample(self, watch: Watch, stages: dict[str, Any], *inputs: Any, **options: Any) -> np.ndarray:
        """The clip of the first of the pipelines, (frames, height, width, 3 or 4) in [0, 1]; it calls the others."""
        pipe = next(iter(stages.values()))
        with watch.sampling(**stages) as after_step:
            frames: np.ndarray = pipe(
                *inputs,
                window_batch_size=self.window_batch_size,
                offload_frames=self.offload_frames,
                devices=self.devices,
                callback_on_step_end=after_step,
                callback_on_step_end_tensor_inputs=("latents", "denoised"),
                **options,
            )[0][0]
        return frames


def base_clip_path(output: str) -> Path:
    """Return where the base model's clip lies while the second stage makes `output`."""
    return Path(output.rstrip("/")).with_suffix(".base.webp")


def _upscale_options(request: ClipRequest, model: str) -> list[str]:
    """Options of `lumiere upscale` with which it makes of the base clip what the second stage would have."""
    steps = ["--seed", str(request.seed), "--steps", str(request.upscale_steps)]
    loop = ["--loop"] if request.loop else []
    return ["-o", request.output, "--model", model, *steps, *loop, *sticker_words(request.sticker)]


def _generator(request: Request) -> torch.Generator:
    # On the CPU whatever the device, so that a seed means the same noise everywhere.
    import torch

    assert request.seed is not None
    return torch.Generator("cpu").manual_seed(request.seed)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


# -------------------------------------------------------------------------------------------------- loading


def load(source: Source, loading: Loading) -> STUNetBackend:
    """Load a pipeline of ours, see `find.load_backend`."""
    if loading.quantize or loading.compile or loading.offload in ("model", "group"):
        raise LumiereError(
            f"{source.name} is small, and takes neither quantizing, compiling nor offloading; leave it out"
        )
    from openlumiere.pipelines.load import load_pipeline, load_super_resolution, resolve_device

    for device in loading.devices:
        resolve_device(device)
    own = loading.devices[0] if loading.devices and loading.device == "auto" else loading.device
    of = load_super_resolution if source.main.class_name == SECOND_STAGE else load_pipeline
    pipe: Any = of(source.name, device=own, dtype=loading.dtype)
    for each in (pipe, getattr(pipe, "super_resolution", None)):
        if each is not None:
            each.set_progress_bar_config(disable=True)  # steps are told to the watch
    return STUNetBackend.of(
        source.name, pipe, window_batch_size=loading.window_batch_size, offload_frames=loading.offload == "frames",
        devices=loading.devices or None,
    )  # fmt: skip
