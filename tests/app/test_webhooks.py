"""Webhooks: signed as any receiver checks them, to listed addresses only, tried again, and never forgotten."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from openlumiere.app.jobs import webhooks
from openlumiere.app.jobs.store import Store
from openlumiere.app.jobs.webhooks import Webhooks
from openlumiere.app.settings import Limits, Settings
from openlumiere.generation.requests import GenerateRequest

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Receiver(ThreadingHTTPServer):
    """Notes what it is told, and answers with the statuses that it is given, 204 afterwards."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.heard: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int] = []

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.heard.append((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 204)
        self.send_header("location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def settings(tmp_path: Path, receiver: Receiver) -> Settings:
    addresses = (receiver.url("/a"), receiver.url("/b"))
    return Settings(data=str(tmp_path), webhooks=addresses, webhook_secret=SECRET)


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store(settings.store_url, webhooks=settings.webhooks)


def ended(store: Store, *, fails: bool = False, callback: str | None = None) -> str:
    request = GenerateRequest(prompt="a secret tiger").to_json()
    job = store.add(request=request, model="emoji", limits=Limits(), callback_url=callback)
    assert store.start(job.id, "w", max_attempts=3)
    if fails:
        assert store.fail(job.id, "invalid_request", "a secret reason")
    else:
        assert store.finish(
            job.id, recipe={}, width=8, height=8, num_frames=8, fps=16.0, transparent=False, files=["clip.webp"]
        )
    return job.id


def make_due(settings: Settings) -> None:
    with sqlite3.connect(settings.folder / "jobs.sqlite") as connection:
        connection.execute("UPDATE deliveries SET next_at = 0")


def waiting(settings: Settings) -> int:
    with sqlite3.connect(settings.folder / "jobs.sqlite") as connection:
        return int(connection.execute("SELECT count(*) FROM deliveries").fetchone()[0])


def test_every_listed_address_is_told_once_and_can_check_who_tells(
    settings: Settings, store: Store, receiver: Receiver
) -> None:
    id = ended(store)
    assert Webhooks(settings).send_due() == 2
    assert sorted(path for path, _, _ in receiver.heard) == ["/a", "/b"]
    _, headers, body = receiver.heard[0]
    told = Webhook(SECRET).verify(body, headers)
    assert (told["type"], told["object"], told["data"]["id"]) == ("video.completed", "event", id)
    assert told["id"] == headers["webhook-id"]
    assert abs(told["created_at"] - time.time()) < 60
    assert b"secret" not in body
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 32).verify(body, headers)
    assert Webhooks(settings).send_due() == 0
    assert waiting(settings) == 0


def test_failures_are_told_to_the_address_that_the_request_names(
    settings: Settings, store: Store, receiver: Receiver
) -> None:
    id = ended(store, fails=True, callback=receiver.url("/b"))
    assert Webhooks(settings).send_due() == 1
    ((path, _, body),) = receiver.heard
    told = json.loads(body)
    assert (path, told["type"], told["data"]["id"]) == ("/b", "video.failed", id)
    assert told["data"]["error"] == {"code": "invalid_request"}
    assert b"secret" not in body


def test_calls_that_fail_are_made_again_later_and_given_up_in_the_end(
    settings: Settings, store: Store, receiver: Receiver
) -> None:
    receiver.answers = [500, 302]
    ended(store, callback=receiver.url("/a"))
    caller = Webhooks(settings)
    assert caller.send_due() == 0
    assert caller.send_due() == 0  # not yet due
    assert len(receiver.heard) == 1
    make_due(settings)
    assert caller.send_due() == 0
    assert [path for path, _, _ in receiver.heard] == ["/a", "/a"]  # redirections are not followed
    assert len({headers["webhook-id"] for _, headers, _ in receiver.heard}) == 1
    make_due(settings)
    assert caller.send_due() == 1
    ended(store, callback=receiver.url("/a"))
    receiver.answers = [500] * 20
    for _ in range(len(webhooks._PAUSES) + 1):
        assert waiting(settings) == 1
        make_due(settings)
        caller.send_due()
    assert waiting(settings) == 0


def test_nobody_answers(settings: Settings, store: Store, receiver: Receiver) -> None:
    ended(store, callback=receiver.url("/a"))
    receiver.server_close()
    assert Webhooks(settings).send_due() == 0
    assert waiting(settings) == 1


def test_an_address_that_is_listed_no_more_is_not_called(
    settings: Settings, store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    ended(store)
    fewer = Settings(data=str(tmp_path), webhooks=(receiver.url("/b"),), webhook_secret=SECRET)
    assert Webhooks(fewer).send_due() == 1
    assert [path for path, _, _ in receiver.heard] == ["/b"]
    assert waiting(settings) == 0


def test_two_workers_make_each_call_once(settings: Settings, store: Store, receiver: Receiver) -> None:
    for _ in range(5):
        ended(store)
    callers = [threading.Thread(target=Webhooks(settings).send_due) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    ids = [headers["webhook-id"] for _, headers, _ in receiver.heard]
    assert len(ids) == len(set(ids)) == 10


def test_without_addresses_nothing_is_noted(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path))
    ended(Store(settings.store_url))
    assert waiting(settings) == 0
    assert Webhooks(settings).send_due() == 0
