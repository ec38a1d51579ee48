"""The benchmark of marks: its attacks change clips as they say, and its table tells what was found."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import watermark

        yield watermark
    finally:
        sys.path.remove(str(BENCHMARKS))


def drawn(num_frames: int = 20, channels: int = 3) -> np.ndarray:
    frames = np.full((num_frames, 96, 96, channels), 200, np.uint8)
    for i, frame in enumerate(frames):
        frame[30:60, 10 + i : 40 + i, :3] = (200, 80, 40)
        frame[:20, :, 3:] = 0
    return frames


@pytest.mark.parametrize("channels", [3, 4])
def test_attacks_leave_a_clip(benchmark: ModuleType, channels: int) -> None:
    frames = drawn(channels=channels)
    counts, sizes = {}, {}
    for name, attack in benchmark.ATTACKS.items():
        after = attack(frames)
        assert after.dtype == np.uint8, name
        assert after.shape[-1] in (3, channels), name
        counts[name], sizes[name] = len(after), after.shape[1:3]
    assert counts.pop("one frame") == 1
    assert counts.pop("one second alone") == 14  # what is there from a third on
    assert counts.pop("a second cut out") == 4
    halved = ("every other frame", "cropped to 70 %, scaled to 0.75, every other frame, H.264 28")
    assert {counts.pop(name) for name in halved} == {10}
    assert set(counts.values()) == {20}
    assert sizes["scaled to 0.35"] == (34, 34)
    assert np.prod(sizes["cropped to half the area"]) == pytest.approx(96 * 96 / 2, rel=0.03)


@pytest.mark.slow
def test_a_clip_is_measured(benchmark: ModuleType) -> None:
    row = benchmark._measured("drawn", "square", drawn())
    assert row["psnr"] >= 42
    assert row["attacks"]["none"]["exact"]
    assert row["attacks"]["mirrored"]["exact"]
    assert not any(one["wrong"] for one in row["attacks"].values())
    table = benchmark._table([row]).splitlines()
    assert len(table) == 2 + len(benchmark.ATTACKS)
    assert "1, 1 of 1" in table[2]
    assert benchmark._costs([row]).startswith("1 clips; PSNR 42")
