"""What `make` tells of a clip while it works, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import torch

    from openlumiere.pipelines.clip_pipeline import ClipPipeline

Stage = Literal["read", "text", "denoise", "sharpen", "write", "sticker"]


@dataclass(frozen=True)
class Progress:
    """One step of a clip.

    Attributes:
        stage: what is done: "read" the inputs, encode the "text", "denoise" (base model), "sharpen" (second stage),
            "write", or fit a "sticker". A clip of both stages tells "text" and "write" twice.
        step: steps of the stage that are done.
        total: steps that it takes; 0 = not known.
        preview: what the clip looks like by now: decodes so many of its frames, evenly taken, as (frames, height,
            width, 3 or 4) in [0, 1]. Told after each step of "denoise", of the prediction, and of the base model's
            finished clip.
        note: what a sticker was tried with.
    """

    stage: Stage
    step: int
    total: int
    preview: Callable[[int], np.ndarray] | None = None
    note: str = ""


class Cancelled(Exception):  # noqa: N818 - no error: the caller asked for it
    """The caller stopped a clip.

    Attributes:
        kept: the base model's clip, where it was finished; `lumiere upscale` goes on from it.
    """

    def __init__(self, kept: Path | None = None) -> None:
        super().__init__("cancelled" if kept is None else f"cancelled; the base clip is kept in {kept}")
        self.kept = kept


class Paused(Cancelled):
    """The caller stops for now, and will ask for the same clip again: what another server makes of it goes on there."""


class Watch:
    """Whom a clip's steps are told, and who is asked at each whether to stop.

    Args:
        progress: called with each step.
        cancelled: asked before each step; True = stop. It may raise `Paused` instead.
    """

    def __init__(
        self, progress: Callable[[Progress], None] | None = None, cancelled: Callable[[], bool] | None = None
    ) -> None:
        self._progress, self._cancelled = progress, cancelled

    def tell(self, stage: Stage, step: int, total: int, **more: Any) -> None:
        """Tell of one step."""
        if self._progress is not None:
            self._progress(Progress(stage, step, total, **more))

    def ask(self) -> None:
        """Raise `Cancelled` if the caller asks for it."""
        if self._cancelled is not None and self._cancelled():
            raise Cancelled

    @contextmanager
    def sampling(self, **pipes: ClipPipeline) -> Iterator[Callable[..., dict[str, Any]]]:
        """Tell of each step that pipelines sample, and ask at each but the last; gives their ``callback_on_step_end``.

        Args:
            pipes: by the stage that each is: ``denoise``, ``sharpen``.
        """
        self.ask()
        self.tell("text", 0, 1)
        hooks: dict[str, Any] = {}

        def begin(stage: Stage, *_: object) -> None:
            hooks[stage].remove()  # text is encoded by the time that the network is first called
            self.tell(stage, 0, pipes[stage].num_timesteps)

        def after(pipe: ClipPipeline, step: int, _timestep: object, tensors: dict[str, Any]) -> dict[str, Any]:
            stage: Any = next(name for name, each in pipes.items() if each is pipe)
            # The second stage's predictions are what it adds to the base clip, which has been told.
            preview = partial(_decoded, pipe, tensors["denoised"]) if stage == "denoise" else None
            self.tell(stage, step + 1, pipe.num_timesteps, preview=preview)
            if step + 1 < pipe.num_timesteps:
                self.ask()
            return tensors

        stage: Any
        for stage, pipe in pipes.items():
            hooks[stage] = pipe.unet.register_forward_pre_hook(partial(begin, stage))
        try:
            yield after
        finally:
            for hook in hooks.values():
                hook.remove()


def _decoded(pipe: ClipPipeline, denoised: torch.Tensor, count: int) -> np.ndarray:
    at = evenly(count, denoised.shape[2])
    frames: np.ndarray = pipe.decode_clips(denoised[:1, :, at], frames=at)[0]
    return frames


def evenly(count: int, frames: int) -> list[int]:
    """Return the indices of `count` frames, or all if there are fewer, evenly taken."""
    count = min(count, frames)
    return [i * frames // count for i in range(count)]
