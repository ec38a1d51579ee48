"""Clips that an evaluation makes: those that its folder lacks are made, those that it holds are read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from openlumiere import files
from openlumiere.batch.cluster import Cluster
from openlumiere.batch.work import Work, run
from openlumiere.errors import LumiereError

from . import cache
from .memory import peak_memory_mib

if TYPE_CHECKING:
    from openlumiere.pipelines.lumiere import LumierePipeline

# Makes clips of prompts (or scenes), one seed each, and options: uint8 or float in [0, 1], (N, F, H, W, 3 or 4).
Sample = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Job:
    """One clip to make.

    Attributes:
        name: of its file in the folder, without suffix; may hold subfolders.
        prompt: what is asked for: text, or whatever the `Sample` takes.
        seed: of its noise alone, so that a clip depends on neither batch nor order.
    """

    name: str
    prompt: Any
    seed: int


def pipeline_sample(pipe: LumierePipeline, **call: Any) -> Sample:
    """Return a pipeline, with these arguments, as a function of prompts, seeds and further arguments."""

    def sample(prompts: Sequence[str], seeds: Sequence[int], **options: Any) -> np.ndarray:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return pipe(
            list(prompts), generator=generators, output_type="np", return_dict=False, **call, **options
        )[0]  # fmt: skip

    return sample


@dataclass(frozen=True)
class SampleWork(Work["tuple[Job, ...]", None]):
    """Makes clips of jobs, so many at a time.

    Attributes:
        load_sample: loads what makes them.
        clips, timed: as `ClipMaker`'s folder and `timed`.
        options: further arguments of the `Sample`.
    """

    load_sample: Callable[[], Sample]
    clips: Path
    timed: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def name(self, item: tuple[Job, ...]) -> str:
        return item[0].name

    def folder(self) -> Path:
        return self.clips

    def is_done(self, item: tuple[Job, ...]) -> bool:
        return all(clip_path(self.clips, job.name).exists() for job in item)

    def load(self) -> Callable[[tuple[Job, ...]], None]:
        return partial(self._make, self.load_sample())

    def _make(self, sample: Sample, jobs: tuple[Job, ...]) -> None:
        started = time.perf_counter()
        made = np.asarray(sample([job.prompt for job in jobs], [job.seed for job in jobs], **self.options))
        seconds = (time.perf_counter() - started) / len(jobs)
        for job, clip in zip(jobs, made, strict=True):
            self._keep(job, clip, seconds)

    def _keep(self, job: Job, clip: np.ndarray, seconds: float) -> None:
        path = clip_path(self.clips, job.name)
        if clip.dtype != np.uint8:
            if not np.isfinite(clip).all():
                raise LumiereError(f"the clip of {job.prompt!r} is not finite (NaN); try --dtype float32")
            clip = cache.eight_bit(clip)
        if self.timed:
            facts = {"seconds": seconds, "peak_mib": peak_memory_mib()}
            files.write_json(path.with_suffix(".json"), facts, indent=None)
        cache.write_array(path, clip)


def clip_path(folder: Path, name: str) -> Path:
    """Return where a job's clip lies in a folder."""
    return folder / f"{name}.npy"


class ClipMaker:
    """Makes clips that a folder lacks, and reads those that it holds.

    Args:
        sample: makes clips; None = only the processes of a cluster do.
        folder: holds them as arrays of uint8, (F, H, W, 3 or 4).
        timed: keep with each clip the seconds that it took and the process's peak memory so far, as JSON.
    """

    def __init__(self, sample: Sample | None, folder: Path, *, timed: bool = False) -> None:
        self.sample, self.folder, self.timed = sample, folder, timed

    def path(self, name: str) -> Path:
        """Return where a clip lies."""
        return clip_path(self.folder, name)

    def missing(self, jobs: Sequence[Job]) -> list[Job]:
        """Return the jobs whose clips are not there yet."""
        return [job for job in jobs if not self.path(job.name).exists()]

    def make(
        self,
        jobs: Sequence[Job],
        *,
        batch: int = 1,
        cluster: Cluster | None = None,
        load_sample: Callable[[], Sample] | None = None,
        title: str = "making clips",
        progress: bool = True,
        **options: Any,
    ) -> None:
        """Make the clips that are missing.

        Args:
            batch: clips made at a time.
            cluster: makes them; None = this process.
            load_sample: loads `sample` in the processes of a cluster.
            title: shown at the progress bar.
            options: further arguments of `sample`.

        Raises:
            LumiereError: a clip that is not finite; those before it, on a cluster all others, are kept.
        """
        missing = self.missing(jobs)
        # What was made before counts as done, so that the time left is that of new clips.
        done = len(jobs) - len(missing)
        groups = [tuple(missing[start : start + batch]) for start in range(0, len(missing), batch)]
        work = SampleWork(load_sample or self._own, self.folder, self.timed, options)
        with tqdm(total=len(jobs), initial=done, desc=title, unit="clip", disable=not progress) as bar:
            for outcome in run(groups, work, cluster, left=len(groups), keep_going=False):
                bar.update(len(groups[outcome.index]))

    def _own(self) -> Sample:
        assert self.sample is not None
        return self.sample

    def read(self, name: str) -> np.ndarray:
        """Return a clip that is there: uint8 (F, H, W, 3 or 4).

        Raises:
            LumiereError: missing or damaged.
        """
        return cache.read_array(self.path(name))

    def clip(self, name: str, prompt: Any, seed: int, **options: Any) -> np.ndarray:
        """Return a clip, made if it is missing: float32 (F, H, W, 3 or 4) in [0, 1], as a file would hold it."""
        self.make([Job(name, prompt, seed)], progress=False, **options)
        return self.read(name).astype(np.float32) / 255
