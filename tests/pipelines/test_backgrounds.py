"""Prompts that name no background are drawn on none, where a model knows how to ask for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny
from openlumiere.pipelines.backgrounds import names_background, without_background

WORDS = "on a transparent background"


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("a frog on a yellow background", True),
        ("a frog on yellow", True),
        ("a frog over a plain blue", True),
        ("against plain red, there is a frog", True),
        ("a frog, everything behind it is white", True),
        ("a frog cut out", True),
        ("a frog with no backdrop", True),
        ("a frog on its way to the left", False),
        ("a cat on the left side", False),
        ("a frog jumping up and down", False),
        ("a white ghost", False),
    ],
)
def test_what_names_a_background(prompt: str, names: bool) -> None:
    assert names_background(prompt) == names
    assert (without_background(prompt, WORDS) == prompt) == names


def test_words_are_added_once_and_not_to_nothing() -> None:
    told = without_background("a frog jumping.", WORDS)
    assert told == "a frog jumping on a transparent background"
    assert without_background(told, WORDS) == told
    assert without_background("", WORDS) == ""


def test_the_pipeline_asks_for_no_background(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny.transparent()
    heard: list[str] = []
    encode = pipe._encode
    monkeypatch.setattr(
        pipe, "_encode", lambda prompts, *rest, **more: heard.extend(prompts) or encode(prompts, *rest, **more)
    )

    def made(prompt: str, **more: object) -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        return pipe(prompt, num_frames=8, num_inference_steps=1, generator=generator, **more)[0]

    as_it_is = made("a frog", transparent=True)
    pipe.register_to_config(transparent_words=WORDS)
    asked = made("a frog", transparent=True)
    said = made(f"a frog {WORDS}", transparent=True)
    made("a frog")
    made("a frog on a red background", transparent=True)
    assert heard == ["a frog", *[f"a frog {WORDS}"] * 3, "a frog on a red background"]
    np.testing.assert_array_equal(asked, said)
    assert (asked != as_it_is).any()
    heard.clear()
    made("a frog", video=np.zeros((8, *pipe.frame_size, 3), np.uint8), strength=0.5)  # has a background of its own
    made("a frog", video=np.zeros((8, *pipe.frame_size, 4), np.uint8), strength=0.5)  # has none
    assert heard == ["a frog", f"a frog {WORDS}"]
