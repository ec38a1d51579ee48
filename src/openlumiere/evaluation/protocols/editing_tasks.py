"""How each application is measured on one clip: what is given, what is made of it, what is compared."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from openlumiere.data.emoji.scenes import Scene
from openlumiere.evaluation.clips import ClipMaker, Sample, pipeline_sample
from openlumiere.evaluation.judges import Judges
from openlumiere.evaluation.judges.motion import FROZEN_BELOW
from openlumiere.evaluation.metrics.fidelity import edge_correlation, psnr, seam_energy
from openlumiere.evaluation.metrics.pixels import moving_fraction
from openlumiere.evaluation.metrics.temporal import flicker
from openlumiere.pipelines.inputs import paste_given
from openlumiere.pipelines.tasks import Task, animate, cinemagraph, extend, inpaint, interpolate, restyle
from openlumiere.stunet import STUNet

if TYPE_CHECKING:
    from openlumiere.pipelines.lumiere import LumierePipeline

STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
_FRAMEWISE_STRENGTH = 0.6  # at which SDEdit is compared with SDEdit frame by frame
_EVERY = 4  # interpolation: one frame in so many is given
_KEPT = 0.6  # outpainting: side of the rectangle in the middle that is given, of the frame's
_MARGIN = 1  # inpainting: pixels of room around the object
# Image-to-video of pictures of what the model does not know, as those of users mostly are.
UNKNOWN = "unknown-pictures"
# Metrics by task: title and, where there is one, what is aimed for.
METRICS: dict[str, dict[str, str]] = {
    "image-to-video": {
        "psnr": "PSNR of the first frame, dB (aim 30)",
        "subject": "subject (aim: text-to-video's - 0.05)",
        "text_subject": "subject, text-to-video",
        "motion": "motion as asked",
        "moves": "clips that move (aim 0.90)",
    },
    UNKNOWN: {
        "psnr": "PSNR of the subject in new frames, dB",
        "psnr_repeated": "picture repeated, dB (aim: less)",
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


@dataclass(frozen=True)
class Item:
    """A real clip: (F, H, W, 3) in [0, 1], its object's alpha (F, H, W), and a scene with another object in it.

    Attributes:
        layout: where its object is, (F, 6), see `diffusion.layout`.
    """

    index: int
    scene: Scene
    clip: np.ndarray
    alpha: np.ndarray
    other: Scene
    layout: torch.Tensor


class TaskMaker:
    """Makes clips of tasks, and remembers what was given with what was made."""

    def __init__(self, pipe: LumierePipeline, folder: Path, seed: int) -> None:
        self.pipe, self.seed = pipe, seed
        self.clips = ClipMaker(pipeline_sample(pipe, upscale=False, paste_given=False), folder)
        self.frames = ClipMaker(_framewise(pipe), folder)
        self.shown: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}

    def __call__(self, name: str, item: Item, scene: Scene, task: Task | None, **call: Any) -> np.ndarray:
        """Return the base clip of a caption before pasting, (F, H, W, 3) in [0, 1]; `task` None = text alone."""
        given = task.given if task is not None else {"num_frames": len(item.clip)}
        clip = self.clips.clip(f"{name}-{item.index:05d}", scene.caption, self.seed + item.index, **given, **call)
        if task is None:
            return clip
        seen = task.video if task.mask is None else np.where(task.mask[..., None], np.float32(0.5), task.video)
        self.shown.setdefault(name, []).append((seen, clip))
        return clip[: task.num_frames]

    def framewise(self, item: Item, scene: Scene, strength: float) -> np.ndarray:
        """Return SDEdit of each frame by itself, by the text-to-image network that the model grew from."""
        name = f"framewise-{item.index:05d}"
        return self.frames.clip(name, scene.caption, self.seed + item.index, clip=item.clip, strength=strength)


def _framewise(pipe: LumierePipeline) -> Sample:
    def sample(prompts: Sequence[str], seeds: Sequence[int], *, clip: np.ndarray, strength: float) -> np.ndarray:
        spatial = pipe.unet.spatial
        twin = UNet2DConditionModel.from_config(spatial.config)
        twin.load_state_dict(spatial.state_dict())
        t2i = copy.copy(pipe)
        unet = STUNet.from_unet(twin, resampled_levels=[]).eval()
        torch.nn.Module.to(unet, spatial.device, spatial.dtype)  # ModelMixin's own warns
        t2i.register_modules(unet=unet)
        t2i.register_to_config(noise_correlation=0.0, window_frames=None)
        (prompt,), (seed,) = prompts, seeds
        made = t2i(
            [prompt] * len(clip), video=clip[:, None], num_frames=1, strength=strength,
            generator=torch.Generator().manual_seed(seed), upscale=False,
        )[0]  # fmt: skip
        return made[:, 0][None]

    return sample


def measures_of(make: TaskMaker, judges: Judges) -> dict[str, Callable[[Item], dict[str, float]]]:
    """Return how each task is measured on one clip."""

    def image_to_video(item: Item) -> dict[str, float]:
        made = make("image-to-video", item, item.scene, animate(item.clip[0], len(item.clip)))
        text = make("text-to-video", item, item.scene, None)
        return {
            "psnr": psnr(made[0], item.clip[0]),
            "subject": judges.subject.classify(made)[0] == item.scene.subject,
            "text_subject": judges.subject.classify(text)[0] == item.scene.subject,
            "motion": judges.motion.classify(made) == item.scene.motion,
            "moves": moving_fraction(made) >= FROZEN_BELOW,
        }

    def unknown(item: Item) -> dict[str, float]:
        told = {"layout": item.layout} if make.pipe.unet.takes_layout else {}
        made = make(UNKNOWN, item, item.scene, animate(item.clip[0], len(item.clip)), **told)
        subject = item.alpha > 0.5
        subject[0] = False
        return {
            "psnr": psnr(made, item.clip, subject),
            "psnr_repeated": psnr(np.broadcast_to(item.clip[:1], item.clip.shape), item.clip, subject),
            "moves": moving_fraction(made) >= FROZEN_BELOW,
        }

    def inpainting(item: Item) -> dict[str, float]:
        return region(item, "inpainting", item.other, _boxes(item.alpha))

    def outpainting(item: Item) -> dict[str, float]:
        height, width = item.alpha.shape[1:]
        mask = np.ones(item.alpha.shape, bool)
        top, left = round(height * (1 - _KEPT) / 2), round(width * (1 - _KEPT) / 2)
        mask[:, top : height - top, left : width - left] = False
        return region(item, "outpainting", item.scene, mask)

    def region(item: Item, name: str, scene: Scene, mask: np.ndarray) -> dict[str, float]:
        task = inpaint(item.clip, mask)
        made = make(name, item, scene, task)
        pasted = paste_given(made, item.clip, mask)
        return {
            "psnr": psnr(made, item.clip, ~mask),
            "followed": judges.subject.classify(pasted)[0] == scene.subject,
            "seam": seam_energy(pasted, mask),
            "seam_real": seam_energy(item.clip, mask),
        }

    def cinemagraphs(item: Item) -> dict[str, float]:
        mask = _boxes(item.alpha).max(0)
        task = cinemagraph(item.clip[0], mask, len(item.clip))
        assert task.mask is not None
        pasted = paste_given(make("cinemagraph", item, item.scene, task, loop=True), task.video, task.mask)
        return {
            "outside": float(np.abs(pasted - pasted[:1])[:, ~mask].max(initial=0)),
            "moves": moving_fraction(pasted) >= FROZEN_BELOW,
        }

    def restyling(item: Item) -> dict[str, float]:
        found: dict[str, float] = {}
        for strength in STRENGTHS:
            made = make(f"restyling-{strength}", item, item.other, restyle(item.clip), strength=strength)
            found[f"followed_{strength}"] = judges.subject.classify(made)[0] == item.other.subject
            found[f"structure_{strength}"] = edge_correlation(made, item.clip)
            if strength == _FRAMEWISE_STRENGTH:
                found["flicker"] = flicker(made)
        found["flicker_framewise"] = flicker(make.framewise(item, item.other, _FRAMEWISE_STRENGTH))
        return found

    def interpolation(item: Item) -> dict[str, float]:
        known = item.clip[::_EVERY]
        task = interpolate(known, _EVERY)
        full = task.filled_up(make.pipe.enough_frames(len(task.video)))
        count = task.num_frames
        new = np.ones(item.alpha[:count].shape, bool)
        new[::_EVERY] = False
        share = (np.arange(count) % _EVERY / _EVERY)[:, None, None, None]
        before, after = known.repeat(_EVERY, 0)[:count], np.append(known[1:], known[-1:], 0).repeat(_EVERY, 0)[:count]
        return _compared(
            make("interpolation", item, item.scene, full)[:count], item.clip[:count], new,
            repeated=np.where(share < 0.5, before, after), blended=(1 - share) * before + share * after,
        )  # fmt: skip

    def extension(item: Item) -> dict[str, float]:
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
        "image-to-video": image_to_video, UNKNOWN: unknown, "inpainting": inpainting, "outpainting": outpainting,
        "cinemagraph": cinemagraphs, "restyling": restyling, "interpolation": interpolation, "extension": extension,
    }  # fmt: skip


def _compared(
    made: np.ndarray, real: np.ndarray, new: np.ndarray, *, repeated: np.ndarray, blended: np.ndarray
) -> dict[str, float]:
    ways = {"psnr": made, "psnr_repeated": repeated, "psnr_blended": blended}
    return {name: psnr(way, real, new) for name, way in ways.items()}


def _boxes(alpha: np.ndarray) -> np.ndarray:
    """Return for each frame the rectangle around the object, with some room; bool (F, H, W)."""
    boxes = np.zeros(alpha.shape, bool)
    for box, frame in zip(boxes, alpha > 0.1, strict=True):
        rows, columns = np.flatnonzero(frame.any(1)), np.flatnonzero(frame.any(0))
        if len(rows):
            top, left = max(rows[0] - _MARGIN, 0), max(columns[0] - _MARGIN, 0)
            box[top : rows[-1] + 1 + _MARGIN, left : columns[-1] + 1 + _MARGIN] = True
    return boxes
