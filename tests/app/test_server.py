"""The server's process: no PyTorch in it, no prompt in its log, one line where it can't start."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from api_tools import running
from serving import Serving

from openlumiere.app.jobs.keys import Keys
from openlumiere.app.server import serve
from openlumiere.app.settings import Settings
from openlumiere.errors import LumiereError

pytestmark = pytest.mark.slow


def test_the_server_imports_no_torch(tmp_path: Path) -> None:
    code = f"""
import sys
from fastapi.testclient import TestClient
from openlumiere.app.server import create_app
from openlumiere.app.settings import Settings
with TestClient(create_app(Settings(data={str(tmp_path)!r})), base_url="http://127.0.0.1") as client:
    assert client.post("/v1/videos", json={{"prompt": "a tiger", "style": "flat"}}).status_code == 200
    assert client.get("/v1/videos").json()["data"]
heavy = [name for name in sys.modules if name.partition(".")[0] in ("torch", "diffusers", "transformers")]
heavy += [name for name in sys.modules if name.startswith("openlumiere.cli")]
assert not heavy, heavy[:5]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_server_off_loopback_wants_a_key_first(tmp_path: Path) -> None:
    with pytest.raises(LumiereError, match="lumiere keys add NAME"):
        serve(Settings(data=str(tmp_path), host="0.0.0.0", port=0), workers=0)
    keys = Keys(Settings(data=str(tmp_path)).store_url)
    keys.add("gone")
    keys.revoke("gone")
    with pytest.raises(LumiereError, match="there is none"):
        serve(Settings(data=str(tmp_path), host="0.0.0.0", port=0), workers=0)


def test_it_stops_at_once_though_somebody_listens(tmp_path: Path) -> None:
    with (
        Serving(tmp_path, "--workers", "0") as server,
        server.http.stream("GET", "/v1/videos/events", timeout=30) as stream,
    ):
        assert stream.status_code == 200
        _, _, log = server.end(signal.SIGINT)
    assert "Traceback" not in log


def test_logs_tell_what_happened_without_prompts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "openlumiere"), running(tmp_path) as api:
        id = api.ask(prompt="a secret tiger")["id"]
        api.client.get("/v1/videos?search=secret")
        api.client.delete(f"/v1/videos/{id}")
    assert "POST /v1/videos 200" in caplog.text
    assert "DELETE /v1/videos/{id} 200" in caplog.text
    assert "secret" not in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "openlumiere"), running(tmp_path / "telling", log_prompts=True) as api:
        id = api.ask(prompt="a secret tiger")["id"]
    assert f"{id}: 'a secret tiger'" in caplog.text
