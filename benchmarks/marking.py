"""What marking and signing a clip costs, and how much of an edited clip must be made anew for its mark to be found.

Clips: those of the bundled model in docs/images/gallery, of 80 frames of 192 x 192 pixels.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

import report
from attacks import FPS
from openlumiere.provenance import detect
from openlumiere.provenance.identity import Identity
from openlumiere.provenance.marking import Mark, Marker
from openlumiere.tables import table
from openlumiere.video import read_clip, write_clip

_IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images" / "gallery"
_RECIPE = {"openlumiere": "0.1.0", "model": "emoji", "seed": 1}
_SUFFIXES = (".mp4", ".webp", ".gif")
_SIGNED_FRAMES = 16  # encoding them is what takes time
_SHARES = (0.25, 0.12, 0.06)  # of the frame: a box in its middle


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clips", type=int, metavar="N", help="so many alone, default: all")
    args = parser.parse_args()
    print(report.describe(report.machine(args.threads)), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        marker = Marker(Identity.load(folder / "identity"))
        paths = [path for path in sorted(_IMAGES.glob("*.webp")) if _is_made(path)][: args.clips]
        clips = {path.stem: read_clip(path).frames for path in paths}
        marks = {name: marker.of({**_RECIPE, "prompt": name}) for name in clips}
        print(_costs(clips, marks, folder), flush=True)
        print(_parts(clips, marks, folder))
    return 0


def _is_made(path: Path) -> bool:
    return not path.stem.startswith("serve")


def _seconds(what: Callable[[], object], times: int = 3) -> float:
    """Processor time of the quickest of some runs."""
    taken = []
    for _ in range(times):
        began = time.process_time()
        what()
        taken.append(time.process_time() - began)
    return min(taken)


def _costs(clips: dict[str, np.ndarray], marks: dict[str, Mark], folder: Path) -> str:
    embedding = [_seconds(lambda name=name: marks[name].put_into(clips[name])) for name in clips]
    rows = []
    for suffix in _SUFFIXES:
        signing, added = [], []
        for name, frames in clips.items():
            path = folder / f"{name}{suffix}"
            write_clip(frames[:_SIGNED_FRAMES], path, fps=FPS, metadata=_RECIPE)
            size = path.stat().st_size
            signing.append(_seconds(lambda path=path, name=name: marks[name].sign(path), times=1))
            added.append(path.stat().st_size - size)
        rows.append([suffix, f"{np.median(signing):.3f} s", f"{max(signing):.3f} s", f"{max(added) / 1000:.1f} kB"])
    head = f"embedding: median {np.median(embedding):.3f} s, most {max(embedding):.3f} s\n\n"
    return head + table(["signing", "median", "most", "bytes added at most"], rows) + "\n"


def _parts(clips: dict[str, np.ndarray], marks: dict[str, Mark], folder: Path) -> str:
    made: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "the last half of the frames (extend)": _later, "every other frame (interpolate)": _between,
        **{f"a box of {share:.0%} of the frame": partial(_box, share=share) for share in _SHARES},
    }  # fmt: skip
    rows = [[what, *_found(clips, marks, folder, where)] for what, where in made.items()]
    return table(["made anew", "found", "read", "after H.264: found", "read"], rows)


def _box(frames: np.ndarray, share: float) -> np.ndarray:
    where = np.zeros(frames.shape[:3], bool)
    height, width = (round(side * share**0.5) for side in frames.shape[1:3])
    top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
    where[:, top : top + height, left : left + width] = True
    return where


def _later(frames: np.ndarray) -> np.ndarray:
    where = np.zeros(frames.shape[:3], bool)
    where[len(frames) // 2 :] = True
    return where


def _between(frames: np.ndarray) -> np.ndarray:
    where = np.zeros(frames.shape[:3], bool)
    where[1::2] = True
    return where


def _found(
    clips: dict[str, np.ndarray], marks: dict[str, Mark], folder: Path, where: Callable[[np.ndarray], np.ndarray]
) -> list[str]:
    counts = np.zeros(4, int)
    for name, frames in clips.items():
        marked = marks[name].put_into(frames, where(frames))
        write_clip(marked, folder / "part.mp4", fps=FPS)
        for column, seen in ((0, marked), (2, read_clip(folder / "part.mp4").frames)):
            found = detect(seen, [marks[name].identity.watermark_key], fps=FPS)
            counts[column] += found.present
            counts[column + 1] += found.payload == marks[name].payload
    return [f"{count} of {len(clips)}" for count in counts]


if __name__ == "__main__":
    sys.exit(main())
