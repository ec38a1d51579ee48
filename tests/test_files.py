"""Files are written whole or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
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


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_a_folder_takes_the_place_of_anything(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "model", tmp_path / "elsewhere"
    target.mkdir()
    (target / "kept").touch()
    {"file": path.touch, "folder": path.mkdir, "link": lambda: path.symlink_to(target)}[kind]()
    with files.replacing(path) as partial:
        partial.mkdir()
        (partial / "new").touch()
    assert not path.is_symlink()
    assert names(path) == ["new"]
    assert names(tmp_path) == ["elsewhere", "model"]
    assert names(target) == ["kept"]


def test_what_was_there_comes_back_if_renaming_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").touch()
    rename = os.replace

    def fail_once(source: Path, target: Path) -> None:
        if target == folder and not source.name.endswith(f".old{files.PARTIAL}"):
            raise PermissionError("no")
        rename(source, target)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(PermissionError), files.replacing(folder) as partial:
        partial.mkdir()
    assert names(folder) == ["old"]
    assert names(tmp_path) == ["model"]


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with files.replacing(path) as first, files.replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the last to end
    assert names(tmp_path) == ["a.txt"]


def test_long_names_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("🐯" * 62)  # 248 bytes of the 255 that file systems allow
    files.write_text(path, "x")
    assert names(tmp_path) == [path.name]


_KILLED = """
import os, sys
from openlumiere import files
with files.replacing(sys.argv[1], suffix=sys.argv[2]) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("suffix", ["", ".npy"])
def test_leftovers_of_killed_processes_are_known_and_removed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    subprocess.run([sys.executable, "-c", _KILLED, str(path), suffix], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".partial")  # what git ignores
    assert not list(tmp_path.glob("*.npy"))
    assert not path.exists()
    with files.replacing(tmp_path / "b", suffix=suffix) as mine:
        mine.touch()
        assert files.remove_leftovers(tmp_path) == [left]
        assert mine.exists()  # of a process that runs
    assert names(tmp_path) == ["b"]


def test_what_others_left_stays(tmp_path: Path) -> None:
    left = [
        ".a.0123ff-1-0.partial",  # another machine's
        f".a.{files._machine()}-{2**22 + 1}-0.old.partial",  # the only copy, perhaps
        "mine.partial",
    ]
    for name in left:
        (tmp_path / name).touch()
    assert files.remove_leftovers(tmp_path) == []
    assert names(tmp_path) == sorted(left)


def test_contents_are_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut leaves no empty file under a name that is taken for whole."""
    path, done = tmp_path / "model", []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(os.fstat(fd).st_ino), sync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("renamed"), rename(a, b)))
    with files.replacing(path) as partial:
        (partial / "part").mkdir(parents=True)
        (partial / "part" / "weights").write_text("x")
        (partial / "part" / "weights").chmod(0o444)
    wanted = [path / "part" / "weights", path / "part", path]
    assert done == [*(entry.stat().st_ino for entry in wanted), "renamed", tmp_path.stat().st_ino]


def test_suffix_for_libraries_that_look_at_it(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "a.npy", suffix=".npy") as partial:
        np.save(partial, np.arange(3))
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]
    assert names(tmp_path) == ["a.npy"]


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


@pytest.mark.parametrize("size", [0, 5, 40, 1000])
def test_a_sample_sees_changes_of_start_end_middle_and_size(size: int, tmp_path: Path) -> None:
    path, content = tmp_path / "a", bytes(size)

    def sample(data: bytes) -> str:
        path.write_bytes(data)
        return files.sampled_sha256(path, blocks=5, block=8)

    seen = [sample(content), sample(content + b"\0")]
    for at in sorted({0, size // 2, size - 1} & {*range(size)}):
        seen.append(sample(content[:at] + b"x" + content[at + 1 :]))
    assert len({*seen}) == len(seen)
    assert sample(content) == seen[0]


def test_errors_in_one_line() -> None:
    assert files.one_line(OSError("no\n such  file")) == "no such file"
    assert files.one_line(KeyError()) == "KeyError"
    assert len(files.one_line("x" * 999)) == 200
