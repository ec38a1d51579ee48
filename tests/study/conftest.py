"""A small study, made once a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from openlumiere.study.pairs import Study, create_study
from study_tools import PROMPTS, folder_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of two baselines, one without the question of the text."""
    root = tmp_path_factory.mktemp("made")
    ours = folder_of(root / "ours")
    others = {"Pika": folder_of(root / "pika"), "SVD": folder_of(root / "svd", PROMPTS[:2])}
    return create_study(
        ours, others, root / "study", no_text_question=["SVD"], pairs_per_rater=3, checks=2, progress=False
    )


@pytest.fixture
def study(made: Study) -> Iterator[Study]:
    """The same, without answers."""
    yield made
    for path in made.folder.glob("answers*"):
        path.unlink()
