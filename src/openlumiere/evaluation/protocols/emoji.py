"""`lumiere evaluate emoji`: does a model's clip show the subject, background and motion that were asked for?

Scenes are drawn from each split, clips are made of their captions, and judges say what they see: one that refuses what
an eye would, and two that were trained on real clips only. What an eye minds in pictures and motion is measured too.
Real clips of the same scenes go through all of it: the ceiling. Another model's report may stand beside.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from openlumiere import __version__
from openlumiere.clock import clip_seconds
from openlumiere.data.emoji.drawing import Atlas
from openlumiere.data.emoji.scenes import Scene, SceneSampler, Split
from openlumiere.errors import LumiereError
from openlumiere.evaluation import cache
from openlumiere.evaluation.judges import Judges, Verdict, load_judges
from openlumiere.evaluation.judges.motion import FROZEN_BELOW
from openlumiere.evaluation.judges.strict import StrictConfig
from openlumiere.evaluation.judges.tracks import CHANGED_BY, CHANGED_PIXELS, SIDE, as_clip, on_contrast
from openlumiere.evaluation.metrics import looks as eye
from openlumiere.evaluation.tables import TITLES, Report, markdown, read_baseline, scores, sheet, summarize_looks
from openlumiere.evaluation.test_split import atlases_of, real_clips, smaller

from .sharpness import MODEL as OURS
from .sharpness import OTHER, Sharpness, shown_frames
from .sharpness import REAL as THEIRS

CLIPS, REAL = "clips", "real"  # folders of the clips that were made, and of real ones of the same scenes
SPLITS: tuple[Split, ...] = ("train", "combinations", "paraphrases")

# Scenes are drawn with seeds from here on, far from those of training: combinations may have been seen by models and
# judges, the very scenes have not.
_SCENES = 1_000_003
_OTHER_SCENES = 500_009  # from those on, for real clips to compare real clips with
_STRICT_FROM = 64  # pixels: smaller clips have no details that an eye could miss
_TRANSPARENT = 1 / 12  # of the scenes, for models with alpha: as many as have any one colour

# Makes clips of scenes, one seed each: uint8 or float in [0, 1], shape (scenes, F, H, W, 3), or with straight alpha.
ClipMaker = Callable[[Sequence[Scene], Sequence[int]], np.ndarray]


def evaluate(
    model: str,
    data: Path | Mapping[str, Atlas],
    output: Path,
    *,
    clips: int = 40,
    num_frames: int = 80,
    size: int = 128,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    seed: int = 0,
    batch: int = 1,
    splits: Sequence[Split] = SPLITS,
    subjects: Sequence[str] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    judges: Judges | None = None,
    judges_folder: Path | None = None,
    spoiled: Path | None = None,
    baseline: Path | None = None,
    progress: bool = True,
) -> Report:
    """Measure a text-to-clip model on the emoji domain and write ``report.json``, ``report.md`` and ``sheet.png``.

    A stopped evaluation goes on where it was: each clip is kept under ``output/clips`` as it comes; real clips of the
    same scenes lie in ``output/real``, for metrics that compare the two.

    Args:
        model: bundled name, local folder or hub id.
        data: folder that `lumiere data emoji` wrote, or the subjects' animations themselves.
        clips: number of clips of each split; subjects go round in turn.
        size: side in pixels at which clips are compared with real ones: a model's second stage is used where its base
            makes smaller ones; what is then still smaller stays so. From 64 on the strict judge says what they show.
        num_inference_steps: None = the model's own default, as for `guidance_scale`.
        batch: clips made at a time.
        subjects: ask only for these, by default for those that the model says it knows; the classifier still knows
            all of the data's.
        judges: already loaded ones; None = those in `judges_folder`, trained there when absent.
        judges_folder: where the judges are kept; None = ``data/classifier``, or ``output/classifier`` where `data`
            is no folder.
        spoiled: folder of weak models' clips that the strict judge is to refuse; it is trained with them.
        baseline: folder of another model's report, whose figures then stand beside.

    Returns:
        The report, as in ``report.json``; `summary` makes a table of it.

    Raises:
        LumiereError: unknown model, missing data, bad counts, or an `output` made with other settings.
    """
    from openlumiere.pipelines.load import load_pipeline

    _check(clips=clips, batch=batch, splits=splits)
    atlases = atlases_of(data, size)
    folder = judges_folder or (output if isinstance(data, Mapping) else Path(data)) / "classifier"
    if baseline is not None:
        read_baseline(baseline)  # a mistyped folder is told at once
    # The model first: a mistyped name is told at once, not after the judges' training.
    pipeline = load_pipeline(model, device=device, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    steps = pipeline.config.num_inference_steps if num_inference_steps is None else num_inference_steps
    scale = pipeline.config.guidance_scale if guidance_scale is None else guidance_scale
    if judges is None:
        strict = StrictConfig(side=size) if size >= _STRICT_FROM else None
        small = smaller(atlases, 2 * SIDE)
        judges = load_judges(small, folder, strict=strict, sharp=atlases, spoiled=spoiled, progress=progress)
    upscale = max(pipeline.frame_size) < size and pipeline.super_resolution is not None

    def make(scenes: Sequence[Scene], seeds: Sequence[int]) -> np.ndarray:
        (made,) = pipeline(
            [scene.caption for scene in scenes],
            num_frames=num_frames,
            num_inference_steps=steps,
            guidance_scale=scale,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            upscale=upscale,
            transparent=pipeline.has_alpha,
            output_type="np",
            return_dict=False,
        )
        return made

    settings = {
        "model": model,
        "weights_sha256": cache.weights_hash(pipeline),
        "num_frames": num_frames,
        "size": size,
        "upscaled": upscale,
        "transparent": pipeline.has_alpha,
        "num_inference_steps": steps,
        "guidance_scale": scale,
        "guidance_rescale": pipeline.config.guidance_rescale,
        "scheduler": type(pipeline.scheduler).__name__,
        "device": str(pipeline.device),
        "dtype": str(pipeline.dtype).removeprefix("torch."),
    }
    return measure(
        make, atlases, judges, output,
        settings=settings, clips=clips, num_frames=num_frames, seed=seed, batch=batch, splits=splits,
        subjects=pipeline.config.subjects if subjects is None else subjects, size=size,
        channels=4 if pipeline.has_alpha else 3, baseline=baseline, progress=progress,
    )  # fmt: skip


def measure(
    make: ClipMaker,
    atlases: Mapping[str, Atlas],
    judges: Judges,
    output: Path,
    *,
    settings: Mapping[str, Any],
    clips: int = 40,
    num_frames: int = 80,
    seed: int = 0,
    batch: int = 1,
    splits: Sequence[Split] = SPLITS,
    subjects: Sequence[str] | None = None,
    size: int = SIDE,
    channels: int = 3,
    baseline: Path | None = None,
    progress: bool = True,
) -> Report:
    """`evaluate` for any maker of clips.

    Args:
        make: makes clips of scenes, one seed each.
        settings: what the clips depend on besides the scenes and seeds; kept in the report, and compared when an
            evaluation goes on.
        size: side of the real clips in pixels.
        channels: 4 where the maker gives alpha too: some scenes then have no background.
    """
    _check(clips=clips, batch=batch, splits=splits)
    unknown = sorted(set(subjects or ()) - set(atlases))
    if unknown:
        raise LumiereError(f"unknown subjects {unknown}; known: {', '.join(sorted(atlases))}")
    names = {key: atlas.names for key, atlas in atlases.items() if subjects is None or key in subjects}
    fixed = {**settings, "seed": seed, "subjects": sorted(names), "data_sha256": cache.data_fingerprint(atlases)}
    cache.continue_or_start(output, fixed)
    (output / REAL).mkdir(exist_ok=True)

    report: Report = {"protocol": _protocol(fixed, clips, num_frames, splits), "judges": {}, "splits": {}}
    report["judges"] = judges.cards()
    sharp, looks = Sharpness(), {OURS: [], THEIRS: []}  # type: tuple[Sharpness, dict[str, list[Report]]]
    spread = shown_frames(num_frames)
    real: list[Verdict] = []
    shown: list[tuple[Verdict, np.ndarray]] = []
    # What was made before counts as done from the start, so that the time left is told of new clips only.
    done = sum(clip_path(output / CLIPS, split, index).exists() for split in splits for index in range(clips))
    total = len(splits) * clips
    with tqdm(total=total, initial=done, desc="making clips", unit="clip", disable=not progress) as bar:
        for split in splits:
            transparent = _TRANSPARENT if channels == 4 else 0.0
            sampler = SceneSampler(names, split=split, seed=_SCENES + seed, transparent=transparent)
            jobs = [(index, sampler(index), clip_seed(seed, split, index)) for index in range(clips)]
            _make_missing(make, jobs, output / CLIPS, split, batch, bar)
            verdicts, ceiling = [], []
            judging = f"judging, {TITLES[split]}"
            for index, scene, chosen in tqdm(jobs, desc=judging, unit="clip", leave=False, disable=not progress):
                frames = cache.read_array(clip_path(output / CLIPS, split, index))
                verdicts.append(judges.verdict(frames, scene, split=split, index=index, seed=chosen))
                truth = real_clips(atlases, [scene], num_frames=num_frames, size=size, channels=channels)[0]
                cache.write_array(clip_path(output / REAL, split, index), truth)
                ceiling.append(judges.verdict(truth, scene, split=split, index=index))
                other = real_clips(
                    atlases, [sampler(_OTHER_SCENES + index)], num_frames=num_frames, size=size, channels=channels,
                    frames=spread,
                )[0]  # fmt: skip
                for which, clip in ((OURS, frames[spread]), (THEIRS, truth[spread]), (OTHER, other)):
                    sharp.add(which, _at_size(clip, size))
                for which, clip in ((OURS, frames), (THEIRS, truth)):
                    looks[which].append({"motion": scene.motion, "split": split, **eye.measure(clip)})
                if index in np.linspace(0, clips - 1, min(clips, 8)).astype(int):
                    shown.append((verdicts[-1], frames))
            real += ceiling
            report["splits"][TITLES[split]] = {
                "model": scores(verdicts),
                "real": scores(ceiling),
                "verdicts": [verdict.as_dict() for verdict in verdicts],
            }
    report["real"] = scores(real)
    report["looks"] = summarize_looks(looks[OURS], looks[THEIRS], seconds=clip_seconds(num_frames))
    report["sharpness"] = sharp.report()
    if baseline is not None:
        report["baseline"] = read_baseline(baseline)
    cache.write_text(output / "report.json", json.dumps(report, indent=1))
    cache.write_text(output / "report.md", markdown(report))
    sheet(shown, output / "sheet.png")
    return report


def _at_size(clip: np.ndarray, size: int) -> np.ndarray:
    """A clip laid over a colour and brought to the real clips' size: uint8 (F, size, size, 3)."""
    frames = as_clip(on_contrast(clip), side=size)
    return (frames.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()


def clip_seed(seed: int, split: Split, index: int) -> int:
    """The seed of one clip: it depends on neither the number of clips nor the batch."""
    return int(np.random.SeedSequence([seed, SPLITS.index(split), index]).generate_state(1)[0])


def _check(*, clips: int, batch: int, splits: Sequence[str]) -> None:
    if clips < 1 or batch < 1:
        raise LumiereError(f"clips ({clips}) and batch ({batch}) must be at least 1")
    unknown = [split for split in splits if split not in SPLITS]
    if unknown or not splits:
        raise LumiereError(f"unknown splits {unknown}; choose from {', '.join(SPLITS)}")


def clip_path(folder: Path, split: str, index: int) -> Path:
    """Where a clip of a split lies, in `CLIPS` or `REAL`."""
    return folder / f"{split}-{index:05d}.npy"


def _make_missing(
    make: ClipMaker, jobs: Sequence[tuple[int, Scene, int]], folder: Path, split: str, batch: int, bar: tqdm
) -> None:
    missing = [job for job in jobs if not clip_path(folder, split, job[0]).exists()]
    for start in range(0, len(missing), batch):
        group = missing[start : start + batch]
        made = np.asarray(make([job[1] for job in group], [job[2] for job in group]))
        if made.dtype != np.uint8:
            made = cache.eight_bit(made)
        for (index, _, _), frames in zip(group, made, strict=True):
            cache.write_array(clip_path(folder, split, index), frames)
            bar.update()


def _protocol(settings: Mapping[str, Any], clips: int, num_frames: int, splits: Sequence[Split]) -> Report:
    listed = {**settings, "num_frames": num_frames, "clips_per_split": clips, "splits": [TITLES[s] for s in splits]}
    listed["background_and_motion_judged_at"] = f"{SIDE}x{SIDE} pixels, uint8"
    listed["a_pair_of_frames_differs"] = (
        f"if at least {CHANGED_PIXELS:.1%} of the pixels change by more than {CHANGED_BY * 255:.0f}/255 in a channel"
    )
    listed["no_motion_is_right"] = f"where fewer than {FROZEN_BELOW:.0%} of the pairs differ"
    versions = {name: metadata.version(name) for name in ("torch", "diffusers", "numpy")}
    versions |= {"openlumiere": __version__, "python": platform.python_version()}
    return {**listed, "versions": versions}
