"""A small server of ``/v1/videos`` on a real socket that fails as it is told to, and counts what it was asked for."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from api_tools import clip, clip_file

from openlumiere.app.api.objects import model as model_object
from openlumiere.generation.abilities import Abilities
from openlumiere.video import write_clip

LAMP = Abilities(
    model="lamp", tasks=("generate", "animate", "restyle", "upscale"), width=32, height=32, num_frames=8, fps=8,
    transparent=True, num_inference_steps=3, guidance_scale=2.0, licence="cc-by-nc-4.0", commercial=False,
)  # fmt: skip


def clear() -> np.ndarray:
    """A clip with alpha."""
    frames = clip(8, alpha=True)
    frames[:, 8:24, 20:28, 3] = 128
    return frames


def ours(folder: Path, *, alpha: bool = False, **options: Any) -> FailingServer:
    """A server that says what it can do, takes idempotency keys, and gives lossless clips."""
    frames = clear() if alpha else clip(8)
    content = write_clip(frames, folder / "theirs.webp", fps=8, lossless=True).read_bytes()
    told = json.loads(model_object(LAMP, default=True).model_dump_json(exclude={"id", "default"}))
    return FailingServer((content, "image/webp"), model=told, **{"idempotent": True, **options})


def others(folder: Path, **options: Any) -> FailingServer:
    """A server that says nothing, as vLLM-Omni and SGLang."""
    return FailingServer((clip_file(folder, frames=8), "video/mp4"), **options)


class FailingServer:
    """A server, as a block that it lives in.

    Args:
        content: of every clip, with its type.
        model: what `GET /v1/videos/models` says of the only model; None = there is no such address, as of others'
            servers.
        idempotent: whether it takes an ``Idempotency-Key``.
        echoes: whether clips tell the request's ``user``.
        polls: how often a clip is asked for before it is done.

    Attributes:
        failures: what happens to the next requests, by method: "cut" before anything is read, "lose" the answer after
            the work is done, "hang" after it, "half" of the content, or a status with which it is refused, such as
            429.
        jobs: the clips by id, each with the fields that it was asked for.
        seen: method and path of each request.
    """

    def __init__(
        self,
        content: tuple[bytes, str],
        *,
        model: dict[str, Any] | None = None,
        idempotent: bool = False,
        echoes: bool = False,
        polls: int = 2,
    ) -> None:
        self.content, self.model, self.idempotent, self.echoes, self.polls = content, model, idempotent, echoes, polls
        self.failures: dict[str, list[str | int]] = {"GET": [], "POST": [], "CONTENT": []}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.status = "completed"  # how clips end
        self._keys: dict[str, str] = {}
        self._stopping = threading.Event()
        self._start(0)

    def _start(self, port: int) -> None:
        server = self

        class Handler(_Handler):
            outer = server

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def die(self) -> None:
        """Stop listening, at once."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def come_back(self) -> None:
        """Listen on the same port again; the clips are still known."""
        self._start(self._http.server_address[1])

    def __enter__(self) -> FailingServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.die()

    def posts(self) -> int:
        """How often a clip was asked for."""
        return self.seen.count("POST /v1/videos")

    def create(self, fields: dict[str, Any], key: str) -> dict[str, Any]:
        if self.idempotent and key in self._keys:
            return self.video(self._keys[key])
        id = f"video_{len(self.jobs)}"
        self.jobs[id] = {"fields": fields, "polled": 0, "created_at": int(time.time()), "cancelled": False}
        self._keys[key] = id
        return self.video(id)

    def video(self, id: str) -> dict[str, Any]:
        job = self.jobs[id]
        status = "failed" if job["cancelled"] else self.status if job["polled"] >= self.polls else "in_progress"
        error = {"code": "x", "message": "out of lamps"} if status == "failed" else None
        told = {"id": id, "object": "video", "status": status, "progress": 10, "error": error}
        echoed = {"user": job["fields"].get("user")} if self.echoes else {}
        return {**told, **echoed, "created_at": job["created_at"]}

    def hang(self) -> None:
        self._stopping.wait(30)


class _Handler(BaseHTTPRequestHandler):
    outer: FailingServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        outer, path = self.outer, self.path.partition("?")[0]
        outer.seen.append(f"GET {path}")
        outer.headers.append(dict(self.headers))
        failure = self._failure("CONTENT" if path.endswith("/content") else "GET" if "/video_" in path else "")
        if failure == "cut":
            return self._cut()
        if path == "/v1/videos/models" and outer.model is not None:
            data = [{"id": "lamp", "default": True, **outer.model}]
            return self._answer(200, {"object": "list", "data": data, "idempotency": outer.idempotent})
        if path == "/v1/models":
            return self._answer(200, {"data": [{"id": "lamp"}]})
        if path == "/v1/videos":
            return self._answer(200, {"data": [outer.video(id) for id in reversed(outer.jobs)]})
        found = re.fullmatch(r"/v1/videos/(video_\d+)(/content)?", path)
        if found is None or found[1] not in outer.jobs:
            return self._answer(404, {"detail": "Not Found"})
        if found[2]:
            return self._send_content(half=failure == "half")
        outer.jobs[found[1]]["polled"] += 1
        if failure == "hang":
            return outer.hang()
        if isinstance(failure, int):
            return self._answer(failure, {"error": {"message": "not now"}})
        return self._answer(200, outer.video(found[1]))

    def do_POST(self) -> None:
        outer, path = self.outer, self.path
        outer.seen.append(f"POST {path}")
        outer.headers.append(dict(self.headers))
        if path.endswith("/cancel"):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            outer.jobs[path.split("/")[3]]["cancelled"] = True
            return self._answer(200, {})
        failure = self._failure("POST")
        if failure == "cut":
            return self._cut()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if isinstance(failure, int):
            again = {"Retry-After": "1"} if failure in (429, 503) else {}
            return self._answer(failure, {"error": {"message": "not now"}}, again)
        made = outer.create(_fields(body), self.headers.get("Idempotency-Key", ""))
        if failure == "lose":
            return self._cut()
        if failure == "hang":
            return outer.hang()
        return self._answer(200, made)

    def do_DELETE(self) -> None:
        self.outer.seen.append(f"DELETE {self.path}")
        self.outer.jobs[self.path.split("/")[3]]["cancelled"] = True
        self._answer(200, {"deleted": True})

    def _failure(self, kind: str) -> str | int | None:
        waiting = self.outer.failures.get(kind)
        return waiting.pop(0) if waiting else None

    def _cut(self) -> None:
        """Reset the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _answer(self, status: int, told: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_content(self, *, half: bool) -> None:
        body, kind = self.outer.content
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if half else body)
        if half:
            self.wfile.flush()
            self.close_connection = True

    def finish(self) -> None:
        with suppress(OSError, ValueError):  # it was cut
            super().finish()

    def log_message(self, *_: object) -> None:
        pass


def _fields(body: bytes) -> dict[str, Any]:
    """Fields of a form, and the bytes of its files."""
    found: dict[str, Any] = {}
    boundary = body.partition(b"\r\n")[0]  # a key may begin with its first two bytes
    for part in body.split(b"\r\n" + boundary):
        named = re.search(rb'name="([^"]+)"(; filename=)?.*?\r\n\r\n(.*)', part, re.DOTALL)
        if named:
            found[named[1].decode()] = named[3] if named[2] else named[3].decode()
    return found
