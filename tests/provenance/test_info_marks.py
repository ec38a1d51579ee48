"""What `lumiere info` says of a clip's content credentials and watermark."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from openlumiere.cli import main
from openlumiere.provenance import Payload
from openlumiere.provenance.credentials import sign
from openlumiere.provenance.identity import Identity
from openlumiere.provenance.marking import Marker
from openlumiere.video import read_clip, write_clip

_ROCKET = Path(__file__).parents[2] / "docs" / "images" / "gallery" / "generate.out.webp"
_NOISE = np.random.default_rng(0).random((4, 48, 64, 3), dtype=np.float32)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Identity:
    """The keys of an installation of this test."""
    monkeypatch.setenv("LUMIERE_HOME", str(tmp_path / "home"))
    return Identity.load()


def _info(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main(["info", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_nothing_is_said_of_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LUMIERE_HOME", str(tmp_path / "home"))
    path = write_clip(_NOISE, tmp_path / "clip.webp")
    told = _info(capsys, path)
    assert "content credentials: none\n" in told
    assert "watermark: not looked for, as this installation has no key yet\n" in told
    assert not (tmp_path / "home").exists()


def test_credentials_are_shown(own: Identity, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_clip(_NOISE, tmp_path / "source.mp4")
    path = write_clip(_NOISE, tmp_path / "clip.mp4")
    sign(path, own, model="emoji", edited=source, placed=["first.png"])
    told = _info(capsys, path, "--no-watermark")
    assert "; this installation\n" in told
    assert "model emoji\n" in told
    assert "opened, edited, placed\n" in told
    assert "source.mp4 (edited), first.png (placed)\n" in told
    assert "made by a model" in told
    assert "watermark" not in told


def test_changes_since_are_shouted(own: Identity, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_clip(_NOISE, tmp_path / "clip.webp")
    sign(path, own)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "CHANGED SINCE IT WAS SIGNED" in _info(capsys, path, "--no-watermark")
    said = json.loads(_info(capsys, path, "--no-watermark", "--json"))
    assert (said["credentials"]["state"], said["watermark"]) == ("changed", None)


def test_strangers_need_an_anchor(own: Identity, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stranger = Identity.load(tmp_path / "stranger")
    path = write_clip(_NOISE, tmp_path / "clip.gif")
    sign(path, stranger)
    assert "not trusted here" in _info(capsys, path, "--no-watermark")
    assert "; trusted\n" in _info(capsys, path, "--no-watermark", "--anchors", stranger.root)
    assert main(["info", str(path), "--anchors", str(tmp_path / "none.pem")]) == 2
    assert "none.pem can't be read" in capsys.readouterr().err


def test_a_damaged_key_does_not_hide_the_rest(
    own: Identity, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_clip(_NOISE, tmp_path / "clip.gif")
    (own.root.parent / "watermark.key").write_text("damaged")
    told = _info(capsys, path)
    assert "4 frames of 64x48 pixels" in told
    assert "watermark: not looked for: " in told
    assert "watermark.key is no watermark key" in told


@pytest.mark.slow
def test_watermark_is_held_against_the_credentials(
    own: Identity, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = read_clip(_ROCKET)
    mark = Marker(own).of({"model": "emoji", "prompt": "a rocket"})
    path = write_clip(mark.put_into(clip.frames), tmp_path / "clip.webp", fps=clip.fps)
    mark.sign(path)
    assert ", as the credentials say\n" in _info(capsys, path)
    sign(path, own, soft_binding=Payload(model=1, version=2, month=3, key_id=4))
    said = json.loads(_info(capsys, path, "--json"))
    assert said["credentials"]["soft_binding"]["model"] == 1
    assert said["watermark"]["payload"]["model"] == "emoji"
