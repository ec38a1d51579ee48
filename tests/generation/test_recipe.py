"""What files carry, and the commands and requests that make their clips again."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings

from openlumiere.cli import build_parser
from openlumiere.errors import LumiereError
from openlumiere.generation.recipe import ModelIdentity, Recipe, prompt_of
from openlumiere.generation.requests import (
    GenerateRequest,
    InpaintRequest,
    Request,
    Sticker,
    UpscaleRequest,
)
from strategies import REQUESTS

PARSER = build_parser()
MODEL = ModelIdentity(name="emoji", weights="012345678901", device="cpu", dtype="float32")


def recipe_of(request: Request) -> Recipe:
    return Recipe(request=request, model=MODEL, fps=getattr(request, "fps", None) or 12.5)


SETTLED: dict[str, Any] = {
    "prompt": "a", "output": "clip.webp", "seed": 0, "num_inference_steps": 1, "guidance_scale": 1.0, "num_frames": 8,
    "upscale_steps": 0, "fps": 16.0,
}  # fmt: skip


def generate(**changed: Any) -> Recipe:
    return recipe_of(GenerateRequest(**SETTLED | changed))


@pytest.mark.slow
@settings(deadline=None)
@example(generate(negative_prompt="--").request)
@example(generate(prompt="--").request)
@example(generate(prompt="--", negative_prompt="--").request)
@example(generate(prompt="-- --").request)
@example(InpaintRequest(**SETTLED, source="a.mp4", mask="--mask", styles=(("-s", 0.5), ("-s=2", 1.0))))
@given(REQUESTS)
def test_recipe_survives_metadata_and_the_shell(request: Request) -> None:
    recipe = recipe_of(request)
    metadata = json.loads(json.dumps(recipe.metadata()))
    assert Recipe.from_metadata(metadata, "clip.webp") == recipe
    command = shlex.split(recipe.command())
    args = PARSER.parse_args(command[1:])
    assert command[:2] == ["lumiere", request.task]
    assert (args.prompt, args.negative, args.output) == (request.prompt, request.negative_prompt, "clip.webp")
    assert (args.seed, args.steps, args.guidance) == (
        request.seed, request.num_inference_steps, request.guidance_scale,
    )  # fmt: skip
    assert (args.model, args.device, args.dtype) == (MODEL.name, MODEL.device, MODEL.dtype)
    assert args.loop == request.loop
    assert (args.transparent, args.background) == (request.transparent, request.background)
    if not isinstance(request, UpscaleRequest):
        assert (args.upscale_steps or 0, args.no_upscale) == (request.upscale_steps, not request.upscale_steps)
        assert args.style == [name for name, _ in request.styles]
        assert args.reference == [*request.references]
        assert (tuple(args.path), args.no_planner) == (request.path, not request.planner)
    for field in ("num_frames", "fps", "noise_level", "box", "mask", "rigid"):
        if hasattr(request, field):
            assert getattr(args, {"num_frames": "frames"}.get(field, field)) == getattr(request, field)


OLD = [
    # What files of the first versions carry.
    {
        "openlumiere": "0.0.1", "prompt": "a cat", "negative_prompt": "", "seed": 7, "num_inference_steps": 2,
        "guidance_scale": 2.0, "num_frames": 8, "fps": 16.0, "model": "emoji", "weights": "", "device": "cpu",
        "dtype": "float32",
    },
    {"openlumiere": "0.0.1", "prompt": "a cat", "seed": 7, "model": "emoji"},
    {"openlumiere": "0.0.1", "command": "upscale", "seed": 7, "model": "emoji", "source": "a.webp"},
    {"openlumiere": "0.0.1", "command": "edit", "task": "animate", "seed": 7, "model": "m", "source": "a.png"},
]  # fmt: skip


@pytest.mark.parametrize("metadata", OLD)
def test_metadata_without_newer_fields_are_read(metadata: dict[str, Any]) -> None:
    """Bug 9: what they do not tell has its default, and what does not matter for it is left out of the command."""
    recipe = Recipe.from_metadata(metadata, "clip.webp")
    assert recipe is not None
    assert recipe.request.seed == 7
    assert recipe.request.negative_prompt == ""
    args = PARSER.parse_args(shlex.split(recipe.command())[1:])
    assert (args.seed, args.prompt or "") == (7, metadata.get("prompt", ""))


def test_each_field_with_a_default_may_be_missing() -> None:
    recipe = generate(seed=3, num_inference_steps=None, guidance_scale=None, num_frames=None)
    metadata = recipe.metadata()
    assert not {"num_inference_steps", "guidance_scale", "num_frames"} & set(metadata)
    for key in set(metadata) - {"openlumiere", "seed", "model", "prompt"}:
        assert Recipe.from_metadata({k: v for k, v in metadata.items() if k != key}, "clip.webp") is not None
    for key in ("seed", "model", "prompt"):
        with pytest.raises(LumiereError, match="read it with that version"):
            Recipe.from_metadata({k: v for k, v in metadata.items() if k != key})


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": "x"}, {"command": "dream"}, {"command": "edit", "task": "dream"}, {"fps": "fast"},
        {"command": "edit", "task": "animate", "source": "a.png", "arguments": "--dream 3"}, {"sticker": "--for"},
        {"layout": "--path=x"}, {"styles": "--style a"}, {"upscale_steps": -1},
    ],
)  # fmt: skip
def test_metadata_that_cannot_be_read_are_one_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(LumiereError, match="read it with that version"):
        Recipe.from_metadata({**generate().metadata(), **wrong})


def test_the_prompt_is_read_whatever_else_is_missing() -> None:
    assert prompt_of({"openlumiere": "9", "command": "dream", "prompt": "a cat"}) == "a cat"
    assert prompt_of({"openlumiere": "9"}) == ""
    assert prompt_of({"prompt": "somebody else's"}) == ""
    assert Recipe.from_metadata({"prompt": "somebody else's"}) is None


def test_stickers_that_are_no_loops_say_so() -> None:
    recipe = generate(sticker=Sticker(target="slack"))
    assert recipe.command().endswith("--for slack --no-loop")
    loop = replace(recipe, request=replace(recipe.request, loop=True))
    assert loop.command().endswith("--for slack")
