"""AnimateDiff on tiny weights: put together and whole, with and without SparseCtrl."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNetMotionModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend_tools import Sources, check_cancelling, check_fitted_shapes, check_seeds, check_task, made, request_for
from openlumiere.errors import LumiereError
from openlumiere.generation.backends.base import Backend, Loading
from openlumiere.generation.backends.find import load_backend, read_abilities
from openlumiere.generation.backends.stepping import around
from openlumiere.generation.requests import GenerateRequest
from openlumiere.video import read_clip
from tiny_backends import save_animatediff, save_base, save_motion_adapter, save_sparse_control, save_svd

pytestmark = pytest.mark.slow
TASKS = ("generate", "restyle", "animate", "inpaint", "outpaint", "cinemagraph", "extend", "interpolate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter, a base and a SparseCtrl."""
    folder = tmp_path_factory.mktemp("animatediff")
    save_motion_adapter(folder / "adapter")
    save_base(folder / "base")
    save_sparse_control(folder / "control")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Backend:
    return load_backend(f"{folder / 'adapter'}+{folder / 'base'}")


@pytest.fixture(scope="module")
def controlled(folder: Path) -> Backend:
    return load_backend("+".join(str(folder / part) for part in ("adapter", "base", "control")))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources.written(tmp_path_factory.mktemp("sources"))


def test_abilities_come_from_the_parts(folder: Path, model: Backend, controlled: Backend) -> None:
    abilities = read_abilities(model.name)
    assert abilities == model.abilities
    assert abilities.tasks == controlled.abilities.tasks == TASKS
    assert abilities.emulated == TASKS[2:]
    assert controlled.abilities.emulated == ("inpaint", "outpaint", "cinemagraph", "extend")
    assert (abilities.max_frames, abilities.num_frames, abilities.fps) == (16, 16, 8.0)
    assert abilities.licence == "apache-2.0 + creativeml-openrail-m"
    assert abilities.commercial is True
    assert model.identity.name == f"{folder / 'adapter'}+{folder / 'base'}"
    assert model.identity.weights.count("+") == 1
    assert model.notes == ()


@pytest.mark.parametrize("task", TASKS)
def test_each_task_makes_a_file(task: str, model: Backend, sources: Sources, tmp_path: Path) -> None:
    check_task(model, task, sources, tmp_path)


@pytest.mark.parametrize("task", ["animate", "interpolate", "generate", "restyle", "inpaint"])
def test_each_task_with_sparse_control(task: str, controlled: Backend, sources: Sources, tmp_path: Path) -> None:
    check_task(controlled, task, sources, tmp_path)


@pytest.mark.parametrize(
    ("task", "more", "indices"),
    [("animate", {}, [0]), ("animate", {"last": ""}, [0, 4]), ("interpolate", {}, [0, 2, 4, 6, 8])],
)
def test_sparse_control_sees_the_frames_that_are_given(
    task: str, more: dict[str, str], indices: list[int], controlled: Backend, sources: Sources, tmp_path: Path
) -> None:
    seen: list[torch.Tensor] = []

    def forward(method, *inputs, **options):
        seen.append(options["conditioning_mask"])
        return method(*inputs, **options)

    more = {name: str(sources.last) for name in more}
    with around(controlled.pipe.controlnet, "forward", forward):  # type: ignore[attr-defined]
        made(controlled, request_for(task, sources, tmp_path / "clip.webp", **more))
    assert len(seen) == 2
    assert seen[0].amax((0, 1, 3, 4)).nonzero().flatten().tolist() == indices


def test_interpolating_keeps_the_clips_own_frames(controlled: Backend, sources: Sources, tmp_path: Path) -> None:
    result = made(controlled, request_for("interpolate", sources, tmp_path / "clip.webp"))
    np.testing.assert_array_equal(result[::2], read_clip(sources.clip).frames)


def test_cancelling_leaves_nothing(controlled: Backend, sources: Sources, tmp_path: Path) -> None:
    for task in ("animate", "extend"):
        check_cancelling(controlled, request_for(task, sources, tmp_path / "clip.webp"))


def test_seeds(model: Backend, sources: Sources, tmp_path: Path) -> None:
    check_seeds(model, lambda seed: request_for("generate", sources, tmp_path / "clip.webp", seed=seed))


def test_prompts_and_what_is_not_wanted_are_heard(model: Backend, sources: Sources, tmp_path: Path) -> None:
    def clip(**options: object) -> np.ndarray:
        return made(model, request_for("generate", sources, tmp_path / "clip.webp", **options))

    plain = clip()
    assert (plain != clip(prompt="a red heart")).any()
    assert (plain != clip(negative_prompt="blurry")).any()
    assert (plain != clip(guidance_scale=1.0)).any()


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frames=st.integers(1, 40), size=st.tuples(st.integers(3, 45), st.integers(3, 45)), fps=st.sampled_from([6.0, 24.0])
)
def test_any_size_and_length_is_fitted(frames: int, size: tuple[int, int], fps: float, model: Backend) -> None:
    request = GenerateRequest(prompt="a tiger", num_frames=frames, size=size, fps=fps, num_inference_steps=1)
    check_fitted_shapes(model, request, frames, size)


def test_a_clip_is_no_longer_than_the_adapters_positions(model: Backend, sources: Sources, tmp_path: Path) -> None:
    fitted = model.fit(request_for("generate", sources, tmp_path / "clip.webp", num_frames=20))
    assert fitted.changes == (f"num_frames: 16 instead of 20, the longest that {model.name} makes",)


def test_a_long_clip_goes_on_from_what_there_is_room_for(model: Backend, tmp_path: Path) -> None:
    sources = Sources.written(tmp_path, frames=20)
    result = made(model, request_for("extend", sources, tmp_path / "out.webp", num_frames=10))
    assert len(result) == 30
    np.testing.assert_array_equal(result[:20], read_clip(sources.clip).frames)


def test_a_whole_folder_makes_the_same_tasks(tmp_path: Path, sources: Sources) -> None:
    backend = load_backend(str(save_animatediff(tmp_path / "model")))
    assert backend.abilities.emulated == TASKS[2:]
    assert backend.abilities.licence == "apache-2.0"
    for task in ("generate", "restyle", "inpaint"):
        check_task(backend, task, sources, tmp_path)


def test_an_adapter_brings_its_betas_and_keeps_the_bases_other_choices(model: Backend) -> None:
    config = model.pipe.scheduler.config  # type: ignore[attr-defined]
    assert config.beta_schedule == "linear"
    assert (config.beta_start, config.beta_end) == (0.00085, 0.012)


def test_weights_are_there_once(controlled: Backend) -> None:
    pipe = controlled.pipe  # type: ignore[attr-defined]
    assert pipe.motion_adapter is None
    assert isinstance(pipe.unet, UNetMotionModel)
    for task in TASKS:
        assert controlled.pipeline(task).unet is pipe.unet  # type: ignore[attr-defined]


def test_an_adapter_alone_stands_on_stable_diffusion(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openlumiere.generation.backends.animatediff._BASE", str(folder / "base"))
    abilities = read_abilities(str(folder / "adapter"))
    assert abilities.model == str(folder / "adapter")
    backend = load_backend(str(folder / "adapter"))
    assert backend.identity.name == f"{folder / 'adapter'}+{folder / 'base'}"


def test_parts_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    svd = save_svd(tmp_path / "svd")
    with pytest.raises(LumiereError, match=r"holds a StableVideoDiffusionPipeline; put an adapter on a Stable"):
        read_abilities(f"{folder / 'adapter'}+{svd}")
    with pytest.raises(LumiereError, match=r"at most one SparseControlNetModel"):
        read_abilities(f"{folder / 'adapter'}+{folder / 'base'}+{folder / 'base'}")
    sketches = save_sparse_control(tmp_path / "sketches", sketches=True)
    with pytest.raises(LumiereError, match="takes sketches"):
        read_abilities(f"{folder / 'adapter'}+{folder / 'base'}+{sketches}")
    with pytest.raises(LumiereError, match=r"--quantize int8.*put together"):
        load_backend(f"{folder / 'adapter'}+{folder / 'base'}", Loading(quantize="int8"))


def test_an_adapter_of_another_shape_is_refused(folder: Path, tmp_path: Path) -> None:
    from diffusers import MotionAdapter

    MotionAdapter(block_out_channels=(8, 16), motion_norm_num_groups=4, motion_num_attention_heads=2).save_pretrained(
        tmp_path / "other"
    )
    with pytest.raises(LumiereError, match="Incompatible Motion Adapter"):
        load_backend(f"{tmp_path / 'other'}+{folder / 'base'}")
