"""Requests as plain data: what they refuse, and their way through JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given, settings

from openlumiere.errors import LumiereError
from openlumiere.generation.requests import (
    TASKS,
    AnimateRequest,
    CinemagraphRequest,
    GenerateRequest,
    InpaintRequest,
    OutpaintRequest,
    Request,
    Sticker,
    request_from_json,
)
from strategies import REQUESTS


@pytest.mark.slow
@settings(deadline=None)
@given(REQUESTS)
def test_requests_survive_json(request: Request) -> None:
    assert request_from_json(json.loads(json.dumps(request.to_json()))) == request


def test_what_is_left_out_has_its_default() -> None:
    assert request_from_json({"task": "generate", "prompt": "a cat"}) == GenerateRequest(prompt="a cat")
    cinemagraph = request_from_json({"task": "cinemagraph", "source": "a.png", "box": [0, 0, 1, 1]})
    assert cinemagraph == CinemagraphRequest(source="a.png", box=(0.0, 0.0, 1.0, 1.0))
    assert cinemagraph.loop


def test_requests_are_frozen_and_say_what_they_are() -> None:
    request = GenerateRequest(prompt="a cat")
    with pytest.raises(FrozenInstanceError):
        request.seed = 3  # type: ignore[misc]
    assert {task: kind.task for task, kind in TASKS.items()} == {task: task for task in TASKS}
    assert len(TASKS) == 9


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "unknown task None"),
        ({"task": "dream", "prompt": "x"}, "unknown task 'dream'"),
        ({"task": "generate", "prompt": "x", "sed": 3}, "generate: unknown key 'sed'"),
        ({"task": "generate", "prompt": "x", "source": "a.png"}, "unknown key 'source'"),
        ({"task": "animate"}, "animate: source is missing"),
        ({"task": "generate", "prompt": 3}, "generate: prompt: 3 is not text"),
        ({"task": "generate", "prompt": "x", "seed": "7"}, "seed: '7' is not a whole number"),
        ({"task": "generate", "prompt": "x", "seed": True}, "seed: True is not a whole number"),
        ({"task": "generate", "prompt": "x", "seed": 2**63}, "2^63 - 1"),
        ({"task": "generate", "prompt": "x", "loop": 1}, "loop: 1 is not true or false"),
        ({"task": "generate", "prompt": "x", "fps": float("nan")}, "not a finite number"),
        ({"task": "generate", "prompt": "x", "styles": [["flat"]]}, "styles: ['flat'] is not a list of the right"),
        ({"task": "generate", "prompt": "x", "path": [[0.5, 2.0]]}, "outside the frame"),
        ({"task": "generate", "prompt": "x", "sticker": {"target": "slack", "size": 3}}, "sticker: unknown key 'size'"),
        ({"task": "animate", "source": "a.png", "fit": "squash"}, "not one of crop, pad, stretch"),
    ],
)
def test_bad_json_is_one_line(data: dict[str, Any], says: str) -> None:
    with pytest.raises(LumiereError) as error:
        request_from_json(data)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (GenerateRequest, {"prompt": " "}, "prompt is empty"),
        (GenerateRequest, {"prompt": "x", "num_frames": 0}, "num_frames 0: choose 1 or more"),
        (GenerateRequest, {"prompt": "x", "fps": 0.0}, "a number above 0"),
        (GenerateRequest, {"prompt": "x", "styles": (("flat", 1.0), ("flat", 0.5))}, "same style twice"),
        (AnimateRequest, {"source": "a.png", "feather": -1}, "feather -1"),
        (InpaintRequest, {"source": "a.mp4"}, "either a mask or a box"),
        (InpaintRequest, {"source": "a.mp4", "mask": "m.png", "box": (0.0, 0.0, 1.0, 1.0)}, "either a mask or a box"),
        (InpaintRequest, {"source": "a.mp4", "box": (0.0, 0.0, 0.0, 1.0)}, "above 0"),
        (OutpaintRequest, {"source": "a.mp4", "to": (16, 0)}, "16:9"),
        (Sticker, {"target": "slack", "outline": -1}, "outline -1"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_at_once(kind: Any, values: dict[str, Any], says: str) -> None:
    with pytest.raises(LumiereError, match=says):
        kind(**values)


def test_requests_import_nothing_heavy() -> None:
    code = (
        "import sys, openlumiere.generation.jobs, openlumiere.generation.models; "
        "sys.exit(', '.join({'torch', 'numpy', 'av', 'PIL', 'argparse', 'tqdm'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
