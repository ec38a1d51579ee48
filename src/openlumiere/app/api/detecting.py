"""``/v1/detect``: whether a clip or picture was made here."""

from __future__ import annotations

from fastapi import APIRouter, Request

from .context import Owner, Parts
from .files import one_file, uploaded
from .schemas import Detected

router = APIRouter()


@router.post("/v1/detect", openapi_extra=one_file("clip.mp4"))
async def detect(http: Request, parts: Parts, owner: Owner) -> Detected:
    """Look for this server's watermark in a clip or picture, and check its content credentials; nothing is kept."""
    async with uploaded(http, "a clip or a picture") as file:
        with parts.uploads.workspace() as folder:
            return Detected(**await parts.uploads.detect(file, "file", folder, parts.identity))
