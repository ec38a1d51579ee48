"""What tests of the API share: the application in this process, finished clips without a model, users' files."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from openlumiere import web
from openlumiere.app.api.context import Context
from openlumiere.app.jobs.store import Job
from openlumiere.app.server import create_app
from openlumiere.app.settings import Settings
from openlumiere.generation.recipe import ModelIdentity, Recipe
from openlumiere.generation.requests import request_from_json
from openlumiere.video import write_clip

OURS = "http://127.0.0.1:8000"
TIGER = {"prompt": "a tiger walking to the left", "num_frames": 16, "seed": 7}


class Api:
    """The application, and a client on loopback."""

    def __init__(self, client: httpx.Client, app: FastAPI) -> None:
        self.client = client
        self.parts: Context = app.state.context

    def ask(self, **fields: Any) -> dict[str, Any]:
        """Ask for a clip by JSON; return its object."""
        answer = self.client.post("/v1/videos", json={**TIGER, **fields})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def refused(self, status: int = 400, **fields: Any) -> str:
        """Ask for a clip by JSON, and be refused; return the line."""
        answer = self.client.post("/v1/videos", json={**TIGER, **fields})
        return line_of(answer, status)

    def finish(self, id: str, *, alpha: bool = False, frames: int = 6, watermark: str = "") -> Job:
        """Do a worker's work: a clip of 32 x 32 pixels that gets brighter, as WebP alone, and the job's end."""
        job = self.parts.store.get(id)
        assert job is not None
        request = request_from_json({**job.request, "num_inference_steps": 2, "guidance_scale": 2.0})
        model = ModelIdentity(name=job.model, device="cpu", dtype="float32")
        recipe = Recipe(request=request, model=model, fps=8, watermark=watermark)
        with self.parts.uploads.workspace() as folder:
            path = write_clip(clip(frames, alpha=alpha), folder / "clip.webp", fps=8, metadata=recipe.metadata())
            self.parts.results.put(id, "clip.webp", path)
        self.parts.store.start(id, "worker", max_attempts=3)
        assert self.parts.store.finish(
            id, recipe=recipe.metadata(), width=32, height=32, num_frames=frames, fps=8.0, transparent=alpha,
            files=["clip.webp"],
        )  # fmt: skip
        done = self.parts.store.get(id)
        assert done is not None
        return done

    def check_tidy(self) -> None:
        """No user's file is left but in results."""
        assert list((self.parts.settings.folder / "uploads").iterdir()) == []


@contextmanager
def running(data: Path, *, base_url: str = OURS, **settings: Any) -> Iterator[Api]:
    """The application on a data folder."""
    app = create_app(Settings(data=str(data), **settings))
    with TestClient(app, base_url=base_url) as client:
        yield Api(client, app)


@contextmanager
def listening(data: Path, **settings: Any) -> Iterator[Api]:
    """The application on a socket, served by a thread of this process."""
    app, taken = create_app(Settings(data=str(data), **settings)), web.listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, args=([taken],))
    thread.start()
    try:
        with httpx.Client(base_url=web.address_of("127.0.0.1", taken).rstrip("/"), timeout=60) as client:
            yield Api(client, app)
    finally:
        server.should_exit = True
        thread.join()


def line_of(answer: Any, status: int = 400) -> str:
    """Check that an answer is an error of one line, in OpenAI's form; return the line."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "param", "type"}
    message: str = error["message"]
    assert message
    assert "\n" not in message
    assert "Traceback" not in message
    return message


def clip(frames: int = 6, size: int = 32, *, alpha: bool = False) -> np.ndarray:
    """A square clip that gets brighter; where it has alpha, its left half is transparent."""
    light = np.linspace(40, 250, frames)[:, None, None, None] * np.array([1, 0.7, 0.3])
    pixels = np.broadcast_to(light, (frames, size, size, 3)).astype(np.uint8)
    if not alpha:
        return pixels
    opaque = np.zeros((frames, size, size, 1), np.uint8)
    opaque[:, :, size // 2 :] = 255
    return np.concatenate([pixels, opaque], axis=-1)


def picture(kind: str = "PNG", *, size: tuple[int, int] = (48, 32), mode: str = "RGB", **options: Any) -> bytes:
    """A picture's file: dark on the left, light on the right."""
    across = np.tile(np.linspace(0, 255, size[0]).astype(np.uint8), (size[1], 1))
    file = io.BytesIO()
    Image.fromarray(across).convert(mode).save(file, kind, **options)
    return file.getvalue()


def clip_file(folder: Path, suffix: str = ".mp4", *, frames: int = 6, size: int = 32, fps: float = 8) -> bytes:
    """A clip's file."""
    return write_clip(clip(frames, size), folder / f"made{suffix}", fps=fps).read_bytes()
