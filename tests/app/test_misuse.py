"""What the operator does not allow, refused at the server's door: words of a list, and what a classifier flags."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from api_tools import TIGER, Api, clip_file, line_of, picture, running
from openai import BadRequestError, InternalServerError, OpenAI
from PIL import Image
from serving import lumiere

from openlumiere.app.mcp.local_maker import LocalMaker
from openlumiere.app.moderation.block_list import BlockList, words_of
from openlumiere.app.moderation.moderator import Moderator, NotAllowed, NotChecked
from openlumiere.app.settings import ModerationSettings
from openlumiere.errors import LumiereError
from openlumiere.generation.requests import AnimateRequest, GenerateRequest

LIST = """# what we do not make
knife          # one word
Bloody Hand    # words that follow each other
explo*         # a beginning
*craft
crème brûlée
裸体*
"""


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text(LIST, encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------ the list


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a tiger with a knife", 2), ("KNIFE!", 2), ("a_knife-fight", 2), ("kn\u00edfe", 2),
        ("a \uff4b\uff4e\uff49\uff46\uff45", 2),  # full width
        ("\U0001d424\U0001d427\U0001d422\U0001d41f\U0001d41e", 2),  # bold, of mathematics
        ("\u24da\u24dd\u24d8\u24d5\u24d4", 2),  # circled
        ("kn\u200bi\u00adfe", 2), ("kn\u3164i\ufe0ffe", 2),  # what is not seen
        ("k\u0336n\u0336i\u0336f\u0336e\u0336", 2),  # struck through
        ("bloody   hand", 3), ("bloody\nhand", 3), ("a bloody, hand", 3), ("explosion", 4), ("explo", 4),
        ("an aircraft", 5), ("Creme Brulee", 6), ("CRÈME BRÛLÉE", 6), ("cre\u0300me bru\u0302le\u0301e", 6),
        ("裸体的人", 7),
        # what is not listed
        ("penknife", None), ("knives", None), ("knif", None), ("a hand, bloody", None), ("unexplored", None),
        ("crafts", None), ("", None), ("🔪", None),
        # what it cannot know
        ("kn1fe", None), ("k n i f e", None), ("kn\u0456fe", None),
    ],
)  # fmt: skip
def test_whole_words_however_they_are_written(words: Path, text: str, line: int | None) -> None:
    assert BlockList(words).match(text) == line


def test_words_of_a_text() -> None:
    assert words_of(" Straße,\tnoël_2\r\nﬁn ") == ["strasse", "noel", "2", "fin"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"good\n***\n", "line 2: '***': * stands at the start or the end of a word; write it so"),
        (b"a\n\n!!!", "line 3: '!!!' has neither letters nor digits; give words"),
        (b"in*side", "line 1: 'in*side': * stands at the start or the end of a word; write it so"),
        (b"\xff\xfe", "is no UTF-8 text; save it as such"),
        (b"a\n" * 2**20, "has more than 1048576 bytes; shorten it"),
        (None, "No such file or directory; give a text file with a word in each line"),
    ],
)
def test_a_bad_list_is_refused_in_one_line(tmp_path: Path, content: bytes | None, line: str) -> None:
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LumiereError) as caught:
        BlockList(path)
    assert str(caught.value).startswith(f"block list {path}")
    assert str(caught.value).endswith(line)


def test_a_changed_list_is_read_again_and_a_broken_one_changes_nothing(
    words: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = BlockList(words)
    assert found.match("a spoon") is None
    words.write_text("spoon", encoding="utf-8")
    assert (found.match("a spoon"), found.match("a knife")) == (1, None)
    words.write_text("***", encoding="utf-8")
    assert found.match("a spoon") == 1
    words.unlink()
    assert found.match("a spoon") == 1
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]  # each of them once
    found.match("a spoon")
    assert len(caplog.records) == 2
    words.write_text("fork", encoding="utf-8")
    assert (found.match("a spoon"), found.match("a fork")) == (None, 1)


def test_long_lists_are_quick(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\n".join(f"word{n}" for n in range(5000)), encoding="utf-8")
    found, began = BlockList(path), time.process_time()
    assert found.match("a tiger " * 250) is None
    assert time.process_time() - began < 2


# ------------------------------------------------------------------------------------------------ the API


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("data")
    (folder / "words.txt").write_text(LIST, encoding="utf-8")
    with running(folder, moderation=ModerationSettings(block_list=str(folder / "words.txt"))) as found:
        yield found
        found.check_tidy()


def refused(answer: Any, param: str | None, status: int = 400, code: str = "content_policy_violation") -> str:
    line = line_of(answer, status)
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    return line


@pytest.mark.slow
def test_prompts_are_refused_on_every_way_in(listed: Api, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    client, before = listed.client, len(listed.client.get("/v1/videos").json()["data"])
    secret = "a tiger with a knife"
    for body in (
        {"prompt": secret}, {"prompt": "a cat", "negative_prompt": "knife"}, {"extra_params": {"prompt": secret}},
    ):  # fmt: skip
        param = "negative_prompt" if "negative_prompt" in body else "prompt"
        for route in ("/v1/videos", "/v1/videos/sync"):
            line = refused(client.post(route, json=body), param)
            assert line == f"{param}: it has words that are not allowed here; change it"
    refused(client.post("/v1/videos", data={"prompt": secret}), "prompt")
    refused(client.post("/v1/videos", data={"prompt": secret}, files={"input_reference": b"no picture"}), "prompt")
    for route in ("/v1/videos/edits", "/v1/videos/extensions"):
        refused(client.post(route, data={"prompt": secret}, files={"video": clip_file(tmp_path)}), "prompt")
    id = listed.ask()["id"]
    refused(client.post(f"/v1/videos/{id}/remix", json={"prompt": secret}), "prompt")
    assert client.post(f"/v1/videos/{id}/remix", json={"prompt": "a lion"}).status_code == 200
    assert len(client.get("/v1/videos").json()["data"]) == before + 2
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"local: prompt refused; it matches line 2 of {listed.parts.settings.moderation.block_list}" in told
    assert secret not in caplog.text
    figures = client.get("/metrics").text
    assert 'lumiere_refused_total{reason="block_list"} 11.0' in figures
    assert 'lumiere_refused_total{reason="classifier"} 0.0' in figures


def test_openais_client_sees_what_it_knows(listed: Api) -> None:
    client = OpenAI(api_key="none", base_url="http://127.0.0.1:8000/v1", http_client=listed.client, max_retries=0)  # type: ignore[arg-type]
    with pytest.raises(BadRequestError) as caught:
        client.videos.create(prompt="a knife")
    assert (caught.value.code, caught.value.param) == ("content_policy_violation", "prompt")


def test_long_prompts_are_refused_before_they_are_looked_at(listed: Api) -> None:
    assert "at most 2000 characters" in listed.refused(prompt="knife " * 10_000)


# ------------------------------------------------------------------------------------------------ the classifier


class Judge(ThreadingHTTPServer):
    """A classifier as an operator might run it: flags the word "ghost", and pictures that are red."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.asked: list[tuple[dict[str, Any], str]] = []
        self.answer: bytes | None = None
        self.status, self.waits = 200, threading.Event()
        self.waits.set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/moderations"


class _Answers(BaseHTTPRequestHandler):
    server: Judge

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((body, self.headers.get("Authorization", "")))
        self.server.waits.wait(30)
        found = {"violence": any(map(_is_bad, body["input"])), "hate": False}
        result = {"flagged": found["violence"], "categories": found}
        answer = json.dumps({"results": [result]}).encode() if self.server.answer is None else self.server.answer
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _is_bad(part: dict[str, Any]) -> bool:
    if part["type"] == "text":
        return "ghost" in part["text"]
    kind, _, data = part["image_url"]["url"].partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
        assert max(shown.size) <= 512
        red, green, _ = shown.convert("RGB").resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
    return bool(red > 2 * green + 40)


@contextmanager
def judging() -> Iterator[Judge]:
    judge = Judge()
    thread = threading.Thread(target=judge.serve_forever)
    thread.start()
    try:
        yield judge
    finally:
        judge.waits.set()
        judge.shutdown()
        thread.join()
        judge.server_close()


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, Judge]]:
    with judging() as judge:
        settings = ModerationSettings(classifier=judge.address, classifier_key="s3cret", classifier_seconds=20)
        with running(tmp_path_factory.mktemp("data"), moderation=settings) as found:
            yield found, judge
            found.check_tidy()


def red(size: tuple[int, int] = (700, 40)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "PNG")
    return file.getvalue()


@pytest.mark.slow
def test_the_classifier_sees_texts_and_pictures(
    judged: tuple[Api, Judge], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (api, judge), client = judged, judged[0].client
    judge.asked.clear()
    assert api.ask(negative_prompt="fog")["status"] == "queued"
    text = {"type": "text", "text": f"{TIGER['prompt']}\nfog"}
    assert judge.asked == [({"input": [text]}, "Bearer s3cret")]
    line = refused(client.post("/v1/videos", json={"prompt": "a ghost"}), "prompt")
    assert line == "this text is not allowed here; change it"
    assert "local: refused; the classifier says violence" in caplog.text
    assert "a ghost" not in caplog.text

    judge.asked.clear()
    source, last = {"input_reference": picture()}, {"last_frame": red()}
    asked = {"prompt": "a tiger", "task": "animate"}
    assert client.post("/v1/videos", data=asked, files=source).status_code == 200
    assert len(judge.asked) == 1
    assert refused(client.post("/v1/videos", data=asked, files=source | last), None)
    assert refused(client.post("/v1/videos", data=asked, files={"input_reference": red()}), None)
    masked = {**source, "mask": red()}  # nobody sees a mask
    answer = client.post("/v1/videos", data={**asked, "task": "cinemagraph"}, files=masked)
    assert answer.status_code == 200, answer.text

    judge.asked.clear()
    film = client.post("/v1/videos/edits", data={"prompt": "a lion"}, files={"video": clip_file(tmp_path, frames=9)})
    assert film.status_code == 200, film.text
    assert len(judge.asked) == 4  # of nine frames
    assert refused(client.post(f"/v1/videos/{film.json()['id']}/remix", json={"prompt": "a ghost"}), None)
    assert client.post(f"/v1/videos/{film.json()['id']}/remix", json={"prompt": "a cat"}).status_code == 200


@pytest.mark.slow
def test_no_answer_is_a_refusal(judged: tuple[Api, Judge], caplog: pytest.LogCaptureFixture) -> None:
    api, judge = judged
    before = api.parts.moderator.refused["no_answer"]
    wrong = (
        b"", b"[]", b'{"results": []}', b'{"results": [{}]}', b'{"results": [{"flagged": "no"}]}', b'{"results": 1}',
        b'{"results": [{"flagged": true, "categories": ["x"]}]}', b"\xff",
    )  # fmt: skip
    try:
        for judge.answer in wrong:
            answer = api.client.post("/v1/videos", json=TIGER)
            line = refused(answer, None, 503, "moderation_unavailable")
            assert line == "what is asked for could not be checked, and is refused; try again later"
            assert int(answer.headers["Retry-After"]) > 0
        judge.answer = None
        for judge.status in (500, 302, 204):
            refused(api.client.post("/v1/videos", json=TIGER), None, 503, "moderation_unavailable")
    finally:
        judge.answer, judge.status = None, 200
    assert api.parts.moderator.refused["no_answer"] == before + len(wrong) + 3
    assert "the classifier gives no answer: " in caplog.text
    client = OpenAI(api_key="none", base_url="http://127.0.0.1:8000/v1", http_client=api.client, max_retries=0)  # type: ignore[arg-type]
    judge.answer = b""
    try:
        with pytest.raises(InternalServerError):
            client.videos.create(prompt="a cat")
    finally:
        judge.answer = None
    assert api.ask()["status"] == "queued"


@pytest.mark.slow
def test_a_slow_classifier_is_not_waited_for_and_a_missing_one_refuses() -> None:
    with judging() as judge:
        judge.waits.clear()
        moderator = Moderator(ModerationSettings(classifier=judge.address, classifier_seconds=0.3))
        with pytest.raises(NotChecked):
            asyncio.run(moderator.classify("local", {"prompt": "a cat"}))
        address = judge.address
    gone = Moderator(ModerationSettings(classifier=address))
    with pytest.raises(NotChecked):
        asyncio.run(gone.classify("local", {"prompt": "a cat"}))
    assert (moderator.refused["no_answer"], gone.refused["no_answer"]) == (1, 1)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ftp://x/", "module:function", "http://"])
def test_what_is_no_address_is_refused_at_the_start(address: str) -> None:
    with pytest.raises(LumiereError, match="give an address such as http"):
        Moderator(ModerationSettings(classifier=address))


# ------------------------------------------------------------------------------------------------ the command, MCP


@pytest.mark.slow
def test_the_server_does_not_start_with_a_bad_list(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("ok\n???\n", encoding="utf-8")
    done = lumiere("serve", "--port", "0", "--data", tmp_path / "data", "--block-list", tmp_path / "words.txt")
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "words.txt, line 2: '???' has neither letters nor digits" in done.stderr
    assert not done.stdout


@pytest.mark.slow
def test_an_assistant_is_refused_too(tmp_path: Path, words: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "red.png").write_bytes(red())
    (tmp_path / "gray.png").write_bytes(picture())
    with judging() as judge:
        moderator = Moderator(ModerationSettings(block_list=str(words), classifier=judge.address))
        maker = LocalMaker(tmp_path / "made", moderator=moderator)
        try:
            for request in (
                GenerateRequest(prompt="a knife"), GenerateRequest(prompt="a cat", negative_prompt="a knife"),
                GenerateRequest(prompt="a ghost"), AnimateRequest(source=str(tmp_path / "red.png")),
            ):  # fmt: skip
                with pytest.raises(NotAllowed):
                    maker.submit(request)
            assert judge.asked  # of the last two
            maker.cancel(maker.submit(AnimateRequest(source=str(tmp_path / "gray.png"), prompt="a cat")))
        finally:
            maker.close()
    assert moderator.refused == {"block_list": 2, "classifier": 2, "no_answer": 0}
    assert "knife" not in caplog.text


@pytest.mark.slow
def test_with_another_server_that_one_decides(tmp_path: Path) -> None:
    done = lumiere("mcp", "--url", "http://127.0.0.1:9", "--block-list", tmp_path / "words.txt", "-o", tmp_path)
    assert done.returncode != 0
    assert "with --url that server decides what is allowed" in done.stderr
