"""`lumiere evaluate baselines`: does one pass over all frames beat keyframes and a cascade, as Lumiere claims?

Two baselines of the paper's section 2, grown from the same text-to-image network and trained on the same clips for the
same time (`configs/emoji-nano/baselines/`):

- *cascade*: a fixed-rate network makes every other frame, and a second one fills in what lies between, in windows that
  share nothing but a keyframe, as ImagenVideo does;
- *fixed rate*: the same inflation without time resampling, on 16 frames, as AnimateDiff and ZeroScope; longer clips by
  temporal MultiDiffusion over overlapping windows, as their users make them.

Each method makes the same scenes, in a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from openlumiere.clock import clip_seconds
from openlumiere.data.emoji.scenes import SECONDS, Scene, SceneSampler, Split, shortest_period, vocabulary
from openlumiere.errors import LumiereError
from openlumiere.evaluation import cache
from openlumiere.evaluation.judges import Judges, load_judges
from openlumiere.evaluation.judges.tracks import SIDE
from openlumiere.evaluation.memory import peak_memory_mib
from openlumiere.evaluation.metrics.periodicity import PERIODS, periodicity_error
from openlumiere.evaluation.tables import scores
from openlumiere.evaluation.test_split import SCENES, atlases_of, real_clips
from openlumiere.tables import table

from .distributions import fvd
from .upscaling import flicker
from .xt import draw_slices

if TYPE_CHECKING:
    from openlumiere.data.emoji.drawing import Atlas
    from openlumiere.pipelines.lumiere import LumierePipeline

EVERY = 2  # of the cascade: one frame in so many is a keyframe
REAL = "real clips"
_GENERAL, _PERIODIC = "general", "periodic"
_SHOWN = 3  # periodic clips whose slices are drawn


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
    """A clip of `num_frames` from keyframes, and from what a second network puts between them.

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


def evaluate_baselines(
    methods: Sequence[Method],
    data: Path | dict[str, Atlas],
    output: Path,
    *,
    clips: int = 24,
    num_frames: int = 80,
    seed: int = 0,
    subjects: Sequence[str] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    judges: Judges | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Compare methods on the same scenes, and write ``baselines.json``, ``baselines.md`` and ``slices-N.png``.

    A stopped evaluation goes on where it was: each clip is kept under ``output/methods`` as it comes. So a method can
    be added later, and the others' clips are not made again.

    Args:
        data: folder that `lumiere data emoji` wrote, or the subjects' animations themselves.
        clips: of scenes of all motions, half of them held-out combinations; and as many again of periodic motions.
        subjects: that all of the methods know; None = the first method's.
        judges: already loaded ones; None = those in ``data/classifier``, trained there when absent.

    Returns:
        For each method, and for real clips of the same scenes: accuracies, FVD-emoji, the periodicity error, flicker,
        seconds a clip (median), peak memory of the process in MiB.
    """
    # A motion repeats itself for the eye once it was seen twice.
    longest = clip_seconds(num_frames) / 2
    if longest <= shortest_period():
        raise LumiereError(f"clips of {num_frames} frames show no period twice; compare clips of 32 or more")
    from openlumiere.pipelines.load import load_pipeline, resolve_model

    if len({method.folder for method in methods}) < max(len(methods), 1) or clips < 2:
        raise LumiereError("give the methods names of their own, one method at least, and at least 2 clips")
    models = {name for method in methods for name in (method.model, method.between) if name}
    for model in models:
        resolve_model(model)  # a mistyped name is told at once
    weights, subjects_of = {}, {}
    for model in models:
        pipe = load_pipeline(model, device="cpu")
        weights[model], subjects_of[model] = cache.weights_hash(pipe), pipe.config.subjects
    atlases = atlases_of(data, SIDE)
    known = list(subjects or subjects_of[methods[0].model] or atlases)
    if judges is None:
        judges = load_judges(atlases, (output if isinstance(data, dict) else data) / "classifier", progress=progress)
    settings = {
        "num_frames": num_frames,
        "seed": seed,
        "subjects": known,
        "data_sha256": cache.data_fingerprint(atlases),
    }
    if dtype != "auto":  # older reports, all of them "auto", do not name it
        settings["dtype"] = dtype
    told = {}
    for method in methods:
        used = {name: weights[name] for name in (method.model, method.between) if name}
        told[method.name] = {**asdict(method), "weights_sha256": used}
        cache.continue_or_start(_folder(output, method.name), {**settings, **told[method.name]})
    cache.continue_or_start(_folder(output, REAL), settings)
    scenes = {
        _GENERAL: _scenes(known, clips, seed, motions=list(vocabulary()["motions"])),
        _PERIODIC: _scenes(known, clips, seed, motions=list(PERIODS), longest=longest),
    }
    for method in methods:
        make_in_own_process(
            method, scenes, output, num_frames=num_frames, seed=seed, device=device, dtype=dtype, progress=progress
        )
    _draw_real(scenes, atlases, output, num_frames)

    report: dict[str, Any] = {**settings, "made_by": told, "clips": clips, "methods": {}}
    for name in [method.name for method in methods] + [REAL]:
        report["methods"][name] = _measured(name, scenes, judges, output, seed, progress)
    report["judges"] = {"subject": judges.subject.card, "motion": judges.motion.card}
    cache.write_text(output / "baselines.json", json.dumps(report, indent=1))
    cache.write_text(output / "baselines.md", markdown(report))
    shown = [REAL, *(method.name for method in methods)]
    for index, scene in enumerate(scenes[_PERIODIC][:_SHOWN]):
        read = [cache.read_array(_path(output, name, _PERIODIC, index)) for name in shown]
        axis = "row" if scene.motion == "sway" else "column"
        draw_slices(read, [f"{name}: {scene.caption}" for name in shown], output / f"slices-{index}.png", axis=axis)
    return report


def markdown(report: dict[str, Any]) -> str:
    """The comparison as a Markdown table."""
    names = list(report["methods"])

    def row(title: str, measure: str, shape: str) -> list[str]:
        found = [report["methods"][name].get(measure) for name in names]
        return [title, *("" if value is None else shape.format(value) for value in found)]

    rows = [
        row("FVD-emoji (less is better)", "fvd_emoji", "{:.1f}"),
        row("subject as asked", "subject", "{:.1%}"),
        row("background as asked", "background", "{:.1%}"),
        row("motion as asked", "motion", "{:.1%}"),
        row("motion as asked, swaying and bouncing", "periodic_motion", "{:.1%}"),
        row("periodicity error (less is better)", "periodicity_error", "{:.3f}"),
        row("flicker", "flicker", "{:.4f}"),
        row("seconds a clip", "seconds", "{:.1f}"),
        row("peak memory, MiB", "peak_mib", "{:.0f}"),
    ]
    return table(["", *names], rows) + f"\n\n{report['clips']} clips of all motions, as many of periodic ones.\n"


def _scenes(
    subjects: Sequence[str], count: int, seed: int, *,
    motions: Sequence[str], longest: float = float("inf"),
) -> list[Scene]:  # fmt: skip
    """Scenes of these motions, every other one of a held-out combination.

    Args:
        longest: periods to take, in seconds; of longer ones a clip shows too little.
    """
    words = vocabulary()["subjects"]
    names = {key: words[key]["names"] if key in words else [key] for key in subjects}
    splits: tuple[Split, Split] = ("train", "combinations")
    samplers = [SceneSampler(names, split=split, seed=SCENES + seed) for split in splits]
    found: list[Scene] = []
    index = 0
    while len(found) < count:
        scene = samplers[len(found) % 2](index)
        index += 1
        if scene.motion in motions and (scene.period is None or scene.period <= longest):
            found.append(scene)
    return found


# ------------------------------------------------------------------------------------------------ making


def _folder(output: Path, name: str) -> Path:
    return output / "methods" / _as_folder(name)


def _path(output: Path, name: str, kind: str, index: int) -> Path:
    return _folder(output, name) / "clips" / kind / f"{index:05d}.npy"


def make_in_own_process(
    method: Method,
    scenes: dict[str, list[Scene]],
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
    for kind, listed in scenes.items():
        own = np.random.SeedSequence([seed, list(scenes).index(kind)]).generate_state(len(listed))
        jobs += [
            (scene.caption, _path(output, method.name, kind, index), int(own[index]))
            for index, scene in enumerate(listed)
        ]
    if all(path.exists() for _, path, _ in jobs):
        return
    context = multiprocessing.get_context("spawn")  # a fork would share the parent's memory, and count it
    process = context.Process(target=_make, args=(method, jobs, num_frames, device, dtype, progress))
    process.start()
    process.join()
    if process.exitcode:
        raise LumiereError(
            f"making clips by {method.name} ended with code {process.exitcode}, see above; run again to go on"
        )


def _make(
    method: Method,
    jobs: Sequence[tuple[str, Path, int]],
    num_frames: int,
    device: str,
    dtype: str,
    progress: bool,
) -> None:
    """Make the clips that are missing, and keep beside each how long it took and the peak of memory so far."""
    from openlumiere.pipelines.load import load_pipeline

    try:
        pipe = load_pipeline(method.model, device=device, dtype=dtype)
        between = None if method.between is None else load_pipeline(method.between, device=device, dtype=dtype)
        for part in (pipe, between):
            if part is not None:
                part.set_progress_bar_config(disable=True)
        for caption, path, seed in tqdm(jobs, method.name, unit="clip", disable=not progress):
            if path.exists():
                continue
            generator = torch.Generator().manual_seed(seed)
            start = time.perf_counter()
            if between is None:
                clip = pipe(caption, num_frames=num_frames, generator=generator, upscale=False)[0][0]
            else:
                clip = sample_cascade(pipe, between, caption, num_frames=num_frames, generator=generator)
            told = {"seconds": time.perf_counter() - start, "peak_mib": peak_memory_mib()}
            path.parent.mkdir(parents=True, exist_ok=True)
            cache.write_text(path.with_suffix(".json"), json.dumps(told))
            cache.write_array(path, cache.eight_bit(clip))
    except LumiereError as error:
        print(f"lumiere: error: {method.name}: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _draw_real(scenes: dict[str, list[Scene]], atlases: Any, output: Path, num_frames: int) -> None:
    for kind, listed in scenes.items():
        for index, scene in enumerate(listed):
            path = _path(output, REAL, kind, index)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                cache.write_array(path, real_clips(atlases, [scene], num_frames=num_frames)[0])


# ------------------------------------------------------------------------------------------------ measuring


def _measured(
    name: str, scenes: dict[str, list[Scene]], judges: Judges, output: Path, seed: int, progress: bool
) -> dict[str, Any]:
    verdicts: dict[str, list[Any]] = {kind: [] for kind in scenes}
    errors, flickers, seconds, peaks = [], [], [], []
    for kind, listed in scenes.items():
        for index, scene in enumerate(listed):
            path = _path(output, name, kind, index)
            clip = cache.read_array(path)
            verdicts[kind].append(judges.verdict(clip, scene, index=index))
            flickers.append(flicker(clip / 255))
            if kind == _PERIODIC:
                errors.append(periodicity_error(clip, PERIODS[scene.motion] * SECONDS / clip_seconds(len(clip))))
            if path.with_suffix(".json").exists():
                told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
                seconds.append(told["seconds"])
                if told["peak_mib"] is not None:
                    peaks.append(told["peak_mib"])
    general, periodic = (scores(verdicts[kind]) for kind in (_GENERAL, _PERIODIC))
    found: dict[str, Any] = {
        **{measure: general[measure]["accuracy"] for measure in ("subject", "background", "motion")},
        "periodic_motion": periodic["motion"]["accuracy"],
        "periodicity_error": float(np.mean(errors)),
        "periodicity_errors": errors,
        "flicker": float(np.mean(flickers)),
        "seconds": float(np.median(seconds)) if seconds else None,
        "peak_mib": max(peaks) if peaks else None,
        "scores": {_GENERAL: general, _PERIODIC: periodic},
    }
    if name != REAL:
        folders = [_folder(output, which) / "clips" for which in (REAL, name)]
        score = fvd(*folders, features="emoji", sampling="spread", seed=seed, progress=progress)
        found["fvd_emoji"] = score.value
        found["fvd"] = score.as_dict()
    return found
