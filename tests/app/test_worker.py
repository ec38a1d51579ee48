"""Workers as processes: they make clips, are killed at every place, stopped, cancelled, and follow one another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from job_tools import FAST, Desk, WorkerProcess, request, until
from openlumiere.app.settings import Settings
from openlumiere.generation.recipe import Recipe
from openlumiere.video import read_clip, read_metadata

pytestmark = pytest.mark.slow

FILES = ("clip.mp4", "clip.webp", "spritesheet.png", "thumbnail.webp")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=str(tmp_path / "data"), model=None, **FAST)


@pytest.fixture
def desk(settings: Settings, tiny_model: Path) -> Desk:
    return Desk(settings, tiny_model)


def test_a_clip_is_made_with_all_that_belongs_to_it(desk: Desk, tmp_path: Path) -> None:
    job = desk.ask(request("a tiger", seed=5))
    with WorkerProcess(desk.settings, tmp_path / "log", model=str(desk.model)) as worker:
        (done,) = desk.wait([job.id])
        assert (done.status, done.files, done.progress, done.attempts) == ("completed", FILES, 100, 1)
        assert done.files == tuple(desk.results.names(job.id))
        assert worker.stop() == 0
    clip = desk.results.fetch(job.id, "clip.webp")
    recipe = Recipe.from_metadata(read_metadata(clip))
    assert recipe is not None
    assert recipe.metadata() == done.recipe
    assert (recipe.request.prompt, recipe.request.seed) == ("a tiger", 5)
    frames = read_clip(clip).frames
    assert frames.shape == (done.num_frames, done.height, done.width, 3)
    assert (done.num_frames, done.fps, done.transparent) == (8, 16.0, False)
    assert "tiger" not in worker.text().replace(str(desk.model), "")  # no prompts in logs
    assert desk.store.workers() == []
    desk.check_tidy()
