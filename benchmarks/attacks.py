"""What may happen to a marked clip on its way: codecs, scaling, crops, rotation, time, tones."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageFilter

from openlumiere.video import read_clip, write_clip

Attack = Callable[[np.ndarray], np.ndarray]  # of frames, uint8 (F, H, W, 3 or 4)
FPS = 16


def opaque(frames: np.ndarray) -> np.ndarray:
    """Lay frames over white: uint8 (F, H, W, 3)."""
    if frames.shape[-1] == 3:
        return frames
    alpha = frames[..., 3:] / np.float32(255)
    return np.rint(frames[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def codec(frames: np.ndarray, name: str, crf: int) -> np.ndarray:
    """Encode by FFmpeg at a constant rate factor, and decode."""
    frames, file = opaque(frames), io.BytesIO()
    height, width = (n + n % 2 for n in frames.shape[1:3])
    speed = {"cpu-used": "5", "b": "0"} if name == "libvpx-vp9" else {"preset": "fast"}
    with av.open(file, "w", format="webm" if name == "libvpx-vp9" else "mp4") as output:
        stream = output.add_stream(name, rate=Fraction(FPS), options={"crf": str(crf), **speed})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        if name == "libx265":
            stream.options |= {"x265-params": "log-level=none"}
        for frame in frames:
            even = np.pad(frame, ((0, height - len(frame)), (0, width - frame.shape[1]), (0, 0)), mode="edge")
            output.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        output.mux(stream.encode())
    file.seek(0)
    with av.open(file) as source:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)])


def through_file(frames: np.ndarray, suffix: str) -> np.ndarray:
    """Write as `lumiere` does, and read."""
    with tempfile.TemporaryDirectory() as folder:
        return read_clip(write_clip(frames, Path(folder) / f"clip{suffix}", fps=FPS)).frames


def pictures(frames: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Change each frame as a picture."""
    return np.stack([np.asarray(change(Image.fromarray(frame))) for frame in frames])


def webp(frames: np.ndarray, quality: int) -> np.ndarray:
    """Encode each frame as lossy WebP."""

    def encoded(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "WEBP", quality=quality)
        return Image.open(file).convert("RGB")

    return pictures(opaque(frames), encoded)


def scale(frames: np.ndarray, factor: float) -> np.ndarray:
    """Resize, bicubic."""
    size = round(frames.shape[2] * factor), round(frames.shape[1] * factor)
    return pictures(frames, lambda picture: picture.resize(size, Image.Resampling.BICUBIC))


def crop(frames: np.ndarray, area: float) -> np.ndarray:
    """Keep this part of the area, off the middle."""
    height, width = (round(n * area**0.5) for n in frames.shape[1:3])
    top, left = round((frames.shape[1] - height) * 0.3), round((frames.shape[2] - width) * 0.8)
    return frames[:, top : top + height, left : left + width]


def rotate(frames: np.ndarray, degrees: float, *, inner: bool) -> np.ndarray:
    """Rotate; with `inner`, keep the largest square without corners."""
    turned = pictures(frames, lambda picture: picture.rotate(degrees, Image.Resampling.BICUBIC))
    if not inner:
        return turned
    angle = np.deg2rad(abs(degrees))
    rest = (1 - 1 / (np.cos(angle) + np.sin(angle))) / 2
    top, left = (round(n * rest) for n in frames.shape[1:3])
    return turned[:, top : frames.shape[1] - top, left : frames.shape[2] - left]


def tones(frames: np.ndarray, contrast: float, brightness: float) -> np.ndarray:
    """Stretch around the middle, and shift, in levels of 255."""
    changed = (opaque(frames).astype(np.float32) - 128) * contrast + 128 + brightness
    return np.rint(changed.clip(0, 255)).astype(np.uint8)


def blurred(frames: np.ndarray, sigma: float) -> np.ndarray:
    """Blur by a Gaussian of `sigma` pixels."""
    return pictures(opaque(frames), lambda picture: picture.filter(ImageFilter.GaussianBlur(sigma)))


def jumbled(frames: np.ndarray) -> np.ndarray:
    """Drop frames at random and repeat others."""
    return frames[np.sort(np.random.default_rng(0).choice(len(frames), len(frames)))]


def without_a_second(frames: np.ndarray) -> np.ndarray:
    """Cut a second out of the middle."""
    return np.delete(frames, slice(len(frames) // 2 - FPS // 2, len(frames) // 2 + FPS // 2), axis=0)


def combined(frames: np.ndarray) -> np.ndarray:
    """Crop to 70 % of the area, shrink to 3/4, drop every other frame, and encode."""
    return codec(scale(crop(frames, 0.7), 0.75)[::2], "libx264", 28)


ATTACKS: dict[str, Attack] = {
    "none": lambda frames: frames,
    **{f"H.264, CRF {crf}": partial(codec, name="libx264", crf=crf) for crf in (18, 23, 28, 33)},
    **{f"H.265, CRF {crf}": partial(codec, name="libx265", crf=crf) for crf in (18, 28, 33)},
    **{f"VP9, CRF {crf}": partial(codec, name="libvpx-vp9", crf=crf) for crf in (24, 40)},
    "GIF": partial(through_file, suffix=".gif"),
    **{f"WebP, quality {quality}": partial(webp, quality=quality) for quality in (90, 75)},
    **{f"scaled to {factor}": partial(scale, factor=factor) for factor in (0.35, 0.5, 2)},
    "cropped to half the area": partial(crop, area=0.5),
    "rotated by 10°, inner part": partial(rotate, degrees=10, inner=True),
    "rotated by -7°, with corners": partial(rotate, degrees=-7, inner=False),
    "mirrored": lambda frames: frames[:, :, ::-1],
    "every other frame": lambda frames: frames[::2],
    "frames dropped and repeated": jumbled,
    "a second cut out": without_a_second,
    "one second alone": lambda frames: frames[len(frames) // 3 :][:FPS],
    "one frame": lambda frames: frames[len(frames) // 2 :][:1],
    "brighter by 30": partial(tones, contrast=1, brightness=30),
    "contrast x 0.6": partial(tones, contrast=0.6, brightness=0),
    "contrast x 1.4": partial(tones, contrast=1.4, brightness=0),
    "blur, 1 px": partial(blurred, sigma=1),
    "blur, 2 px": partial(blurred, sigma=2),
    "cropped to 70 %, scaled to 0.75, every other frame, H.264 28": combined,
}
