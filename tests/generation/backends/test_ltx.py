"""LTX-Video, before and after 0.9.5, on tiny weights: each task from a request to its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openlumiere.generation.backends.base import Backend
from openlumiere.generation.backends.find import read_abilities
from tiny_requests import Files, check_cancelling, check_fit, check_held, check_seeds, check_task, made_by
from tiny_transformers import Models, save_ltx

pytestmark = pytest.mark.slow
HELD = ("inpaint", "outpaint", "cinemagraph")
TASKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # of each kind those that it can, and those emulated
    "condition": (("generate", "animate", "restyle", "extend", "interpolate", *HELD), HELD),
    "text": (("generate", "animate", "restyle", "extend", *HELD), ("restyle", "extend", *HELD)),
}
EVERY = [(kind, task) for kind, (tasks, _) in TASKS.items() for task in tasks]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(save_ltx, tmp_path_factory.mktemp("ltx"))


def _files(folder: Path, model: Backend, num_frames: int = 9) -> Files:
    return Files(folder, (64, 64), num_frames, model.abilities.fps)


@pytest.mark.parametrize(("kind", "task"), EVERY)
def test_every_task(models: Models, kind: str, task: str, tmp_path: Path) -> None:
    model = models.loaded(kind)
    check_task(model, _files(tmp_path, model), task, **({"num_frames": 8} if task == "extend" else {}))


@pytest.mark.parametrize("kind", TASKS)
def test_abilities(models: Models, kind: str) -> None:
    found = read_abilities(models.saved(kind))
    tasks, emulated = TASKS[kind]
    assert (set(found.tasks), set(found.emulated)) == (set(tasks), set(emulated))
    assert found.last_frame == (kind == "condition")
    assert (found.fps, found.num_frames, found.max_frames) == (25, 121, 257)
    assert (found.size_multiple, found.frame_multiple) == (32, 8)
    assert (found.licence, found.commercial) == ("ltxv-of-a-test", None)
    assert found == models.loaded(kind).abilities


@settings(max_examples=30, deadline=None)
@given(num_frames=st.integers(1, 400), size=st.tuples(st.integers(1, 2000), st.integers(1, 2000)))
def test_any_length_and_size_is_fitted(models: Models, num_frames: int, size: tuple[int, int]) -> None:
    check_fit(read_abilities(models.saved("condition")), num_frames, size)


@pytest.mark.parametrize(("kind", "task"), [("text", "generate"), ("condition", "interpolate")])
def test_the_same_seed_makes_the_same_clip(models: Models, kind: str, task: str, tmp_path: Path) -> None:
    model = models.loaded(kind)
    check_seeds(model, _files(tmp_path, model), task)


@pytest.mark.parametrize(("kind", "task"), [("condition", "extend"), ("text", "inpaint")])
def test_cancelling_leaves_nothing(models: Models, kind: str, task: str, tmp_path: Path) -> None:
    model = models.loaded(kind)
    check_cancelling(model, _files(tmp_path, model), task)


def test_latents_of_what_is_given_are_held(models: Models, tmp_path: Path) -> None:
    model = models.loaded("text")
    check_held(model, _files(tmp_path, model), "extend")


def test_keyframes_matter(models: Models, tmp_path: Path) -> None:
    model = models.loaded("condition")
    files = _files(tmp_path, model)
    ends = [made_by(model, files.request("animate", last=last))[1] for last in (files.last, files.picture)]
    assert (ends[0] != ends[1]).any()


def test_the_rate_is_told_to_the_network(models: Models, tmp_path: Path) -> None:
    model = models.loaded("condition")
    files = _files(tmp_path, model)
    slow, fast = (made_by(model, files.request("generate", fps=fps))[1] for fps in (12.5, 25.0))
    assert (slow != fast).any()


def test_strength_says_how_much_is_kept(models: Models, tmp_path: Path) -> None:
    model = models.loaded("condition")
    files = _files(tmp_path, model)
    weak, strong = (
        made_by(model, files.request("restyle", strength=strength, num_inference_steps=8, guidance_scale=1.0))[1]
        for strength in (0.25, 1.0)
    )
    kept = made_by(model, files.request("restyle", strength=0.0))[1]
    assert (kept == files.frames).all()
    assert (weak != strong).any()
