"""What is known of licences: from model cards, of all parts; nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from openlumiere.generation.backends.licences import allows_commercial_use, licence_notes, licence_of
from openlumiere.generation.backends.source import Source


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("apache-2.0", True),
        ("cc-by-nc-4.0", False),
        ("stable-video-diffusion-nc-community", False),
        ("some-non-commercial-licence", False),
        ("stable-video-diffusion-community", None),
        ("", None),
        ("openrail++ + apache-2.0", True),
        ("apache-2.0 + cc-by-nc-4.0", False),
        ("apache-2.0 + unknown", None),
        ("unknown + cc-by-nc-4.0", False),
    ],
)
def test_commercial_use(licence: str, allowed: bool | None) -> None:
    assert allows_commercial_use(licence) is allowed
    assert bool(licence_notes(licence, allowed)) == (allowed is False)


def part(folder: Path, licence: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    if licence:
        (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n", encoding="utf-8")
    return folder


def test_each_part_has_its_say(tmp_path: Path) -> None:
    free, bound, silent = (part(tmp_path / name, name) for name in ("apache-2.0", "cc-by-nc-4.0", "mit"))
    (silent / "README.md").unlink()
    assert licence_of(Source(f"{free}+{bound}")) == "apache-2.0 + cc-by-nc-4.0"
    assert licence_of(Source(f"{free}+{free}")) == "apache-2.0"
    assert licence_of(Source(f"{free}+{silent}")) == "apache-2.0 + unknown"
    assert licence_of(Source(str(silent))) == ""


def test_known_repositories_need_no_card(tmp_path: Path) -> None:
    silent = part(tmp_path / "model", "")
    assert licence_of(Source(str(silent)), {str(silent): "mit"}) == "mit"
