"""The Python that makes a clip again makes the same bytes, on a tiny model."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import tiny
from openlumiere.generation.backends.stunet import STUNetBackend
from openlumiere.generation.make import make
from openlumiere.generation.python_code import python_code
from openlumiere.generation.requests import AnimateRequest, GenerateRequest, Request, Sticker, UpscaleRequest
from openlumiere.pipelines.load import load_pipeline

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> STUNetBackend:
    folder = tiny.saved(tiny.conditioned(upscale=True), tmp_path_factory.mktemp("model"))
    return STUNetBackend.of(str(folder), load_pipeline(str(folder), device="cpu"))


@pytest.mark.parametrize(
    "request_",
    [
        GenerateRequest(prompt='it\'s a "tiger"', num_frames=8, output="clip.webp", loop=True),
        GenerateRequest(
            prompt="a tiger", num_frames=8, output="clip.webp", sticker=Sticker(target="whatsapp", outline=2)
        ),
        AnimateRequest(prompt="a tiger", source="source.png", num_frames=8, output="clip.webp", seed=3),
        UpscaleRequest(source="source.webp", output="clip.webp"),
    ],
    ids=lambda request: request.task,
)
def test_the_same_bytes(
    request_: Request, model: STUNetBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 30), "orange").save("source.png")
    make(GenerateRequest(prompt="a heart", num_frames=8, seed=1, upscale_steps=0, output="source.webp"), model)
    made = make(request_, model)
    first = Path("clip.webp").read_bytes()
    Path("clip.webp").unlink()
    code = python_code(made.recipe)
    assert len([line for line in code.splitlines() if line]) <= 6
    Path("again.py").write_text(code)
    runpy.run_path("again.py")
    assert Path("clip.webp").read_bytes() == first
