"""`lumiere evaluate emoji`: does a model's clip show the subject, background and motion that were asked for?

Scenes are drawn from each split, clips are made of their captions, and classifiers say what they see: a strict one that
refuses what an eye would, and two that were trained on real clips alone. Grain, wobble and the like are measured too.
Real clips of the same scenes go through all of it: the ceiling. Another model's report may be compared.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from openlumiere import __version__, files
from openlumiere.clock import clip_seconds
from openlumiere.data.emoji.drawing import Atlas
from openlumiere.data.emoji.scenes import SceneSampler, Split
from openlumiere.errors import LumiereError
from openlumiere.evaluation import cache
from openlumiere.evaluation.clips import ClipMaker, Job, Sample, pipeline_sample
from openlumiere.evaluation.features.sharpness import MODEL as OURS
from openlumiere.evaluation.features.sharpness import OTHER, Sharpness, shown_frames
from openlumiere.evaluation.features.sharpness import REAL as THEIRS
from openlumiere.evaluation.judges import Judges, Verdict, accuracies, load_judges
from openlumiere.evaluation.judges.motion import FROZEN_BELOW
from openlumiere.evaluation.judges.strict import StrictConfig
from openlumiere.evaluation.metrics import looks
from openlumiere.evaluation.metrics.pixels import CHANGED_BY, CHANGED_PIXELS, SIDE, as_clip, on_contrast
from openlumiere.evaluation.real_clips import atlases_of, real_clips, smaller

from .emoji_report import TITLES, Report, markdown, read_baseline, sheet, summarize_looks

if TYPE_CHECKING:
    from openlumiere.pipelines.lumiere import LumierePipeline

CLIPS, REAL = "clips", "real"  # folders of the clips that were made, and of real ones of the same scenes
SPLITS: tuple[Split, ...] = ("train", "combinations", "paraphrases")

# Scenes are drawn with seeds from here on, far from those of training: combinations may have been seen by models and
# classifiers, the very scenes have not.
_SCENES = 1_000_003
_OTHER_SCENES = 500_009  # from those on, for real clips to compare real clips with
_STRICT_FROM = 64  # pixels: smaller clips have no details that an eye could miss
_TRANSPARENT = 1 / 12  # of the scenes, for models with alpha: as many as have any one colour
_SHOWN = 8  # clips of each split on the sheet


@dataclass(frozen=True, kw_only=True)
class EmojiSettings:
    """What is asked for.

    Attributes:
        clips: of each split; subjects go round in turn.
        num_frames: of each clip.
        size: side in pixels at which clips are compared with real ones: a model's second stage is used where its base
            makes smaller ones; what is then still smaller stays so. From 64 on the strict classifier says what they
            show.
        seed: of scenes and clips.
        batch: clips made at a time.
        splits: some of `SPLITS`.
        subjects: ask for these alone; None = those that the model says it knows. The classifiers know all.
    """

    clips: int = 40
    num_frames: int = 80
    size: int = 128
    seed: int = 0
    batch: int = 1
    splits: Sequence[Split] = SPLITS
    subjects: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.clips < 1 or self.batch < 1:
            raise LumiereError(f"clips ({self.clips}) and batch ({self.batch}) must be at least 1")
        unknown = [split for split in self.splits if split not in SPLITS]
        if unknown or not self.splits:
            raise LumiereError(f"unknown splits {unknown}; choose from {', '.join(SPLITS)}")


def evaluate(
    model: str,
    data: Path | Mapping[str, Atlas],
    output: Path,
    settings: EmojiSettings | None = None,
    *,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
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
        num_inference_steps: None = the model's own default, as for `guidance_scale`.
        judges: already loaded ones; None = those in `judges_folder`, trained there when absent.
        judges_folder: where the classifiers are kept; None = ``data/classifier``, or ``output/classifier`` where `data`
            is no folder.
        spoiled: folder of weak models' clips that the strict classifier is to refuse; it is trained with them.
        baseline: folder of another model's report, to compare with.

    Returns:
        The report, as in ``report.json``; `summary` makes a table of it.

    Raises:
        LumiereError: unknown model, missing data, bad counts, or an `output` made with other settings.
    """
    from openlumiere.pipelines.load import load_pipeline

    settings = settings or EmojiSettings()
    size = settings.size
    atlases = atlases_of(data, size)
    folder = judges_folder or (output if isinstance(data, Mapping) else Path(data)) / "classifier"
    if baseline is not None:
        read_baseline(baseline)  # a mistyped folder is reported at once
    # The model first: a mistyped name is reported at once, not after the classifiers' training.
    pipe = load_pipeline(model, device=device, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    if judges is None:
        strict = StrictConfig(side=size) if size >= _STRICT_FROM else None
        # As `evaluate editing` reads them, so that both find the same judges.
        small = smaller(atlases, 2 * SIDE) if isinstance(data, Mapping) else atlases_of(data, SIDE)
        judges = load_judges(small, folder, strict=strict, large=atlases, spoiled=spoiled, progress=progress)
    call = {
        "num_frames": settings.num_frames,
        "num_inference_steps": pipe.config.num_inference_steps if num_inference_steps is None else num_inference_steps,
        "guidance_scale": pipe.config.guidance_scale if guidance_scale is None else guidance_scale,
        "upscale": max(pipe.frame_size) < size and pipe.super_resolution is not None,
        "transparent": pipe.has_alpha,
    }
    sample = pipeline_sample(pipe, **call)
    if settings.subjects is None:
        settings = replace(settings, subjects=pipe.config.subjects)
    return measure(
        lambda scenes, seeds: sample([scene.caption for scene in scenes], seeds), atlases, judges, output, settings,
        model={"model": model} | _made_with(pipe, size, call), channels=4 if pipe.has_alpha else 3, baseline=baseline,
        progress=progress,
    )  # fmt: skip


def _made_with(pipe: LumierePipeline, size: int, call: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a pipeline's clips depend on, under the names of the report."""
    return {
        **cache.drawn_by(pipe),
        "num_frames": call["num_frames"],
        "size": size,
        "upscaled": call["upscale"],
        "transparent": call["transparent"],
        "num_inference_steps": call["num_inference_steps"],
        "guidance_scale": call["guidance_scale"],
        "guidance_rescale": pipe.config.guidance_rescale,
        "scheduler": type(pipe.scheduler).__name__,
        "device": str(pipe.device),
        "dtype": str(pipe.dtype).removeprefix("torch."),
    }


def measure(
    sample: Sample,
    atlases: Mapping[str, Atlas],
    judges: Judges,
    output: Path,
    settings: EmojiSettings,
    *,
    model: Mapping[str, Any],
    channels: int = 3,
    baseline: Path | None = None,
    progress: bool = True,
) -> Report:
    """Measure any maker of clips, as `evaluate` does a pipeline.

    Args:
        sample: makes clips of scenes, one seed each.
        model: what the clips depend on besides the scenes and seeds; kept in the report, and compared when an
            evaluation goes on.
        channels: 4 where the clips have alpha: some scenes then have no background.
    """
    known = settings.subjects
    unknown = sorted(set(known or ()) - set(atlases))
    if unknown:
        raise LumiereError(f"unknown subjects {unknown}; known: {', '.join(sorted(atlases))}")
    names = {key: atlas.names for key, atlas in atlases.items() if known is None or key in known}
    fixed = {**model, "seed": settings.seed, "subjects": sorted(names), "data_sha256": cache.data_fingerprint(atlases)}
    cache.continue_or_start(output, fixed)

    report: Report = {"protocol": _protocol(fixed, settings), "judges": judges.cards(), "splits": {}}
    scenes = _Scenes(atlases, names, settings, channels)
    maker = ClipMaker(sample, output / CLIPS)
    jobs = {split: scenes.jobs(split) for split in settings.splits}
    maker.make([job for listed in jobs.values() for job in listed], batch=settings.batch, progress=progress)
    seen = _Seen(settings)
    for split, listed in jobs.items():
        ours, theirs = [], []
        for index, job in enumerate(tqdm(listed, f"measuring, {TITLES[split]}", unit="clip", disable=not progress)):
            clip, real, other = maker.read(job.name), scenes.real(split, index), scenes.other(split, index)
            cache.write_array(output / REAL / f"{job.name}.npy", real)
            ours.append(judges.verdict(clip, job.prompt, split=split, index=index, seed=job.seed))
            theirs.append(judges.verdict(real, job.prompt, split=split, index=index))
            seen.add(ours[-1], clip, real, other)
        seen.real += theirs
        report["splits"][TITLES[split]] = {
            "model": accuracies(ours),
            "real": accuracies(theirs),
            "verdicts": [verdict.as_dict() for verdict in ours],
        }
    report |= seen.report()
    if baseline is not None:
        report["baseline"] = read_baseline(baseline)
    files.write_json(output / "report.json", report, indent=1)
    files.write_text(output / "report.md", markdown(report))
    sheet(seen.shown, output / "sheet.png")
    return report


class _Scenes:
    """The scenes of each split, and real clips of them."""

    def __init__(
        self, atlases: Mapping[str, Atlas], names: Mapping[str, list[str]], settings: EmojiSettings, channels: int
    ) -> None:
        self.settings = settings
        self.draw = partial(real_clips, atlases, num_frames=settings.num_frames, size=settings.size, channels=channels)
        transparent = _TRANSPARENT if channels == 4 else 0.0
        self.samplers = {
            split: SceneSampler(dict(names), split=split, seed=_SCENES + settings.seed, transparent=transparent)
            for split in settings.splits
        }

    def jobs(self, split: Split) -> list[Job]:
        seed, sampler = self.settings.seed, self.samplers[split]
        return [
            Job(clip_name(split, index), sampler(index), clip_seed(seed, split, index))
            for index in range(self.settings.clips)
        ]

    def real(self, split: Split, index: int) -> np.ndarray:
        """Return the real clip of a scene, uint8 (F, size, size, channels)."""
        return self.draw([self.samplers[split](index)])[0]

    def other(self, split: Split, index: int) -> np.ndarray:
        """Return the `shown_frames` of a real clip of another scene of the split."""
        scene = self.samplers[split](_OTHER_SCENES + index)
        return self.draw([scene], frames=shown_frames(self.settings.num_frames))[0]


class _Seen:
    """What is gathered over all clips: features, looks, and some clips for the sheet."""

    def __init__(self, settings: EmojiSettings) -> None:
        self.settings = settings
        self.sharpness = Sharpness()
        self.looks: dict[str, list[Report]] = {OURS: [], THEIRS: []}
        self.real: list[Verdict] = []
        self.shown: list[tuple[Verdict, np.ndarray]] = []
        self.on_sheet = set(np.linspace(0, settings.clips - 1, min(settings.clips, _SHOWN)).astype(int).tolist())

    def add(self, verdict: Verdict, clip: np.ndarray, real: np.ndarray, other: np.ndarray) -> None:
        """Add a clip, the real one of its scene, and some frames of a real one of another scene."""
        spread = shown_frames(self.settings.num_frames)
        for which, frames in ((OURS, clip[spread]), (THEIRS, real[spread]), (OTHER, other)):
            self.sharpness.add(which, _at_size(frames, self.settings.size))
        for which, frames in ((OURS, clip), (THEIRS, real)):
            found = {"motion": verdict.scene.motion, "split": verdict.split, **looks.measure(frames)}
            self.looks[which].append(found)
        if verdict.index in self.on_sheet:
            self.shown.append((verdict, clip))

    def report(self) -> Report:
        seconds = clip_seconds(self.settings.num_frames)
        return {
            "real": accuracies(self.real),
            "looks": summarize_looks(self.looks[OURS], self.looks[THEIRS], seconds=seconds),
            "sharpness": self.sharpness.report(),
        }


def _at_size(clip: np.ndarray, size: int) -> np.ndarray:
    """Return a clip laid over a colour and brought to the real clips' size: uint8 (F, size, size, 3)."""
    frames = as_clip(on_contrast(clip), side=size)
    return (frames.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()


def clip_seed(seed: int, split: Split, index: int) -> int:
    """Return the seed of one clip: it depends on neither the number of clips nor the batch."""
    return int(np.random.SeedSequence([seed, SPLITS.index(split), index]).generate_state(1)[0])


def clip_name(split: str, index: int) -> str:
    """Return the name of a clip of a split, in `CLIPS` and in `REAL`."""
    return f"{split}-{index:05d}"


def clip_path(folder: Path, split: str, index: int) -> Path:
    """Return where a clip of a split lies, in `CLIPS` or `REAL`."""
    return folder / f"{clip_name(split, index)}.npy"


def _protocol(fixed: Mapping[str, Any], settings: EmojiSettings) -> Report:
    versions = {name: metadata.version(name) for name in ("torch", "diffusers", "numpy")}
    return {
        **fixed,
        "num_frames": settings.num_frames,
        "clips_per_split": settings.clips,
        "splits": [TITLES[split] for split in settings.splits],
        "background_and_motion_judged_at": f"{SIDE}x{SIDE} pixels, uint8",
        "a_pair_of_frames_differs": f"if at least {CHANGED_PIXELS:.1%} of the pixels change by more than "
        f"{CHANGED_BY * 255:.0f}/255 in a channel",
        "no_motion_is_right": f"where fewer than {FROZEN_BELOW:.0%} of the pairs differ",
        "versions": versions | {"openlumiere": __version__, "python": platform.python_version()},
    }
