"""Files are written whole or not at all."""

import json
from pathlib import Path

import pytest

from openlumiere import files
from openlumiere.errors import LumiereError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_takes_its_place_when_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with files.replacing(path) as partial:
        partial.write_text("half")
        assert not path.exists()
        assert partial.parent == path.parent  # the same file system, so that renaming is atomic
    assert path.read_text() == "half"
    assert names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_was_there_survives_a_failure(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with files.replacing(path) as partial:
            partial.write_text("ne")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_folder_replaces_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for name in ("first", "second"):
        with files.replacing(folder) as partial:
            partial.mkdir()
            (partial / name).write_text(name)
    assert names(folder) == ["second"]
    assert names(tmp_path) == ["model"]


def test_leftovers_of_a_killed_process_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.partial_path(path).mkdir()
    files.write_text(path, "new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_suffix_for_libraries_that_look_at_it(tmp_path: Path) -> None:
    import numpy as np

    with files.replacing(tmp_path / "a.npy", suffix=".npy") as partial:
        np.save(partial, np.arange(3))
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"ä": [1, 2.5]})
    assert files.read_json(path) == {"ä": [1, 2.5]}
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, float("nan"))
    assert json.loads(path.read_text()) == {"ä": [1, 2.5]}
    path.write_text('{"cut')
    with pytest.raises(LumiereError, match=r"a\.json is missing or damaged .*; run it again") as caught:
        files.read_json(path, otherwise="run it again")
    assert "\n" not in str(caught.value)


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_errors_in_one_line() -> None:
    assert files.one_line(OSError("no\n such  file")) == "no such file"
    assert files.one_line(KeyError()) == "KeyError"
    assert len(files.one_line("x" * 999)) == 200
