"""What is measured of any clip without a download, and of an entry's clips together, with intervals over prompts."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from openlumiere import files
from openlumiere.evaluation.metrics.bootstrap import percentile_interval
from openlumiere.evaluation.metrics.displacement import displacement
from openlumiere.evaluation.metrics.fidelity import ssim
from openlumiere.evaluation.metrics.pixels import moving_fraction
from openlumiere.evaluation.metrics.temporal import (
    adjacent_differences,
    border_ratio,
    flicker,
    window_borders,
    wrap_ratio,
)
from openlumiere.video import opaque, read_clip

from .entries import Entry
from .plan import Plan, read_record
from .prompts import Shot

SIDE = 256  # pixels of the longer side that clips are measured at, where they are larger: models differ in size
_VERSION = 1  # of the measures; a new one measures clips again


@dataclass(frozen=True)
class Measure:
    """One value of a clip.

    Attributes:
        title: as a table's column.
        unit: "" = a ratio.
        meaning: in a sentence, with what is better, where that can be said.
        digits: after the point.
        of: its value; None where it does not apply.
    """

    title: str
    unit: str
    meaning: str
    digits: int = 2
    of: Callable[[np.ndarray, float, int | None], float | None] | None = None


def _seam(frames: np.ndarray, _fps: float, window: int | None) -> float | None:
    if window is None or len(frames) <= window:
        return None
    return border_ratio(adjacent_differences(frames), window_borders(len(frames), window, window // 2))


def _unsteadiness(frames: np.ndarray, _fps: float, _window: int | None) -> float | None:
    change = float(np.abs(np.diff(frames.astype(np.float64), axis=0)).mean())
    return flicker(frames) / change if change > 0 else None


MEASURES: dict[str, Measure] = {
    "motion": Measure(
        "motion", "% of the frame a second", "How far blocks of the picture move, mean over the frame; 0 = a still.",
        1, lambda frames, fps, _: 100 * displacement(frames) * fps,
    ),
    "moving": Measure(
        "moving frames", "%", "Adjacent frames that differ by more than a codec's noise; 0 = a still.",
        0, lambda frames, _fps, _: 100 * moving_fraction(frames),
    ),
    "frame_ssim": Measure(
        "SSIM of frames", "", "Structural similarity of adjacent frames; 1 = equal. Motion lowers it, as cuts do.",
        3, lambda frames, _fps, _: ssim(frames[1:], frames[:-1]),
    ),
    "flicker": Measure(
        "flicker", "1/255", "Mean absolute second difference in time; less is steadier. A still has none.",
        2, lambda frames, _fps, _: 255 * flicker(frames),
    ),
    "unsteadiness": Measure(
        "unsteadiness", "", "Flicker over the mean change between frames: 0 = steady change, 1.7 = noise.",
        2, _unsteadiness,
    ),
    "window_seam": Measure(
        "window seam", "", "Change at borders of the model's windows over that elsewhere; 1 = no seam shows.", 2, _seam,
    ),
    "loop_seam": Measure(
        "loop seam", "", "Change from the last frame to the first over that between others; 1 = a seamless loop.",
        1, lambda frames, _fps, _: wrap_ratio(frames),
    ),
    "seconds": Measure("seconds", "s", "To make a clip, its file included, without loading the model.", 1),
    "peak_mib": Measure("peak memory", "MiB", "Of the GPU where there is one, else of the process.", 0),
}  # fmt: skip


def measure(path: Path, window: int | None) -> dict[str, Any]:
    """Return the measures of a clip's pixels, and its shape.

    Args:
        window: frames of the windows that the model makes long clips in; None = not known, or there are none.
    """
    clip = read_clip(path)
    pixels = opaque(clip.frames)
    frames = _shrunk(pixels)
    values: dict[str, float | None] = {}
    for name, each in MEASURES.items():
        if each.of is not None and len(frames) > 2:
            value = each.of(frames, clip.fps, window)
            values[name] = value if value is not None and math.isfinite(value) else None
    shape = {"num_frames": len(pixels), "fps": clip.fps, "width": pixels.shape[2], "height": pixels.shape[1]}
    return {"shape": shape, "values": values}


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    """Return a clip, uint8 (F, H, W, 3), with a longer side of at most `SIDE`, as float32 in [0, 1]."""
    frames = torch.from_numpy(pixels.astype(np.float32) / 255)
    scale = SIDE / max(frames.shape[1:3])
    if scale < 1:
        size = [max(round(side * scale), 1) for side in frames.shape[1:3]]
        frames = F.interpolate(
            frames.permute(0, 3, 1, 2), size=size, mode="bilinear", antialias=True, align_corners=False
        ).permute(0, 2, 3, 1)  # fmt: skip
    return frames.contiguous().numpy()


def measured(plan: Plan, entry: Entry, shot: Shot) -> dict[str, Any] | None:
    """Return a clip's measures, which are kept with what is known of it; None if it is not there."""
    clip = plan.clip(entry, shot)
    if clip is None or not plan.is_wanted(entry, shot):
        return None
    record = read_record(plan.record(entry, shot))
    key = {"sha256": files.sha256(clip), "version": _VERSION}
    found = record.get("measured", {})
    if found.get("of") != key:
        window = None if entry.clips else plan.abilities[entry.name].window_frames
        found = {"of": key, **measure(clip, window)}
        files.write_json(plan.record(entry, shot), {**record, "measured": found})
    known = {name: record.get(name) for name in ("seconds", "peak_mib")}
    return {"shape": found["shape"], "values": {**found["values"], **known}}


def summary(by_prompt: Mapping[str, Sequence[float]], *, seed: int = 0) -> dict[str, Any] | None:
    """Return the mean over prompts of a measure, and how sure it is.

    Clips of one prompt are averaged first. The interval is a bootstrap's over prompts, 95 %, by percentiles.

    Args:
        by_prompt: values of the clips of each prompt.

    Returns:
        ``value``, ``interval_95`` (None of fewer than two prompts), ``clips``, ``prompts``; None without clips.
    """
    means = np.array([np.mean(values) for values in by_prompt.values() if len(values)])
    if not len(means):
        return None
    interval = percentile_interval(means, seed=seed)
    clips = sum(map(len, by_prompt.values()))
    return {"value": float(means.mean()), "interval_95": interval, "clips": clips, "prompts": len(means)}


def summarize(clips: Sequence[tuple[Shot, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the `summary` of each measure of an entry's clips; those that apply to none are left out."""
    found = {}
    for name in MEASURES:
        by_prompt: dict[str, list[float]] = defaultdict(list)
        for shot, one in clips:
            value = one["values"].get(name)
            if value is not None:
                by_prompt[shot.key].append(value)
        whole = summary(by_prompt)
        if whole is not None:
            found[name] = whole
    return found


def write_tables(report: Mapping[str, Any], folder: Path) -> None:
    """Write ``comparison.json`` (all), ``measures.csv`` (a line for each entry and measure), ``clips.csv``."""
    files.write_json(folder / "comparison.json", report)
    rows = [["name", "measure", "unit", "value", "low_95", "high_95", "clips", "prompts"]]
    for entry in report["entries"]:
        for name, found in entry["measures"].items():
            low, high = found["interval_95"] or ("", "")
            unit = report["measures"][name]["unit"]
            rows.append([entry["name"], name, unit, found["value"], low, high, found["clips"], found["prompts"]])
        fvd = entry.get("fvd") or {"failed": ""}
        if "failed" not in fvd:
            count = fvd["clips"]["generated"]
            rows.append([entry["name"], fvd["metric"], "", fvd["value"], *fvd["interval_95"], count, ""])
    _write_csv(folder / "measures.csv", rows)
    rows = [["name", "prompt", "seed", "file", "num_frames", "fps", "width", "height", *MEASURES]]
    for clip in report["clips"]:
        shape = [clip["shape"][key] for key in ("num_frames", "fps", "width", "height")]
        values = ["" if clip["values"].get(name) is None else clip["values"][name] for name in MEASURES]
        rows.append([clip["name"], clip["prompt"], clip["seed"], clip["file"], *shape, *values])
    _write_csv(folder / "clips.csv", rows)


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    files.write_text(path, text.getvalue())
