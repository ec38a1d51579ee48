"""The table in docs/models.md is what the backends say of models in the published layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from openlumiere.generation.abilities import Abilities
from openlumiere.generation.backends.find import read_abilities
from tiny_families import EVERY_TASK, FAMILIES, saved_in

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[3] / "docs" / "models.md"


def row(name: str, able: Abilities) -> str:
    """A model's line: ● what it was made for, ○ what its sampler does with it."""
    marks = ["○" if task in able.emulated else "●" if task in able.tasks else "" for task in EVERY_TASK]
    if able.last_frame and "animate" in able.tasks:
        marks[EVERY_TASK.index("animate")] += " +"
    rule = f"{able.frame_multiple}k + {able.frame_offset}" if able.frame_offset else "any"
    rate = f"{able.fps:g}"
    return f"| {' | '.join([name, *marks, rule, str(able.size_multiple) if able.resizable else 'its own', rate])} |"


@pytest.mark.parametrize("name", FAMILIES)
def test_row(name: str, tmp_path: Path) -> None:
    expected = row(name, read_abilities(saved_in(tmp_path)(name)))
    assert expected in PAGE.read_text(encoding="utf-8").splitlines()
