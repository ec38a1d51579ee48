"""Keys: shown once, kept as hashes, ended for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from openlumiere.app.jobs.keys import Keys
from openlumiere.app.settings import Settings
from openlumiere.errors import LumiereError


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=str(tmp_path))


def test_a_key_opens_until_it_is_revoked(settings: Settings) -> None:
    keys = Keys(settings.store_url)
    key, secret = keys.add("Ada")
    other, _ = keys.add("Grace")
    found = keys.check(secret)
    assert found is not None
    assert (found.id, found.name) == (key.id, "Ada")
    assert keys.check(secret + "x") is None
    assert keys.check("") is None
    assert keys.check("\udcff") is None
    used = {known.name: known.used_at for known in keys.list()}
    assert used["Ada"] is not None
    assert used["Grace"] is None
    assert keys.revoke("Ada").revoked_at is not None
    assert keys.check(secret) is None
    assert [known.id for known in keys.list()] == [key.id, other.id]
    with pytest.raises(LumiereError, match="no key in use"):
        keys.revoke(key.id)
    keys.add("Ada")  # the name is free again


def test_nothing_on_the_disk_holds_a_key(settings: Settings) -> None:
    _, secret = Keys(settings.store_url).add("Ada")
    for path in settings.folder.iterdir():
        assert secret.encode() not in path.read_bytes()


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 101])
def test_names_are_checked(settings: Settings, name: str) -> None:
    with pytest.raises(LumiereError, match="needs a name"):
        Keys(settings.store_url).add(name)


def test_two_keys_of_one_name_are_refused(settings: Settings) -> None:
    keys = Keys(settings.store_url)
    keys.add("Ada")
    with pytest.raises(LumiereError, match="there is a key named 'Ada'"):
        keys.add("Ada")
