"""The note inside files: written and read back in every format, and never trusted."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from clips import FORMATS, METADATA, encode, moving
from openlumiere.errors import LumiereError
from openlumiere.video import read_clip, read_metadata, write_clip
from openlumiere.video.metadata import Note, read_note


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_metadata_survives_in_every_format(tmp_path: Path, name: str) -> None:
    path = write_clip(moving(), f"{tmp_path}/{name}", metadata=METADATA)
    assert read_metadata(path) == METADATA
    assert read_metadata(write_clip(moving(), f"{tmp_path}/{name}")) == {}
    assert len(list(tmp_path.iterdir())) == 1


def test_foreign_files_have_no_metadata(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.gif", comment=b"made by hand")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "c.gif", comment=b'{"metadata": 1}')
    encode(tmp_path / "d.mp4", moving(), comment="[1, 2]")
    for path in tmp_path.iterdir():
        assert read_metadata(path) == {}


@pytest.mark.parametrize("name", FORMATS)
def test_the_note_says_rate_and_length(tmp_path: Path, name: str) -> None:
    path = write_clip(moving(9), f"{tmp_path}/{name}", fps=12.5, metadata=METADATA)
    assert read_note(path) == Note(12.5, 9, METADATA)


@pytest.mark.parametrize(
    "note",
    [
        '{"fps": 16, "num_frames": Infinity, "metadata": {}}',
        '{"fps": 16, "num_frames": -3, "metadata": {}}',
        '{"fps": Infinity, "num_frames": 1, "metadata": {"seed": 1}}',
        '{"fps": 1e9, "num_frames": 100000000, "metadata": {}}',
        '{"fps": NaN, "num_frames": 1, "metadata": {"seed": 1}}',
        "[" * 100_000,
        "[1]",
        "3",
    ],
)
@pytest.mark.parametrize("name", ["a.apng", "a.gif", "a.webp"])
def test_notes_that_no_writer_of_ours_leaves_are_passed_over(tmp_path: Path, name: str, note: str) -> None:
    chunk = PngImagePlugin.PngInfo()
    chunk.add_itxt("Comment", note)
    xmp = f'<a xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:li>{note}</rdf:li></a>'
    kind = {"a.apng": "PNG", "a.gif": "GIF", "a.webp": "WEBP"}[name]
    Image.new("RGB", (8, 8), "red").save(tmp_path / name, kind, pnginfo=chunk, comment=note.encode(), xmp=xmp.encode())
    assert read_note(tmp_path / name) == Note()
    assert read_clip(tmp_path / name).frames.shape == (1, 8, 8, 3)


def test_broken_xmp_of_others_does_not_spoil_a_picture(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp", xmp=b"<x:xmpmeta")
    assert read_metadata(tmp_path / "a.webp") == {}
    assert read_clip(tmp_path / "a.webp").frames.shape == (1, 8, 8, 3)


def test_a_broken_note_of_a_folder_is_named(tmp_path: Path) -> None:
    write_clip(moving(3), f"{tmp_path}/frames/", fps=8)
    (tmp_path / "frames" / "metadata.json").write_bytes(b"\xff\xfe{")
    for read in (read_clip, read_metadata):
        with pytest.raises(LumiereError, match=r"frames/metadata.json is corrupt or no note .*; replace it"):
            read(tmp_path / "frames")
