"""Stable Video Diffusion on tiny weights: a picture, no prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from backend_tools import Sources, check_cancelling, check_fitted_shapes, check_seeds, check_task, made, request_for
from openlumiere.errors import LumiereError
from openlumiere.generation.backends.base import Backend
from openlumiere.generation.backends.find import load_backend, read_abilities
from openlumiere.generation.backends.stepping import around
from openlumiere.generation.requests import AnimateRequest
from openlumiere.video import read_clip
from tiny_backends import save_svd

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    return load_backend(str(save_svd(tmp_path_factory.mktemp("svd") / "model")))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources.written(tmp_path_factory.mktemp("sources"), fps=7.0)


def test_abilities(model: Backend) -> None:
    abilities = read_abilities(model.name)
    assert abilities == model.abilities
    assert abilities.tasks == ("animate", "cinemagraph", "extend")
    assert abilities.emulated == ("cinemagraph", "extend")
    assert (abilities.prompt, abilities.negative_prompt, abilities.last_frame) == (False, False, False)
    assert (abilities.num_frames, abilities.max_frames, abilities.fps) == (6, 6, 7.0)
    assert abilities.commercial is None  # it depends on what one earns


@pytest.mark.parametrize("task", ["animate", "cinemagraph", "extend"])
def test_each_task_makes_a_file(task: str, model: Backend, sources: Sources, tmp_path: Path) -> None:
    check_task(model, task, sources, tmp_path)


def test_text_and_last_pictures_are_refused(model: Backend, sources: Sources, tmp_path: Path) -> None:
    output = tmp_path / "clip.webp"
    with pytest.raises(LumiereError, match=r"cannot generate: it can animate.*models that can"):
        model.fit(request_for("generate", sources, output))
    with pytest.raises(LumiereError, match="is not told how a clip ends"):
        model.fit(request_for("animate", sources, output, last=str(sources.last)))
    fitted = model.fit(request_for("animate", sources, output, prompt="a tiger", negative_prompt="blurry"))
    assert [change.partition(":")[0] for change in fitted.changes] == ["prompt", "negative_prompt"]


def test_the_network_is_told_the_frame_rate(model: Backend, sources: Sources, tmp_path: Path) -> None:
    told: list[list[float]] = []
    predicted: list[torch.Tensor] = []

    def forward(method, *inputs, **options):
        told.append(options["added_time_ids"][-1].tolist())
        output = method(*inputs, **options)
        predicted.append(output[0])
        return output

    with around(model.pipe.unet, "forward", forward):  # type: ignore[attr-defined]
        for fps in (7.0, 12.0):
            made(model, request_for("animate", sources, tmp_path / "clip.webp", fps=fps))
    assert told[0] == pytest.approx([6, 127, 0.02])  # it was trained on one less
    assert told[-1][0] == 11
    # Of the same noise; in 8-bit pixels so small a network's difference may be lost.
    assert not torch.equal(predicted[0], predicted[len(predicted) // 2])


def test_cancelling_leaves_nothing(model: Backend, sources: Sources, tmp_path: Path) -> None:
    check_cancelling(model, request_for("animate", sources, tmp_path / "clip.webp"))


def test_seeds(model: Backend, sources: Sources, tmp_path: Path) -> None:
    check_seeds(model, lambda seed: request_for("animate", sources, tmp_path / "clip.webp", seed=seed))


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frames=st.integers(1, 9), size=st.tuples(st.integers(3, 45), st.integers(3, 45)), fps=st.sampled_from([3.0, 24.0])
)
def test_any_size_and_length_is_fitted(
    frames: int, size: tuple[int, int], fps: float, model: Backend, sources: Sources
) -> None:
    request = AnimateRequest(source=str(sources.picture), num_frames=frames, size=size, fps=fps, num_inference_steps=1)
    check_fitted_shapes(model, request, frames, size)


def test_a_region_moves_and_the_rest_is_the_picture(model: Backend, sources: Sources, tmp_path: Path) -> None:
    result = made(model, request_for("cinemagraph", sources, tmp_path / "clip.webp"))
    picture = np.asarray(Image.open(sources.picture))
    np.testing.assert_array_equal(result[0], picture)
    np.testing.assert_array_equal(result[:, :, 8:], np.broadcast_to(picture[:, 8:], result[:, :, 8:].shape))
    assert (result[1:, :, :8] != picture[:, :8]).mean() > 0.9


def test_a_clip_goes_on(model: Backend, sources: Sources, tmp_path: Path) -> None:
    result = made(model, request_for("extend", sources, tmp_path / "clip.webp", num_frames=4))
    clip = read_clip(sources.clip).frames
    assert len(result) == len(clip) + 4
    np.testing.assert_array_equal(result[: len(clip)], clip)
    assert (result[len(clip) :] != clip[-1]).mean() > 0.9
