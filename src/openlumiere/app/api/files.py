"""Forms that hold one file, as the routes take them that read a clip and keep nothing of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, BinaryIO

from fastapi import Request
from starlette.datastructures import UploadFile

from .errors import ApiError


def one_file(example: str) -> dict[str, Any]:
    """Return what OpenAPI says of such a form."""
    file = {"type": "string", "format": "binary"}
    schema = {"type": "object", "required": ["file"], "properties": {"file": file}, "examples": [{"file": example}]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@asynccontextmanager
async def uploaded(http: Request, what: str) -> AsyncIterator[BinaryIO]:
    """Give the file of a form; it is closed afterwards.

    Args:
        what: it should be, for the message.

    Raises:
        ApiError: there is no form, or no file in it.
    """
    if not http.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(415, "send multipart/form-data with a file")
    async with http.form(max_files=1, max_fields=1) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise ApiError(400, f"file: give {what}", param="file")
        yield file.file
