"""A classifier of the operator's own, asked over HTTP as OpenAI's moderation endpoint is.

It is a process of its own: in any language, with what it needs, and with a time limit that holds whatever it does. Its
form is ``POST {"input": [{"type": "text", "text"}, {"type": "image_url", "image_url": {"url": "data:…"}}]}``, one
picture at most, and ``{"results": [{"flagged": true, "categories": {"violence": true}}]}``. Another form, another
status than 200, or none in time is no answer: see `NoAnswer`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

import openlumiere
from openlumiere.errors import LumiereError
from openlumiere.files import one_line


class NoAnswer(LumiereError):  # noqa: N818 - what it gave
    """The classifier did not say whether something is allowed."""


class Classifier:
    """Asks an address.

    Args:
        address: http or https, that texts and pictures are sent to.
        key: sent as ``Authorization: Bearer``; "" = none.
        seconds: for all that belongs to one request.

    Raises:
        LumiereError: no such address.
    """

    def __init__(self, address: str, *, key: str = "", seconds: float = 10.0) -> None:
        if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
            raise LumiereError(f"classifier {address!r}: give an address such as http://127.0.0.1:9000/v1/moderations")
        if not seconds > 0:
            raise LumiereError(f"classifier: {seconds} seconds; give more than 0")
        self._address, self._seconds = address, seconds
        self._headers = {"user-agent": f"openlumiere/{openlumiere.__version__}"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"

    async def flagged(self, text: str, pictures: Sequence[Path] = ()) -> str | None:
        """Return the categories that a text or a picture is flagged for, "flagged" without any; None = it is not.

        Args:
            text: may be empty.
            pictures: JPEG files, each asked about with the text.

        Raises:
            NoAnswer: the classifier failed, or took too long.
        """
        said: list[Any] = [{"type": "text", "text": text}] if text else []
        asked = [[*said, _part(await asyncio.to_thread(path.read_bytes))] for path in pictures] or [said]
        if not asked[0]:
            return None
        try:
            async with asyncio.timeout(self._seconds):
                async with httpx.AsyncClient(timeout=self._seconds, trust_env=False, headers=self._headers) as client:
                    found = [await self._ask(client, each) for each in asked]
        except Exception as error:  # whatever it is, nobody said that it is allowed
            reason = f"nothing in {self._seconds:g} s" if isinstance(error, TimeoutError) else one_line(error)
            # Of the address only the host: the rest may hold a secret.
            raise NoAnswer(f"{urlsplit(self._address).hostname}: {reason}") from error
        return next(filter(None, found), None)

    async def _ask(self, client: httpx.AsyncClient, parts: list[Any]) -> str | None:
        answer = await client.post(self._address, json={"input": parts})
        if answer.status_code != 200:
            raise ValueError(f"status {answer.status_code}")
        results = answer.json()["results"]
        if not results or not all(isinstance(result["flagged"], bool) for result in results):
            raise ValueError("its answer has no results that say whether they are flagged")
        names = sorted({
            name for result in results if result["flagged"]
            for name, is_so in (result.get("categories") or {}).items() if is_so is True
        })  # fmt: skip
        return ", ".join(names) or "flagged" if any(result["flagged"] for result in results) else None


def _part(jpeg: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"}}
