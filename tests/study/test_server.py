"""`lumiere study serve` as a process on the loopback, asked as browsers, crooks and Mechanical Turk ask."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from openlumiere.cli import main
from openlumiere.study.answers import Answers
from openlumiere.study.pairs import Study
from study_tools import Server


@pytest.fixture
def server(study: Study) -> Iterator[Server]:
    running = Server(study)
    yield running
    running.end()


@pytest.mark.slow
def test_a_rater_answers_all_and_a_killed_server_loses_nothing(study: Study) -> None:
    server = Server(study)
    address, cookie = server.join()
    status, headers, page = server.ask("GET", address, Cookie=cookie)
    assert (status, headers["referrer-policy"], headers["cache-control"]) == (200, "no-referrer", "no-store")
    assert b"/page/rate.js" in page
    given = []
    while not (state := server.next(address, cookie))["done"]:
        assert (state["prompt"] is None) == (state["question"] == "quality")
        fields = {"pair": state["pair"], "question": state["question"]}
        assert server.answer(address, cookie, **fields) == (200, {"kept": "left"})
        given.append((state["pair"], state["question"]))
        if len(given) == 3:
            port = server.port
            server.end()
            server = Server(study, port)
        assert server.answer(address, cookie, **fields) == (200, {"kept": "left"})
        assert server.answer(address, cookie, **fields, choice="right") == (409, {"kept": "left"})
    server.end(signal.SIGINT)
    assert [(j.pair, j.question) for j in Answers(study).judgements()] == given
    assert len(set(given)) == len(given) == sum(len(s.pair.questions) for s in Answers(study).showings(1))
    assert state["code"] == Answers(study).code(1)


@pytest.mark.slow
def test_nobody_writes_into_anothers_session(server: Server, study: Study) -> None:
    first, cookie = server.join()
    second, other = server.join()
    state = server.next(first, cookie)
    fields = {"pair": state["pair"], "question": state["question"]}
    for stranger in ("", other, cookie.replace("=", "=x")):
        status, body = server.answer(first, stranger, **fields)
        assert (status, "another browser" in body["detail"]) == (403, True)
        assert server.ask("GET", f"{first}/next", Cookie=stranger)[0] == 403
        assert server.ask("GET", first, Cookie=stranger)[0] == 403
    assert server.answer(f"{first}x", cookie, **fields)[0] == 404
    assert Answers(study).judgements() == []
    assert server.next(first, cookie) == state
    # In one's own session only one's own pairs can be answered, under whatever name the other's are given.
    own = {shown.pair.id for shown in Answers(study).showings(2)}
    foreign = next(shown.pair for shown in Answers(study).showings(1) if shown.pair.id not in own)
    assert server.answer(second, other, pair=foreign.id, question="quality", rater=1)[0] == 400


@pytest.mark.slow
def test_bad_requests_change_nothing(server: Server, study: Study) -> None:
    address, cookie = server.join()
    state = server.next(address, cookie)
    good = {"pair": state["pair"], "question": state["question"]}
    for fields, status in (
        ({"choice": "both"}, 422), ({"seconds": -1}, 422), ({"seconds": "x"}, 422), ({"pair": "x" * 65}, 422),
        ({"question": "taste"}, 400), ({"pair": "nothing"}, 400), ({"pair": "x" * 5000}, 413),
    ):  # fmt: skip
        assert server.answer(address, cookie, **{**good, **fields})[0] == status
    send = {"Cookie": cookie, "Content_Type": "application/json"}
    assert server.ask("POST", f"{address}/answers", "{", **send)[0] == 422
    # A form that another site sends without asking has no JSON type; browsers leave the cookie out, too.
    plain = json.dumps({**good, "choice": "left", "seconds": 1})
    assert server.ask("POST", f"{address}/answers", plain, Cookie=cookie, Content_Type="text/plain")[0] == 422
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:  # a body of unknown length
        raw.sendall(f"POST {address}/answers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        assert b"411" in raw.recv(100)
    assert Answers(study).judgements() == []


@pytest.mark.slow
def test_clips_are_served_in_parts_and_nothing_else_is(server: Server, study: Study) -> None:
    name = study.pairs[0].ours
    whole = study.clip(name).read_bytes()
    status, headers, body = server.ask("GET", f"/clips/{name}")
    assert (status, headers["content-type"], body) == (200, "video/mp4", whole)
    status, headers, body = server.ask("GET", f"/clips/{name}", Range="bytes=10-19")
    assert (status, headers["content-range"], body) == (206, f"bytes 10-19/{len(whole)}", whole[10:20])
    for path in ("/clips", "/clips/", "/clips/../study.json", "/clips/..%2fstudy.json", "/clips/%2e%2e/answers.sqlite",
                 "/study.json", "/page/", "/page/..%2fserver.py", "/docs", "/openapi.json"):  # fmt: skip
        assert server.ask("GET", path)[0] == 404, path


@pytest.mark.slow
def test_mechanical_turk_previews_joins_and_gets_the_answers(server: Server, study: Study) -> None:
    query = {"workerId": "A<1", "assignmentId": "3X", "hitId": "H", "turkSubmitTo": "https://workersandbox.mturk.com"}
    page = server.ask("GET", f"/?{urlencode(query)}")[2].decode()
    assert 'name="turk_worker" value="A&lt;1"' in page
    preview = server.ask("GET", f"/?{urlencode({**query, 'assignmentId': 'ASSIGNMENT_ID_NOT_AVAILABLE'})}")[2].decode()
    assert "Accept the HIT" in preview
    assert "turk_worker" not in preview
    for bad in (
        "https://evil.example/",
        "https://mturk.com.evil.example",
        "http://www.mturk.com",
        "https://xmturk.com",
        "",
    ):
        status, _, body = server.ask("GET", f"/?{urlencode({**query, 'turkSubmitTo': bad})}")
        assert (status, b"another address" in body) == (400, True)
    turk = {"worker": "A<1", "assignment": "3X", "hit": "H", "submit_to": "https://workersandbox.mturk.com"}
    address, cookie = server.join(**turk)
    assert cookie == ""  # browsers keep none in a frame
    assert server.join(**turk) == (address, "")
    while not (state := server.next(address, ""))["done"]:
        assert server.answer(address, "", pair=state["pair"], question=state["question"])[0] == 200
    assert state["turk"] == {
        "assignment": "3X", "submit_to": "https://workersandbox.mturk.com/mturk/externalSubmit",
    }  # fmt: skip
    headers = {"Content_Type": "application/x-www-form-urlencoded"}
    form = urlencode({f"turk_{key}": value for key, value in {**turk, "assignment": "3Y"}.items()})
    status, _, body = server.ask("POST", "/join", form, **headers)
    assert (status, b"return this HIT" in body) == (403, True)


@pytest.mark.slow
def test_a_taken_port_and_a_wrong_folder_are_told_in_one_line(
    server: Server, study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "serve", str(study.folder), "--port", str(server.port)]) == 2
    assert capsys.readouterr().err == (
        f"lumiere: error: port {server.port} is taken; stop what uses it, or choose another with --port\n"
    )
    assert main(["study", "serve", str(tmp_path)]) == 2
    assert "no study.json" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["study", "serve", str(study.folder), "--port", "70000"])


@pytest.mark.parametrize("action", [[], ["create"], ["serve"], ["report"], ["mturk"]])
def test_help_has_examples(action: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["study", *action, "--help"])
    assert end.value.code == 0
    assert "examples:" in capsys.readouterr().out
