"""A tiny model of both stages, saved once, and a running API. Imports are late: tests of the store need no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from api_tools import Api


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a pipeline on 16 x 16 pixels with a second stage: to read only."""
    from tiny import conditioned, saved

    return saved(conditioned(upscale=True), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Run the API on a real store; in the end nothing lies about."""
    from api_tools import running

    with running(tmp_path_factory.mktemp("data")) as found:
        yield found
        found.check_tidy()
