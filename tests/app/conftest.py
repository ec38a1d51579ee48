"""What tests of the application share: a tiny model of both stages, a running API, a server, its client, a browser.

Imports are late: tests of the store need no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import httpx
    from api_tools import Api

    from page_tools import Page, Server


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


@pytest.fixture(scope="module")
def models() -> dict[str, str]:
    """Names and folders of the models that `server` has beside the bundled one: none, unless a module says some."""
    return {}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models: dict[str, str]) -> Iterator[Server]:
    """Run `lumiere serve` with one worker, as a process."""
    from page_tools import Server

    running = Server(tmp_path_factory.mktemp("data"), models=tuple(models.values()))
    yield running
    running.end()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    """A client of that server."""
    import httpx

    with httpx.Client(base_url=server.address, timeout=60, trust_env=False) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Chromium, with no page open yet."""
    from page_tools import Page

    found = Page(tmp_path_factory.mktemp("browser"))
    yield found
    found.driver.quit()
