"""Send broken files to the API: none may cost more than one line of refusal, nor leave anything behind.

    python benchmarks/fuzz_uploads.py --count 2000 --seed 1 -o fuzz.json

The application runs in this process with a data folder of its own, as `lumiere serve` makes it; no worker takes the
jobs of files that are whole enough. Each file is one of the kinds below, made of a valid one by chance that the seed
decides. An answer is wrong if it is no 200 or 4xx, is longer than a line, or shows a traceback or a path.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import random
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from openlumiere.app.server import create_app
from openlumiere.app.settings import Limits, Settings, UploadLimits
from openlumiere.video import write_clip

_FIELDS = ("input_reference", "video_reference", "mask", "last_frame")
_NAMES = ("a.png", "../../etc/passwd", "a\x00.png", "con", "x" * 300, "ü.webp", "a.svg", "'; drop table jobs", ".", "")
_TYPES = ("image/png", "video/mp4", "text/html", "application/x-executable", "", "multipart/form-data", "image/svg+xml")


class Files:
    """Valid files of every kind, small, and what can be done to break them."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._noise = np.random.default_rng(seed)
        self.valid = {**self._pictures(), **self._clips()}
        self.ways: dict[str, Callable[[], bytes]] = {
            "valid": self._any, "cut": self._cut, "flipped bits": self._flipped, "zeros inside": self._zeroed,
            "another's start": self._renamed, "only a start": self._only_start, "random": self._garbage,
            "text": self._text, "huge header": self._huge_header, "zip bomb": self._zip_bomb,
            "many frames": self._many_frames, "16 bits": self._sixteen_bits, "EXIF": self._exif,
            "huge metadata": self._huge_metadata, "two files": self._twice, "empty": lambda: b"",
        }  # fmt: skip

    def next(self) -> tuple[str, bytes]:
        """Return the next file, and in what way it is broken."""
        way = self._random.choice(list(self.ways))
        return way, self.ways[way]()

    def _pictures(self) -> dict[str, bytes]:
        picture = Image.fromarray(self._noise.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        return {kind: _saved(picture, kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")}

    def _clips(self) -> dict[str, bytes]:
        frames = self._noise.integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)
        with tempfile.TemporaryDirectory() as folder:
            return {
                suffix: write_clip(frames, Path(folder) / f"a{suffix}", fps=8).read_bytes()
                for suffix in (".mp4", ".mov", ".webm", ".webp", ".gif", ".apng")
            }

    def _any(self) -> bytes:
        return self._random.choice(list(self.valid.values()))

    def _cut(self) -> bytes:
        data = self._any()
        return data[: self._random.randrange(len(data))]

    def _flipped(self) -> bytes:
        data = bytearray(self._any())
        for _ in range(self._random.choice((1, 8, 64))):
            data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        return bytes(data)

    def _zeroed(self) -> bytes:
        data = self._any()
        at = self._random.randrange(len(data))
        return data[:at] + bytes(self._random.randrange(1, 200)) + data[at:]

    def _renamed(self) -> bytes:
        return self._any()[: self._random.randrange(8, 64)] + self._any()[32:]

    def _only_start(self) -> bytes:
        return self._any()[: self._random.randrange(1, 40)]

    def _garbage(self) -> bytes:
        start = self._random.choice((b"", self._any()[:16]))
        return start + self._random.randbytes(self._random.randrange(1, 4000))

    def _text(self) -> bytes:
        return self._random.choice((
            b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", b"%PDF-1.7\n", b"#!/bin/sh\nrm -rf /\n",
            b"GIF89a = '<script>alert(1)</script>'", b"PK\x03\x04" + bytes(100), b"#EXTM3U\nfile:///etc/passwd\n",
            b"ffconcat version 1.0\nfile /etc/passwd\n", b"\0\0\0\x18ftypisom" + b"\xff" * 100,
        ))  # fmt: skip

    def _huge_header(self) -> bytes:
        width, height = self._random.choice(((2**31 - 1, 2**31 - 1), (60_000, 60_000), (1, 2**31 - 1), (0, 5)))
        if self._random.random() < 0.5:
            return _png(width, height, zlib.compress(bytes(1000)))
        return b"GIF89a" + struct.pack("<HH", 65535, 65535) + self.valid["GIF"][10:]

    def _zip_bomb(self) -> bytes:
        side = self._random.choice((1500, 3000))
        return _png(side, side, _zeros(side * (1 + 3 * side)))

    def _many_frames(self) -> bytes:
        count = self._random.choice((20, 200))
        frames = [Image.new("RGB", (8, 8), (i % 256, 0, 0)) for i in range(count)]
        kind = self._random.choice(("GIF", "WEBP", "PNG"))
        length = self._random.choice((1, 40, 20_000))
        return _saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=length)

    def _sixteen_bits(self) -> bytes:
        deep = Image.fromarray(self._noise.integers(0, 65535, (24, 32)).astype(np.uint16))
        return _saved(deep, self._random.choice(("PNG", "TIFF")))

    def _exif(self) -> bytes:
        exif = Image.Exif()
        exif[0x0112] = self._random.choice((1, 3, 6, 8, 9, 65535))
        exif[0x010E] = "x" * self._random.choice((1, 60_000))
        return _saved(Image.new("RGB", (32, 24)), self._random.choice(("JPEG", "PNG", "WEBP")), exif=exif)

    def _huge_metadata(self) -> bytes:
        return _png(32, 24, zlib.compress(bytes(24 * 97)), text=_zeros(80_000_000))

    def _twice(self) -> bytes:
        return self._any() + self._any()


@cache
def _zeros(count: int) -> bytes:
    return zlib.compress(bytes(count), 9)


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _png(width: int, height: int, data: bytes, *, text: bytes | None = None) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    said = b"" if text is None else chunk(b"zTXt", b"Comment\0\0" + text)
    return b"\x89PNG\r\n\x1a\n" + header + said + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def upload(client: TestClient, files: Files, choose: random.Random) -> tuple[str, int, str]:
    """Send one file; return the way that it is broken, the status, and what is wrong with the answer ("" = nothing)."""
    way, data = files.next()
    field, inspect = choose.choice(_FIELDS), choose.random() < 0.1
    name, kind = choose.choice(_NAMES), choose.choice(_TYPES)
    if inspect:
        answer = client.post("/v1/videos/inspect", files={"file": (name, data, kind)})
    else:
        form = {"prompt": "a tiger", "num_frames": "16"}
        sent = {field: (name, data, kind)}
        if field in ("mask", "last_frame"):  # beside a picture that is whole
            form |= {"task": "cinemagraph" if field == "mask" else "animate"}
            sent["input_reference"] = ("a.png", files.valid["PNG"], "image/png")
        answer = client.post("/v1/videos", data=form, files=sent)
    return way, answer.status_code, _wrong(answer.status_code, answer.text)


def _wrong(status: int, text: str) -> str:
    if status == 200:
        return ""
    if not 400 <= status < 500:
        return f"status {status}: {text[:200]}"
    message = json.loads(text)["error"]["message"]
    if not message or "\n" in message or len(message) > 500 or "Traceback" in message or "/tmp" in message:
        return f"message {message[:200]!r}"
    return ""


def fuzz(data: Path, count: int, seed: int) -> dict[str, Any]:
    """Send `count` files to an application on a data folder; return what came of it."""
    settings = Settings(
        data=str(data), limits=Limits(max_queued=10**6, max_queued_per_owner=10**6),
        uploads=UploadLimits(pixels=5_000_000, clip_pixels=5_000_000),
    )  # fmt: skip
    statuses: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    wrong, slowest, began = [], 0.0, time.monotonic()
    files, choose = Files(seed), random.Random(seed)
    temporary = set(Path(tempfile.gettempdir()).iterdir())
    app = create_app(settings)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        for number in range(count):
            start = time.monotonic()
            way, status, fault = upload(client, files, choose)
            slowest = max(slowest, time.monotonic() - start)
            statuses[way][status] += 1
            if fault:
                wrong.append(f"{way}: {fault}")
            if not (number + 1) % 100:
                print(f"{number + 1} sent, {len(wrong)} wrong", file=sys.stderr, flush=True)
        parts = app.state.context
        kept = {path.parent.name for path in (data / "results").rglob("*") if path.is_file()}
        known = {job.id for job in parts.store.list("local", limit=count + 1)}
    left = [str(path) for path in (data / "uploads").iterdir()]
    left += [f"of no job: {id}" for id in sorted(kept - known)]
    left += [str(path) for path in set(Path(tempfile.gettempdir()).iterdir()) - temporary if "lumiere" in path.name]
    every = sum(statuses.values(), collections.Counter())
    return {
        "count": count, "seed": seed, "wrong": wrong, "left": left,
        "statuses": {str(status): number for status, number in sorted(every.items())},
        "by_way": {way: {str(k): n for k, n in sorted(found.items())} for way, found in sorted(statuses.items())},
        "seconds": round(time.monotonic() - began, 1), "slowest_seconds": round(slowest, 2),
    }  # fmt: skip


def main() -> int:
    """Run as a command; return 1 if an answer was wrong, or a file was left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as data:
        found = fuzz(Path(data), args.count, args.seed)
    text = json.dumps(found, indent=2)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 1 if found["wrong"] or found["left"] else 0


if __name__ == "__main__":
    sys.exit(main())
