"""From a request to a file: both stages, progress, and what is kept when a clip is stopped."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from openlumiere.cli import main
from openlumiere.errors import LumiereError
from openlumiere.generation.backends.find import load_backend
from openlumiere.generation.backends.stunet import STUNetBackend
from openlumiere.generation.make import make
from openlumiere.generation.progress import Cancelled, Progress
from openlumiere.generation.recipe import Recipe
from openlumiere.generation.requests import AnimateRequest, GenerateRequest, UpscaleRequest
from openlumiere.pipelines.generators import restarted
from openlumiere.pipelines.lumiere import LumierePipeline
from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline
from openlumiere.pipelines.text import MINILM
from openlumiere.video import read_clip, read_metadata

pytestmark = pytest.mark.slow  # clips are made

REQUEST = GenerateRequest(prompt="a tiger", seed=3, num_frames=8, num_inference_steps=2, upscale_steps=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> STUNetBackend:
    """A model with both stages, as it is loaded from a folder."""
    pipe = tiny.conditioned(upscale=True)
    pipe.register_to_config(text_encoder_id=MINILM)
    folder = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(folder)
    pipe = LumierePipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return STUNetBackend.of(str(folder), pipe)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(name: str) -> np.ndarray:
    """A file's frames, without the enlarging of the smallest clips to 128 pixels."""
    return read_clip(name).frames[:, ::4, ::4]


def stop_after(steps: int) -> tuple[Callable[[Progress], None], Callable[[], bool]]:
    """What is told of a clip's steps, and asks for its end after so many denoising steps."""
    done = 0

    def tell(now: Progress) -> None:
        nonlocal done
        done += now.stage in ("denoise", "sharpen") and now.step > 0

    return tell, lambda: done >= steps


def test_one_seed_is_one_clip_from_the_command_and_from_python(model: STUNetBackend) -> None:
    """Bug 5: the Python pipeline's second stage went on with the generator that the base model had used."""
    made = make(replace(REQUEST, output="whole.webp"), model)
    steps, pipe = {"num_frames": 8, "num_inference_steps": 2}, model.pipe
    assert isinstance(pipe, LumierePipeline)
    assert pipe.super_resolution is not None
    pipe.super_resolution.register_to_config(num_inference_steps=2)
    for generator in (torch.Generator().manual_seed(3), [torch.Generator().manual_seed(3)]):
        frames = pipe("a tiger", generator=generator, upscale=True, **steps).frames[0]
        np.testing.assert_array_equal((frames * 255).round().astype(np.uint8), pixels("whole.webp"))

    make(replace(REQUEST, output="again.webp"), model)
    assert Path("again.webp").read_bytes() == Path("whole.webp").read_bytes()
    make(replace(REQUEST, seed=4, output="other.webp"), model)
    assert not np.array_equal(pixels("other.webp"), pixels("whole.webp"))
    assert Recipe.from_metadata(read_metadata("whole.webp"), "whole.webp") == made.recipe


def test_generators_start_again_with_their_seed() -> None:
    used = torch.Generator().manual_seed(3)
    first = torch.rand(4, generator=used)
    assert torch.equal(torch.rand(4, generator=restarted(used)), first)
    assert [torch.equal(torch.rand(4, generator=each), first) for each in restarted([used, used])] == [True, True]
    assert restarted(None) is None


def test_progress_tells_each_step_in_order(model: STUNetBackend) -> None:
    told: list[Progress] = []
    make(replace(REQUEST, output="a.webp"), model, progress=told.append)
    assert [(now.stage, now.step, now.total) for now in told] == [
        ("text", 0, 1), ("denoise", 0, 2), ("denoise", 1, 2), ("denoise", 2, 2), ("write", 0, 8),
        ("text", 0, 1), ("sharpen", 0, 2), ("sharpen", 1, 2), ("sharpen", 2, 2), ("write", 0, 8), ("write", 8, 8),
    ]  # fmt: skip


def test_progress_shows_what_the_clip_is_becoming(model: STUNetBackend) -> None:
    previews: list[np.ndarray] = []

    def look(now: Progress) -> None:
        if now.preview is not None:
            previews.append(now.preview(4))

    make(replace(REQUEST, output="a.webp", upscale_steps=0), model, progress=look)
    side = previews[0].shape[1]
    finished = read_clip("a.webp").frames[::2, :: 128 // side, :: 128 // side] / 255
    assert len(previews) == 2
    assert all(preview.shape == finished.shape for preview in previews)
    # At the last step the prediction is the clip.
    np.testing.assert_allclose(previews[-1], finished, atol=1 / 255)
    assert np.abs(previews[0] - finished).max() > 2 / 255

    previews.clear()
    make(replace(REQUEST, output="b.webp"), model, progress=look)
    assert len(previews) == 3  # the last is the base model's clip
    np.testing.assert_allclose(previews[2], finished, atol=1 / 255)


def test_a_clip_that_is_cancelled_in_the_first_stage_leaves_nothing(model: STUNetBackend, folder: Path) -> None:
    progress, cancelled = stop_after(1)
    with pytest.raises(Cancelled) as stopped:
        make(replace(REQUEST, output="a.webp"), model, progress=progress, cancelled=cancelled)
    assert stopped.value.kept is None
    with pytest.raises(Cancelled):
        make(replace(REQUEST, output="a.webp"), model, cancelled=lambda: True)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("steps", [2, 3])
def test_a_clip_that_is_cancelled_in_the_second_stage_goes_on_from_its_base(
    model: STUNetBackend, folder: Path, steps: int
) -> None:
    progress, cancelled = stop_after(steps)
    with pytest.raises(Cancelled) as stopped:
        make(replace(REQUEST, output="a.webp"), model, progress=progress, cancelled=cancelled)
    assert stopped.value.kept == Path("a.base.webp")
    assert [path.name for path in folder.iterdir()] == ["a.base.webp"]
    (note,) = stopped.value.__notes__
    assert "--seed 3 --steps 2" in note
    # The rest of the clip is what it would have been, but for the base's 256 levels in its file.
    make(UpscaleRequest(source="a.base.webp", prompt="a tiger", seed=3, num_inference_steps=2, output="b.webp"), model)
    make(replace(REQUEST, output="whole.webp"), model)
    assert np.abs(pixels("b.webp").astype(int) - pixels("whole.webp")).max() <= 4


def test_what_is_finished_is_not_thrown_away(model: STUNetBackend) -> None:
    progress, cancelled = stop_after(4)
    make(replace(REQUEST, output="a.webp"), model, progress=progress, cancelled=cancelled)
    assert len(pixels("a.webp")) == 8


def test_an_error_of_the_second_stage_keeps_the_base(
    model: STUNetBackend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LumiereSuperResolutionPipeline, "__call__", broken)
    options = ["--model", model.name, "--frames", "8", "--steps", "1", "--seed", "3", "-o", "a.webp", "--loop"]
    assert main(["generate", "a tiger", *options]) == 130
    kept, interrupted = capsys.readouterr().err.splitlines()[-2:]
    assert kept.startswith(
        "the base clip is kept in a.base.webp; sharpen it with: lumiere upscale a.base.webp -o a.webp"
    )
    assert "--seed 3" in kept
    assert "--loop" in kept
    assert interrupted == "lumiere: interrupted"
    assert len(read_clip("a.base.webp").frames) == 8


def test_what_a_model_cannot_do_is_one_line(model: STUNetBackend) -> None:
    for request, says in (
        (REQUEST, "output is empty"),
        (replace(REQUEST, output="none/a.webp"), "does not exist"),
        (replace(REQUEST, output="a.webp", transparent=True), "makes opaque clips"),
        (replace(REQUEST, output="a.webp", background="blurple"), "no colour"),
        (AnimateRequest(source="none.png", output="a.webp"), "none.png does not exist"),
        (UpscaleRequest(source="none.webp", output="a.webp"), "none.webp does not exist"),
    ):
        with pytest.raises(LumiereError, match=says):
            make(request, model)
    assert model.pipe.super_resolution is not None
    model.pipe.super_resolution.save_pretrained("alone")
    alone = load_backend("alone")
    with pytest.raises(LumiereError, match="alone cannot generate: it can upscale; models that can: emoji"):
        make(replace(REQUEST, output="a.webp"), alone)


def test_devices_share_a_clip_to_the_byte(model: STUNetBackend, capsys: pytest.CaptureFixture[str]) -> None:
    command = shlex.split(f"generate 'a tiger' --model {model.name} --frames 8 --steps 2 --seed 3 --no-mark")
    for devices, name in (("cpu", "one.webp"), ("cpu,cpu", "two.webp")):
        assert main([*command, "--devices", devices, "-o", name]) == 0
    assert Path("one.webp").read_bytes() == Path("two.webp").read_bytes()
    assert main([*command, "--devices", "cpu,cuda:77", "-o", "three.webp"]) == 2
    assert "the device cuda:77 cannot be used here; try cpu" in capsys.readouterr().err
