"""`lumiere evaluate editing`: does a conditioned model do what its commands promise?

Clips of held-out combinations are given in part, and what comes back is compared with what was given, with the real
clip, and with what was asked for. All of it looks at the base model's clips, before anything is pasted back.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from tqdm import tqdm

from openlumiere.data.emoji.drawing import Atlas, draw
from openlumiere.data.emoji.scenes import Scene, SceneSampler, caption, vocabulary
from openlumiere.data.emoji.shards import load_atlases
from openlumiere.errors import LumiereError
from openlumiere.evaluation import cache
from openlumiere.evaluation.judges import Judges, load_judges
from openlumiere.evaluation.judges.motion import FROZEN_BELOW
from openlumiere.evaluation.judges.tracks import SIDE, moving_fraction
from openlumiere.evaluation.tables import table
from openlumiere.evaluation.test_split import SCENES
from openlumiere.pipelines.inputs import paste_given
from openlumiere.pipelines.tasks import Task, animate, cinemagraph, extend, inpaint, interpolate, restyle
from openlumiere.stunet import STUNet

from .upscaling import flicker

if TYPE_CHECKING:
    from openlumiere.pipelines.lumiere import LumierePipeline

STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
_FRAMEWISE_STRENGTH = 0.6  # at which SDEdit is compared with SDEdit frame by frame
_EVERY = 4  # interpolation: one frame in so many is given
_KEPT = 0.6  # outpainting: side of the rectangle in the middle that is given, of the frame's
_MARGIN = 1  # inpainting: pixels of room around the object
# Figures by task: title and, where there is one, what is aimed for.
FIGURES: dict[str, dict[str, str]] = {
    "image-to-video": {
        "psnr": "PSNR of the first frame, dB (aim 30)",
        "subject": "subject (aim: text-to-video's - 0.05)",
        "text_subject": "subject, text-to-video",
        "motion": "motion as asked",
        "moves": "clips that move (aim 0.90)",
    },
    "inpainting": {
        "psnr": "PSNR of what is kept, dB (aim 30)",
        "followed": "subject as asked (aim 0.80)",
        "seam": "energy at the border",
        "seam_real": "of the real clip there",
    },
    "outpainting": {
        "psnr": "PSNR of what is kept, dB (aim 30)",
        "followed": "subject as asked (aim 0.80)",
        "seam": "energy at the border",
        "seam_real": "of the real clip there",
    },
    "cinemagraph": {
        "outside": "change outside the mask (aim 0)",
        "moves": "clips that move inside (aim 0.95)",
    },
    "restyling": {
        **{f"followed_{s}": f"subject as asked, strength {s}" for s in STRENGTHS},
        **{f"structure_{s}": f"edges as in the input, strength {s}" for s in STRENGTHS},
        "flicker": f"flicker, strength {_FRAMEWISE_STRENGTH}",
        "flicker_framewise": "flicker, frame by frame (aim: twice as much)",
    },
    "interpolation": {
        "psnr": "PSNR of new frames, dB",
        "psnr_repeated": "frames repeated, dB (aim: less)",
        "psnr_blended": "frames blended, dB (aim: less)",
    },
    "extension": {
        "psnr": "PSNR of new frames, dB",
        "psnr_repeated": "last frame repeated, dB (aim: less)",
        "psnr_blended": "last two extrapolated, dB (aim: less)",
    },
}
TASKS = tuple(FIGURES)


@dataclass(frozen=True)
class Item:
    """A real clip: (F, H, W, 3) in [0, 1], its object's alpha (F, H, W), and a scene with another object in it."""

    index: int
    scene: Scene
    clip: np.ndarray
    alpha: np.ndarray
    other: Scene


Figures = dict[str, float]
Make = Callable[..., np.ndarray]  # (name, item, scene, task, **call) -> the made clip, (F, H, W, 3) in [0, 1]


def evaluate_editing(
    pipe: LumierePipeline,
    data: Path | Mapping[str, Atlas],
    output: Path,
    *,
    clips: int = 12,
    num_frames: int = 80,
    tasks: Sequence[str] = TASKS,
    seed: int = 0,
    judges: Judges | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure every application, and write ``editing.json``, ``editing.md`` and a picture for each task.

    A stopped evaluation goes on where it was: each clip is kept under ``output/clips`` as it comes.

    Args:
        data: folder that `lumiere data emoji` wrote, or the subjects' animations themselves.
        clips: real clips that each task starts from.
        tasks: of `TASKS`.
        judges: already loaded ones; None = those in ``data/classifier``, trained there when absent.

    Returns:
        For each task the means of its `FIGURES`, and the figures of each clip.

    Raises:
        LumiereError: an unknown task, a model that takes no condition, or an `output` made with other settings.
    """
    unknown = [task for task in tasks if task not in TASKS]
    if unknown or not tasks or clips < 1:
        raise LumiereError(f"unknown tasks {unknown} or no clips; choose tasks from {', '.join(TASKS)}")
    if not pipe.unet.config["condition_channels"]:
        raise LumiereError("this model takes no clip to keep a part of; train one: lumiere train conditional")
    if isinstance(data, Mapping):
        atlases, folder = data, output / "classifier"
    else:
        atlases = load_atlases(Path(data), list(vocabulary()["subjects"]), side=2 * max(SIDE, *pipe.frame_size))
        folder = Path(data) / "classifier"
    if judges is None:
        judged = atlases if isinstance(data, Mapping) else load_atlases(Path(data), list(atlases), side=2 * SIDE)
        judges = load_judges(judged, folder, progress=progress)
    settings = {"weights_sha256": cache.weights_hash(pipe), "num_frames": num_frames, "seed": seed}
    cache.continue_or_start(output, settings)

    maker = _Maker(pipe, output / "clips", seed)
    measures = _measures(maker, judges)
    items = _items(pipe, atlases, clips, num_frames, seed)
    each: dict[str, list[Figures]] = {task: [] for task in tasks}
    with tqdm(total=clips * len(tasks), desc="editing", unit="task", disable=not progress) as bar:
        for item in items:
            for task in tasks:
                each[task].append(measures[task](item))
                bar.update()
    report = {
        **settings,
        "clips": clips,
        "judges": {"subject": judges.subject.card, "motion": judges.motion.card},
        "figures": {
            task: {name: float(np.mean([figures[name] for figures in found])) for name in FIGURES[task]}
            for task, found in each.items()
        },
        "each": each,
    }
    cache.write_text(output / "editing.json", json.dumps(report, indent=1))
    cache.write_text(output / "editing.md", markdown(report))
    for task, rows in maker.shown.items():
        _sheet(rows, output / f"{task}.png")
    return report


def markdown(report: Mapping[str, Any]) -> str:
    """The means as a Markdown table."""
    rows = [
        [task, title, f"{report['figures'][task][name]:.{2 if 'psnr' in name else 4}f}"]
        for task in report["figures"]
        for name, title in FIGURES[task].items()
    ]
    return table(["task", "figure", f"mean of {report['clips']} clips"], rows) + "\n"


# ------------------------------------------------------------------------------------------------ inputs


def _items(pipe: LumierePipeline, atlases: Mapping[str, Atlas], count: int, num_frames: int, seed: int) -> list[Item]:
    """Clips of held-out combinations of the subjects that the model knows, at its own size."""
    known = [key for key in pipe.config.subjects or atlases if key in atlases]
    if len(known) < 2 or pipe.frame_size[0] != pipe.frame_size[1]:
        raise LumiereError("two subjects at least that the model knows, and square frames, are needed")
    names = {key: atlases[key].names for key in known}
    sampler = SceneSampler(names, split="combinations", seed=SCENES + seed)
    items = []
    for index in range(count):
        scene = sampler(index)
        pixels, alpha = draw(scene, atlases[scene.subject], size=pipe.frame_size[0], num_frames=num_frames)
        clip = ((pixels + 1) / 2).permute(1, 2, 3, 0).contiguous().numpy()
        items.append(Item(index, scene, clip, alpha[0].numpy(), _with_another(scene, names, seed + index)))
    return items


def _with_another(scene: Scene, names: Mapping[str, list[str]], seed: int) -> Scene:
    """The same scene with another subject, and a caption that says so."""
    rng = np.random.default_rng([SCENES, seed])
    others = [key for key in sorted(names) if key != scene.subject]
    subject = others[int(rng.integers(len(others)))]
    words = caption(
        rng, names=names[subject], background=scene.background, size=scene.size, place=scene.place, motion=scene.motion
    )
    return replace(scene, subject=subject, caption=words)


class _Maker:
    """Makes clips, or reads those that were made before; remembers what was given beside what was made."""

    def __init__(self, pipe: LumierePipeline, folder: Path, seed: int) -> None:
        self.pipe, self.folder, self.seed = pipe, folder, seed
        self.shown: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}

    def __call__(self, name: str, item: Item, scene: Scene, task: Task | None, **call: Any) -> np.ndarray:
        """The base clip for a scene's caption, before pasting, uint8 values in [0, 1]; `task` None = text alone."""
        given = task.given if task is not None else {"num_frames": len(item.clip)}
        path = self.folder / f"{name}-{item.index:05d}.npy"
        if not path.exists():
            generator = torch.Generator().manual_seed(self.seed + item.index)
            made = self.pipe(scene.caption, generator=generator, upscale=False, paste_given=False, **given, **call)[0][
                0
            ]
            cache.write_array(path, cache.eight_bit(made))
        clip = cache.read_array(path).astype(np.float32) / 255
        if task is not None:
            seen = task.video if task.mask is None else np.where(task.mask[..., None], np.float32(0.5), task.video)
            self.shown.setdefault(name, []).append((seen, clip))
        return clip if task is None else clip[: task.num_frames]

    def framewise(self, item: Item, scene: Scene, strength: float) -> np.ndarray:
        """SDEdit of each frame by itself, by the text-to-image network that the model grew from."""
        path = self.folder / f"framewise-{item.index:05d}.npy"
        if not path.exists():
            spatial = self.pipe.unet.spatial
            twin = UNet2DConditionModel.from_config(spatial.config)
            twin.load_state_dict(spatial.state_dict())
            t2i = copy.copy(self.pipe)
            unet = STUNet.from_unet(twin, resampled_levels=[]).eval()
            torch.nn.Module.to(unet, spatial.device, spatial.dtype)  # ModelMixin's own warns
            t2i.register_modules(unet=unet)
            t2i.register_to_config(noise_correlation=0.0, window_frames=None)
            made = t2i(
                [scene.caption] * len(item.clip), video=item.clip[:, None], num_frames=1, strength=strength,
                generator=torch.Generator().manual_seed(self.seed + item.index), upscale=False,
            )[0][:, 0]  # fmt: skip
            cache.write_array(path, cache.eight_bit(made))
        return cache.read_array(path).astype(np.float32) / 255


# ------------------------------------------------------------------------------------------------ figures


def psnr(clip: np.ndarray, real: np.ndarray, where: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio, dB, of pixels in [0, 1]; of those `where` is True, (F, H, W)."""
    error = np.square(clip.astype(np.float64) - real)
    return float(-10 * np.log10(max((error if where is None else error[where]).mean(), 1e-10)))


def seam_energy(clip: np.ndarray, mask: np.ndarray) -> float:
    """Mean squared difference between neighbouring pixels on both sides of a mask's border.

    Args:
        clip: (F, H, W, 3); mask: bool (F, H, W).
    """
    total, count = 0.0, 0
    for axis in (1, 2):
        crossing = np.diff(mask, axis=axis)
        differences = np.square(np.diff(clip.astype(np.float64), axis=axis)).mean(-1)
        total, count = total + float(differences[crossing].sum()), count + int(crossing.sum())
    return total / max(count, 1)


def edge_correlation(clip: np.ndarray, reference: np.ndarray) -> float:
    """Correlation of two clips' edges, the length of the gradient of their mean colour; 1 = the same."""
    edges = []
    for each in (clip, reference):
        down, across = np.gradient(each.astype(np.float64).mean(-1), axis=(1, 2))
        edges.append(np.hypot(down, across).ravel())
    return float(np.corrcoef(*edges)[0, 1]) if min(e.std() for e in edges) > 0 else 0.0


def _measures(make: _Maker, judges: Judges) -> dict[str, Callable[[Item], Figures]]:
    """How each task is measured on one clip."""

    def image_to_video(item: Item) -> Figures:
        made = make("image-to-video", item, item.scene, animate(item.clip[0], len(item.clip)))
        text = make("text-to-video", item, item.scene, None)
        return {
            "psnr": psnr(made[0], item.clip[0]),
            "subject": judges.subject.classify(made)[0] == item.scene.subject,
            "text_subject": judges.subject.classify(text)[0] == item.scene.subject,
            "motion": judges.motion.classify(made) == item.scene.motion,
            "moves": moving_fraction(made) >= FROZEN_BELOW,
        }

    def inpainting(item: Item) -> Figures:
        return region(item, "inpainting", item.other, _boxes(item.alpha))

    def outpainting(item: Item) -> Figures:
        height, width = item.alpha.shape[1:]
        mask = np.ones(item.alpha.shape, bool)
        top, left = round(height * (1 - _KEPT) / 2), round(width * (1 - _KEPT) / 2)
        mask[:, top : height - top, left : width - left] = False
        return region(item, "outpainting", item.scene, mask)

    def region(item: Item, name: str, scene: Scene, mask: np.ndarray) -> Figures:
        task = inpaint(item.clip, mask)
        made = make(name, item, scene, task)
        pasted = paste_given(made, item.clip, mask)
        return {
            "psnr": psnr(made, item.clip, ~mask),
            "followed": judges.subject.classify(pasted)[0] == scene.subject,
            "seam": seam_energy(pasted, mask),
            "seam_real": seam_energy(item.clip, mask),
        }

    def cinemagraphs(item: Item) -> Figures:
        mask = _boxes(item.alpha).max(0)
        task = cinemagraph(item.clip[0], mask, len(item.clip))
        assert task.mask is not None
        pasted = paste_given(make("cinemagraph", item, item.scene, task, loop=True), task.video, task.mask)
        return {
            "outside": float(np.abs(pasted - pasted[:1])[:, ~mask].max(initial=0)),
            "moves": moving_fraction(pasted) >= FROZEN_BELOW,
        }

    def restyling(item: Item) -> Figures:
        figures: Figures = {}
        for strength in STRENGTHS:
            made = make(f"restyling-{strength}", item, item.other, restyle(item.clip), strength=strength)
            figures[f"followed_{strength}"] = judges.subject.classify(made)[0] == item.other.subject
            figures[f"structure_{strength}"] = edge_correlation(made, item.clip)
            if strength == _FRAMEWISE_STRENGTH:
                figures["flicker"] = flicker(made)
        figures["flicker_framewise"] = flicker(make.framewise(item, item.other, _FRAMEWISE_STRENGTH))
        return figures

    def interpolation(item: Item) -> Figures:
        known = item.clip[::_EVERY]
        task = interpolate(known, _EVERY)
        full = task.filled_up(make.pipe.unet.frame_multiple, make.pipe.config.window_frames or len(item.clip))
        count = task.num_frames
        new = np.ones(item.alpha[:count].shape, bool)
        new[::_EVERY] = False
        share = (np.arange(count) % _EVERY / _EVERY)[:, None, None, None]
        before, after = known.repeat(_EVERY, 0)[:count], np.append(known[1:], known[-1:], 0).repeat(_EVERY, 0)[:count]
        return _compared(
            make("interpolation", item, item.scene, full)[:count], item.clip[:count], new,
            repeated=np.where(share < 0.5, before, after), blended=(1 - share) * before + share * after,
        )  # fmt: skip

    def extension(item: Item) -> Figures:
        half = len(item.clip) // 2
        known = item.clip[:half]
        task = extend(known, len(item.clip) - half, context=half)
        new = np.arange(len(item.clip)) >= half
        steps = np.arange(1, len(item.clip) - half + 1)[:, None, None, None]
        last = known[-1:].repeat(len(item.clip) - half, 0)
        onward = (last + steps * (known[-1:] - known[-2:-1])).clip(0, 1)
        where = np.broadcast_to(new[:, None, None], item.alpha.shape)
        return _compared(
            make("extension", item, item.scene, task), item.clip, where,
            repeated=np.concatenate([known, last]), blended=np.concatenate([known, onward]),
        )  # fmt: skip

    return {
        "image-to-video": image_to_video, "inpainting": inpainting, "outpainting": outpainting,
        "cinemagraph": cinemagraphs, "restyling": restyling, "interpolation": interpolation, "extension": extension,
    }  # fmt: skip


def _compared(
    made: np.ndarray, real: np.ndarray, new: np.ndarray, *, repeated: np.ndarray, blended: np.ndarray
) -> Figures:
    ways = {"psnr": made, "psnr_repeated": repeated, "psnr_blended": blended}
    return {name: psnr(way, real, new) for name, way in ways.items()}


def _boxes(alpha: np.ndarray) -> np.ndarray:
    """For each frame the rectangle around the object, with some room; bool (F, H, W)."""
    boxes = np.zeros(alpha.shape, bool)
    for box, frame in zip(boxes, alpha > 0.1, strict=True):
        rows, columns = np.flatnonzero(frame.any(1)), np.flatnonzero(frame.any(0))
        if len(rows):
            top, left = max(rows[0] - _MARGIN, 0), max(columns[0] - _MARGIN, 0)
            box[top : rows[-1] + 1 + _MARGIN, left : columns[-1] + 1 + _MARGIN] = True
    return boxes


def _sheet(rows: Sequence[tuple[np.ndarray, np.ndarray]], path: Path, *, columns: int = 8, side: int = 96) -> None:
    """For each of the first clips some frames of what was given, gray where it was not, above what was made."""
    from PIL import Image

    lines = []
    for pair in rows[:4]:
        for clip in pair:
            at = np.linspace(0, len(clip) - 1, columns).round().astype(int)
            lines.append(np.concatenate(list(clip[at]), axis=1))
    page = Image.fromarray(cache.eight_bit(np.concatenate(lines)))
    height = rows[0][0].shape[1]
    page.resize((columns * side, page.height * side // height), Image.Resampling.NEAREST).save(path)
