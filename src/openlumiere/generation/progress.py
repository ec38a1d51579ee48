"""What `make` tells of a clip while it works, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
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
        latents: the clip as the network sees it after the step, still noisy, (B, C, F, h, w).
        note: what a sticker was tried with.
    """

    stage: Stage
    step: int
    total: int
    latents: torch.Tensor | None = None
    note: str = ""


class Cancelled(Exception):  # noqa: N818 - no error: the caller asked for it
    """The caller stopped a clip.

    Attributes:
        kept: the base model's clip, where it was finished; `lumiere upscale` goes on from it.
    """

    def __init__(self, kept: Path | None = None) -> None:
        super().__init__("cancelled" if kept is None else f"cancelled; the base clip is kept in {kept}")
        self.kept = kept


class Watch:
    """Whom a clip's steps are told, and who is asked at each whether to stop.

    Args:
        progress: called with each step.
        cancelled: asked before each step; True = stop.
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
    def sampling(self, pipe: ClipPipeline, stage: Stage) -> Iterator[Callable[..., dict[str, Any]]]:
        """Tell of each step that `pipe` samples, and ask at each but the last; gives its ``callback_on_step_end``."""
        self.ask()
        self.tell("text", 0, 1)

        def begin(*_: object) -> None:
            hook.remove()  # text is encoded by the time that the network is first called
            self.tell(stage, 0, pipe.num_timesteps)

        def after(_pipe: object, step: int, _timestep: object, tensors: dict[str, Any]) -> dict[str, Any]:
            self.tell(stage, step + 1, pipe.num_timesteps, latents=tensors["latents"])
            if step + 1 < pipe.num_timesteps:
                self.ask()
            return tensors

        hook = pipe.unet.register_forward_pre_hook(begin)
        try:
            yield after
        finally:
            hook.remove()
