"""Files of jobs, in a folder and at fsspec addresses."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from openlumiere.app.jobs.results import Results
from openlumiere.errors import LumiereError

JOB, OTHER = "video_" + "a" * 22, "video_" + "-b_" * 7 + "b"


@pytest.fixture(params=["folder", "file", "memory"])
def results(request: pytest.FixtureRequest, tmp_path: Path) -> Results:
    addresses = {
        "folder": str(tmp_path / "results"), "file": f"file://{tmp_path / 'results'}",
        "memory": f"memory://{secrets.token_hex(4)}/clips",
    }  # fmt: skip
    return Results(addresses[request.param])


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "made.webp"
    path.write_bytes(b"a clip")
    return path


def test_files_are_put_found_read_and_removed(results: Results, clip: Path) -> None:
    assert results.names(JOB) == []
    assert not results.exists(JOB, "clip.webp")
    results.put(JOB, "clip.webp", clip)
    results.put(JOB, "sticker-telegram.webm", clip)
    results.put(OTHER, "clip.webp", clip)
    assert results.names(JOB) == ["clip.webp", "sticker-telegram.webm"]
    assert results.exists(JOB, "clip.webp")
    assert results.fetch(JOB, "clip.webp").read_bytes() == b"a clip"
    assert results.size(JOB, "clip.webp") == 6
    with results.open(JOB, "clip.webp") as file:
        file.seek(2)
        assert file.read() == b"clip"
    clip.write_bytes(b"another")
    results.put(JOB, "clip.webp", clip)
    assert results.fetch(JOB, "clip.webp").read_bytes() == b"another"
    results.remove(JOB, "sticker-telegram.webm")
    results.remove(JOB, "sticker-telegram.webm")
    assert results.names(JOB) == ["clip.webp"]
    results.remove(JOB)
    results.remove(JOB)
    assert results.names(JOB) == []
    assert results.names(OTHER) == ["clip.webp"]


def test_a_missing_file_is_one(results: Results) -> None:
    for look in (results.fetch, results.open, results.size):
        with pytest.raises(FileNotFoundError):
            look(JOB, "clip.webp")


def test_copies_go_into_the_folder_that_is_named(results: Results, clip: Path, tmp_path: Path) -> None:
    results.put(JOB, "source.webp", clip)
    path = results.fetch(JOB, "source.webp", tmp_path / "copies")
    assert path.read_bytes() == b"a clip"
    if not results.is_local:
        assert path == tmp_path / "copies" / "source.webp"


def test_a_file_that_cannot_be_read_leaves_nothing(results: Results, tmp_path: Path, clip: Path) -> None:
    results.put(JOB, "clip.webp", clip)
    with pytest.raises(FileNotFoundError):
        results.put(JOB, "clip.webp", tmp_path / "missing")
    assert results.names(JOB) == ["clip.webp"]
    assert results.fetch(JOB, "clip.webp").read_bytes() == b"a clip"


@pytest.mark.parametrize(
    ("job", "name"),
    [(JOB, "../x"), (JOB, ".hidden"), (JOB, "a/b"), (JOB, ""), ("..", "x"), ("video_x", "x"), (JOB + "/..", "x")],
)
def test_names_lead_nowhere_else(results: Results, clip: Path, job: str, name: str) -> None:
    for look in (
        lambda: results.put(job, name, clip),
        lambda: results.fetch(job, name),
        lambda: results.exists(job, name),
    ):
        with pytest.raises(LumiereError, match="no job's id"):
            look()


def test_an_address_that_nothing_can_open_is_one_clear_line() -> None:
    with pytest.raises(LumiereError, match="results at nowhere://x"):
        Results("nowhere://x")
