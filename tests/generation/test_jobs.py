"""Which prompts, seeds and files one command makes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openlumiere.generation import jobs
from openlumiere.generation.prompt_files import PromptFile
from openlumiere.generation.requests import GenerateRequest, Sticker, UpscaleRequest

text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda words: bool(words.strip()))


@settings(deadline=None)
@given(text)
def test_slug_is_a_plain_file_name(prompt: str) -> None:
    name = jobs.slug(prompt)
    assert 0 < len(name) <= 60
    assert Path(name).name == name
    assert "." not in name
    assert not name.startswith("-")


@pytest.mark.parametrize(
    ("prompt", "asks"),
    [
        ("a tiger on a transparent background", True),
        ("a tiger, no background", True),
        ("A tiger Without any background", True),
        ("a tiger without a backdrop", True),
        ("a tiger on a green background", False),
        ("a transparent jellyfish on a blue background", False),
        ("", False),
    ],
)
def test_prompts_may_ask_for_transparency(prompt: str, asks: bool) -> None:
    assert jobs.asks_for_transparency(prompt) == asks


@pytest.mark.parametrize(
    ("prompt", "transparent", "sticker", "suffix"),
    [
        ("a cat on a transparent background", None, None, ".webp"),
        ("a cat on a transparent background", False, None, ".mp4"),
        ("a cat", None, None, ".mp4"),
        ("a cat", True, None, ".webp"),
        ("a cat", None, Sticker(target="telegram"), ".webm"),
    ],
)
def test_clips_get_a_format_that_holds_them(
    prompt: str, transparent: bool | None, sticker: Sticker | None, suffix: str, tmp_path: Path
) -> None:
    template = partial(GenerateRequest, transparent=transparent, sticker=sticker, seed=0)
    (job,) = jobs.from_prompt(template(prompt=prompt))
    assert Path(job.output).suffix == suffix
    (tmp_path / "prompts.txt").write_text(prompt, encoding="utf-8")
    (job,) = PromptFile(path=tmp_path / "prompts.txt", template=template)
    assert (Path(job.output).suffix, job.transparent) == (suffix, transparent)
    (job,) = jobs.from_prompt(template(prompt=prompt, output="a.mp4"))
    assert job.output == "a.mp4"


def test_names_from_the_prompt_replace_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = []
    for _ in range(3):
        (job,) = jobs.from_prompt(GenerateRequest(prompt="A cat!"))
        Path(job.output).touch()
        names.append(job.output)
    assert names == ["a-cat.mp4", "a-cat-v2.mp4", "a-cat-v3.mp4"]


def test_names_of_sharper_clips_replace_nothing(tmp_path: Path) -> None:
    """Bug 17: `upscale` took a name that was taken."""
    request = UpscaleRequest(source=str(tmp_path / "a.webp"))
    names = []
    for _ in range(2):
        names.append(jobs.sharp_name(request))
        Path(names[-1]).touch()
    assert [Path(name).name for name in names] == ["a.sharp.webp", "a.sharp-v2.webp"]
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames.sharp").mkdir()
    assert jobs.sharp_name(UpscaleRequest(source=f"{tmp_path}/frames/")) == f"{tmp_path}/frames.sharp-v2/"
