"""A tiny model, made once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model's folder: to read only."""
    from comparison_tools import tiny_model

    folder: Path = tmp_path_factory.mktemp("models") / "tiny"
    return str(tiny_model(folder))
