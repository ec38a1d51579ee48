"""`lumiere evaluate upscale`: is the second stage worth its time, and how many steps does it need?

Real clips of the test split are downsampled, and upsampled again by bicubic and Lanczos interpolation and by a model's
second stage at several numbers of steps; all are compared with the real clips. Transparent ones are compared over black
and over white, where what is wrong with colours or with alpha shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from openlumiere import files
from openlumiere.data.emoji.drawing import Atlas
from openlumiere.diffusion.alpha import unpremultiply
from openlumiere.diffusion.upsampling import downsample
from openlumiere.errors import LumiereError
from openlumiere.evaluation.judges.classifier import ClassifierConfig, SubjectClassifier, subject_classifier
from openlumiere.evaluation.metrics.fidelity import frame_psnr, ssim
from openlumiere.evaluation.metrics.temporal import flicker
from openlumiere.evaluation.real_clips import atlases_of, draw_test_clips
from openlumiere.pipelines.inputs import lay_frames_over
from openlumiere.tables import table

if TYPE_CHECKING:
    from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline

BICUBIC, LANCZOS, REAL = "bicubic", "Lanczos", "real clip"
_GROUNDS = ("black", "white")  # that transparent clips are compared over
_SHOWN_OVER = "#808080"
_FILTERS = {BICUBIC: Image.Resampling.BICUBIC, LANCZOS: Image.Resampling.LANCZOS}
# What is measured, and in which unit or direction.
MEASURES = {
    "psnr": "PSNR, dB, more is better",
    "ssim": "SSIM, more is better",
    "distance": "perceptual distance, less is better",
}
_SHOWN = 4  # clips in the picture


def interpolate(clip: np.ndarray, scale: int, resampling: Image.Resampling) -> np.ndarray:
    """Upsample a clip, uint8 (F, H, W, 3 or 4), frame by frame; returns float32 in [0, 1]. Pillow heeds alpha."""
    size = (clip.shape[2] * scale, clip.shape[1] * scale)
    return np.stack([np.asarray(Image.fromarray(f).resize(size, resampling)) for f in clip]).astype(np.float32) / 255


def compare(clip: np.ndarray, real: np.ndarray, classifier: SubjectClassifier) -> dict[str, float]:
    """Compare a clip with the real one, (F, H, W, 3) in [0, 1] each, means over frames; and its flicker.

    Transparent ones, (F, H, W, 4) of straight alpha, are compared over two grounds; the values are means over both.
    """
    if clip.shape[-1] == 4:
        over = [compare(lay_frames_over(clip, g), lay_frames_over(real, g), classifier) for g in _GROUNDS]
        return {name: float(np.mean([found[name] for found in over])) for name in over[0]}
    return {
        "psnr": frame_psnr(clip, real),
        "ssim": ssim(clip, real),
        "distance": float(classifier.distance(clip, real).mean()),
        "flicker": flicker(clip),
    }


def evaluate_upscaling(
    stage: LumiereSuperResolutionPipeline,
    data: Path | Mapping[str, Atlas],
    output: Path,
    *,
    clips: int = 12,
    num_frames: int = 80,
    size: int = 128,
    steps: Sequence[int] = (1, 2, 4, 8),
    noise_level: int | None = None,
    transparent: bool = False,
    others: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    seed: int = 0,
    classifier: ClassifierConfig | None = None,
    judges_folder: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure a second stage, and write ``upscale.json``, ``upscale.md``, ``upscale.png`` and ``frames.png``.

    Args:
        stage: the model's super-resolution pipeline.
        data: folder that `lumiere data emoji` wrote, or the subjects' animations themselves.
        size: side of the real clips.
        steps: numbers of denoising steps to try.
        noise_level: given to the low-resolution clips; the model's own when None.
        transparent: clips without a background.
        others: further ways of upsampling by the stage's scale, by name: clips, uint8 (F, h, w, 3 or 4) of straight
            alpha, to float32 in [0, 1].
        classifier: of the network whose features give the perceptual distance; trained on real clips of `size` when it
            is not in `judges_folder`, by default ``data/classifier``, or ``output/classifier`` where `data` is no
            folder.

    Returns:
        For each way of upsampling the means over clips of `compare`, and the seconds that a clip took.
    """
    if clips < 1 or not steps or min(steps) < 1:
        raise LumiereError(f"clips ({clips}) and steps {list(steps)} must be 1 or more")
    atlases = atlases_of(data, size)
    folder = judges_folder or (output if isinstance(data, Mapping) else Path(data)) / "classifier"
    classifier = classifier or ClassifierConfig(side=size, width=16, steps=400, batch_size=32, held_out_clips=60)
    network = subject_classifier(atlases, folder, config=classifier, progress=progress)
    level = stage.config.noise_level if noise_level is None else noise_level
    scale = stage.config.scale
    if size % scale:
        raise LumiereError(f"clips of {size} pixels: choose a multiple of the scale, {scale}")

    found: dict[str, list[dict[str, float]]] = {}
    columns: list[list[np.ndarray]] = []
    listed = draw_test_clips(atlases, clips, size=size, num_frames=num_frames, seed=seed, transparent=transparent)
    for index, (scene, drawn) in enumerate(tqdm(listed, "upsampling", clips, unit="clip", disable=not progress)):
        real = _straight(drawn).permute(1, 2, 3, 0).contiguous().numpy()
        # As a file would hold it.
        small = _straight(downsample(drawn[None], scale)[0])
        low_res = (small * 255).round().to(torch.uint8).permute(1, 2, 3, 0).numpy()

        ways: dict[str, Callable[[], np.ndarray]] = {}
        for name, by in _FILTERS.items():
            ways[name] = partial(interpolate, low_res, scale, by)
        for name, other in (others or {}).items():
            ways[name] = partial(other, low_res)
        for count in steps:
            ways[_steps(count)] = partial(_upsample, stage, low_res, scene.caption, count, level, seed + index)
        made = {}
        for name, way in ways.items():
            started = time.perf_counter()
            made[name] = way()
            taken = time.perf_counter() - started
            found.setdefault(name, []).append(compare(made[name], real, network) | {"seconds": taken})
        found.setdefault(REAL, []).append({"flicker": compare(real, real, network)["flicker"]})
        if index < _SHOWN:
            nearest = low_res.repeat(scale, axis=1).repeat(scale, axis=2).astype(np.float32) / 255
            shown = [c[num_frames // 3] for c in (nearest, *made.values(), real)]
            columns.append([lay_frames_over(c[None], _SHOWN_OVER)[0] if transparent else c for c in shown])

    report: dict[str, Any] = {
        "clips": clips, "num_frames": num_frames, "size": size, "scale": scale, "noise_level": level, "seed": seed,
        "transparent": transparent, "others": list(others or {}),
        "steps": list(steps), "judge": network.card,
        "ways": {
            name: {key: float(np.mean([one[key] for one in each])) for key in each[0]} for name, each in found.items()
        },
    }  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    files.write_json(output / "upscale.json", report, indent=1)
    files.write_text(output / "upscale.md", markdown(report))
    plot(report, output / "upscale.png")
    rows = np.concatenate([np.concatenate(row, axis=1) for row in zip(*columns, strict=True)])
    Image.fromarray((rows.clip(0, 1) * 255).round().astype(np.uint8)).save(output / "frames.png")
    return report


def _straight(clip: torch.Tensor) -> torch.Tensor:
    """Return a clip in [-1, 1], (3 or 4, F, H, W), in [0, 1], its colours not multiplied by alpha."""
    return ((unpremultiply(clip[None])[0] if len(clip) == 4 else clip) + 1) / 2


def _upsample(
    stage: LumiereSuperResolutionPipeline, low_res: np.ndarray, caption: str, steps: int, noise_level: int, seed: int
) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    return stage(low_res, caption, num_inference_steps=steps, noise_level=noise_level, generator=generator)[0][0]


def _steps(count: int) -> str:
    return f"{count} step" + ("s" if count > 1 else "")


def markdown(report: Mapping[str, Any]) -> str:
    """Return the means as a Markdown table."""
    heads = ["", "PSNR, dB", "SSIM", "perceptual distance", "flicker", "s a clip"]
    decimals = {"psnr": 2, "ssim": 4, "distance": 4, "flicker": 5, "seconds": 1}
    rows = [
        [name, *(f"{found[key]:.{digits}f}" if key in found else "-" for key, digits in decimals.items())]
        for name, found in report["ways"].items()
    ]
    return table(heads, rows) + "\n"


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Plot each measure against the number of steps, interpolation as lines to compare with."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, len(MEASURES)), MEASURES.items(), strict=True):
        found = [report["ways"][_steps(count)][key] for count in report["steps"]]
        axes.plot(report["steps"], found, marker="o", label="second stage")
        for name, style in zip((BICUBIC, LANCZOS, *report["others"]), cycle((":", "--", "-.", "-"))):
            axes.axhline(report["ways"][name][key], color="black", linestyle=style, linewidth=1, label=name)
        axes.set(xlabel="steps", title=title, xscale="log", xticks=report["steps"])
        axes.set_xticklabels([str(count) for count in report["steps"]])
        axes.minorticks_off()
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, ncols=4, loc="outside lower center")
    figure.savefig(path, dpi=120)
