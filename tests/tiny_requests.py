"""A request of each task on tiny files, and what must be true of the clip, whichever model makes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clips import moving_square
from openlumiere.generation.abilities import Abilities
from openlumiere.generation.backends.base import Backend
from openlumiere.generation.backends.diffusers_model import DiffusersBackend
from openlumiere.generation.backends.stepping import around
from openlumiere.generation.make import Made, make
from openlumiere.generation.progress import Cancelled, Progress, Watch
from openlumiere.generation.requests import TASKS, ClipRequest, EditRequest, GenerateRequest, request_from_json
from openlumiere.video import read_clip, read_metadata, write_clip

STEPS = 2
_OWN: dict[str, dict[str, Any]] = {
    "inpaint": {"box": [0, 0, 0.5, 1]},
    "cinemagraph": {"box": [0, 0, 0.5, 1], "loop": False},
    "outpaint": {"to": [2, 1]},
    "restyle": {"strength": 0.5},
    "interpolate": {"factor": 2},
}
_PICTURES = ("animate", "cinemagraph")


@dataclass(frozen=True)
class Files:
    """A picture, and a clip of a coloured square, of a model's size and rate; `size` is (width, height)."""

    folder: Path
    size: tuple[int, int]
    num_frames: int
    fps: float

    @property
    def frames(self) -> np.ndarray:
        square = moving_square(3, frames=self.num_frames, side=max(self.size))
        return square[:, : self.size[1], : self.size[0]]

    @property
    def clip(self) -> str:
        path = self.folder / "source.webp"
        if not path.exists():
            write_clip(self.frames, path, fps=self.fps, lossless=True)
        return str(path)

    @property
    def picture(self) -> str:
        path = self.folder / "source.png"
        if not path.exists():
            Image.fromarray(self.frames[0]).save(path)
        return str(path)

    @property
    def last(self) -> str:
        path = self.folder / "last.png"
        if not path.exists():
            Image.fromarray(255 - self.frames[0]).save(path)
        return str(path)

    def request(self, task: str, **fields: Any) -> ClipRequest:
        """A request of two steps; of a picture, or of text, a clip as long as the source."""
        data: dict[str, Any] = {
            "task": task, "prompt": "a red heart", "seed": 1, "num_inference_steps": STEPS, "guidance_scale": 2.0,
            "size": list(self.size), "output": str(self.folder / f"{task}.webp"), **_OWN.get(task, {}),
        }  # fmt: skip
        if issubclass(TASKS[task], EditRequest):
            data["source"] = self.picture if task in _PICTURES else self.clip
        if task in ("generate", *_PICTURES):
            data["num_frames"] = self.num_frames
        made = request_from_json(data | fields)
        assert isinstance(made, ClipRequest)
        return made


def made_by(model: Backend, request: ClipRequest) -> tuple[Made, np.ndarray, dict[str, Any]]:
    """The finished clip as its file has it: what was made, its pixels in [0, 255] at the model's size, the metadata."""
    made = make(request, model, lossless=True)
    clip = read_clip(request.output)
    assert abs(clip.fps - made.recipe.fps) < 0.5
    fitted = made.recipe.request
    assert isinstance(fitted, ClipRequest)
    height = clip.frames.shape[1]
    inner = height // min(height, (fitted.size or (0, height))[1])
    pixels = clip.frames[:, inner // 2 :: inner, inner // 2 :: inner, :3].astype(int)
    return made, pixels, dict(read_metadata(request.output))


def check_task(model: Backend, files: Files, task: str, **fields: Any) -> np.ndarray:
    """Make a clip of a task, and check its length, size, rate, what of it was given, and what its file says."""
    request = files.request(task, **fields)
    made, pixels, metadata = made_by(model, request)
    (width, height), source = files.size, files.frames.astype(int)
    wide = (height * 2, height) if task == "outpaint" else (width, height)
    assert pixels.shape[1:3] == wide[::-1]
    assert metadata["model"] == model.identity.name
    assert metadata["weights"] == model.identity.weights != ""
    assert metadata["licence"] == model.abilities.licence != ""
    assert metadata["seed"] == 1
    rates = {"interpolate": 2 * files.fps}
    assert made.recipe.fps == (rates.get(task, files.fps))
    lengths = {"interpolate": 2 * len(source) - 1, "extend": len(source) + (getattr(request, "num_frames", 0) or 0)}
    assert len(pixels) == lengths.get(task, len(source))
    given, under = _given(model, task, pixels, source)
    if given is not None:
        assert np.abs(given - under).max() <= 1
    return pixels


def _given(model: Backend, task: str, pixels: np.ndarray, source: np.ndarray) -> tuple[Any, Any]:
    """What of a clip was given, and what it was given as."""
    half = source.shape[2] // 2
    match task:
        case "animate" if task in model.abilities.emulated:
            return pixels[0], source[0]
        case "inpaint":
            assert np.abs(pixels[:, :, :half] - source[:, :, :half]).max() > 8  # what was not given is made
            return pixels[:, :, half:], source[:, :, half:]
        case "cinemagraph":
            assert np.abs(pixels[1:, :, :half] - source[:1, :, :half]).max() > 8
            return np.concatenate([pixels[:, :, half:], pixels[:1, :, half:]]), source[:1, :, half:]
        case "outpaint":
            left = (pixels.shape[2] - source.shape[2]) // 2
            return pixels[:, :, left : left + source.shape[2]], source
        case "extend":
            return pixels[: len(source)], source
        case "interpolate":
            return pixels[::2], source
    return None, None


def check_seeds(model: Backend, files: Files, task: str) -> None:
    """The same seed makes the same clip, another another."""
    first, again, other = (made_by(model, files.request(task, seed=seed))[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def check_cancelling(model: Backend, files: Files, task: str) -> None:
    """Cancelled between two steps: no file is left, and the model makes the same clip afterwards as before."""
    request, told = files.request(task), list[tuple[int, int]]()
    before = made_by(model, request)[1]
    Path(request.output).unlink()

    def tell(progress: Progress) -> None:
        if progress.stage == "denoise":
            told.append((progress.step, progress.total))

    with pytest.raises(Cancelled):
        make(request, model, progress=tell, cancelled=lambda: (1, STEPS) in told)
    assert told == [(0, STEPS), (1, STEPS)]
    assert not list(files.folder.glob(f"{task}*"))
    np.testing.assert_array_equal(made_by(model, request)[1], before)


def check_fit(abilities: Abilities, num_frames: int, size: tuple[int, int]) -> None:
    """Of any length and size comes the nearest that the model makes, and a line says so where that is another."""
    request = GenerateRequest(prompt="a red heart", num_frames=num_frames, size=size)
    fitted = abilities.fit(request)
    made = fitted.request
    assert isinstance(made, GenerateRequest)
    assert made.num_frames is not None
    assert made.size is not None
    each, longest = abilities.frame_multiple, abilities.max_frames or num_frames
    assert (made.num_frames - 1) % each == 0
    assert 1 <= made.num_frames <= longest
    assert abs(made.num_frames - min(num_frames, longest)) <= each / 2
    for side, asked in zip(made.size, size, strict=True):
        assert side % abilities.size_multiple == 0
        assert side > 0
        assert abs(side - asked) <= max(abilities.size_multiple / 2, abilities.size_multiple - asked)
    changed = {line.partition(":")[0] for line in fitted.changes}
    assert changed == {
        name for name, asked, now in (("num_frames", num_frames, made.num_frames), ("size", size, made.size))
        if asked != now
    }  # fmt: skip


def check_held(model: DiffusersBackend, files: Files, task: str) -> None:
    """Latents of what is given come to the autoencoder's decoder as its encoder made them, and no others."""
    seen: dict[str, list[torch.Tensor]] = {"encode": [], "decode": []}

    def noted(method: Any, values: torch.Tensor, *inputs: Any, **options: Any) -> Any:
        seen[method.__name__].append(values)
        return method(values, *inputs, **options)

    vae = model.pipe.vae
    request = files.request(task, **({"num_frames": 4} if task == "extend" else {}))
    with around(vae, "encode", noted), around(vae, "decode", noted):
        model.make(model.fit(request).request, Watch())
    clip = next(pixels for pixels in seen["encode"] if pixels.shape[2] > 1)
    with torch.no_grad():
        known = vae.encode(clip).latent_dist.mode()
    held = torch.zeros_like(known, dtype=torch.bool)
    held[:, :, 0] = True
    if task == "cinemagraph":
        held[..., held.shape[-1] // 2 :] = True
    elif task == "extend":
        held[:, :, : (files.num_frames - 1) // model.frames_per_latent + 1] = True
    (decoded,) = seen["decode"]
    assert known.std() > 0.1
    torch.testing.assert_close(decoded[held], known[held], atol=1e-3, rtol=1e-3)
    assert (decoded[~held] - known[~held]).abs().mean() > 0.1
