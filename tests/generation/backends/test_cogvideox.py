"""CogVideoX 1.0 and 1.5, on tiny weights: each task from a request to its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openlumiere.errors import LumiereError
from openlumiere.generation.backends.base import Backend
from openlumiere.generation.backends.find import read_abilities
from tiny_requests import Files, check_cancelling, check_fit, check_held, check_seeds, check_task, made_by
from tiny_transformers import Models, save_cogvideox

pytestmark = pytest.mark.slow
HELD = ("animate", "inpaint", "outpaint", "cinemagraph", "extend")
PICTURES = (("animate", "cinemagraph", "extend"), ("cinemagraph", "extend"))
TASKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # of each kind those that it can, and those emulated
    "t2v": (("generate", "restyle", *HELD), HELD),
    "i2v": PICTURES,
    "t2v-1.5": (("generate", "restyle", *HELD), ("restyle", *HELD)),
    "i2v-1.5": PICTURES,
}
EVERY = [(kind, task) for kind, (tasks, _) in TASKS.items() for task in tasks]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(save_cogvideox, tmp_path_factory.mktemp("cogvideox"))


def _files(folder: Path, model: Backend) -> Files:
    newer = model.abilities.frame_multiple == 16
    return Files(folder, (16, 16) if newer else (48, 32), model.abilities.num_frames, model.abilities.fps)


@pytest.mark.parametrize(("kind", "task"), EVERY)
def test_every_task(models: Models, kind: str, task: str, tmp_path: Path) -> None:
    model = models.loaded(kind)
    check_task(model, _files(tmp_path, model), task, **({"num_frames": 4} if task == "extend" else {}))


@pytest.mark.parametrize("kind", TASKS)
def test_abilities(models: Models, kind: str) -> None:
    found = read_abilities(models.saved(kind))
    tasks, emulated = TASKS[kind]
    newer = kind.endswith("1.5")
    assert (set(found.tasks), set(found.emulated)) == (set(tasks), set(emulated))
    assert not found.last_frame
    assert (found.width, found.height, found.size_multiple) == (48, 32, 16)
    assert (found.fps, found.num_frames, found.max_frames) == ((16, 17, 33) if newer else (8, 9, 9))
    assert found.frame_multiple == (16 if newer else 8)
    assert found.resizable == (kind != "i2v")
    assert (found.licence, found.commercial) == (
        ("apache-2.0", True) if kind == "t2v" else ("cogvideox-of-a-test", None)
    )
    assert found == models.loaded(kind).abilities


@settings(max_examples=30, deadline=None)
@given(num_frames=st.integers(1, 100), size=st.tuples(st.integers(1, 2000), st.integers(1, 2000)))
@pytest.mark.parametrize("kind", ["t2v", "t2v-1.5"])
def test_any_length_and_size_is_fitted(models: Models, kind: str, num_frames: int, size: tuple[int, int]) -> None:
    check_fit(read_abilities(models.saved(kind)), num_frames, size)


@pytest.mark.parametrize(("kind", "task"), [("t2v", "generate"), ("i2v-1.5", "animate")])
def test_the_same_seed_makes_the_same_clip(models: Models, kind: str, task: str, tmp_path: Path) -> None:
    model = models.loaded(kind)
    check_seeds(model, _files(tmp_path, model), task)


@pytest.mark.parametrize(("kind", "task"), [("t2v", "generate"), ("t2v-1.5", "extend")])
def test_cancelling_leaves_nothing(models: Models, kind: str, task: str, tmp_path: Path) -> None:
    model = models.loaded(kind)
    check_cancelling(model, _files(tmp_path, model), task)


@pytest.mark.parametrize("kind", TASKS)
def test_latents_of_what_is_given_are_held(models: Models, kind: str, tmp_path: Path) -> None:
    model = models.loaded(kind)
    check_held(model, _files(tmp_path, model), "cinemagraph")


def test_sizes_beyond_the_network_are_refused(models: Models, tmp_path: Path) -> None:
    fixed, newer = models.loaded("i2v"), models.loaded("t2v-1.5")
    with pytest.raises(LumiereError, match="makes clips of 48x32; leave it out"):
        fixed.fit(_files(tmp_path, fixed).request("animate", size=[32, 32]))
    with pytest.raises(LumiereError, match="no clip larger than 48x32, and this one would be 64x32; choose a smaller"):
        made_by(newer, _files(tmp_path, newer).request("outpaint", size=[48, 32]))
