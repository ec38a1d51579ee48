"""What the JSON files of a model say is what its pipeline can do."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from openlumiere.errors import LumiereError
from openlumiere.generation.abilities import Abilities, models_that
from openlumiere.generation.backends.find import read_abilities
from openlumiere.generation.requests import AnimateRequest, GenerateRequest, UpscaleRequest
from openlumiere.pipelines.lumiere import LumierePipeline


def _as_the_pipeline_says(pipe: LumierePipeline, found: Abilities) -> None:
    height, width = pipe.frame_size
    assert (found.height, found.width) == (height * pipe.scale, width * pipe.scale)
    assert found.scale == pipe.scale
    assert found.transparent == pipe.has_alpha
    assert found.path == pipe.unet.takes_layout
    assert found.planner == (pipe.planner is not None)
    assert found.rigid == bool(pipe.config.follow_layout and pipe.unet.config["condition_channels"])
    assert found.frame_multiple == pipe.unet.frame_multiple
    assert found.window_frames == pipe.config.window_frames
    assert found.num_inference_steps == pipe.config.num_inference_steps
    assert ("animate" in found.tasks) == bool(pipe.unet.config["condition_channels"])
    assert ("upscale" in found.tasks) == (pipe.super_resolution is not None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "upscaled", "layout", "transparent", "transparent-upscaled"])
def test_abilities_are_those_of_the_pipeline(kind: str, tmp_path: Path) -> None:
    pipe = {
        "plain": tiny.conditioned, "upscaled": lambda: tiny.conditioned(upscale=True),
        "layout": lambda: tiny.conditioned(layout=True), "transparent": tiny.transparent,
        "transparent-upscaled": lambda: tiny.transparent(sharpened=4),
    }[kind]()  # fmt: skip
    _as_the_pipeline_says(pipe, read_abilities(str(tiny.saved(pipe, tmp_path / "model"))))


@pytest.mark.slow
def test_the_bundled_model_and_second_stages_alone(tmp_path: Path) -> None:
    found = read_abilities("emoji")
    _as_the_pipeline_says(LumierePipeline.from_pretrained("emoji"), found)
    assert "flat" in found.styles
    assert "tiger" in found.subjects
    assert found.rigid
    alone = read_abilities(str(tiny.saved(tiny.second_stage(), tmp_path / "second")))
    assert (alone.tasks, alone.scale, alone.width) == (("upscale",), 2, None)
    alone.check(UpscaleRequest(source="a.mp4"))
    with pytest.raises(LumiereError, match="cannot generate: it can upscale; models that can: emoji"):
        alone.check(GenerateRequest(prompt="a tiger"))


def test_what_a_model_cannot_do_is_refused_in_one_line() -> None:
    plain = Abilities(
        model="m", family="wan", tasks=("generate",), styles=("flat",), frame_multiple=4, window_frames=80
    )
    for request, line in (
        (AnimateRequest(source="a.png"), f"m cannot animate: it can generate; {models_that('animate')}"),
        (
            GenerateRequest(prompt="x", transparent=True),
            "transparent: m makes opaque clips; leave it out, or choose another model",
        ),
        (GenerateRequest(prompt="x", styles=(("/", 1.0),)), "style '/': m has none of that name; choose one of flat"),
        (GenerateRequest(prompt="x", path=((0.1, 0.5),)), "path: m is not told where its subject goes; leave it out"),
        (GenerateRequest(prompt="x", upscale_steps=2), "upscale_steps: m has no second stage; leave it out"),
    ):  # fmt: skip
        with pytest.raises(LumiereError) as told:
            plain.check(request)
        assert str(told.value) == line
    plain.check(GenerateRequest(prompt="x", num_frames=16, upscale_steps=0, styles=(("flat", 0.5),)))
    ours = replace(plain, family="lumiere")
    ours.check(GenerateRequest(prompt="x", styles=(("own/style", 1.0),)))
    with pytest.raises(LumiereError, match="has none of that name"):
        ours.check_styles(GenerateRequest(prompt="x", styles=(("own/style", 1.0),)))
    assert [plain.nearest_length(n) for n in (0, 17, 19)] == [4, 16, 20]


def test_a_model_that_decides_itself_what_moves_is_not_told() -> None:
    plain = Abilities(model="m", family="svd", tasks=("animate",))
    for rigid in (True, False):
        asked = AnimateRequest(source="a.png", rigid=rigid)
        fitted = plain.fit(asked)
        assert fitted.changes == ("rigid: m decides that itself; left out",)
        assert fitted.request.rigid is None
        assert replace(plain, rigid=True).fit(asked).request.rigid == rigid
    assert plain.fit(AnimateRequest(source="a.png")).changes == ()


def test_models_that_are_not_here_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(LumiereError, match="is not on this machine"):
        read_abilities("nobody/nothing")
    with pytest.raises(LumiereError, match="holds no model: model_index"):
        read_abilities(str(tmp_path))
    (tmp_path / "model_index.json").write_text('{"_class_name": "LumierePipeline"}')
    with pytest.raises(LumiereError, match="is damaged"):
        read_abilities(str(tmp_path))


@pytest.mark.slow
def test_reading_them_imports_no_torch() -> None:
    code = (
        "import sys; from openlumiere.generation.backends.find import read_abilities; read_abilities('emoji'); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
