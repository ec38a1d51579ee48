"""A clip of each task by a backend on tiny weights: made to a real file, and read back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from openlumiere.generation.abilities import Abilities
from openlumiere.generation.backends.base import Backend
from openlumiere.generation.make import make
from openlumiere.generation.progress import Cancelled, Progress
from openlumiere.generation.recipe import Recipe
from openlumiere.generation.requests import TASKS, EditRequest, Request
from openlumiere.video import read_clip, read_metadata, write_clip

FROM_PICTURES = ("animate", "cinemagraph")
_OWN: dict[str, dict[str, Any]] = {
    "inpaint": {"box": (0.0, 0.0, 0.5, 1.0)},
    "cinemagraph": {"box": (0.0, 0.0, 0.5, 1.0), "loop": False},
    "outpaint": {"to": (2, 1)},
    "restyle": {"strength": 0.5},
}


@dataclass(frozen=True)
class Sources:
    """A picture, another, and a clip of noise, of 16 x 16 pixels."""

    picture: Path
    last: Path
    clip: Path

    @classmethod
    def written(cls, folder: Path, *, frames: int = 5, fps: float = 8.0) -> Sources:
        rng = np.random.default_rng(3)
        made = cls(folder / "picture.png", folder / "last.png", folder / "clip.webp")
        for path in (made.picture, made.last):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
        write_clip(rng.integers(0, 256, (frames, 16, 16, 3), np.uint8), made.clip, fps=fps, lossless=True)
        return made

    def of(self, task: str) -> Path:
        return self.picture if task in FROM_PICTURES else self.clip


def request_for(task: str, sources: Sources, output: Path, **options: Any) -> Request:
    """A request of few steps."""
    values: dict[str, Any] = {"seed": 5, "num_inference_steps": 2, "output": str(output), **_OWN.get(task, {})}
    if issubclass(TASKS[task], EditRequest):
        values["source"] = str(sources.of(task))
    if task in ("generate", *FROM_PICTURES):
        values["num_frames"] = 5
    if task == "generate":
        values["prompt"] = "a tiger walking"
    return TASKS[task](**values | options)


def made(backend: Backend, request: Request, side: int = 16) -> np.ndarray:
    """The clip's frames, uint8, of its own size: files of small clips are enlarged by whole pixels."""
    make(request, backend, lossless=True)
    frames = read_clip(request.output).frames
    times = max(min(frames.shape[1:3]) // side, 1)
    return np.asarray(frames[:, ::times, ::times])


def check_task(backend: Backend, task: str, sources: Sources, folder: Path) -> np.ndarray:
    """Make a clip, look at its length, rate, steps and metadata, and return its frames."""
    told: list[Progress] = []
    request = request_for(task, sources, folder / f"{task}.webp")
    done = make(request, backend, progress=told.append, lossless=True)
    clip, fps = read_clip(request.output), backend.abilities.fps
    given = read_clip(sources.clip)
    count = len(given.frames)
    frames, rate = {
        **dict.fromkeys(("generate", *FROM_PICTURES), (5, fps)),
        "extend": (count + backend.abilities.num_frames // 2, fps),
        "interpolate": (2 * count - 1, 2 * given.fps),
    }.get(task, (count, fps))
    assert len(clip.frames) == frames
    assert clip.fps == pytest.approx(rate, rel=0.02)  # WebP counts milliseconds
    steps = [(each.step, each.total) for each in told if each.stage == "denoise"]
    assert steps[-1] == (steps[-1][1],) * 2
    assert [step for step, _ in steps] == list(range(len(steps)))
    found = read_metadata(request.output)
    identity = backend.identity
    assert (found["model"], found["weights"], found["licence"]) == (identity.name, identity.weights, identity.licence)
    assert identity.weights
    assert identity.licence
    again = Recipe.from_metadata(found, request.output)
    assert again is not None
    assert again.request == done.recipe.request
    return clip.frames


def check_cancelling(backend: Backend, request: Request) -> None:
    """Cancel after the first step: no file is left, and the backend makes the same clip afterwards as before."""
    before = made(backend, request)
    Path(request.output).unlink()
    told: list[Progress] = []

    def cancelled() -> bool:
        return any(each.stage == "denoise" and each.step == 1 for each in told)

    with pytest.raises(Cancelled):
        make(request, backend, progress=told.append, cancelled=cancelled)
    assert not Path(request.output).exists()
    assert told[-1].step == 1
    np.testing.assert_array_equal(made(backend, request), before)


def check_seeds(backend: Backend, request_of: Callable[[int], Request]) -> None:
    """The same seed makes the same clip, another another."""
    first, again, other = (made(backend, request_of(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def check_fitted_shapes(backend: Backend, request: Request, frames: int, size: tuple[int, int]) -> None:
    """What is fitted obeys the model's rules, and is what comes out."""
    from openlumiere.generation.progress import Watch

    abilities: Abilities = backend.abilities
    fitted = backend.fit(request).request
    width, height = fitted.size  # type: ignore[attr-defined]
    assert width % abilities.size_multiple == height % abilities.size_multiple == 0
    assert abs(width - size[0]) <= max(abilities.size_multiple, abilities.size_multiple - size[0])
    length = fitted.num_frames  # type: ignore[attr-defined]
    if abilities.max_frames is not None:
        assert length <= abilities.max_frames
    clip = backend.make(fitted, Watch())
    assert clip.frames.shape == (length, height, width, 3)
    assert clip.fps == fitted.fps  # type: ignore[attr-defined]
    assert abilities.nearest_length(frames) == length or request.task != "generate"
