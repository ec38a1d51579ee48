"""What files carry, and the commands and requests that make their clips again."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openlumiere.cli import build_parser
from openlumiere.errors import LumiereError
from openlumiere.generation.recipe import ModelIdentity, Recipe, prompt_of
from openlumiere.generation.requests import (
    AnimateRequest,
    CinemagraphRequest,
    ExtendRequest,
    GenerateRequest,
    InpaintRequest,
    InterpolateRequest,
    OutpaintRequest,
    Request,
    RestyleRequest,
    Sticker,
    UpscaleRequest,
)

words = st.text(st.characters(exclude_categories=["Cs", "Cc"]))
prompts = words.filter(lambda text: bool(text.strip()))
decimals = st.floats(0.1, 50).map(lambda x: round(x, 3))

SHARED = {
    "prompt": prompts,
    "negative_prompt": words,
    "seed": st.integers(0, 2**63 - 1),
    "num_inference_steps": st.integers(1, 1000),
    "guidance_scale": decimals,
    "loop": st.booleans(),
    "transparent": st.sampled_from([None, True, False]),
    "background": st.sampled_from(["white", "#336699"]),
    "sticker": st.none()
    | st.builds(
        Sticker, target=st.just("slack"), crop=st.booleans(), outline=st.integers(0, 9), speed_up=st.booleans()
    ),
    "output": st.just("clip.webp"),
}
BOTH_STAGES = SHARED | {
    "upscale_steps": st.integers(0, 100),
    "styles": st.sampled_from([(), (("flat", 0.5),), (("my style", 1.0), ("flat", -0.25))]),
    "path": st.sampled_from([(), ((0.1, 0.5), (0.9, 0.5)), ((0.1, 0.5, 0.3, 20.0),)]),
    "planner": st.booleans(),
}
FITTED = {"fit": st.sampled_from(["crop", "pad", "stretch"]), "fps": decimals, "feather": st.integers(0, 9)}
EDIT = BOTH_STAGES | {"source": prompts}
LENGTH = {"num_frames": st.integers(1, 99)}
FEWER = {"num_frames": st.none() | st.integers(1, 99)}
BOX = st.sampled_from([(5.0, 5.0, 20.0, 20.0), (0.25, 0.125, 0.375, 0.5)])
REGION = st.fixed_dictionaries({"mask": prompts}) | st.fixed_dictionaries({"box": BOX})


def built(kind: type[Request], **values: Any) -> st.SearchStrategy[Request]:
    return st.builds(kind, **values)


def region(kind: type[Request], **values: Any) -> st.SearchStrategy[Request]:
    rest = st.fixed_dictionaries(values)
    return st.builds(lambda chosen, where: kind(**chosen, **where), rest, REGION)


REQUESTS = st.one_of(
    built(GenerateRequest, **BOTH_STAGES, **LENGTH, fps=decimals),
    built(AnimateRequest, **EDIT, **FITTED, **LENGTH, last=st.none() | prompts),
    region(InpaintRequest, **EDIT, **FITTED, **FEWER),
    region(CinemagraphRequest, **EDIT, **FITTED, **LENGTH),
    built(OutpaintRequest, **EDIT, **FEWER, fps=decimals, feather=st.integers(0, 9), to=st.just((16, 9))),
    built(RestyleRequest, **EDIT, **FEWER, fps=decimals, strength=st.just(0.25)),
    built(ExtendRequest, **EDIT, **LENGTH, fps=decimals),
    built(InterpolateRequest, **EDIT, **FEWER, factor=st.integers(2, 9)),
    built(UpscaleRequest, **SHARED, source=prompts, noise_level=st.integers(0, 999)),
)
PARSER = build_parser()
MODEL = ModelIdentity(name="emoji-nano", weights="012345678901", device="cpu", dtype="float32")


def recipe_of(request: Request) -> Recipe:
    return Recipe(request=request, model=MODEL, fps=getattr(request, "fps", 12.5))


def generate(**changed: Any) -> Recipe:
    settled = {"seed": 0, "num_inference_steps": 1, "guidance_scale": 1.0, "num_frames": 8, "upscale_steps": 0}
    return recipe_of(GenerateRequest(**{"prompt": "a", "output": "clip.webp"} | settled | changed))


@settings(deadline=None)
@example(generate(negative_prompt="--").request)
@example(generate(prompt="--").request)
@example(generate(prompt="--", negative_prompt="--").request)
@example(generate(prompt="-- --").request)
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
        assert (tuple(args.path), args.no_planner) == (request.path, not request.planner)
    for field, option in {"num_frames": "frames", "fps": "fps", "noise_level": "noise_level", "box": "box"}.items():
        if hasattr(request, field):
            assert getattr(args, option) == getattr(request, field)


OLD = [
    # What files of the first versions carry.
    {
        "openlumiere": "0.0.1", "prompt": "a cat", "negative_prompt": "", "seed": 7, "num_inference_steps": 2,
        "guidance_scale": 2.0, "num_frames": 8, "fps": 16.0, "model": "emoji-nano", "weights": "", "device": "cpu",
        "dtype": "float32",
    },
    {"openlumiere": "0.0.1", "prompt": "a cat", "seed": 7, "model": "emoji-nano"},
    {"openlumiere": "0.0.1", "command": "upscale", "seed": 7, "model": "emoji-nano", "source": "a.webp"},
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
