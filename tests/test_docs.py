"""The documents: every file that they name exists, lines have one width."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("configs/*.md"), *ROOT.glob("benchmarks/*.md")]
FILES = {
    f"/{path.relative_to(ROOT).as_posix()}"
    for folder in ("src", "tests", "docs", "configs", "benchmarks", "deploy", "examples", ".ci", "models")
    for path in (ROOT / folder).rglob("*")
} | {f"/{path.name}" for path in ROOT.iterdir()}
# History: what these name may be gone.
PRESENT = [path for path in DOCUMENTS if path.name not in ("CHANGELOG.md", "training-log.md")]
WIDTH = 120


def prose(document: Path) -> list[str]:
    """Lines outside of fenced code."""
    parts = re.split(r"^```.*?^```$", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [line for part in parts for line in part.splitlines()]


@pytest.mark.parametrize("document", PRESENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(document: Path) -> None:
    """By any ending of their path: `loop.py`, `training/loop.py`; links from where the document lies."""
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w./-])((?:[\w-]+/)*\w[\w-]*\.(?:py|md|yaml))\b", re.sub(r"\w+://\S+", "", text))
    made = {"report.md", "config.yaml"}  # by commands, not here
    assert not [name for name in named if name not in made and not any(file.endswith(f"/{name}") for file in FILES)]
    links = re.findall(r"\]\((?!\w+:)([^)#]+)\)", text)
    assert not [link for link in links if not (document.parent / link).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_have_one_width(document: Path) -> None:
    """Tables aside, and what cannot be broken."""
    wide = [line for line in prose(document) if len(line) > WIDTH and not line.lstrip().startswith("|")]
    assert not [line for line in wide if " " in line.strip("-* ")]
