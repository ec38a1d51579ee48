"""`lumiere serve` and `lumiere keys` from the outside: processes, signals, requests by HTTP."""

from __future__ import annotations

import runpy
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from serving import Serving, lumiere

from openlumiere.cli import main
from openlumiere.video import read_clip

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_a_server_that_is_stopped_and_started_again_finds_its_jobs(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = tmp_path / "data", ("--model", str(tiny_model))
    with Serving(data, *model) as server:
        done = server.ask("a tiger walking to the left", seed=5)
        assert server.until(done, "completed", "failed")["status"] == "completed"
        first = server.content(done, format="webp")
        (tmp_path / "clip.webp").write_bytes(first)
        assert len(read_clip(tmp_path / "clip.webp").frames) == 16
        begun = server.ask("a lion", num_frames=480, num_inference_steps=250)
        behind = server.ask("a tiger walking to the left", seed=5)
        server.until(begun, "in_progress")
        assert server.end(signal.SIGTERM) == (0, "", "")

    with Serving(data, *model) as server:
        assert server.content(done, format="webp") == first
        assert [video["id"] for video in server.http.get("/v1/videos").json()["data"]] == [behind, begun, done]
        server.until(begun, "in_progress")
        assert server.http.post(f"/v1/videos/{begun}/cancel").status_code == 200
        assert server.until(begun, "failed")["error"]["code"] == "cancelled"
        server.until(behind, "completed")
        (tmp_path / "behind.webp").write_bytes(server.content(behind, format="webp"))
        np.testing.assert_array_equal(*(read_clip(tmp_path / name).frames for name in ("clip.webp", "behind.webp")))
        monkeypatch.setattr(sys, "argv", ["openai_client", "a lion", str(tmp_path / "lion.mp4"), server.url, "16"])
        runpy.run_path(str(EXAMPLES / "openai_client.py"), run_name="__main__")
        assert len(read_clip(tmp_path / "lion.mp4").frames) == 16
        assert len(server.http.get("/v1/videos").json()["data"]) == 4  # the remix is deleted
        code, stdout, stderr = server.end(signal.SIGINT)
        assert (code, stdout, stderr) == (130, "", "lumiere: interrupted\n")
    assert list((data / "work").iterdir()) == []


def test_keys_open_a_server_and_revoked_ones_do_not(tmp_path: Path) -> None:
    assert lumiere("keys", "list", "--data", tmp_path).stdout.startswith("there are no keys")
    made = lumiere("keys", "add", "alice", "--data", tmp_path)
    key = made.stdout.removesuffix("\n")
    assert key.startswith("lumiere_")
    assert "alice" in made.stderr
    assert "\n" not in key
    again = lumiere("keys", "add", "alice", "--data", tmp_path)
    assert (again.returncode, again.stdout, again.stderr.count("\n")) == (2, "", 1)
    with Serving(tmp_path, "--keys", "--workers", "0", key=key) as server:
        assert server.http.get("/v1/videos").status_code == 200
        assert server.http.get("/v1/videos", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert "alice" in lumiere("keys", "list", "--data", tmp_path).stdout
        assert key not in lumiere("keys", "list", "--data", tmp_path).stdout
        assert lumiere("keys", "revoke", "alice", "--data", tmp_path).returncode == 0
        assert server.http.get("/v1/videos").status_code == 401
        server.end(signal.SIGTERM)
    assert "revoked" in lumiere("keys", "list", "--data", tmp_path).stdout
    missing = lumiere("keys", "revoke", "bob", "--data", tmp_path)
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "192.0.2.1"], "lumiere keys add"),
        (["--host", "192.0.2.1", "--no-keys"], "cannot listen on 192.0.2.1"),
        (["--host", "no.such.name.invalid", "--no-keys"], "cannot listen on no.such.name.invalid"),
        (["--keys"], "lumiere keys add"),
        (["--port", "70000"], "a port, 0 to 65535"),
        (["--model", "nothing"], "unknown model 'nothing'"),
        (["--queue-limit", "0"], "1 or more"),
        (["--database-url", "mysql://host/name"], "postgresql://"),
        (["--database-url", "postgresql://lumiere@127.0.0.1:1/lumiere"], "cannot use the database"),
        (["--webhook", "ftp://host/"], "http or https"),
        (["--webhook", "https://example.org/"], "secret"),
        (["--results", "nowhere://bucket"], "nowhere"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(
    tmp_path: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["serve", "--port", "0", "--data", str(tmp_path), *words])
    except SystemExit as exit_:  # of the parser
        code = exit_.code
    stdout, stderr = capsys.readouterr()
    assert (code, stdout, stderr.count("\n")) == (2, "", 1), stderr
    assert stderr.startswith("lumiere: error: ")
    assert told in stderr
