"""What each service takes as a sticker: all of these are hard limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openlumiere.errors import LumiereError

# The services don't say whether theirs has 1000 or 1024 bytes; the smaller one is right for both.
KB = 1000


@dataclass(frozen=True, kw_only=True)
class StickerTarget:
    """A service's rules.

    Attributes:
        suffixes: of the files that it takes, the best first.
        side: pixels; of both sides where `square`, else of the longer one.
        max_seconds, max_fps, max_frames: None where there is no such limit.
        min_frame_seconds: that each frame must last.
        animated: whether a file whose frames are all equal, stored as one, is refused.
    """

    name: str
    suffixes: tuple[str, ...]
    side: int
    square: bool = True
    max_bytes: int
    max_seconds: float | None = None
    max_fps: float | None = None
    max_frames: int | None = None
    min_frame_seconds: float = 0.0
    animated: bool = False


TARGETS = {
    target.name: target
    for target in (
        StickerTarget(
            name="telegram", suffixes=(".webm",), side=512, square=False,
            max_bytes=256 * KB, max_seconds=3, max_fps=30,
        ),
        StickerTarget(
            name="telegram-emoji", suffixes=(".webm",), side=100, max_bytes=64 * KB, max_seconds=3, max_fps=30
        ),
        StickerTarget(
            name="whatsapp", suffixes=(".webp",), side=512,
            max_bytes=500 * KB, max_seconds=10, min_frame_seconds=0.008, animated=True,
        ),
        StickerTarget(
            name="discord", suffixes=(".png", ".apng", ".gif"), side=320, max_bytes=512 * KB, max_seconds=5
        ),
        StickerTarget(name="discord-emoji", suffixes=(".webp", ".gif"), side=128, max_bytes=256 * KB),
        StickerTarget(name="slack", suffixes=(".gif",), side=128, max_bytes=128 * KB, max_frames=50),
    )
}  # fmt: skip


def target_for(name: str, path: str | Path | None = None) -> StickerTarget:
    """Look up a target, and refuse a file that it would not take.

    Raises:
        LumiereError: an unknown name, or another suffix than its files have.
    """
    if name not in TARGETS:
        raise LumiereError(f"no stickers for {name!r}; choose one of {', '.join(TARGETS)}")
    target = TARGETS[name]
    if path is not None and (str(path).endswith("/") or Path(path).suffix.lower() not in target.suffixes):
        raise LumiereError(f"{name} takes no {path}; end its name with {' or '.join(target.suffixes)}")
    return target
