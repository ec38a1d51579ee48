"""Fields and files of a request, and the `Request` that they make."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openlumiere.app.api.asking import build_request
from openlumiere.app.api.errors import ApiError
from openlumiere.app.api.schemas import CreateVideo
from openlumiere.app.sandbox.uploads import Taken
from openlumiere.app.settings import RequestLimits
from openlumiere.generation.abilities import Abilities
from openlumiere.generation.requests import TASKS, Request, Sticker

MODEL = Abilities(
    model="m", tasks=tuple(TASKS), styles=("flat", "noto"), transparent=True, path=True, width=128, height=128, scale=4,
    frame_multiple=4, window_frames=80,
)  # fmt: skip
PICTURE = Taken(path=Path("/somewhere/source.png"), width=64, height=48, frames=1)
CLIP = Taken(path=Path("/somewhere/source.webp"), width=64, height=48, frames=48, fps=24.0)


def _made(task: str, source: Taken | None = None, *, limits: RequestLimits | None = None, **given: Any) -> Request:
    fields = CreateVideo.model_validate({"prompt": "a tiger", **given})
    files = {} if source is None else {"source": source}
    return build_request(task, fields, files, MODEL, limits or RequestLimits())


def test_fields_become_the_request_that_the_command_would_make() -> None:
    made = _made(
        "generate", seconds="2.3", seed="7", guidance_scale="3", style="flat", path="0.1,0.5 0.9,0.5", loop="true"
    )
    assert (made.task, made.num_frames, made.seed, made.guidance_scale) == ("generate", 36, 7, 3.0)  # type: ignore[attr-defined]
    assert (made.styles, made.path, made.loop) == ((("flat", 1.0),), ((0.1, 0.5), (0.9, 0.5)), True)  # type: ignore[attr-defined]
    assert made.output == "clip.webp"
    made = _made("inpaint", CLIP, box="1,2,3,4", style='{"flat": 0.7, "noto": 0.3}', seconds=1)
    assert (made.source, made.box, made.num_frames) == ("source.webp", (1.0, 2.0, 3.0, 4.0), 16)  # type: ignore[attr-defined]
    assert made.styles == (("flat", 0.7), ("noto", 0.3))  # type: ignore[attr-defined]
    assert _made("outpaint", CLIP, to="16:9").to == (16, 9)  # type: ignore[attr-defined]
    assert _made("generate", lora={"name": "flat", "scale": 0.4}).styles == (("flat", 0.4),)  # type: ignore[attr-defined]
    sticker = _made("generate", sticker="whatsapp", crop=True, outline="4")
    assert (sticker.sticker, sticker.loop) == (Sticker(target="whatsapp", crop=True, outline=4), True)
    assert _made("generate", sticker="slack", loop=False).loop is False
    assert _made("generate", size="128x128", width=128).task == "generate"


def test_where_a_model_makes_several_sizes_what_is_widened_has_one() -> None:
    fields = CreateVideo(to="2:1", size="32x32")
    able = replace(MODEL, resizable=True, size_multiple=16)
    made = build_request("outpaint", fields, {"source": CLIP}, able, RequestLimits())
    assert made.size == (32, 32)  # type: ignore[attr-defined]
    wide, limits = CreateVideo(to="10:1", size="160x160"), RequestLimits(frame_pixels=100_000)
    with pytest.raises(ApiError, match="to: 1600x160 are 256000 pixels; at most 100000 are made"):
        build_request("outpaint", wide, {"source": CLIP}, able, limits)


def test_a_model_between_two_pictures_wants_both() -> None:
    able = replace(MODEL, last_frame_needed=True)
    with pytest.raises(ApiError, match=r"last_frame: m makes clips between two pictures; say what the clip ends with"):
        build_request("animate", CreateVideo(), {"source": PICTURE}, able, RequestLimits())
    files = {"source": PICTURE, "last": replace(PICTURE, path=Path("/somewhere/last.png"))}
    assert build_request("animate", CreateVideo(), files, able, RequestLimits()).last == "last.png"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("task", "source", "fields", "line"),
    [
        ("generate", None, {"strength": 0.5}, "strength: generate takes none; leave it out"),
        ("animate", PICTURE, {"style": "oil"}, "style 'oil': m has none of that name; choose one of flat, noto"),
        ("animate", None, {}, "animate: give what it starts from as input_reference"),
        ("generate", PICTURE, {}, "input_reference: generate takes none; leave it out"),
        ("restyle", PICTURE, {}, "restyle wants a clip; animate the picture first"),
        ("inpaint", CLIP, {}, "inpaint: say what may change, by either a mask or a box"),
        ("generate", None, {"size": "720x1280"}, "size: m makes clips of 128x128; leave it out"),
        ("outpaint", CLIP, {"to": "200:1"}, "to: 25600x128 are 3276800 pixels; at most 2100000 are made"),
        ("generate", None, {"size": "big"}, "size: give WIDTHxHEIGHT, or leave it out"),
        (
            "outpaint",
            CLIP,
            {"size": "9x9", "to": "1:1"},
            "size: that of outpaint follows from its source; leave it out",
        ),
        ("generate", None, {"seconds": "soon"}, "seconds: give a number above 0"),
        ("generate", None, {"seconds": 2, "num_frames": 32}, "seconds and num_frames are both given; leave one out"),
        ("generate", None, {"seconds": 60}, "960 frames are asked for; at most 480 are made"),
        ("animate", PICTURE, {"num_frames": 0}, "num_frames 0: choose 1 or more"),
        ("generate", None, {"fps": 200}, "200 frames a second are asked for; at most 90 are made"),
        ("interpolate", CLIP, {"factor": 4}, "96 frames a second are asked for; at most 90 are made"),
        ("interpolate", CLIP, {"factor": 100}, "4800 frames are asked for; at most 480 are made"),
        ("interpolate", CLIP, {"seconds": 1}, "seconds: interpolate takes none; leave it out"),
        ("extend", CLIP, {"num_frames": 480}, "512 frames are asked for; at most 480 are made"),
        ("generate", None, {"num_inference_steps": 251}, "num_inference_steps: give at most 250"),
        ("generate", None, {"prompt": "x" * 2001}, "prompt: give at most 2000 characters"),
        ("generate", None, {"background": "reddish"}, "'reddish' is no colour; give a name such as white, or #rrggbb"),
        ("generate", None, {"outline": 3}, "outline: that shapes stickers; give sticker, too, or leave it out"),
        ("generate", None, {"style": "flat", "lora": "flat"}, "lora: that is the same as style; give one of them"),
        ("generate", None, {"lora": {"flat": "x"}}, 'lora: give a name, or strengths such as {"flat": 0.7}'),
        ("generate", None, {"seed": -1}, "seed -1: choose a whole number from 0 to 2^63 - 1"),
    ],
)
def test_what_cannot_be_made_is_told_in_one_line(task: str, source: Taken | None, fields: dict, line: str) -> None:
    with pytest.raises(ApiError) as told:
        _made(task, source, **fields)
    assert str(told.value) == line
    first = line.partition(":")[0].partition(" ")[0]
    assert told.value.param == first or first not in CreateVideo.model_fields


def test_a_path_is_no_style() -> None:
    for name in ("../styles/flat", "/etc/passwd", "openlumiere/flat"):
        with pytest.raises(ApiError, match="has none of that name"):
            _made("generate", style=name)
