"""`lumiere evaluate seams` and `loops`: does it show where windows end, or where a loop starts again?

As the paper's Figure 14, which compares adjacent frames. Real clips are downsampled, and upsampled again by a model's
second stage, with its windows merged at every step, and with independent windows. Where a window ends, the next frame
comes from another one: if the difference between these two frames stands out against the others', there is a seam.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from openlumiere import files
from openlumiere.data.emoji.drawing import Atlas
from openlumiere.data.emoji.scenes import SceneSampler, vocabulary
from openlumiere.diffusion.upsampling import downsample
from openlumiere.errors import LumiereError
from openlumiere.evaluation.metrics.temporal import adjacent_differences, border_ratio, window_borders, wrap_ratio
from openlumiere.evaluation.real_clips import SCENES, atlases_of, draw_test_clips

if TYPE_CHECKING:
    from openlumiere.pipelines.lumiere import LumierePipeline
    from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline

LOOP, NO_LOOP = "made as a loop", "not made as one"
MERGED, ALONE, REAL = "MultiDiffusion", "independent windows", "real clip"


def evaluate_seams(
    stage: LumiereSuperResolutionPipeline,
    data: Path | Mapping[str, Atlas],
    output: Path,
    *,
    clips: int = 12,
    num_frames: int = 80,
    size: int = 128,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure seams on the test split, and write ``seams.json`` and ``seams.png``.

    Args:
        stage: the model's super-resolution pipeline.
        data: folder that `lumiere data emoji` wrote, or the subjects' animations themselves.
        size: side of the clips.

    Returns:
        For each way of upsampling, and for the real clips: the ratio at window borders, and the differences.
    """
    length, overlap = stage.config.window_frames, stage.config.window_overlap
    if num_frames <= length:
        raise LumiereError(f"{num_frames} frames fit into one window of {length}; ask for more --frames")
    atlases = atlases_of(data, size)
    found: dict[str, list[np.ndarray]] = {MERGED: [], ALONE: [], REAL: []}
    listed = draw_test_clips(atlases, clips, size=size, num_frames=num_frames, seed=seed)
    for index, (scene, real) in enumerate(tqdm(listed, "upsampling", clips, unit="clip", disable=not progress)):
        low_res = (downsample(real[None], stage.config.scale) + 1) / 2
        found[REAL].append(adjacent_differences(((real + 1) / 2).permute(1, 2, 3, 0).numpy()))
        for name, merge in ((MERGED, True), (ALONE, False)):
            generator = torch.Generator().manual_seed(seed + index)
            high_res = stage(low_res.transpose(1, 2), scene.caption, generator=generator, merge_windows=merge)[0][0]
            found[name].append(adjacent_differences(high_res))
    overlaps = {MERGED: overlap, ALONE: 0, REAL: overlap}
    report: dict[str, Any] = {
        "clips": clips, "num_frames": num_frames, "window_frames": length, "window_overlap": overlap, "seed": seed,
        "ratio_at_borders": {}, "differences": {},
    }  # fmt: skip
    for name, each in found.items():
        differences = np.stack(each)
        borders = window_borders(num_frames, length, overlaps[name])
        report["ratio_at_borders"][name] = border_ratio(differences, borders)
        report["differences"][name] = differences.mean(0).tolist()
    # The real clip has no windows: it is read at the borders of both.
    report["real_at_the_borders_of"] = {
        name: border_ratio(np.stack(found[REAL]), window_borders(num_frames, length, overlaps[name]))
        for name in (MERGED, ALONE)
    }
    output.mkdir(parents=True, exist_ok=True)
    files.write_json(output / "seams.json", report, indent=1)
    plot(report, output / "seams.png")
    return report


def evaluate_loops(
    pipe: LumierePipeline,
    output: Path,
    *,
    clips: int = 6,
    num_frames: int = 80,
    seed: int = 0,
    upscale: bool | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure where clips of the test split's scenes start again, with ``loop=True`` and without; write ``loops.json``.

    Args:
        pipe: the model, both stages.
        upscale: see `LumierePipeline`; False measures the base alone.

    Returns:
        For both, the mean of `wrap_ratio`, which is 1 where nothing shows, and its value for each clip.
    """
    words = vocabulary()["subjects"]
    names = {key: words[key]["names"] for key in pipe.config.subjects or words}
    scenes = SceneSampler(names, split="combinations", seed=SCENES + seed)
    found: dict[str, list[float]] = {LOOP: [], NO_LOOP: []}
    with tqdm(total=2 * clips, desc="making clips", unit="clip", disable=not progress) as bar:
        for index, (name, loop) in product(range(clips), ((LOOP, True), (NO_LOOP, False))):
            generator = torch.Generator().manual_seed(seed + index)
            clip = pipe(scenes(index).caption, num_frames=num_frames, loop=loop, upscale=upscale, generator=generator)[
                0
            ][0]
            found[name].append(wrap_ratio(clip))
            bar.update()
    report = {
        "clips": clips, "num_frames": num_frames, "seed": seed, "upscale": upscale,
        "ratio_at_wrap": {name: float(np.mean(each)) for name, each in found.items()}, "each": found,
    }  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    files.write_json(output / "loops.json", report, indent=1)
    return report


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Plot differences between adjacent frames over the clip, window borders marked, as the paper's Figure 14."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, differences in report["differences"].items():
        style = {"color": "black", "linewidth": 1} if name == REAL else {"linewidth": 1.6}
        axes.plot(np.arange(1, len(differences) + 1), differences, label=name, **style)
    for start in np.flatnonzero(window_borders(report["num_frames"], report["window_frames"], 0)):
        axes.axvline(float(start + 1), color="0.85", zorder=0)
    axes.set(xlabel="frame", ylabel="mean squared difference\nto the frame before", ylim=(0, None))
    axes.margins(x=0.01)
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.18))
    figure.savefig(path, dpi=120)
