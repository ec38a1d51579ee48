"""ZeroScope on tiny weights: its tasks, those that are emulated, and its rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from backend_tools import Sources, check_cancelling, check_fitted_shapes, check_seeds, check_task, made, request_for
from openlumiere.errors import LumiereError
from openlumiere.generation.backends.base import Backend
from openlumiere.generation.backends.diffusers_model import DiffusersBackend
from openlumiere.generation.backends.find import load_backend, read_abilities
from openlumiere.generation.backends.holding import encode_frames
from openlumiere.generation.backends.stepping import around
from openlumiere.generation.backends.zeroscope import ZeroScopeBackend
from openlumiere.generation.inputs import EditInputs
from openlumiere.generation.requests import ClipRequest, GenerateRequest
from openlumiere.pipelines.inputs import as_clips
from openlumiere.video import read_clip
from tiny_backends import save_zeroscope

pytestmark = pytest.mark.slow
TASKS = ("generate", "restyle", "animate", "inpaint", "outpaint", "cinemagraph", "extend", "interpolate")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    return load_backend(str(save_zeroscope(tmp_path_factory.mktemp("zeroscope") / "model")))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources.written(tmp_path_factory.mktemp("sources"))


def test_abilities_say_what_is_emulated_and_the_licence(model: Backend) -> None:
    abilities = read_abilities(model.name)
    assert abilities == model.abilities
    assert abilities.tasks == TASKS
    assert abilities.emulated == TASKS[2:]
    assert (abilities.width, abilities.height, abilities.licence) == (16, 16, "cc-by-nc-4.0")
    assert abilities.commercial is False
    assert model.notes == ("LICENCE: non-commercial; cc-by-nc-4.0 forbids commercial use of this model",)


@pytest.mark.parametrize("task", TASKS)
def test_each_task_makes_a_file(task: str, model: Backend, sources: Sources, tmp_path: Path) -> None:
    check_task(model, task, sources, tmp_path)


def test_cancelling_leaves_nothing(model: Backend, sources: Sources, tmp_path: Path) -> None:
    check_cancelling(model, request_for("inpaint", sources, tmp_path / "clip.webp"))


def test_seeds(model: Backend, sources: Sources, tmp_path: Path) -> None:
    check_seeds(model, lambda seed: request_for("animate", sources, tmp_path / "clip.webp", seed=seed))


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frames=st.integers(1, 6), size=st.tuples(st.integers(3, 45), st.integers(3, 45)), fps=st.sampled_from([4.0, 12.5])
)
def test_any_size_and_length_is_fitted(frames: int, size: tuple[int, int], fps: float, model: Backend) -> None:
    request = GenerateRequest(prompt="a tiger", num_frames=frames, size=size, fps=fps, num_inference_steps=1)
    check_fitted_shapes(model, request, frames, size)


def test_a_region_is_made_and_the_rest_is_given(model: Backend, sources: Sources, tmp_path: Path) -> None:
    result = made(model, request_for("inpaint", sources, tmp_path / "clip.webp", num_inference_steps=3))
    clip = read_clip(sources.clip).frames
    np.testing.assert_array_equal(result[:, :, 8:], clip[:, :, 8:])
    assert (result[:, :, :8] != clip[:, :, :8]).mean() > 0.9


def test_feathering_fades_what_is_given(model: Backend, sources: Sources, tmp_path: Path) -> None:
    hard, soft = (
        made(model, request_for("inpaint", sources, tmp_path / "clip.webp", feather=feather)) for feather in (0, 3)
    )
    np.testing.assert_array_equal(hard[:, :, 12:], soft[:, :, 12:])
    assert (hard[:, :, 8:10] != soft[:, :, 8:10]).any()
    np.testing.assert_array_equal(hard[:, :, :8], soft[:, :, :8])


def test_the_last_step_holds_the_latents_that_are_given(model: Backend, sources: Sources, tmp_path: Path) -> None:
    decoded: list[torch.Tensor] = []

    def decode(method, latents, *options, **named):
        decoded.append(latents)
        return method(latents, *options, **named)

    with around(model.pipe.vae, "decode", decode):  # type: ignore[attr-defined]
        made(model, request_for("extend", sources, tmp_path / "clip.webp", num_frames=3))
    clip = read_clip(sources.clip).frames
    with torch.no_grad():
        latents = encode_frames(model.pipe.vae, as_clips(clip))  # type: ignore[attr-defined]
    given_latents = latents[0].transpose(0, 1) / model.pipe.vae.config.scaling_factor  # type: ignore[attr-defined]
    torch.testing.assert_close(decoded[0][:5], given_latents, rtol=1e-4, atol=1e-5)
    assert not torch.isclose(decoded[0][5:], given_latents[-1:], rtol=1e-2).all()


def test_what_is_given_changes_what_is_made(model: Backend, sources: Sources, tmp_path: Path) -> None:
    output = tmp_path / "clip.webp"
    free = made(model, request_for("generate", sources, output, prompt="x", num_inference_steps=4))
    held = made(model, request_for("animate", sources, output, prompt="x", num_inference_steps=4))
    assert (free[1:] != held[1:]).mean() > 0.1


def test_interpolating_keeps_the_clips_own_frames(model: Backend, sources: Sources, tmp_path: Path) -> None:
    result = made(model, request_for("interpolate", sources, tmp_path / "clip.webp"))
    clip = read_clip(sources.clip).frames
    np.testing.assert_array_equal(result[::2], clip)
    assert (result[1::2] != clip[:-1]).mean() > 0.9


def test_a_clip_ends_with_its_last_picture(model: Backend, sources: Sources, tmp_path: Path) -> None:
    result = made(model, request_for("animate", sources, tmp_path / "clip.webp", last=str(sources.last)))
    np.testing.assert_array_equal(result[0], np.asarray(Image.open(sources.picture)))
    np.testing.assert_array_equal(result[-1], np.asarray(Image.open(sources.last)))


def test_strength(model: Backend, sources: Sources, tmp_path: Path) -> None:
    def restyled(strength: float, steps: int = 4) -> np.ndarray:
        output = tmp_path / "clip.webp"
        return made(model, request_for("restyle", sources, output, strength=strength, num_inference_steps=steps))

    clip = read_clip(sources.clip).frames
    np.testing.assert_array_equal(restyled(0), clip)
    assert (restyled(0.5) != restyled(1.0)).any()
    with pytest.raises(LumiereError, match=r"strength 0.2 of 4 steps leaves none"):
        restyled(0.2)


class _WithoutVideoToVideo(ZeroScopeBackend):
    """As a family is that has a pipeline of text alone."""

    def pipeline(self, task: str) -> Any:
        return super().pipeline("generate")

    def arguments(self, request: ClipRequest, inputs: EditInputs | None) -> dict[str, Any]:
        return DiffusersBackend.arguments(self, request, inputs)


def test_a_clip_is_restyled_without_a_pipeline_for_it(model: Backend, sources: Sources, tmp_path: Path) -> None:
    abilities = replace(model.abilities, emulated=(*model.abilities.emulated, "restyle"))
    backend = _WithoutVideoToVideo(abilities, model.identity, model.pipe)  # type: ignore[attr-defined]

    def restyled(strength: float) -> np.ndarray:
        output = tmp_path / "clip.webp"
        request = request_for("restyle", sources, output, prompt="x", strength=strength, num_inference_steps=4)
        return made(backend, request).astype(float)

    clip = read_clip(sources.clip).frames
    with torch.no_grad():
        vae = model.pipe.vae  # type: ignore[attr-defined]
        latents = encode_frames(vae, as_clips(clip)) / vae.config.scaling_factor
        decoded = vae.decode(latents[0].transpose(0, 1)).sample
    seen = ((decoded.permute(0, 2, 3, 1) + 1) * 127.5).clamp(0, 255).numpy()
    away = [abs(restyled(strength) - seen).mean() for strength in (0.25, 0.75, 1.0)]
    assert away[0] < away[1] < away[2]
    assert away[0] < 0.7 * away[2]


def test_no_weights_are_copied_for_another_task(model: Backend) -> None:
    other = model.pipeline("restyle")  # type: ignore[attr-defined]
    assert type(other).__name__ == "VideoToVideoSDPipeline"
    assert other.unet is model.pipe.unet  # type: ignore[attr-defined]
    assert model.weight_bytes == sum(
        weight.numel() * 4 for part in (other.unet, other.vae, other.text_encoder) for weight in part.parameters()
    )


def test_weights_in_pickle_files_are_not_read(tmp_path: Path) -> None:
    folder = save_zeroscope(tmp_path / "model")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(LumiereError, match="safetensors"):
        load_backend(str(folder))
