"""Content credentials: signed into every format that has a place for them, and checked against what happens later."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import openlumiere
from certificate_tools import Authority
from openlumiere.errors import LumiereError
from openlumiere.provenance import Payload
from openlumiere.provenance.credentials import Ingredient, check, room, sign
from openlumiere.provenance.identity import Identity
from openlumiere.video import read_clip, read_metadata, write_clip

_FORMATS = (".mp4", ".mov", ".webp", ".gif", ".apng", ".png")  # .png: a contact sheet
_RECIPE = {"prompt": "a tiger", "seed": 7}
_PAYLOAD = Payload(model=300, version=10, month=82, key_id=171)
_NOISE = np.random.default_rng(0).random((6, 48, 64, 3), dtype=np.float32)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Identity.load(tmp_path_factory.mktemp("home") / "identity")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Identity.load(tmp_path_factory.mktemp("stranger") / "identity")


Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a clip of noise with a recipe, larger than its credentials."""

    def written(name: str) -> Path:
        return write_clip(_NOISE, tmp_path / name, fps=8, metadata=_RECIPE)

    return written


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)) if path.suffix == ".png" else read_clip(path).frames


def _flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", _FORMATS)
def test_signed_files_keep_pixels_and_recipe(write: Write, identity: Identity, suffix: str) -> None:
    path = write(f"clip{suffix}")
    pixels, size = _pixels(path), path.stat().st_size
    assert check(path, identity=identity) is None
    assert sign(path, identity, model="emoji", soft_binding=_PAYLOAD)
    np.testing.assert_array_equal(_pixels(path), pixels)
    assert read_metadata(path) == _RECIPE
    assert 0 < path.stat().st_size - size < 4000
    found = check(path, identity=identity)
    assert found is not None
    assert (found.state, found.problem, found.signed_here) == ("trusted", "", True)
    assert found.signer.startswith("openlumiere installation ")
    assert found.generator == f"openlumiere {openlumiere.__version__}"
    assert (found.model, found.soft_binding, found.ai_generated) == ("emoji", _PAYLOAD, True)
    assert found.actions == ("c2pa.created", "c2pa.watermarked.bound")
    assert found.ingredients == ()
    assert found.when is not None
    assert abs(datetime.now(UTC) - found.when) < timedelta(minutes=10)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", _FORMATS)
def test_a_changed_byte_of_the_clip_is_noticed(write: Write, identity: Identity, suffix: str) -> None:
    path = write(f"clip{suffix}")
    sign(path, identity)
    _flip(path, path.stat().st_size // 2)
    found = check(path, identity=identity)
    assert found is not None
    assert (found.state, found.problem) == ("changed", "changed since it was signed")
    assert not found.signed_here


def test_changed_recipe_and_changed_credentials_are_noticed(write: Write, identity: Identity) -> None:
    for name, old, new in (("recipe", b"a tiger", b"a panda"), ("model", b"my-model", b"no-model")):
        path = write(f"{name}.webp")
        sign(path, identity, model="my-model")
        data = path.read_bytes()
        assert data.count(old) == 1
        path.write_bytes(data.replace(old, new))
        found = check(path, identity=identity)
        assert found is not None
        assert found.state == "changed"


def test_credentials_that_make_no_sense_are_invalid(write: Write, identity: Identity) -> None:
    path = write("clip.webp")
    sign(path, identity)
    _flip(path, path.read_bytes().index(b"jumd"))
    found = check(path, identity=identity)
    assert found is not None
    assert found.state == "invalid"
    assert "damaged" in found.problem
    assert "\n" not in found.problem


def test_a_file_written_anew_has_none(write: Write, identity: Identity, tmp_path: Path) -> None:
    path = write("clip.webp")
    sign(path, identity)
    Image.open(path).save(tmp_path / "again.webp", save_all=True)
    assert check(tmp_path / "again.webp", identity=identity) is None


def test_signing_again_replaces_the_credentials(write: Write, identity: Identity, stranger: Identity) -> None:
    path = write("clip.mp4")
    sign(path, stranger, model="theirs")
    once = path.stat().st_size
    sign(path, identity, model="theirs")
    found = check(path, identity=identity)
    assert found is not None
    assert found.signed_here
    assert abs(path.stat().st_size - once) < 100


# ------------------------------------------------------------------------------------------------ whom to trust


def test_trust_is_this_installation_or_an_anchor(
    write: Write, identity: Identity, stranger: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("clip.mp4")
    sign(path, stranger)
    anchors = tmp_path / "anchors"
    anchors.mkdir()
    (anchors / "them.pem").write_bytes(stranger.root.read_bytes())
    (anchors / "us.pem").write_bytes(identity.root.read_bytes())
    told = {
        name: check(path, which, identity=who)
        for name, which, who in (
            ("nobody", [], None),
            ("own", [], identity),
            ("wrong", [identity.root], None),
            ("leaf", [stranger.certificate], None),  # an authority is needed
            ("file", [stranger.root], identity),
            ("folder", [anchors], identity),
        )
    }
    states = {name: found and (found.state, found.signed_here) for name, found in told.items()}
    assert states == {
        **dict.fromkeys(("nobody", "own", "wrong", "leaf"), ("untrusted", False)),
        **dict.fromkeys(("file", "folder"), ("trusted", False)),
    }
    monkeypatch.setenv("LUMIERE_HOME", str(tmp_path))  # beside whose keys these anchors are
    found = check(path)
    assert found is not None
    assert found.state == "trusted"


def test_operators_own_certificate_signs(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identity: Identity
) -> None:
    authority = Authority()
    certificate, private_key = authority.issue(tmp_path)
    monkeypatch.setenv("LUMIERE_CERTIFICATE", str(certificate))
    monkeypatch.setenv("LUMIERE_PRIVATE_KEY", str(private_key))
    operator = Identity.load(identity.root.parent)
    path = write("clip.gif")
    sign(path, operator)
    found = check(path, [authority.write(tmp_path / "authority.pem")], identity=operator)
    assert found is not None
    assert (found.state, found.signed_here, found.signer) == ("trusted", False, "Studio")


@pytest.mark.parametrize("kind", ["missing", "junk", "empty folder"])
def test_bad_anchors_are_one_line(write: Write, tmp_path: Path, kind: str) -> None:
    path, anchor = write("clip.gif"), tmp_path / "anchor.pem"
    if kind == "junk":
        anchor.write_text("junk")
    if kind == "empty folder":
        anchor.mkdir()
    with pytest.raises(LumiereError, match=r"anchor\.pem") as told:
        check(path, [anchor])
    assert "\n" not in str(told.value)


# ------------------------------------------------------------------------------------------------ made from


def test_edits_name_what_they_were_made_from(write: Write, identity: Identity, tmp_path: Path) -> None:
    source, picture, broken = write("source.mp4"), tmp_path / "first.jpg", tmp_path / "broken.mp4"
    sign(source, identity)
    Image.new("RGB", (8, 8)).save(picture)
    broken.write_bytes(source.read_bytes()[:900])
    path = write("edit.webp")
    sign(path, identity, model="emoji", edited=source, placed=[picture, broken, tmp_path / "frames"])
    found = check(path, identity=identity)
    assert found is not None
    assert found.state == "trusted"
    assert found.actions == ("c2pa.opened", "c2pa.edited", *["c2pa.placed"] * 3)
    assert found.ai_generated
    assert found.model == "emoji"
    assert found.ingredients == (
        Ingredient(title="source.mp4", relation="parentOf"),
        *(Ingredient(title=name, relation="componentOf") for name in ("first.jpg", "broken.mp4", "frames")),
    )


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".apng"])
def test_room_is_what_credentials_take(write: Write, identity: Identity, suffix: str) -> None:
    source, path = write("source.webp"), write(f"clip{suffix}")
    sign(source, identity, model="emoji", soft_binding=_PAYLOAD)
    before = path.stat().st_size
    needed = room(path, identity, model="emoji", edited=source, soft_binding=_PAYLOAD)
    sign(path, identity, model="emoji", edited=source, soft_binding=_PAYLOAD)
    assert needed - 400 < path.stat().st_size - before <= needed


# ------------------------------------------------------------------------------------------------ what can't be


def test_formats_without_a_place_stay_as_they_are(write: Write, identity: Identity) -> None:
    film, frames = write("clip.webm"), write("frames/")
    before = film.read_bytes()
    assert not sign(film, identity)
    assert not sign(frames, identity)
    assert room(film, identity) == room(frames, identity) == 0
    assert film.read_bytes() == before
    assert check(film, identity=identity) is None
    assert check(frames, identity=identity) is None


@pytest.mark.parametrize("suffix", _FORMATS)
def test_what_cannot_be_signed_stays_as_it_was(tmp_path: Path, identity: Identity, suffix: str) -> None:
    path = tmp_path / f"junk{suffix}"
    path.write_bytes(b"junk" * 100)
    with pytest.raises(LumiereError, match=r"junk.*can't be signed") as told:
        sign(path, identity)
    assert "\n" not in str(told.value)
    assert path.read_bytes() == b"junk" * 100
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    with pytest.raises(LumiereError, match="can't be read for credentials"):
        check(path)


def test_missing_files_are_one_line(tmp_path: Path, identity: Identity) -> None:
    with pytest.raises(LumiereError, match=r"none\.mp4 can't be signed \(No such file"):
        sign(tmp_path / "none.mp4", identity)
    with pytest.raises(LumiereError, match="does not exist"):
        check(tmp_path / "none.mp4")
