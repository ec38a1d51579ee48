"""Signed stickers stay within what their services take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openlumiere.generation.requests import Sticker
from openlumiere.generation.stickers import write_sticker
from openlumiere.provenance.credentials import check
from openlumiere.provenance.identity import Identity
from openlumiere.provenance.marking import Marker
from openlumiere.video.stickers import TARGETS, check_sticker

# Noise that moves: however it is encoded, it is larger than the limit until much is given up.
_NOISE = np.random.default_rng(0).integers(0, 256, (24, 128, 128, 3), dtype=np.uint8)


@pytest.mark.slow
def test_a_sticker_at_its_limit_is_within_it_when_signed(tmp_path: Path) -> None:
    target = TARGETS["discord-emoji"]
    identity = Identity.load(tmp_path / "identity")
    mark = Marker(identity).of({"model": "emoji", "prompt": "noise"})
    path = tmp_path / "sticker.webp"
    report = write_sticker(_NOISE, 12, Sticker(target=target.name), path, mark=mark)
    assert report.given_up  # so the limit counted
    assert target.max_bytes - 40_000 < path.stat().st_size <= target.max_bytes
    assert report.measured.size == path.stat().st_size
    assert check_sticker(path, target, suffix=".webp", transparent=False).num_frames > 1
    found = check(path, identity=identity)
    assert found is not None
    assert (found.state, found.soft_binding) == ("trusted", mark.payload)
