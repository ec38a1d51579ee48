"""Videos by FFmpeg: MP4, MOV, WebM."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from openlumiere.video.alpha import bleed, opaque
from openlumiere.video.metadata import video_tags

from .timing import delays

if TYPE_CHECKING:
    import av

# x264's constant rate factor: flat colours come back within a level or two.
_CRF = "12"
_BT709 = 1  # code of ITU-T H.273
WEBM_QUALITY = 85


def write_mp4(pixels: np.ndarray, file: Path | BinaryIO, fps: float, note: str, *, background: str = "white") -> None:
    """Write H.264, yuv420p; odd sizes grow by a copy of the last row or column."""
    height, width = pixels.shape[1:3]
    even = ((0, height % 2), (0, width % 2), (0, 0))
    frames = (np.pad(opaque(frame, background), even, mode="edge") for frame in pixels)
    options = {"crf": _CRF, "preset": "medium"}
    _encode(frames, file, fps, note, container="mp4", codec="libx264", pix_fmt="yuv420p", options=options)


def write_mov(pixels: np.ndarray, file: Path | BinaryIO, fps: float, note: str) -> None:
    """Write ProRes 4444, with alpha where the frames have it."""
    transparent = pixels.shape[-1] == 4
    pix_fmt = "yuva444p10le" if transparent else "yuv444p10le"
    options = {"profile": "4444", "vendor": "apl0"}
    frames = bleed(pixels) if transparent else pixels
    _encode(frames, file, fps, note, container="mov", codec="prores_ks", pix_fmt=pix_fmt, options=options)


def write_webm(
    pixels: np.ndarray, file: Path | BinaryIO, fps: float, note: str, *, quality: int = WEBM_QUALITY, speed: int = 2
) -> None:
    """Write VP9, yuva420p where the frames have alpha, else yuv420p.

    Args:
        quality: 0 to 100, libvpx's constant quality from 63 to 8.
        speed: libvpx's ``cpu-used``, 0 to 5: higher is faster and needs more bytes for the same quality.
    """
    transparent = pixels.shape[-1] == 4
    options = {
        "crf": str(round(63 - 0.55 * quality)), "b": "0", "deadline": "good", "cpu-used": str(speed),
        "row-mt": "1", "g": "240",
        # Decoders of alpha take frames that are never shown for frames of their own.
        **({"auto-alt-ref": "0"} if transparent else {}),
    }  # fmt: skip
    _encode(
        bleed(pixels) if transparent else pixels, file, fps, note,
        container="webm", codec="libvpx-vp9", pix_fmt="yuva420p" if transparent else "yuv420p", options=options,
    )  # fmt: skip


def _encode(
    frames: Iterable[np.ndarray], file: Path | BinaryIO, fps: float, note: str,
    *, container: str, codec: str, pix_fmt: str, options: dict[str, str],
) -> None:  # fmt: skip
    """Encode a video in BT.709 colours, an MP4's or MOV's index first."""
    import av
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation

    rate = Fraction(fps).limit_denominator(1001)
    target = str(file) if isinstance(file, Path) else file
    index_first = {} if container == "webm" else {"movflags": "+faststart"}
    retimed = _in_milliseconds if container == "webm" else _as_they_are
    stream: av.VideoStream | None = None
    with av.open(target, "w", format=container, options=index_first) as output:
        output.metadata.update(video_tags(note))
        for i, pixels in enumerate(frames):
            if stream is None:
                stream = output.add_stream(codec, rate=rate, options=options)  # type: ignore[assignment]
                assert isinstance(stream, av.VideoStream)
                stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], pix_fmt
                context = stream.codec_context
                context.time_base = 1 / rate
                if container == "webm":
                    context.bit_rate = 0  # PyAV's default would cap the constant quality
                context.colorspace, context.color_range = _BT709, ColorRange.MPEG
                context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
            colours = "rgba" if pixels.shape[-1] == 4 else "rgb24"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=colours).reformat(
                format=pix_fmt,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP,
            )
            frame.pts, frame.time_base = i, 1 / rate
            output.mux(retimed(stream.encode(frame), rate))
        assert stream is not None
        output.mux(retimed(stream.encode(None), rate))


def _as_they_are(packets: list[av.Packet], rate: Fraction) -> list[av.Packet]:
    return packets


def _in_milliseconds(packets: list[av.Packet], rate: Fraction) -> list[av.Packet]:
    """Bring times to Matroska's clock, so rounded that 48 frames at 16 a second last 3.000 s, not 3.001 s."""
    for packet in packets:
        assert packet.pts is not None
        assert packet.time_base is not None
        start = round(packet.pts * packet.time_base * rate)  # in frames
        lengths = delays(start + 1, float(rate), 1000)
        packet.time_base = Fraction(1, 1000)
        packet.pts = packet.dts = sum(lengths[:-1])
        packet.duration = lengths[-1]
    return packets
