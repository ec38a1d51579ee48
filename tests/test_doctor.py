"""`lumiere doctor`: which extras are missing, and what each is for."""

from __future__ import annotations

from importlib import metadata

import pytest

from openlumiere import doctor
from openlumiere.extras import MODULES


def test_missing_extras_are_named_with_what_they_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version

    def without_fastapi(name: str) -> str:
        if name == "fastapi":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without_fastapi)
    report = doctor.Report()
    doctor._extras(report)
    line = next(line for line in report.missing if line.startswith("extra app"))
    assert (
        line
        == "extra app (fastapi): for the server, assistants and the preference study: pip install 'openlumiere[app]'"
    )
    assert report.can_generate


def test_every_extra_that_users_install_is_reported() -> None:
    report = doctor.Report()
    doctor._extras(report)
    told = {line.split()[1] for line in [*report.lines, *report.missing]}
    assert told == {extra for extra, _ in MODULES.values()}
