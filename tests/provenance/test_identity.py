"""An installation's keys: made once, by whoever comes first, private, and never replaced."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from certificate_tools import Authority
from openlumiere.errors import LumiereError
from openlumiere.provenance import identity as identities
from openlumiere.provenance.identity import Identity

_FILES = ("watermark.key", "private_key.pem", "certificate.pem", "root.pem")
_LOAD_WHEN_TOLD = """
import sys, time
from pathlib import Path
from openlumiere.provenance.identity import Identity
folder, go = map(Path, sys.argv[1:])
print("ready", flush=True)
while not go.exists():
    time.sleep(0.01)
found = Identity.load(folder)
print(found.watermark_key.hex(), found.certificate.read_text().replace("\\n", ""))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "identity"


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_only_the_user_can_read_the_keys(folder: Path) -> None:
    before = os.umask(0)
    try:
        Identity.load(folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == dict.fromkeys(_FILES, 0o600)


def test_keys_are_made_once_and_differ_between_installations(folder: Path, tmp_path: Path) -> None:
    first = Identity.load(folder)
    contents = _contents(folder)
    assert Identity.load(folder) == first == Identity.find(folder)
    assert _contents(folder) == contents
    assert len(first.watermark_key) == 32
    assert 0 <= first.key_id < 256
    assert first.watermark_key.hex() not in repr(first)
    assert Identity.load(tmp_path / "other").watermark_key != first.watermark_key


def test_nothing_is_made_to_look_for_marks(folder: Path) -> None:
    assert Identity.find(folder) is None
    assert not folder.parent.exists()


def test_certificate_is_signed_by_the_root_and_names_nobody(folder: Path) -> None:
    found = Identity.load(folder)
    certificate, root = (x509.load_pem_x509_certificate(path.read_bytes()) for path in (found.certificate, found.root))
    certificate.verify_directly_issued_by(root)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert {name.value.split()[0] for name in certificate.subject} == {"openlumiere"}
    assert certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=365 * 20)


@pytest.mark.slow
def test_processes_at_first_use_agree(folder: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _LOAD_WHEN_TOLD, str(folder), str(go)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    go.touch()
    told = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(told) == 1
    assert Identity.load(folder).watermark_key.hex() in told.pop()
    assert [path.name for path in folder.parent.iterdir()] == ["identity"]


def test_who_comes_second_leaves_the_keys_alone(folder: Path) -> None:
    Identity.load(folder)
    before = _contents(folder)
    identities._make(folder)  # as a process does that found no folder a moment ago
    assert _contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["identity"]


@pytest.mark.parametrize("name", _FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "garbled"])
def test_damaged_files_are_one_line_and_stay(folder: Path, name: str, damage: str) -> None:
    Identity.load(folder)
    path = folder / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "garbled": b"\xff\x00" + data[2:]}[damage])
    before = _contents(folder)
    with pytest.raises(LumiereError, match=name) as told:
        Identity.load(folder)
    assert "\n" not in str(told.value)
    assert _contents(folder) == before


def test_keys_of_two_installations_do_not_mix(folder: Path, tmp_path: Path) -> None:
    Identity.load(folder)
    other = Identity.load(tmp_path / "other")
    (folder / "private_key.pem").write_bytes(other.private_key.read_bytes())
    with pytest.raises(LumiereError, match="belong together"):
        Identity.load(folder)


def test_no_place_for_keys_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LumiereError, match=r"no keys could be made in .*set LUMIERE_HOME to a folder"):
        Identity.load(tmp_path / "file" / "identity")


def test_where_keys_are_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LUMIERE_HOME", str(tmp_path / "home"))
    assert identities.default_folder() == tmp_path / "home" / "identity"
    monkeypatch.delenv("LUMIERE_HOME")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert identities.default_folder() == tmp_path / "config" / "openlumiere" / "identity"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert identities.default_folder() == Path.home() / ".config" / "openlumiere" / "identity"


def test_a_user_without_a_home_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("LUMIERE_HOME")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(LumiereError, match="set LUMIERE_HOME"):
        Identity.load()


# ------------------------------------------------------------------------------------------------ an operator's own


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def _use(monkeypatch: pytest.MonkeyPatch, certificate: Path | None, private_key: Path | None) -> None:
    for name, path in (("LUMIERE_CERTIFICATE", certificate), ("LUMIERE_PRIVATE_KEY", private_key)):
        monkeypatch.setenv(name, str(path or ""))


def test_operators_certificate_is_used(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, authority: Authority
) -> None:
    certificate, private_key = authority.issue(tmp_path)
    _use(monkeypatch, certificate, private_key)
    found = Identity.load(folder)
    assert (found.certificate, found.private_key) == (certificate, private_key)
    assert found.watermark_key == Identity.load(folder).watermark_key


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"days": -1}, "renew it"),
        ({"usable": False}, "C2PA asks for"),
        ({"password": b"secret"}, "has a password"),
    ],
)
def test_operators_certificate_that_cannot_sign_is_known_at_once(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, authority: Authority, how: dict, message: str
) -> None:
    _use(monkeypatch, *authority.issue(tmp_path, **how))
    with pytest.raises(LumiereError, match=message) as told:
        Identity.load(folder)
    assert "\n" not in str(told.value)


def test_operators_certificate_without_its_key(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, authority: Authority
) -> None:
    certificate, private_key = authority.issue(tmp_path)
    _use(monkeypatch, certificate, None)
    with pytest.raises(LumiereError, match="both LUMIERE_CERTIFICATE and LUMIERE_PRIVATE_KEY"):
        Identity.load(folder)
    _use(monkeypatch, tmp_path / "none.pem", private_key)
    with pytest.raises(LumiereError, match=r"none\.pem can't be read"):
        Identity.load(folder)
