"""The methods that `lumiere evaluate baselines` compares, and how each makes its clips."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from openlumiere.data.emoji.scenes import Scene
from openlumiere.errors import LumiereError
from openlumiere.evaluation.clips import ClipMaker, Job, Sample, pipeline_sample

if TYPE_CHECKING:
    from openlumiere.pipelines.lumiere import LumierePipeline

GENERAL, PERIODIC = "general", "periodic"  # kinds of scenes; those of chosen periods are named after them
EVERY = 2  # of the cascade: one frame in so many is a keyframe
REAL = "real clips"


def _as_folder(name: str) -> str:
    return name.replace(" ", "-")


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way of making clips.

    Attributes:
        name: as the report calls it.
        model: bundled name, folder or hub id of what makes the clip, or the keyframes.
        between: of what fills in between keyframes; None = there are none.
    """

    name: str
    model: str
    between: str | None = None

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith(".") or self.folder == _as_folder(REAL):
            raise LumiereError(f"a method called {self.name!r}: choose a name that can be a folder's")

    @property
    def folder(self) -> str:
        return _as_folder(self.name)


def sample_cascade(
    keyframes: LumierePipeline,
    between: LumierePipeline,
    prompt: str,
    *,
    num_frames: int = 80,
    every: int = EVERY,
    generator: torch.Generator | None = None,
) -> np.ndarray:
    """Make a clip of `num_frames` from keyframes, and from what a second network puts between them.

    It works in windows from a keyframe to the tenth after it; neighbours share that one keyframe, which is given.

    Returns:
        (F, H, W, 3) in [0, 1].
    """
    if num_frames % every:
        raise LumiereError(f"{num_frames} frames: choose a multiple of {every}, the distance between keyframes")
    keys = keyframes(prompt, num_frames=num_frames // every, generator=generator, upscale=False)[0][0]
    # One more frame ends the last window; it is not given, and left out again.
    video = np.zeros((num_frames + 1, *keys.shape[1:]), np.float32)
    change = np.ones((num_frames + 1, 1, 1), np.float32)
    video[:num_frames:every], change[:num_frames:every] = keys, 0
    return between(
        prompt, num_frames=num_frames + 1, video=video, mask=change, window_frames=10 * every + 1, window_overlap=1,
        generator=generator, upscale=False,
    )[0][0][:num_frames]  # fmt: skip


def method_folder(output: Path, name: str) -> Path:
    """Return where a method keeps its settings, and its clips below."""
    return output / "methods" / _as_folder(name)


def clip_name(kind: str, index: int) -> str:
    """Return a clip's name in its method's folder: below ``clips`` if distances between sets of clips are of it."""
    return f"clips/{kind}/{index:05d}" if kind in (GENERAL, PERIODIC) else f"{kind}/{index:05d}"


def clip_path(output: Path, name: str, kind: str, index: int) -> Path:
    """Return where a method's clip lies."""
    return method_folder(output, name) / f"{clip_name(kind, index)}.npy"


def make_in_own_process(
    method: Method,
    scenes: Mapping[str, list[Scene]],
    output: Path,
    *,
    num_frames: int,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    progress: bool = True,
) -> None:
    """Make the clips of scenes that `output` lacks, in a process whose memory is then this method's alone."""
    jobs = []
    for number, (kind, listed) in enumerate(scenes.items()):
        seeds = np.random.SeedSequence([seed, number]).generate_state(len(listed))
        jobs += [Job(clip_name(kind, index), scene.caption, int(seeds[index])) for index, scene in enumerate(listed)]
    folder = method_folder(output, method.name)
    if all((folder / f"{job.name}.npy").exists() for job in jobs):
        return
    context = multiprocessing.get_context("spawn")  # a fork would share the parent's memory, and count it
    process = context.Process(target=_make, args=(method, jobs, folder, num_frames, device, dtype, progress))
    process.start()
    process.join()
    if process.exitcode:
        raise LumiereError(
            f"making clips by {method.name} ended with code {process.exitcode}, see above; run again to go on"
        )


def _make(
    method: Method, jobs: Sequence[Job], folder: Path, num_frames: int, device: str, dtype: str, progress: bool
) -> None:
    """Make the clips that are missing, each with how long it took and the peak of memory so far."""
    from openlumiere.pipelines.load import load_pipeline

    def load(model: str) -> LumierePipeline:
        pipe = load_pipeline(model, device=device, dtype=dtype)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    try:
        pipe = load(method.model)
        sample = pipeline_sample(pipe, num_frames=num_frames, upscale=False)
        if method.between is not None:
            sample = _cascade(pipe, load(method.between), num_frames)
        ClipMaker(sample, folder, timed=True).make(jobs, title=method.name, progress=progress)
    except LumiereError as error:
        print(f"lumiere: error: {method.name}: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _cascade(keyframes: LumierePipeline, between: LumierePipeline, num_frames: int) -> Sample:
    def sample(prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        return np.stack(
            [
                sample_cascade(
                    keyframes, between, prompt, num_frames=num_frames, generator=torch.Generator().manual_seed(seed)
                )
                for prompt, seed in zip(prompts, seeds, strict=True)
            ]
        )

    return sample
