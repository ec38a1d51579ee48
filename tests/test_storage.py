"""Outputs in a folder or at an address: whole or not at all, found by name."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from batch_tools import Shelf
from openlumiere.errors import LumiereError
from openlumiere.files import PARTIAL, write_text
from openlumiere.storage import Storage


@pytest.fixture(params=["{}", "file://{}", "shelf://{}"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(request.param.format(tmp_path / "out"))


def test_what_is_put_is_found(storage: Storage, tmp_path: Path) -> None:
    storage.check()
    finder = storage.finder()
    assert not storage.exists("a.txt")
    assert not finder("a.txt")
    for name in ("a.txt", "deep/er/b.txt"):
        with storage.writing(name) as path:
            write_text(path, name)
    assert (tmp_path / "out" / "deep" / "er" / "b.txt").read_text() == "deep/er/b.txt"
    again = pickle.loads(pickle.dumps(storage))
    finder = again.finder()
    for found in (again.exists, finder):
        assert [found(name) for name in ("a.txt", "deep/er/b.txt", "b.txt", "deep/a.txt")] == [True, True, False, False]
    assert not list(tmp_path.rglob(f"*{PARTIAL}*"))


def test_what_fails_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="half"), storage.writing("a.txt"):
        raise ValueError("half of it")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_put_that_fails_says_where_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Shelf, source: str, target: str) -> None:
        raise OSError("the line is down")

    monkeypatch.setattr(Shelf, "mv", fail)
    storage = Storage(f"shelf://{tmp_path}/out/")
    told = r"cannot write shelf://.*/out/a\.txt: the line is down"
    with pytest.raises(LumiereError, match=told), storage.writing("a.txt") as path:
        write_text(path, "a")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_addresses_that_are_none() -> None:
    with pytest.raises(LumiereError, match="nowhere://x cannot be opened"):
        Storage("nowhere://x").check()
