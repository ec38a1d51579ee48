"""A tiny model, and comparisons with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tiny
from openlumiere.comparison.entries import Entry, Options, with_defaults
from openlumiere.comparison.plan import Plan, make_plan
from openlumiere.comparison.prompts import read_shots
from openlumiere.generation.backends.base import Loading

PROMPTS = ("a red ball", "two blue kites")
LOADING = Loading(device="cpu")
FAST = Options(num_frames=8, num_inference_steps=2)


def tiny_model(folder: Path) -> Path:
    """Save a model that also takes pictures, of 16 x 16 pixels."""
    return tiny.saved(tiny.conditioned(), folder)


def prompt_file(folder: Path, prompts: Sequence[str] = PROMPTS) -> Path:
    path = folder / "prompts.txt"
    path.write_text("".join(f"{prompt}\n" for prompt in prompts), encoding="utf-8")
    return path


def plan_of(
    folder: Path, *entries: Entry, of_all: Options = FAST, prompts: Sequence[str] = PROMPTS, seeds: int = 1
) -> Plan:
    shots = read_shots(prompt_file(folder, prompts), seeds=seeds)
    return make_plan(folder / "out", with_defaults(entries, of_all), shots)


def ages(folder: Path) -> dict[str, int]:
    """When each clip was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}
