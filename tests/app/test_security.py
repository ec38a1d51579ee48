"""Who may ask: keys, cookies, addresses, other sites' pages, and how often."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from api_tools import TIGER, line_of, running

from openlumiere.app.api.security import COOKIE, Bucket, is_loopback, needs_key
from openlumiere.app.jobs.keys import Keys
from openlumiere.app.settings import RequestLimits, Settings

pytestmark = pytest.mark.slow


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_key_is_needed_off_loopback_and_sees_its_own_only(tmp_path: Path) -> None:
    with running(tmp_path, keys=True) as api:
        keys = Keys(api.parts.settings.store_url)
        (_, mine), (_, others) = keys.add("mine"), keys.add("others")
        client = api.client
        assert "give a key" in line_of(client.get("/v1/videos"), 401)
        assert line_of(client.get("/v1/videos", headers=_bearer("lumiere_wrong")), 401)
        assert line_of(client.post("/v1/videos", json=TIGER), 401)
        id = client.post("/v1/videos", json=TIGER, headers=_bearer(mine)).json()["id"]
        done = api.finish(id)
        for path in ("", "/content", "/content?format=webp", "/events", "/source", "/preview.webp"):
            assert line_of(client.get(f"/v1/videos/{id}{path}", headers=_bearer(others)), 404), path
            assert line_of(client.get(f"/v1/videos/{id}{path}"), 401), path
        changes = ("DELETE", ""), ("POST", "/cancel"), ("POST", "/restore"), ("POST", "/remix"), ("PUT", "/favourite")
        for method, path in changes:
            body = {"POST": {"prompt": "x"}, "PUT": {"favourite": True}}.get(method)
            assert line_of(client.request(method, f"/v1/videos/{id}{path}", json=body, headers=_bearer(others)), 404)
        stolen = client.post(
            "/v1/videos", json={**TIGER, "task": "restyle", "video_reference": id}, headers=_bearer(others)
        )
        assert "there is no finished video" in line_of(stolen)
        assert client.get("/v1/videos", headers=_bearer(others)).json()["data"] == []
        assert client.get(f"/v1/videos/{id}/content?format=webp", headers=_bearer(mine)).status_code == 200
        assert done.owner == keys.list()[0].id
        keys.revoke("mine")
        assert line_of(client.get(f"/v1/videos/{id}", headers=_bearer(mine)), 401)
        for path in ("/metrics", "/v1/videos/models"):
            assert line_of(client.get(path), 401)
        for path in ("/", "/page/style.css", "/healthz", "/v1/session"):
            assert client.get(path).status_code == 200


def test_the_page_gets_a_cookie_for_a_key(tmp_path: Path) -> None:
    with running(tmp_path, keys=True) as api:
        _, key = Keys(api.parts.settings.store_url).add("mine")
        client = api.client
        assert client.get("/v1/session").json()["signed_in"] is False
        assert line_of(client.post("/login", data={"key": "wrong"}), 401) == "that is no key of this server"
        assert line_of(client.post("/login"), 401)
        answer = client.post("/login", data={"key": key}, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert re.match(rf"{COOKIE}=", cookie)
        assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
        assert client.get("/v1/session").json()["signed_in"] is True
        assert client.post("/v1/videos", json=TIGER).status_code == 200
        client.post("/logout")
        assert client.get("/v1/session").json()["signed_in"] is False


def test_guessing_keys_is_slow(tmp_path: Path) -> None:
    with running(tmp_path, keys=True, requests=RequestLimits(wrong_keys_per_minute=3)) as api:
        _, key = Keys(api.parts.settings.store_url).add("mine")
        for _ in range(3):
            assert line_of(api.client.get("/v1/videos", headers=_bearer("guess")), 401)
        answer = api.client.get("/v1/videos", headers=_bearer("guess"))
        assert line_of(answer, 429) == "too many wrong keys; try again later"
        assert int(answer.headers["retry-after"]) > 0
        assert line_of(api.client.post("/login", data={"key": key}), 429)


def test_other_names_and_other_sites_are_refused(tmp_path: Path) -> None:
    with running(tmp_path) as api:
        for host in ("evil.example", "localhost.evil.example:8000", "127.0.0.1.evil.example", "", "[::1", "10.0.0.1"):
            assert line_of(api.client.get("/v1/videos", headers={"Host": host}), 403), host
        for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
            assert api.client.get("/v1/videos", headers={"Host": host}).status_code == 200, host
        for headers in (
            {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:9999"},
            {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
        ):  # fmt: skip
            assert "another site" in line_of(api.client.post("/v1/videos", json=TIGER, headers=headers), 403)
            assert line_of(api.client.post("/login", data={"key": "x"}, headers=headers), 403)
        ours = {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}
        assert api.client.post("/v1/videos", json=TIGER, headers=ours).status_code == 200
    with running(tmp_path, host="0.0.0.0", keys=False, hosts=("clips.example",)) as api:
        for host, status in (("10.0.0.1:8000", 200), ("clips.example", 200), ("evil.example", 403)):
            assert api.client.get("/v1/videos", headers={"Host": host}).status_code == status


def test_every_answer_has_the_headers_of_a_strict_page(tmp_path: Path) -> None:
    with running(tmp_path) as api:
        for answer in (
            api.client.get("/"), api.client.get("/v1/videos"), api.client.get("/nothing"), api.client.get("/healthz"),
            api.client.post("/v1/videos"), api.client.get("/", headers={"Host": "evil.example"}),
        ):  # fmt: skip
            headers = answer.headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
            assert "camera=()" in headers["permissions-policy"]
            assert "cache-control" in headers
            assert "access-control-allow-origin" not in headers


def test_addresses_that_need_a_key() -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.8.9.1"):
        assert is_loopback(host)
        assert not needs_key(Settings(data="x", host=host))
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        assert not is_loopback(host)
        assert needs_key(Settings(data="x", host=host))
        assert not needs_key(Settings(data="x", host=host, keys=False))


def test_buckets_fill_again() -> None:
    now = 0.0
    bucket = Bucket(60, clock=lambda: now)
    for _ in range(60):
        assert bucket.wait("a") == 0
        bucket.take("a")
    assert bucket.wait("a") == pytest.approx(1)
    assert bucket.wait("b") == 0
    now = 1.0
    assert bucket.wait("a") == pytest.approx(0, abs=1e-9)
    for name in range(20_000):
        bucket.take(str(name))
    now = 100.0
    for name in range(20_000):
        bucket.take(f"later {name}")
    assert len(bucket._left) == 20_000  # the first ones are forgotten
