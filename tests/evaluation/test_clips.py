"""Clips that an evaluation makes: only those that are missing, whatever the batch, and none that is broken."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from openlumiere import evaluation
from openlumiere.errors import LumiereError
from openlumiere.evaluation.clips import ClipMaker, Job


class Painter:
    """Paints clips of one colour, which the seed decides, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[tuple[str, int]]] = []

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int], *, light: float = 1.0) -> np.ndarray:
        self.asked.append(list(zip(prompts, seeds, strict=True)))
        shade = np.array([light * seed / 255 for seed in seeds], np.float32)
        return np.broadcast_to(shade[:, None, None, None, None], (len(seeds), 3, 4, 4, 3))


JOBS = [Job(f"{'ab'[n % 2]}/{n:05d}", f"prompt {n}", n) for n in range(5)]


def test_what_is_missing_is_made_in_batches_and_the_rest_is_read(tmp_path: Path) -> None:
    first = Painter()
    ClipMaker(first, tmp_path).make(JOBS[1:3], progress=False)
    assert first.asked == [[("prompt 1", 1)], [("prompt 2", 2)]]
    second = Painter()
    maker = ClipMaker(second, tmp_path)
    assert [job.seed for job in maker.missing(JOBS)] == [0, 3, 4]
    maker.make(JOBS, batch=2, progress=False)
    assert second.asked == [[("prompt 0", 0), ("prompt 3", 3)], [("prompt 4", 4)]]
    assert not maker.missing(JOBS)
    assert [int(maker.read(job.name)[0, 0, 0, 0]) for job in JOBS] == [0, 1, 2, 3, 4]
    assert maker.read(JOBS[0].name).dtype == np.uint8
    clip = maker.clip("one", "a prompt", 100, light=0.5)
    np.testing.assert_allclose(clip, 50 / 255)
    assert maker.clip("one", "a prompt", 100) is not clip
    assert len(second.asked) == 3  # made once
    assert not list(tmp_path.rglob("*.json"))


def test_the_time_that_clips_took_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    maker = ClipMaker(Painter(), tmp_path, timed=True)
    maker.make(JOBS[:1], progress=False)
    facts = json.loads(maker.path(JOBS[0].name).with_suffix(".json").read_text())
    assert facts["seconds"] >= 0
    assert facts["peak_mib"] > 10


def test_a_clip_that_is_not_finite_is_refused_and_those_before_it_are_kept(tmp_path: Path) -> None:
    def broken(prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        clip = Painter()(prompts, seeds).copy()
        clip[:, 1] = np.nan if 2 in seeds else clip[:, 1]
        return clip

    maker = ClipMaker(broken, tmp_path)
    with pytest.raises(LumiereError, match="the clip of 'prompt 2' is not finite"):
        maker.make(JOBS, progress=False)
    assert [job.seed for job in maker.missing(JOBS)] == [2, 3, 4]


ROOMS = {
    "metrics": (),
    "features": ("metrics",),
    "judges": ("metrics",),
    "protocols": ("metrics", "features", "judges"),
}


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_between_rooms_point_down_only(room: str) -> None:
    (root,) = map(Path, evaluation.__path__)
    for path in (root / room).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("openlumiere.evaluation."):
                other = (node.module or "").split(".")[2]
                assert other not in set(ROOMS) - {room, *ROOMS[room]}, f"{path.name} imports {other}"
