"""The table in docs/models.md is what the backends say of models in the published layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import tiny_backends
import tiny_transformers
from openlumiere.generation.abilities import Abilities
from openlumiere.generation.backends.find import read_abilities
from openlumiere.generation.requests import TASKS

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
COLUMNS = [task for task in TASKS if task != "upscale"]


def adapter_and_base(folder: Path, *, sparse: bool = False) -> str:
    parts = [tiny_backends.save_motion_adapter(folder / "adapter"), tiny_backends.save_base(folder / "base")]
    return "+".join(map(str, [*parts, *([tiny_backends.save_sparse_control(folder / "control")] if sparse else [])]))


MODELS: dict[str, Callable[[Path], object]] = {
    "AnimateDiff": adapter_and_base,
    "AnimateDiff + SparseCtrl": partial(adapter_and_base, sparse=True),
    "ZeroScope": tiny_backends.save_zeroscope,
    "Stable Video Diffusion": tiny_backends.save_svd,
    "Wan 2.1, 2.2 T2V": tiny_transformers.save_wan,
    "Wan 2.1 I2V": partial(tiny_transformers.save_wan, kind="i2v"),
    "Wan 2.1 FLF2V": partial(tiny_transformers.save_wan, kind="flf2v"),
    "Wan 2.2 I2V": partial(tiny_transformers.save_wan, kind="i2v-2.2"),
    "Wan 2.2 TI2V": partial(tiny_transformers.save_wan, kind="ti2v"),
    "Wan 2.1 VACE": partial(tiny_transformers.save_wan, kind="vace"),
    "LTX-Video, to 0.9.1": partial(tiny_transformers.save_ltx, kind="text"),
    "LTX-Video, from 0.9.5": tiny_transformers.save_ltx,
    "CogVideoX": tiny_transformers.save_cogvideox,
    "CogVideoX I2V": partial(tiny_transformers.save_cogvideox, kind="i2v"),
    "CogVideoX 1.5": partial(tiny_transformers.save_cogvideox, kind="t2v-1.5"),
    "CogVideoX 1.5 I2V": partial(tiny_transformers.save_cogvideox, kind="i2v-1.5"),
}


def row(name: str, able: Abilities) -> str:
    """A model's line: ● what it was made for, ○ what its sampler does with it."""
    marks = ["○" if task in able.emulated else "●" if task in able.tasks else "" for task in COLUMNS]
    if able.last_frame and "animate" in able.tasks:
        marks[COLUMNS.index("animate")] += " +"
    rule = f"{able.frame_multiple}k + {able.frame_offset}" if able.frame_offset else "any"
    rate = f"{able.fps:g}"
    return f"| {' | '.join([name, *marks, rule, str(able.size_multiple) if able.resizable else 'its own', rate])} |"


@pytest.mark.parametrize("name", MODELS)
def test_row(name: str, tmp_path: Path) -> None:
    expected = row(name, read_abilities(str(MODELS[name](tmp_path))))
    assert expected in PAGE.read_text(encoding="utf-8").splitlines()
