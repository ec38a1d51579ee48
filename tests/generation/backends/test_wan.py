"""Wan of every kind, on tiny weights: each task from a request to its file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openlumiere.errors import LumiereError
from openlumiere.generation.backends.base import Backend, Loading
from openlumiere.generation.backends.find import load_backend, read_abilities
from openlumiere.generation.requests import AnimateRequest, InterpolateRequest
from tiny_requests import Files, check_cancelling, check_fit, check_held, check_seeds, check_task, made_by
from tiny_transformers import Models, save_wan

pytestmark = pytest.mark.slow
HELD = ("inpaint", "outpaint", "cinemagraph", "extend")
TASKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # of each kind those that it can, and those emulated
    "t2v": (("generate", "animate", "restyle", *HELD), ("animate", *HELD)),
    "i2v": (("animate", "cinemagraph", "extend"), ("cinemagraph", "extend")),
    "flf2v": (("animate", "cinemagraph"), ("cinemagraph",)),
    "vace": (("generate", "animate", "restyle", *HELD, "interpolate"), ("restyle",)),
    "t2v-2.2": (("generate", "animate", "restyle", *HELD), ("animate", "restyle", *HELD)),
    "i2v-2.2": (("animate", "cinemagraph", "extend"), ("cinemagraph", "extend")),
    "ti2v": (("generate", "animate", "restyle", *HELD), ("restyle", *HELD)),
}
EVERY = [(kind, task) for kind, (tasks, _) in TASKS.items() for task in tasks]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(save_wan, tmp_path_factory.mktemp("wan"))


def _files(folder: Path, model: Backend, num_frames: int = 5) -> Files:
    side = model.abilities.size_multiple
    return Files(folder, (side, side), num_frames, model.abilities.fps)


@pytest.mark.parametrize(("kind", "task"), EVERY)
def test_every_task(models: Models, kind: str, task: str, tmp_path: Path) -> None:
    model = models.loaded(kind)
    files = _files(tmp_path, model)
    own = {"num_frames": 4} if task == "extend" else {}
    check_task(model, files, task, **own, **({"last": files.last} if (kind, task) == ("flf2v", "animate") else {}))


@pytest.mark.parametrize("kind", TASKS)
def test_abilities(models: Models, kind: str) -> None:
    found = read_abilities(models.saved(kind))
    tasks, emulated = TASKS[kind]
    assert (set(found.tasks), set(found.emulated)) == (set(tasks), set(emulated))
    assert found.last_frame == (kind in ("flf2v", "vace", "i2v-2.2"))
    assert (found.last_frame_needed, found.references) == (kind == "flf2v", 4 if kind == "vace" else 0)
    assert (found.fps, found.num_frames) == ((24, 121) if kind == "ti2v" else (16, 81))
    assert (found.size_multiple, found.frame_multiple) == (32 if kind == "ti2v" else 16, 4)
    assert (found.licence, found.commercial) == ("apache-2.0", True)
    assert found == models.loaded(kind).abilities
    if kind != "vace":
        with pytest.raises(LumiereError, match=r"cannot interpolate: it can .*; models that can: .*VACE"):
            found.check(InterpolateRequest(source="a.mp4"))


def test_what_it_can_is_read_without_pytorch(models: Models) -> None:
    code = (
        "import sys; from openlumiere.generation.backends.find import read_abilities; "
        f"read_abilities({models.saved('t2v')!r}); assert not {{'torch', 'diffusers'}} & {{*sys.modules}}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@settings(max_examples=30, deadline=None)
@given(num_frames=st.integers(1, 300), size=st.tuples(st.integers(1, 2000), st.integers(1, 2000)))
@pytest.mark.parametrize("kind", ["t2v", "ti2v"])
def test_any_length_and_size_is_fitted(models: Models, kind: str, num_frames: int, size: tuple[int, int]) -> None:
    check_fit(read_abilities(models.saved(kind)), num_frames, size)


@pytest.mark.parametrize(("kind", "task"), [("t2v", "generate"), ("vace", "interpolate"), ("i2v", "animate")])
def test_the_same_seed_makes_the_same_clip(models: Models, kind: str, task: str, tmp_path: Path) -> None:
    model = models.loaded(kind)
    check_seeds(model, _files(tmp_path, model), task)


@pytest.mark.parametrize(("kind", "task"), [("t2v-2.2", "generate"), ("vace", "inpaint"), ("t2v", "extend")])
def test_cancelling_leaves_nothing(models: Models, kind: str, task: str, tmp_path: Path) -> None:
    model = models.loaded(kind)
    check_cancelling(model, _files(tmp_path, model), task)


@pytest.mark.parametrize(
    ("kind", "task"),
    [("t2v", "animate"), ("t2v", "extend"), ("t2v-2.2", "extend"), ("i2v", "extend"), ("ti2v", "extend")],
)
def test_latents_of_what_is_given_are_held(models: Models, kind: str, task: str, tmp_path: Path) -> None:
    model = models.loaded(kind)
    check_held(model, _files(tmp_path, model), task)


def test_both_networks_of_2_2_denoise(models: Models, tmp_path: Path) -> None:
    model = models.loaded("t2v-2.2")
    called: list[str] = []
    hooks = [
        getattr(model.pipe, name).register_forward_pre_hook(lambda *_, name=name: called.append(name))
        for name in ("transformer", "transformer_2")
    ]
    made_by(model, _files(tmp_path, model).request("generate", guidance_scale=1.0))
    for hook in hooks:
        hook.remove()
    assert called == ["transformer", "transformer_2"]


def test_a_last_picture_stands_where_clips_end(models: Models, tmp_path: Path) -> None:
    model = models.loaded("flf2v")
    files = _files(tmp_path, model)
    made, pixels, _ = made_by(model, files.request("animate", last=files.last, num_frames=6))
    assert len(pixels) == 5
    assert made.changes == (f"num_frames: 5 instead of 6, since {model.name} ends with a last picture there",)
    with pytest.raises(LumiereError, match="makes clips between two pictures; say what the clip ends with"):
        model.fit(files.request("animate"))
    with pytest.raises(LumiereError, match="is not told how a clip ends"):
        models.loaded("i2v").fit(AnimateRequest(source=files.picture, last=files.last))


@pytest.mark.parametrize("kind", ["flf2v", "i2v-2.2", "vace"])
def test_the_last_picture_matters(models: Models, kind: str, tmp_path: Path) -> None:
    model = models.loaded(kind)
    files = _files(tmp_path, model)
    ends = [made_by(model, files.request("animate", last=last))[1] for last in (files.last, files.picture)]
    assert (ends[0] != ends[1]).any()


@pytest.mark.parametrize("task", ["generate", "animate", "inpaint"])
def test_reference_pictures_matter_and_their_order(models: Models, task: str, tmp_path: Path) -> None:
    model = models.loaded("vace")
    files = _files(tmp_path, model)
    clips = []
    for references in ((), (files.last,), (files.last, files.picture), (files.picture, files.last)):
        _, pixels, metadata = made_by(model, files.request(task, references=references))
        assert len(pixels) == files.num_frames
        assert metadata.get("references", "").split() == [word for path in references for word in ("--reference", path)]
        clips.append(pixels)
    assert all((one != other).any() for n, one in enumerate(clips) for other in clips[:n])


def test_reference_pictures_are_refused_where_they_do_nothing(models: Models, tmp_path: Path) -> None:
    vace, files = models.loaded("vace"), _files(tmp_path, models.loaded("vace"))
    one, many = (files.picture,), (files.picture,) * 5
    with pytest.raises(LumiereError, match=r"references: generate of .* takes 4 reference pictures; give fewer"):
        vace.fit(files.request("generate", references=many))
    with pytest.raises(LumiereError, match=r"references: restyle of .* takes no reference pictures; leave them out"):
        vace.fit(files.request("restyle", references=one))
    with pytest.raises(LumiereError, match=r"references: generate of .* takes no reference pictures; leave them out"):
        models.loaded("t2v").fit(files.request("generate", references=one))


def test_a_clip_goes_on_from_whole_latents(models: Models, tmp_path: Path) -> None:
    model = models.loaded("t2v")
    files = _files(tmp_path, model, num_frames=7)  # the decoder's latents: 1, 4, and two frames that fill none
    pixels = check_task(model, files, "extend", num_frames=3)
    assert len(pixels) == 10


def test_what_encodes_pixels_computes_in_float32(models: Models) -> None:
    model = load_backend(models.saved("i2v"), Loading(device="cpu", dtype="bfloat16"))
    pipe = model.pipe  # type: ignore[attr-defined]
    assert (pipe.vae.dtype, pipe.image_encoder.dtype) == (torch.float32, torch.float32)
    assert pipe.transformer.dtype == pipe.text_encoder.dtype == torch.bfloat16
    assert model.identity.dtype == "bfloat16"


def test_half_precision(models: Models, tmp_path: Path) -> None:
    model = load_backend(models.saved("i2v"), Loading(device="cpu", dtype="bfloat16"))
    pixels = check_task(model, _files(tmp_path, model), "extend", num_frames=4)
    assert np.isfinite(pixels).all()
