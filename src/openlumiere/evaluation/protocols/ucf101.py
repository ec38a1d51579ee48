"""`lumiere evaluate ucf101`: zero-shot FVD and Inception Score on UCF101 (Soomro et al. 2012), 16 frames.

Papers differ in how many clips they compare and which; those that say so have a name (`ucf101_data.VARIANTS`). Clips
are made of class names, kept as they come, and scored once all are there, so that a run may be stopped, and shared
between processes and machines that see one folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from openlumiere import files
from openlumiere.errors import LumiereError
from openlumiere.evaluation import cache
from openlumiere.evaluation.clips import ClipMaker, Job, Sample, pipeline_sample
from openlumiere.evaluation.features.cache import Extraction, FeatureSet, features_of
from openlumiere.evaluation.features.clip_sets import ClipFile, Preparation, Sampling, some_of
from openlumiere.evaluation.features.networks import EMOJI, FeatureNet, find_features
from openlumiere.evaluation.scores import Score, versions, write_score
from openlumiere.tables import table

from .distributions import fvd_of, inception_of, write_fvd
from .ucf101_data import Layout, Variant, choose_variant, class_prompts, generated_classes, read_layout

FRAMES = 16
METRICS = ("fvd", "is")

# (FVD, IS) as published: Lumiere's table 1. Their protocols differ from each other.
PUBLISHED: dict[str, tuple[float, float | None]] = {
    "MagicVideo": (655.00, None),
    "Emu Video": (606.20, 42.70),
    "Video LDM": (550.61, 33.45),
    "Show-1": (394.46, 35.42),
    "Make-A-Video": (367.23, 33.00),
    "PYoCo": (355.19, 47.76),
    "SVD": (242.02, None),
    "Lumiere": (332.49, 37.54),
}


@dataclass(frozen=True, kw_only=True)
class UCF101Settings:
    """What is compared, and by which networks.

    Attributes:
        variant: one of `VARIANTS`.
        clips: make fewer than the variant, which then carries the number in its name.
        split: 1, 2 or 3: the training list.
        prompts: see `class_prompts`.
        metrics: some of `METRICS`.
        emoji: use the emoji network for both, FVD-emoji and IS-emoji, in place of I3D and C3D.
        fvd_file, fvd_sha256, is_file, is_sha256: see `networks.find_features`.
        device: of the feature networks.
        seed: of clips, random windows and bootstrap.
    """

    variant: str = "videopoet"
    clips: int | None = None
    split: int = 1
    prompts: Path | None = None
    metrics: Sequence[str] = METRICS
    emoji: bool = False
    fvd_file: str | Path | None = None
    fvd_sha256: str | None = None
    is_file: str | Path | None = None
    is_sha256: str | None = None
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.metrics) - set(METRICS))
        if unknown or not self.metrics:
            raise LumiereError(f"unknown metrics {unknown}; choose from {', '.join(METRICS)}")

    def networks(self) -> dict[str, FeatureNet]:
        """Find the feature network of each metric, and check its hash."""
        names = {"fvd": EMOJI, "is": EMOJI} if self.emoji else {"fvd": "i3d", "is": "c3d"}
        found = {"fvd": (self.fvd_file, self.fvd_sha256), "is": (self.is_file, self.is_sha256)}
        return {
            metric: find_features(names[metric], path=found[metric][0], sha256=found[metric][1], device=self.device)
            for metric in self.metrics
        }


def evaluate_ucf101(
    sample: Sample | None,
    data: str | Path,
    output: Path,
    settings: UCF101Settings | None = None,
    extraction: Extraction | None = None,
    *,
    model: Mapping[str, Any],
    load_sample: Callable[[], Sample] | None = None,
    shard: tuple[int, int] = (1, 1),
    batch: int = 1,
    command: str = "",
) -> dict[str, Any] | None:
    """Make this shard's clips, and score all once all are there; write ``ucf101.json``, ``ucf101.md`` and each score.

    Args:
        sample: makes clips of prompts; their 16 middle frames are kept.
        data: see `read_layout`.
        model: what the clips depend on besides prompts and seeds; compared when a run goes on.
        load_sample: loads what makes clips, in place of `sample`, in the processes of the extraction's cluster.
        shard: (i, n): make the i-th of n equal parts, i from 1.
        batch: clips made at a time.
        command: kept in the report.

    Returns:
        What ``ucf101.json`` holds, or None where other shards' clips are still missing.

    Raises:
        LumiereError: bad data, settings or feature files, all before the first clip is made.
    """
    how, extraction = settings or UCF101Settings(), extraction or Extraction()
    variant = choose_variant(how.variant, how.clips)
    part, parts = shard
    if not 1 <= part <= parts:
        raise LumiereError(f"--shard {part}/{parts}: give I/N with I from 1 to N")
    layout = read_layout(data, split=how.split)
    prompts = class_prompts(layout.classes, how.prompts)
    nets = how.networks()

    said = hashlib.sha256(json.dumps(prompts, sort_keys=True).encode()).hexdigest()
    fixed = {**model, "variant": variant.name, "split": how.split, "prompts_sha256": said, "seed": how.seed}
    cache.continue_or_start(output, fixed)
    maker = ClipMaker(None if sample is None else _middle(sample), output / "clips")
    labels = generated_classes(variant, layout, seed=how.seed)
    jobs = [Job(f"{i:05d}", prompts[label], clip_seed(how.seed, i)) for i, label in enumerate(labels)]
    maker.make(
        jobs[part - 1 :: parts], batch=batch, progress=extraction.progress, cluster=extraction.cluster,
        load_sample=None if load_sample is None else partial(_load_middle, load_sample),
    )  # fmt: skip
    if maker.missing(jobs):
        return None

    generated = [ClipFile(f"clips/{job.name}.npy", maker.path(job.name), ".npy") for job in jobs]
    scores = _scores(variant, nets, layout, generated, extraction, how, command)
    for metric, score in scores.items():
        write_fvd(score, output) if metric == "fvd" else write_score(score, output, metric)
    report = {
        "variant": variant.name,
        "model": model.get("model", "this model"),
        "scores": {metric: score.as_dict() for metric, score in scores.items()},
        "generation": {**fixed, "prompts": prompts, "frames": f"the middle {FRAMES} of each clip"},
        "published": PUBLISHED,
        "versions": versions(),
        "command": command,
    }
    files.write_json(output / "ucf101.json", report, indent=1)
    files.write_text(output / "ucf101.md", markdown(report))
    return report


def _load_middle(load_sample: Callable[[], Sample]) -> Sample:
    return _middle(load_sample())


def _middle(sample: Sample) -> Sample:
    """Return a maker that keeps the middle frames of each clip."""

    def middle(prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        made = np.asarray(sample(prompts, seeds))
        if made.shape[1] < FRAMES:
            raise LumiereError(f"the clips have {made.shape[1]} frames; UCF101 takes {FRAMES}: ask for more --frames")
        first = (made.shape[1] - FRAMES) // 2
        return made[:, first : first + FRAMES]

    return middle


def clip_seed(seed: int, index: int) -> int:
    """Return the seed of one clip: it depends on neither shard nor batch."""
    return int(np.random.SeedSequence([seed, 0x0CF1, index]).generate_state(1)[0])


def _scores(
    variant: Variant,
    nets: Mapping[str, FeatureNet],
    layout: Layout,
    generated: Sequence[ClipFile],
    extraction: Extraction,
    settings: UCF101Settings,
    command: str,
) -> dict[str, Score]:
    seed = settings.seed

    def prepared(net: FeatureNet, sampling: Sampling) -> Preparation:
        size = None if net.name == EMOJI else variant.size
        return net.preparation(num_frames=FRAMES, sampling=sampling, size=size, seed=seed)

    def made(net: FeatureNet) -> FeatureSet:
        return features_of(generated, net, prepared(net, "centre"), extraction, what="generated clips")

    scores = {}
    if "fvd" in nets:
        net, listed = nets["fvd"], [clip for clip, _ in layout.training]
        real = some_of(listed, min(variant.real, len(listed)), seed=seed, what="the training split")
        preparations = [prepared(net, variant.real_sampling), prepared(net, "centre")]
        found = features_of(real, net, preparations[0], extraction, what="real clips")
        score = fvd_of(found, made(net), net, preparations, seed=seed, command=command)
        if len(listed) < variant.real:
            score.notes.append(
                f"trainlist{settings.split:02d}.txt holds {len(listed)} clips of the {variant.real} asked for: all "
                "were used, once"
            )
        scores["fvd"] = score
    if "is" in nets:
        net = nets["is"]
        scores["is"] = inception_of(
            made(net), net, prepared(net, "centre"), splits=variant.splits, seed=seed, command=command
        )
    return scores


def markdown(report: Mapping[str, Any]) -> str:
    """Return the published table with this run's row, and what a reader has to know."""
    rows = [[name, f"{fvd:.2f}", "-" if score is None else f"{score:.2f}"] for name, (fvd, score) in PUBLISHED.items()]
    scores = report["scores"]
    rows.append([f"**{report['model']}** ({report['variant']})", *(_cell(scores.get(m), m.upper()) for m in METRICS)])
    notes = [f"{score['metric']}: {note}" for score in scores.values() for note in score["notes"]]
    parts = [
        "# Zero-shot UCF101",
        table(["method", "FVD, less is better", "IS, more is better"], rows),
        "The other rows are as published; their protocols differ in clips, classes and prompts. In brackets: 95 % "
        "interval at this number of clips.",
    ]
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    if report["command"]:
        parts.append(f"Again:\n\n```sh\n{report['command']}\n```")
    return "\n\n".join(parts) + "\n"


def _cell(score: Mapping[str, Any] | None, plain: str) -> str:
    if score is None:
        return "-"
    low, high = score["interval_95"]
    other = "" if score["metric"] == plain else f", {score['metric']}: compares with no other row"
    return f"{score['value']:.2f} ({low:.2f} to {high:.2f}{other})"


def load_sample_alone(model: str, **options: Any) -> Sample:
    """Load a model as `load_sample`; return the maker of its clips alone."""
    return load_sample(model, **options)[0]


def describe_sample(model: str, **options: Any) -> dict[str, Any]:
    """Load a model as `load_sample`; return what its clips depend on alone."""
    return load_sample(model, **options)[1]


def load_sample(
    model: str, *, num_frames: int = 80, num_inference_steps: int | None = None, guidance_scale: float | None = None,
    device: str = "auto", dtype: str = "auto",
) -> tuple[Sample, dict[str, Any]]:  # fmt: skip
    """Load a model; return a maker of its clips, by its second stage where it has one, and what they depend on."""
    from openlumiere.pipelines.load import load_pipeline

    pipe = load_pipeline(model, device=device, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    call = {
        "num_frames": num_frames,
        "num_inference_steps": pipe.config.num_inference_steps if num_inference_steps is None else num_inference_steps,
        "guidance_scale": pipe.config.guidance_scale if guidance_scale is None else guidance_scale,
    }
    return pipeline_sample(pipe, **call), {
        "model": model,
        **cache.drawn_by(pipe),
        **call,
        "second_stage": pipe.super_resolution is not None,
        "scheduler": type(pipe.scheduler).__name__,
        "device": str(pipe.device),
        "dtype": str(pipe.dtype).removeprefix("torch."),
    }
