"""Requests of all tasks, as hypothesis draws them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

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
    "path": st.sampled_from(
        [
            (),
            ((0.1, 0.5), (0.9, 0.5)),
            ((0.1, 0.5, 0.3, 20.0),),
            ((0.1, 0.5), (0.9, 0.5, None, None, 0.25)),
        ]
    ),
    "planner": st.booleans(),
    "size": st.none() | st.just((832, 480)),
    "references": st.sampled_from([(), ("a face.png",), ("-a.png", "b.jpg")]),
}
FITTED = {"fit": st.sampled_from(["crop", "pad", "stretch"]), "fps": decimals, "feather": st.integers(0, 9)}
MOVED = {"rigid": st.sampled_from([None, True, False])}
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
    built(AnimateRequest, **EDIT, **FITTED, **LENGTH, **MOVED, last=st.none() | prompts),
    region(InpaintRequest, **EDIT, **FITTED, **FEWER),
    region(CinemagraphRequest, **EDIT, **FITTED, **LENGTH),
    built(OutpaintRequest, **EDIT, **FEWER, fps=decimals, feather=st.integers(0, 9), to=st.just((16, 9))),
    built(RestyleRequest, **EDIT, **FEWER, fps=decimals, strength=st.just(0.25)),
    built(ExtendRequest, **EDIT, **LENGTH, **MOVED, fps=decimals),
    built(InterpolateRequest, **EDIT, **FEWER, **MOVED, factor=st.integers(2, 9)),
    built(UpscaleRequest, **SHARED, source=prompts, noise_level=st.integers(0, 999)),
)
