"""Files of prompts: names, seeds and bad lines; a million lines in little memory."""

from __future__ import annotations

import pickle
import tracemalloc
from functools import partial
from pathlib import Path

import pytest

from openlumiere.errors import LumiereError
from openlumiere.generation.prompt_files import PromptFile
from openlumiere.generation.requests import GenerateRequest


def test_prompts_file_names_and_seeds_depend_on_the_line_alone(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(
        'a cat\n\n{"prompt": "a dog", "seed": 5, "output": "dog.webp", "negative_prompt": "red"}\na cat\n',
        encoding="utf-8",
    )
    template = partial(GenerateRequest, negative_prompt="grey")
    planned = list(PromptFile(path=file, template=template, seed=10).checked())
    assert [(job.prompt, job.negative_prompt, job.seed, job.output) for job in planned] == [
        ("a cat", "grey", 10, "00001-a-cat.mp4"),
        ("a dog", "red", 5, "dog.webp"),
        ("a cat", "grey", 13, "00004-a-cat.mp4"),
    ]
    twice = list(PromptFile(path=file, template=template, seed=10, count=2).checked())
    assert [job.seed for job in twice] == [10, 11, 5, 6, 16, 17]
    assert twice[0].output == "00001-a-cat-0.mp4"


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('{"prompt": ""}', "line 1: the prompt is empty"),
        ('{"seed": 3}', "line 1: the prompt is empty"),
        ('{"prompt": 3}', "prompt is not text"),
        ('{"prompt": "x", "sed": 1}', "'sed'"),
        ('{"prompt": "x", "seed": -1}', "-1"),
        ('{"prompt": "x", "seed": true}', "True"),
        ('{"prompt": "x", "output": "../x.mp4"}', "../x.mp4"),
        ('{"prompt": "x"', "JSON"),
        ('{"prompt": "x", "output": "a.mp4"}\n{"prompt": "y", "output": "a.mp4"}', "a.mp4"),
        ("", "no prompts"),
    ],
)
def test_bad_lines_of_prompts_are_named(line: str, word: str, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(line, encoding="utf-8")
    with pytest.raises(LumiereError, match=word.replace(".", r"\.")):
        list(PromptFile(path=file, template=GenerateRequest, seed=0).checked())


@pytest.mark.parametrize(
    "line",
    ['{"prompt": "x", "output": "./a.mp4"}', '{"prompt": "x", "output": "b/../a.mp4"}'],
)
def test_one_file_by_two_names(line: str, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(f'{{"prompt": "y", "output": "a.mp4"}}\n{line}', encoding="utf-8")
    with pytest.raises(LumiereError, match=r"a\.mp4"):
        list(PromptFile(path=file, template=GenerateRequest, seed=0).checked())


def test_lines_are_read_as_they_are_wanted(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\n" * 5000, encoding="utf-8")
    prompts = pickle.loads(pickle.dumps(PromptFile(path=file, template=GenerateRequest, seed=0)))
    next(iter(prompts))  # what is imported late
    tracemalloc.start()
    seeds = sum(request.seed or 0 for request in prompts.checked())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seeds == sum(range(5000))
    assert peak < 1e6  # a list of the requests takes many times as much
