"""The web page that raters use: FastAPI under uvicorn.

A rater's address holds a token that nobody guesses, and writing also needs the cookie that came with it: who is shown
the address of another's session sees that it is taken. Inside Mechanical Turk's frame, where browsers keep no
cookies, the token alone counts. Neither addresses nor visits are logged.
"""

from __future__ import annotations

import hmac
from html import escape
from pathlib import Path
from string import Template
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

from fastapi import Cookie, Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, Field

from openlumiere import web
from openlumiere.errors import LumiereError

from .answers import Answers, Rater, Showing, Turk, digest, questions_left
from .pairs import QUESTIONS, Study

_PAGE = Path(__file__).parent / "page"
_COOKIE = "lumiere-study"
Secret = Annotated[str, Cookie(alias=_COOKIE, max_length=100)]
_LARGEST_BODY = 4096  # bytes: an answer has about 200
_SECONDS_A_QUESTION = 20  # to look and choose, for the time that the first page tells
_TURK_HOST = "mturk.com"
_PREVIEW = "ASSIGNMENT_ID_NOT_AVAILABLE"  # Mechanical Turk's word for a worker who only looks
_HEADERS = {
    **web.HEADERS,
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; img-src 'self' data:; base-uri 'none'; "
    f"form-action 'self' https://*.{_TURK_HOST}; frame-ancestors 'self' https://*.{_TURK_HOST}",
}


class Answer(BaseModel):
    """What the page sends."""

    pair: str = Field(max_length=64)
    question: str = Field(max_length=16)
    choice: Literal["left", "right"]
    seconds: float = Field(ge=0, le=86400, allow_inf_nan=False)


def create_app(study: Study, answers: Answers) -> FastAPI:
    """Make the pages and their interface; see the module's text for who may write what."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    clips = {name for pair in (*study.pairs, *study.checks) for name in (pair.ours, pair.other)}

    app.add_middleware(web.Guard, headers=_HEADERS, largest_body=_LARGEST_BODY)

    @app.exception_handler(LumiereError)
    def explain(request: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error)}, status_code=400)

    @app.get("/")
    def landing(request: Request) -> Response:
        try:
            turk = _turk(request.query_params)
        except LumiereError as error:
            return _message(study, str(error), status=400)
        preview = request.query_params.get("assignmentId") == _PREVIEW
        count = sum(len(pair.questions) for pair in study.pairs) / len(study.pairs) * study.pairs_per_rater
        minutes = (count + len(study.checks)) * _SECONDS_A_QUESTION / 60
        fields = {f"turk_{key}": value for key, value in vars(turk).items()} if turk else {}
        return _html(
            "index.html",
            title=study.title,
            pairs=study.shown,
            minutes=max(round(minutes), 1),
            fields="".join(f'<input type="hidden" name="{key}" value="{escape(fields[key])}">' for key in fields),
            disabled="disabled" if preview else "",
            note="This is a preview. Accept the HIT to begin." if preview else "",
        )

    @app.post("/join")
    async def join(request: Request) -> Response:
        form = {key: values[0] for key, values in parse_qs((await request.body()).decode("utf-8", "replace")).items()}
        try:
            turk = _turk({key.removeprefix("turk_"): value for key, value in form.items()}, names=_FORM)
            token, secret = await run_in_threadpool(answers.join, turk)
        except LumiereError as error:
            return _message(study, str(error), status=403)
        response = RedirectResponse(f"/s/{token}", status_code=303)
        if secret is not None:
            response.set_cookie(
                _COOKIE, secret, max_age=30 * 86400, path=f"/s/{token}", httponly=True, samesite="strict",
                secure=request.url.scheme == "https",
            )  # fmt: skip
        return response

    def session(token: str, secret: Secret = "") -> Rater:
        rater = answers.rater(token)
        if rater is None:
            raise HTTPException(404, "There is no such session.")
        if rater.secret is not None and not hmac.compare_digest(rater.secret, digest(secret)):
            raise HTTPException(403, "This session belongs to another browser. Please begin one of your own.")
        return rater

    signed_in = Depends(session)

    @app.get("/s/{token}")
    def rate(token: str, secret: Secret = "") -> Response:
        try:
            session(token, secret)
        except HTTPException as error:
            return _message(study, error.detail, status=error.status_code)
        return _html("rate.html", title=study.title)

    @app.get("/s/{token}/next")
    def following(rater: Rater = signed_in) -> dict[str, Any]:
        return _state(answers, rater)

    @app.post("/s/{token}/answers")
    def answer(given: Answer, rater: Rater = signed_in) -> Response:
        kept = answers.record(rater.id, given.pair, given.question, given.choice, given.seconds)
        # The same answer again is no conflict: the page sends it until it hears that it has arrived.
        return JSONResponse({"kept": kept}, status_code=200 if kept == given.choice else 409)

    @app.get("/clips/{name}")
    def clip(name: str) -> Response:
        if name not in clips:
            raise HTTPException(404, "There is no such clip.")
        headers = {"Cache-Control": "private, max-age=86400, immutable"}
        return FileResponse(study.clip(name), media_type="video/mp4", headers=headers)

    @app.get("/page/{name}")
    def static(name: str) -> Response:
        file = None if name.endswith(".html") else web.page_file(_PAGE, name)  # those are forms to be filled in
        if file is None:
            raise HTTPException(404, "There is no such file.")
        return file

    return app


def _state(answers: Answers, rater: Rater) -> dict[str, Any]:
    """What the page is to show now."""
    showings = answers.showings(rater.id)
    waiting = [shown for shown in showings if len(shown.answered) < len(shown.pair.questions)]
    state: dict[str, Any] = {"total": len(showings), "left": questions_left(showings)}
    if not waiting:
        turk = {"assignment": rater.assignment, "submit_to": rater.submit_to} if rater.submit_to else None
        return {**state, "done": True, "code": answers.code(rater.id), "turk": turk}
    shown = waiting[0]
    pair = shown.pair
    asked = next(question for question in pair.questions if question not in shown.answered)
    return {
        **state, "done": False, "position": shown.position + 1, "pair": pair.id, "clips": _addresses(shown),
        "aspect": pair.width / pair.height, "question": asked, "ask": QUESTIONS[asked],
        # Whoever reads the text first judges the pictures by it.
        "prompt": pair.prompt if asked == "text" else None,
        "questions": len(pair.questions), "number": pair.questions.index(asked) + 1,
        "following": _addresses(waiting[1]) if len(waiting) > 1 else [],
    }  # fmt: skip


def _addresses(shown: Showing) -> list[str]:
    return [f"/clips/{name}" for name in shown.clips]


_QUERY = {"worker": "workerId", "assignment": "assignmentId", "hit": "hitId", "submit_to": "turkSubmitTo"}
_FORM = {key: key for key in _QUERY}


def _turk(values: Any, names: dict[str, str] = _QUERY) -> Turk | None:
    """What Mechanical Turk adds to the address; None where it doesn't, or the worker only looks."""
    found = {key: values.get(name, "") for key, name in names.items()}
    if not found["assignment"] or found["assignment"] == _PREVIEW:
        return None
    if not found["worker"] or any(len(value) > 200 for value in found.values()):
        raise LumiereError("this visit from Mechanical Turk lacks a worker, or its parameters are too long")
    address = urlsplit(found["submit_to"])
    host = address.hostname or ""
    if address.scheme != "https" or not (host == _TURK_HOST or host.endswith(f".{_TURK_HOST}")):
        raise LumiereError("answers are only handed in to Mechanical Turk; turkSubmitTo is another address")
    return Turk(**{**found, "submit_to": f"https://{host}/mturk/externalSubmit"})


def _html(page: str, status: int = 200, **values: object) -> HTMLResponse:
    """A page with its ``$words`` filled in; all but ready-made fields are escaped."""
    text = (_PAGE / page).read_text(encoding="utf-8")
    filled = {key: str(value) if key == "fields" else escape(str(value)) for key, value in values.items()}
    return HTMLResponse(Template(text).substitute(filled), status_code=status)


def _message(study: Study, text: str, *, status: int) -> HTMLResponse:
    return _html("message.html", status, title=study.title, text=f"{text[:1].upper()}{text[1:]}")


def serve(study: Study, *, host: str = "127.0.0.1", port: int = 8000, max_raters: int = 5000) -> None:
    """Serve a study until interrupted.

    Args:
        host: address to listen on; the default is reached from this machine only.
        port: 0 for any free one; the address that raters open is printed.
        max_raters: refuse more, see `Answers`.

    Raises:
        LumiereError: the port is taken, or the file of answers is another study's.
    """
    app = create_app(study, Answers(study, max_raters=max_raters))
    taken = web.listen(host, port)
    print(f"raters open {web.address_of(host, taken)}  (Ctrl-C ends)", flush=True)
    web.run_server(app, taken)
