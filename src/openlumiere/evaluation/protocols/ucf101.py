"""`lumiere evaluate ucf101`: zero-shot FVD and Inception Score on UCF101 (Soomro et al. 2012), 16 frames.

Papers differ in how many clips they compare and which; those that say so have a name here (`VARIANTS`). Clips are made
of class names, kept as they come, and scored once all are there, so that a run may be stopped, and shared between
processes and machines that see one folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from openlumiere.errors import LumiereError
from openlumiere.evaluation import cache
from openlumiere.evaluation.features.cache import FeatureSet, features_of
from openlumiere.evaluation.features.clip_sets import ClipFile, Sampling, some_of
from openlumiere.evaluation.features.networks import EMOJI, FeatureNet, find_features
from openlumiere.evaluation.scores import Score, versions, write_score
from openlumiere.tables import table

from .distributions import fvd_of, inception_of, write_fvd

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

# Makes clips of prompts, one seed each: uint8 or float in [0, 1], shape (prompts, F, H, W, 3).
ClipMaker = Callable[[Sequence[str], Sequence[int]], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How many clips are compared, and which.

    Attributes:
        generated, real: clips; of the real ones all, where the split holds fewer.
        real_sampling: which 16 frames of a real clip.
        classes: "even": class after class in turn; "training": as often as in the training split.
        size: that clips are brought to, pixels.
        splits: of the Inception Score.
    """

    name: str
    generated: int
    real: int
    real_sampling: Sampling = "centre"
    classes: Literal["even", "training"] = "even"
    size: int = 256
    splits: int = 10


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(name="videopoet", generated=10_000, real=10_000),
        Variant(name="make-a-video", generated=10_100, real=10_100),
        Variant(name="stylegan-v", generated=2048, real=2048, real_sampling="random", classes="training"),
    )
}


@dataclass(frozen=True)
class Layout:
    """UCF101 as it is on disk: class names in the official order, and the clips of a training split by class."""

    classes: list[str]
    training: list[tuple[ClipFile, str]]


def read_layout(data: str | Path, *, split: int = 1) -> Layout:
    """Read the official layout: ``UCF-101/CLASS/v_*.avi`` and ``ucfTrainTestlist/*.txt``, side by side in `data`.

    Args:
        split: 1, 2 or 3: which training list.

    Raises:
        LumiereError: parts that are missing, malformed lists, clips that are listed and not there.
    """
    data = Path(data)
    videos, lists = data / "UCF-101", data / "ucfTrainTestlist"
    for folder, holds in ((videos, "the classes' folders of clips"), (lists, "the split files")):
        if not folder.is_dir():
            raise LumiereError(f"{folder} is missing: give --data the folder of UCF-101 and ucfTrainTestlist ({holds})")
    classes = [words[-1] for words in _words(lists / "classInd.txt", 2)]
    if len(set(classes)) != len(classes) or not classes:
        raise LumiereError(f"{lists / 'classInd.txt'} names no classes, or one twice; get it again")
    training, missing = [], []
    for (name,) in ((words[0],) for words in _words(lists / f"trainlist{split:02d}.txt", 2)):
        label = name.partition("/")[0]
        if label not in classes:
            raise LumiereError(f"{lists}: trainlist{split:02d}.txt has the class {label}, classInd.txt has not")
        path = videos / name
        if not path.is_file():
            missing.append(name)
        training.append((ClipFile(name, path, path.suffix.lower()), label))
    if missing:
        raise LumiereError(f"{videos} lacks {len(missing)} clips of trainlist{split:02d}.txt, such as {missing[0]}")
    return Layout(classes, training)


def _words(path: Path, count: int) -> list[list[str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LumiereError(f"cannot read {path}; get UCF101's split files for action recognition") from error
    rows = [line.split() for line in lines if line.strip()]
    if any(len(row) != count for row in rows):
        raise LumiereError(f"{path} is malformed: each line has {count} words; get it again")
    return rows


def class_prompts(classes: Sequence[str], file: Path | None = None) -> dict[str, str]:
    """A prompt for each class: "a video of apply eye makeup" for ApplyEyeMakeup, or as a JSON file says.

    Raises:
        LumiereError: a file that is no JSON object of texts, or lacks a class.
    """
    if file is None:
        return {name: f"a video of {' '.join(re.findall('[A-Z][a-z]*|[^A-Z]+', name)).lower()}" for name in classes}
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LumiereError(
            f"cannot read the prompts from {file} ({error}); write a JSON object, class to text"
        ) from error
    lacking = [name for name in classes if not isinstance(said, dict) or not isinstance(said.get(name), str)]
    if lacking:
        raise LumiereError(f"{file} has no prompt for {lacking[0]}; write one for each class of classInd.txt")
    return {name: said[name] for name in classes}


def evaluate_ucf101(
    make: ClipMaker,
    data: str | Path,
    output: Path,
    *,
    settings: Mapping[str, Any],
    variant: str = "videopoet",
    clips: int | None = None,
    split: int = 1,
    prompts: Path | None = None,
    metrics: Sequence[str] = METRICS,
    emoji: bool = False,
    fvd_file: str | Path | None = None,
    fvd_sha256: str | None = None,
    is_file: str | Path | None = None,
    is_sha256: str | None = None,
    shard: tuple[int, int] = (1, 1),
    seed: int = 0,
    batch: int = 1,
    workers: int = 1,
    feature_batch: int = 8,
    feature_cache: Path | None = None,
    device: str = "cpu",
    command: str = "",
    progress: bool = True,
) -> dict[str, Any] | None:
    """Make this shard's clips, and score all once all are there; write ``ucf101.json``, ``ucf101.md`` and each score.

    Args:
        make: makes clips of prompts; their 16 middle frames are kept.
        data: see `read_layout`.
        settings: what the clips depend on besides prompts and seeds; compared when a run goes on.
        variant: one of VARIANTS.
        clips: make fewer than the variant, which then carries the number in its name.
        prompts: see `class_prompts`.
        metrics: some of METRICS.
        emoji: use the emoji network for both, FVD-emoji and IS-emoji, in place of I3D and C3D.
        fvd_file, fvd_sha256, is_file, is_sha256: see `features.find_features`.
        shard: (i, n): make the i-th of n equal parts, i from 1.
        batch: clips made at a time.
        workers, feature_batch, feature_cache: see `feature_cache.features_of`.
        device: of the feature networks.

    Returns:
        What ``ucf101.json`` holds, or None where other shards' clips are still missing.

    Raises:
        LumiereError: bad data, settings or feature files, all before the first clip is made.
    """
    chosen = _variant(variant, clips)
    part, parts = shard
    if not 1 <= part <= parts:
        raise LumiereError(f"--shard {part}/{parts}: give I/N with I from 1 to N")
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown or not metrics:
        raise LumiereError(f"unknown metrics {unknown}; choose from {', '.join(METRICS)}")
    layout = read_layout(data, split=split)
    texts = class_prompts(layout.classes, prompts)
    names = {"fvd": EMOJI if emoji else "i3d", "is": EMOJI if emoji else "c3d"}
    files = {"fvd": (fvd_file, fvd_sha256), "is": (is_file, is_sha256)}
    nets = {m: find_features(names[m], path=files[m][0], sha256=files[m][1], device=device) for m in metrics}

    said = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()
    fixed = {**settings, "variant": chosen.name, "split": split, "prompts_sha256": said, "seed": seed}
    _claim(output, fixed)
    labels = generated_classes(chosen, layout, seed=seed)
    mine = range(part - 1, len(labels), parts)
    _make_missing(make, [(i, texts[labels[i]], clip_seed(seed, i)) for i in mine], output, batch, progress)
    if any(not _clip_path(output, index).exists() for index in range(len(labels))):
        return None

    generated = [ClipFile(f"clips/{index:05d}.npy", _clip_path(output, index), ".npy") for index in range(len(labels))]
    listed = [clip for clip, _ in layout.training]
    real = some_of(listed, min(chosen.real, len(listed)), seed=seed, what="the training split")
    look = {"cache": feature_cache, "workers": workers, "batch": feature_batch, "progress": progress}
    scores = _scores(chosen, nets, real, generated, seed=seed, command=command, **look)
    if len(listed) < chosen.real:
        note = f"trainlist{split:02d}.txt holds {len(listed)} clips of the {chosen.real} asked for: all were used, once"
        scores = {m: dataclasses.replace(s, notes=[*s.notes, note]) if m == "fvd" else s for m, s in scores.items()}
    for metric, score in scores.items():
        write_fvd(score, output) if metric == "fvd" else write_score(score, output, metric)
    report = {
        "variant": chosen.name,
        "model": settings.get("model", "this model"),
        "scores": {metric: score.as_dict() for metric, score in scores.items()},
        "generation": {**fixed, "prompts": texts, "frames": f"the middle {FRAMES} of each clip"},
        "published": PUBLISHED,
        "versions": versions(),
        "command": command,
    }
    cache.write_text(output / "ucf101.json", json.dumps(report, indent=1) + "\n")
    cache.write_text(output / "ucf101.md", markdown(report))
    return report


def _variant(name: str, clips: int | None) -> Variant:
    if name not in VARIANTS:
        raise LumiereError(f"--variant {name}: choose from {', '.join(VARIANTS)}")
    variant = VARIANTS[name]
    if clips is None or clips == variant.generated:
        return variant
    if not 2 <= clips <= variant.generated:
        raise LumiereError(f"--clips {clips}: {name} has {variant.generated}; give 2 or more, and no more than that")
    # Fewer than two clips a split make no score; the name says that it is another measurement anyway.
    return dataclasses.replace(
        variant, name=f"{name}-{clips}-clips", generated=clips, real=min(clips, variant.real),
        splits=min(variant.splits, clips // 2),
    )  # fmt: skip


def generated_classes(variant: Variant, layout: Layout, *, seed: int) -> list[str]:
    """The class of each clip to make."""
    if variant.classes == "even":
        return [layout.classes[i % len(layout.classes)] for i in range(variant.generated)]
    order = np.random.default_rng([seed, 0xC1A55]).permutation(len(layout.training))
    return [layout.training[order[i % len(order)]][1] for i in range(variant.generated)]


def clip_seed(seed: int, index: int) -> int:
    """The seed of one clip: it depends on neither shard nor batch."""
    return int(np.random.SeedSequence([seed, 0x0CF1, index]).generate_state(1)[0])


def _claim(output: Path, settings: Mapping[str, Any]) -> None:
    """`cache.continue_or_start` for shards that start at once: whoever comes first says what this folder is for."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / "settings.json"
    if not path.exists():
        partial = path.with_name(f"settings.{os.getpid()}.partial")
        partial.write_text(json.dumps(settings, indent=1), encoding="utf-8")
        partial.replace(path)
    cache.continue_or_start(output, settings)


def _clip_path(output: Path, index: int) -> Path:
    return output / "clips" / f"{index:05d}.npy"


def _make_missing(
    make: ClipMaker, jobs: Sequence[tuple[int, str, int]], output: Path, batch: int, progress: bool
) -> None:
    missing = [job for job in jobs if not _clip_path(output, job[0]).exists()]
    done = len(jobs) - len(missing)
    with tqdm(total=len(jobs), initial=done, desc="making clips", unit="clip", disable=not progress) as bar:
        for start in range(0, len(missing), batch):
            group = missing[start : start + batch]
            made = np.asarray(make([text for _, text, _ in group], [seed for *_, seed in group]))
            if made.shape[1] < FRAMES:
                raise LumiereError(
                    f"the clips have {made.shape[1]} frames; UCF101 takes {FRAMES}: ask for more --frames"
                )
            if not np.isfinite(made).all():
                raise LumiereError(
                    f"the model made a clip that is not finite (NaN) of {group[0][1]!r}; try --dtype float32"
                )
            first = (made.shape[1] - FRAMES) // 2
            made = made[:, first : first + FRAMES]
            for (index, _, _), frames in zip(group, made, strict=True):
                cache.write_array(
                    _clip_path(output, index), frames if made.dtype == np.uint8 else cache.eight_bit(frames)
                )
                bar.update()


def _scores(
    variant: Variant,
    nets: Mapping[str, FeatureNet],
    real: Sequence[ClipFile],
    generated: Sequence[ClipFile],
    *,
    seed: int,
    command: str,
    **look: Any,
) -> dict[str, Score]:
    def seen(clips: Sequence[ClipFile], net: FeatureNet, sampling: Sampling, what: str) -> FeatureSet:
        preparation = prepared(net, sampling)
        return features_of(clips, net, preparation, what=what, **look)

    def prepared(net: FeatureNet, sampling: Sampling) -> Any:
        size = None if net.name == EMOJI else variant.size
        return net.preparation(num_frames=FRAMES, sampling=sampling, size=size, seed=seed)

    scores = {}
    if "fvd" in nets:
        net = nets["fvd"]
        scores["fvd"] = fvd_of(
            seen(real, net, variant.real_sampling, "real clips"),
            seen(generated, net, "centre", "generated clips"),
            net,
            [prepared(net, variant.real_sampling), prepared(net, "centre")],
            seed=seed,
            command=command,
        )
    if "is" in nets:
        net = nets["is"]
        found = seen(generated, net, "centre", "generated clips")
        scores["is"] = inception_of(
            found, net, prepared(net, "centre"), splits=variant.splits, seed=seed, command=command
        )
    return scores


def markdown(report: Mapping[str, Any]) -> str:
    """The published table with this run's row, and what a reader has to know."""
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


def pipeline_maker(
    model: str, *, num_frames: int = 80, num_inference_steps: int | None = None, guidance_scale: float | None = None,
    device: str = "auto", dtype: str = "auto",
) -> tuple[ClipMaker, dict[str, Any]]:  # fmt: skip
    """A maker of a model's clips, with its second stage where it has one, and the settings that they depend on."""
    import torch

    from openlumiere.pipelines.load import load_pipeline

    pipe = load_pipeline(model, device=device, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    steps = pipe.config.num_inference_steps if num_inference_steps is None else num_inference_steps
    scale = pipe.config.guidance_scale if guidance_scale is None else guidance_scale

    def make(prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        (made,) = pipe(
            list(prompts),
            num_frames=num_frames,
            num_inference_steps=steps,
            guidance_scale=scale,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="np",
            return_dict=False,
        )
        return made

    settings = {
        "model": model,
        "weights_sha256": cache.weights_hash(pipe),
        "num_frames": num_frames,
        "num_inference_steps": steps,
        "guidance_scale": scale,
        "second_stage": pipe.super_resolution is not None,
        "scheduler": type(pipe.scheduler).__name__,
        "device": str(pipe.device),
        "dtype": str(pipe.dtype).removeprefix("torch."),
    }
    return make, settings
