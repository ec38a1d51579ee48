"""Small clips as arrays, and as files that other programs would write."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

METADATA = {"prompt": 'a tiger, "é" <&> 🐯', "seed": 3, "guidance_scale": 7.5, "version": "0.1.0"}
FORMATS = ["clip.mp4", "clip.mov", "clip.webp", "clip.webm", "clip.apng", "clip.gif", "clip.png", "frames/"]


def moving(num_frames: int = 20, height: int = 32, width: int = 32, channels: int = 3) -> np.ndarray:
    """A blue square that moves right over red, transparent where alpha is asked for; uint8."""
    frames = np.zeros((num_frames, height, width, channels), np.uint8)
    frames[..., 0] = 255
    for i, frame in enumerate(frames):
        x = i % (width - 8)
        frame[8:16, x : x + 8, :3] = [0, 0, 255]
        if channels == 4:
            frame[8:16, x : x + 8, 3] = 255
    return frames


def greys(levels: list[int], height: int = 32, width: int = 32) -> np.ndarray:
    return np.broadcast_to(np.array(levels, np.uint8)[:, None, None, None], (len(levels), height, width, 3))


def moving_square(seed: int, *, frames: int = 20, side: int = 32, speed: float = 1.0) -> np.ndarray:
    """A coloured square that crosses a plain background: uint8 (frames, side, side, 3)."""
    rng = np.random.default_rng(seed)
    back, front = rng.integers(40, 216, (2, 3))
    start, step = rng.uniform(0, side, 2), rng.normal(size=2) * speed
    axis = np.arange(side)
    clip = np.empty((frames, side, side, 3), np.uint8)
    clip[:] = back
    for i in range(frames):
        y, x = (start + step * i) % side
        inside = (np.abs(axis[:, None] - y) < side / 6) & (np.abs(axis[None] - x) < side / 6)
        clip[i][inside] = front
    return clip


def sticker(frames: int = 8, side: int = 16, seed: int = 1) -> np.ndarray:
    """A disc of noisy colours with a soft edge on nothing, which hides noisy colours too: uint8, straight alpha."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (frames, side, side, 4), dtype=np.uint8)
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    edge = np.clip((side * 0.35 - np.hypot(y, x)) / 2 + 0.5, 0, 1)
    pixels[..., 3] = (255 * edge).round()
    return pixels


def seen(pixels: np.ndarray) -> np.ndarray:
    """What can be seen of RGBA in [0, 1]: premultiplied."""
    pixels = pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels
    return np.concatenate([pixels[..., :3] * pixels[..., 3:], pixels[..., 3:]], axis=-1)


def encode(
    path: Path,
    frames: np.ndarray,
    *,
    times: list[float] | None = None,
    codec: str = "libx264",
    rotation: int = 0,
    comment: str = "",
    gop: int = 12,
) -> Path:
    """A clip as another program would write it, its frames at any times (s)."""
    times = times or [i / 16 for i in range(len(frames))]
    with av.open(str(path), "w") as container:
        container.metadata["comment"] = comment
        stream = container.add_stream(codec, rate=16, options={"crf": "8"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.gop_size = gop
        stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for frame, time in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def write_avi(frames: np.ndarray, path: Path, *, fps: int = 25) -> Path:
    """MPEG-4 in AVI, as UCF101 has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.bit_rate = 2_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path
