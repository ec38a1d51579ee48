"""A tiny model of both stages, saved once. Imports are late: tests of the store need no torch."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a pipeline on 16 x 16 pixels with a second stage: to read only."""
    from tiny import conditioned, saved

    return saved(conditioned(upscale=True), tmp_path_factory.mktemp("model"))
