"""Models of other servers: our own in another process, and one that fails in every way that servers do."""

from __future__ import annotations

import json
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_tools import clip, line_of, listening, picture, running
from failing_server import LAMP, FailingServer, clear, others, ours
from serving import Serving, lumiere

from openlumiere.errors import LumiereError
from openlumiere.generation.backends.base import Loading
from openlumiere.generation.backends.find import load_backend, read_abilities
from openlumiere.generation.backends.remote.backend import RemoteBackend
from openlumiere.generation.backends.remote.server import Patience
from openlumiere.generation.backends.remote.ticket import hash_of, ticket_path
from openlumiere.generation.backends.remote.wire import file_field, form_of
from openlumiere.generation.make import Made, make
from openlumiere.generation.progress import Cancelled, Paused, Progress
from openlumiere.generation.recipe import Recipe
from openlumiere.generation.requests import AnimateRequest, GenerateRequest, RestyleRequest, UpscaleRequest, files_of
from openlumiere.provenance.marking import payload_in
from openlumiere.video import read_clip, read_metadata, write_clip

QUICK = Patience(connect=1, read=0.6, send=0.6, silence=3, busy=5, poll=0.01, pause=0.02)


def backend(server: FailingServer, name: str = "#lamp", patience: Patience = QUICK) -> RemoteBackend:
    found = load_backend(server.url + name)
    assert isinstance(found, RemoteBackend)
    return replace(found, patience=patience)


def ask(server: FailingServer, output: Path, patience: Patience = QUICK, **more: Any) -> Made:
    request = GenerateRequest(**{"prompt": "a lamp", "output": str(output), "seed": 5, **more})
    return make(request, backend(server, patience=patience), lossless=True)


# ------------------------------------------------------------------------------------------ our own server


@pytest.mark.slow
def test_our_own_server_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = lumiere("keys", "add", "alice", "--data", tmp_path / "data").stdout.strip()
    with Serving(tmp_path / "data", "--keys", key=key) as server:
        address = f"{server.url}#emoji"
        with pytest.raises(LumiereError, match="wants a key: set LUMIERE_API_KEY or OPENAI_API_KEY"):
            read_abilities(address)
        monkeypatch.setenv("LUMIERE_API_KEY", key)
        there, here = read_abilities(address), read_abilities("emoji")
        assert there == replace(here, model=address)
        told: list[Progress] = []
        request = GenerateRequest(
            prompt="a tiger walking to the left", seed=7, num_frames=16, num_inference_steps=2, upscale_steps=0,
            output=str(tmp_path / "there.webp"),
        )  # fmt: skip
        made = make(request, load_backend(address), progress=told.append, lossless=True)
        make(replace(request, output=str(tmp_path / "here.webp")), load_backend("emoji"), lossless=True)
        theirs, own = read_clip(tmp_path / "there.webp"), read_clip(tmp_path / "here.webp")
        difference = np.abs(theirs.frames.astype(int) - own.frames)  # that server's mark
        assert 0 < difference.mean() < 3
        assert difference.max() < 20
        assert theirs.fps == own.fps
        assert any(now.note for now in told if now.stage == "denoise")
        recipe = Recipe.from_metadata(read_metadata(tmp_path / "there.webp"))
        assert recipe is not None
        assert recipe.model.name == address
        assert recipe.watermark == made.recipe.watermark
        assert payload_in(recipe.metadata()) is not None
        assert recipe.request == replace(made.recipe.request, output="")
        assert key not in (tmp_path / "there.webp").read_bytes().decode("latin-1")
        # By the command, from a clip, with the server's default model.
        done = lumiere(
            "restyle", tmp_path / "there.webp", "a lion", "--steps", "2", "--no-upscale",
            "-o", tmp_path / "lion.webp", "--model", server.url, LUMIERE_API_KEY=key,
        )  # fmt: skip
        assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
        assert len(read_clip(tmp_path / "lion.webp").frames) == 16
        videos = server.http.get("/v1/videos").json()["data"]
        assert [video["task"] for video in videos] == ["restyle", "generate"]
        # Cancelled there with the command.
        stop = threading.Event()
        begun = replace(request, num_inference_steps=250, output=str(tmp_path / "long.webp"))
        with pytest.raises(Cancelled):
            make(
                begun,
                load_backend(address),
                progress=lambda now: "step" in now.note and stop.set(),
                cancelled=stop.is_set,
            )
        id = server.http.get("/v1/videos").json()["data"][0]["id"]
        assert server.until(id, "failed")["error"]["code"] == "cancelled"
        assert server.end(signal.SIGINT)[0] == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "here.webp", "lion.webp", "there.webp"]


def test_the_key_of_a_request_is_kept_with_its_job(tmp_path: Path) -> None:
    with running(tmp_path) as api:
        body = {"prompt": "a lamp", "num_frames": 16}

        def post(key: str, **more: Any) -> Any:
            return api.client.post("/v1/videos", json={**body, **more}, headers={"Idempotency-Key": key})

        first = post("k1").json()
        assert post("k1").json()["id"] == first["id"]
        assert post("k2").json()["id"] != first["id"]
        assert line_of(post("k1", seed=first["seed"] + 1), 409).endswith("it was used for another request; use another")
        assert line_of(post("k1", prompt="a moth"), 409).startswith("Idempotency-Key")
        assert line_of(post(" ", seed=1), 400)
        assert len(api.client.get("/v1/videos").json()["data"]) == 2
        with_file = {"data": {"prompt": "a lamp"}, "files": {"input_reference": picture()}}
        headers = {"Idempotency-Key": "k3"}
        ids = {api.client.post("/v1/videos", headers=headers, **with_file).json()["id"] for _ in range(3)}
        assert len(ids) == 1
        api.finish(first["id"])
        assert post("k1").json()["status"] == "completed"
        api.client.delete(f"/v1/videos/{first['id']}")
        assert line_of(post("k1"), 409).endswith("was deleted; use another")
        api.check_tidy()


# ------------------------------------------------------------------------------------------ servers that fail


def test_what_a_server_says_of_itself(tmp_path: Path) -> None:
    with ours(tmp_path) as server:
        assert read_abilities(f"{server.url}#lamp") == replace(LAMP, model=f"{server.url}#lamp")
        found = backend(server, "")
        assert (found.identity.name, found.identity.licence) == (f"{server.url}#lamp", "cc-by-nc-4.0")
        assert found.notes == ("LICENCE: non-commercial; cc-by-nc-4.0",)
        assert found.device == ""
        with pytest.raises(LumiereError, match="has no model 'moth'; it has lamp"):
            read_abilities(f"{server.url}#moth")
        with pytest.raises(LumiereError, match="are chosen there"):
            load_backend(server.url, Loading(offload="model"))
    with others(tmp_path) as server:
        able = read_abilities(server.url)
        assert (able.tasks, able.resizable, able.width) == (("generate", "animate"), True, None)
    with pytest.raises(LumiereError, match=r"cannot reach http://127.0.0.1:\d+ .*; is the server running there\?"):
        read_abilities(server.url)
    with pytest.raises(LumiereError, match="holds no key; set LUMIERE_API_KEY"):
        read_abilities("http://me:secret@127.0.0.1:1#lamp")


@pytest.mark.parametrize("failure", ["cut", "lose", "hang", 500, 429, 503])
def test_one_clip_whatever_happens_while_it_is_asked_for(tmp_path: Path, failure: str | int) -> None:
    with ours(tmp_path) as server:
        server.failures["POST"] = [failure]
        made = ask(server, tmp_path / "a.webp")
        assert server.posts() == 2
        assert len(server.jobs) == 1
        assert made.recipe.request.num_inference_steps == 3
        assert np.array_equal(read_clip(tmp_path / "a.webp").frames[:, ::4, ::4], clip(8))
    assert not ticket_path(str(tmp_path / "a.webp")).exists()


def test_it_is_asked_and_fetched_again_what_only_reads(tmp_path: Path) -> None:
    with ours(tmp_path, polls=5) as server:
        server.failures |= {"GET": ["cut", 500, "hang", 429], "CONTENT": ["half", "cut"]}
        ask(server, tmp_path / "a.webp")
        assert server.seen.count("GET /v1/videos/video_0/content") == 3
    assert len(server.jobs) == 1


def test_a_server_that_dies_with_the_clip_and_comes_back(tmp_path: Path) -> None:
    with ours(tmp_path, polls=3) as server:

        def progress(now: Progress) -> None:
            if now.stage == "denoise" and server.jobs["video_0"]["polled"] == 1:
                server.die()
                threading.Timer(0.4, server.come_back).start()
                server.jobs["video_0"]["polled"] = 2

        request = GenerateRequest(prompt="a lamp", output=str(tmp_path / "a.webp"))
        make(request, backend(server), progress=progress)
        assert (server.posts(), len(server.jobs)) == (1, 1)


def test_the_same_command_goes_on_with_what_it_began(tmp_path: Path) -> None:
    output = tmp_path / "a.webp"
    with ours(tmp_path, polls=50) as server:
        server.failures["GET"] = ["hang"] * 50
        with pytest.raises(
            LumiereError, match=r"cannot reach .*a\.remote\.json keeps its id: the same command goes on"
        ):
            ask(server, output, replace(QUICK, read=0.1, silence=0.3))
        kept = json.loads(ticket_path(str(output)).read_text())
        assert (kept["server"], kept["id"], kept["seed"]) == (server.url, "video_0", 5)
        with pytest.raises(LumiereError, match=r"a\.remote\.json is of another clip, video_0, that"):
            ask(server, output, prompt="a moth")
        server.failures["GET"], server.polls = [], 1
        made = ask(server, output, seed=6)  # as commands draw another each time
        assert made.recipe.request.seed == 5
        assert made.changes[0].startswith("seed: 5, of the clip that http://127.0.0.1")
        assert (server.posts(), len(server.jobs)) == (1, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.webp", "theirs.webp"]


def test_a_process_that_is_killed_while_it_asks_is_followed_by_another(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die(now: Progress) -> None:
        if now.step:  # there is an answer
            raise Killed

    for server in (ours(tmp_path), others(tmp_path, echoes=True)):
        output = tmp_path / f"{server.idempotent}.webp"
        with server:
            request = GenerateRequest(prompt="a lamp", output=str(output), seed=5)
            server.failures["POST"] = ["lose"] if server.idempotent else []
            with pytest.raises(Killed):
                make(request, backend(server), progress=die)
            kept = json.loads(ticket_path(str(output)).read_text())
            ticket_path(str(output)).write_text(json.dumps({**kept, "id": ""}))  # as before there was one
            make(request, backend(server))
            assert len(server.jobs) == 1


@pytest.mark.parametrize("failure", ["cut", "lose", "hang", 502])
def test_a_server_without_keys_is_not_asked_twice(tmp_path: Path, failure: str | int) -> None:
    output = tmp_path / "a.webp"
    with others(tmp_path) as server:
        server.failures["POST"] = [failure]
        with pytest.raises(LumiereError, match="so that it may be making the clip") as told:
            ask(server, output)
        taken = failure in ("lose", "hang")
        assert ("video_0" in str(told.value)) == taken
        assert "write its id into" in str(told.value)
        with pytest.raises(LumiereError, match="the request may have been sent, so that"):
            ask(server, output)
        assert server.posts() == 1
        if taken:
            kept = json.loads(ticket_path(str(output)).read_text())
            ticket_path(str(output)).write_text(json.dumps({**kept, "id": "video_0"}))
        else:
            ticket_path(str(output)).unlink()
        ask(server, output)
        assert (len(server.jobs), server.posts()) == (1, 1 if taken else 2)


@pytest.mark.parametrize("failure", ["lose", "hang"])
def test_a_server_that_tells_the_tag_again_is_not_asked_twice(tmp_path: Path, failure: str) -> None:
    with others(tmp_path, echoes=True) as server:
        server.create({"user": "somebody else"}, "")
        server.failures["POST"] = [failure]
        ask(server, tmp_path / "a.webp")
        assert (len(server.jobs), server.posts()) == (2, 1)


def test_others_get_the_common_fields_and_a_picture_of_the_size(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(picture(size=(60, 30)))
    with others(tmp_path) as server:
        request = AnimateRequest(
            source=str(tmp_path / "cat.png"), prompt="a cat", size=(32, 48), num_frames=9, fps=12.4, seed=3,
            guidance_scale=2.5, negative_prompt="a dog", output=str(tmp_path / "a.mp4"), feather=3,
        )  # fmt: skip
        made = make(request, backend(server))
        sent = server.jobs["video_0"]["fields"]
        (tmp_path / "sent.png").write_bytes(sent.pop("input_reference"))
        assert len(sent.pop("user")) > 20
        assert sent == {
            "prompt": "a cat", "size": "32x48", "num_frames": "9", "fps": "12", "seed": "3", "guidance_scale": "2.5",
            "negative_prompt": "a dog", "model": "lamp",
        }  # fmt: skip
        assert read_clip(tmp_path / "sent.png").frames.shape[1:3] == (48, 32)
        assert made.changes == (f"feather: {server.url}#lamp takes none; left out",)
        assert made.recipe.fps == 8.0  # of the file
        with pytest.raises(LumiereError, match="cannot restyle: it can generate, animate; models that can"):
            make(RestyleRequest(source=str(tmp_path / "cat.png"), output=str(tmp_path / "b.mp4")), backend(server))


def test_alpha_and_files_of_our_own_server(tmp_path: Path) -> None:
    source = write_clip(clear(), tmp_path / "source.webp", fps=8)
    with ours(tmp_path, alpha=True) as server:
        request = UpscaleRequest(source=str(source), output=str(tmp_path / "a.webp"))
        make(request, backend(server), lossless=True)
        assert read_clip(tmp_path / "a.webp").frames.shape[-1] == 4
        fields = server.jobs["video_0"]["fields"]
        assert (fields["task"], fields["video_reference"], fields["transparent"]) == (
            "upscale", source.read_bytes(), "true",
        )  # fmt: skip
        make(replace(request, output=str(tmp_path / "a.mp4")), backend(server))
        assert server.jobs["video_1"]["fields"].get("transparent") == "false"


def test_reference_pictures_go_as_files_and_tell_requests_apart(tmp_path: Path) -> None:
    asked = []
    for name, size in (("a", 8), ("b", 8), ("c", 9)):
        (tmp_path / f"{name}.png").write_bytes(picture(size=(size, 8)))
        asked.append(GenerateRequest(prompt="a cat", references=(str(tmp_path / f"{name}.png"),)))
    assert dict(form_of(asked[0])) == {"task": "generate", "prompt": "a cat"}
    assert [file_field(asked[0], name) for name in files_of(asked[0])] == ["reference"]
    one, same, other = map(hash_of, asked)
    assert one == same != other


@pytest.mark.parametrize("known", [True, False])
def test_cancelling_cancels_it_there(tmp_path: Path, known: bool) -> None:
    with ours(tmp_path, polls=999) if known else others(tmp_path, polls=999) as server:
        told: list[Progress] = []
        request = GenerateRequest(prompt="a lamp", output=str(tmp_path / "a.webp"))
        with pytest.raises(Cancelled):
            make(request, backend(server), progress=told.append, cancelled=lambda: told[-1].stage == "denoise")
        assert server.jobs["video_0"]["cancelled"]
        way = "POST /v1/videos/video_0/cancel" if known else "DELETE /v1/videos/video_0"
        assert way in server.seen
        assert not ticket_path(request.output).exists()

        def pause() -> bool:
            if told[-1].stage == "denoise":
                raise Paused
            return False

        with pytest.raises(Paused):
            make(request, backend(server), progress=told.append, cancelled=pause)
        assert not server.jobs["video_1"]["cancelled"]
        assert ticket_path(request.output).exists()


def test_refusals_and_failures_are_one_line_and_leave_nothing(tmp_path: Path) -> None:
    with ours(tmp_path) as server:
        for status in (400, 413, 422):
            server.failures["POST"] = [status]
            with pytest.raises(LumiereError, match=rf"^{server.url}: not now$"):
                ask(server, tmp_path / "a.webp")
        server.status = "failed"
        with pytest.raises(LumiereError, match=rf"^{server.url}: out of lamps$"):
            ask(server, tmp_path / "a.webp")
        server.failures["POST"] = [429] * 50
        with pytest.raises(LumiereError, match=r"not now; try again in 1 s$"):
            ask(server, tmp_path / "a.webp", replace(QUICK, busy=0.5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs.webp"]


def test_the_key_goes_with_requests_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with ours(tmp_path) as server:
        server.failures |= {"POST": [429], "GET": ["cut"]}
        ask(server, tmp_path / "a.webp")
        assert {headers.get("Authorization") for headers in server.headers} == {"Bearer sk-secret"}
    assert "asked again in 1 s" in caplog.text
    assert "secret" not in caplog.text
    assert not any(b"sk-secret" in path.read_bytes() for path in tmp_path.iterdir())


def test_a_server_offers_models_of_another(tmp_path: Path) -> None:
    with ours(tmp_path) as server:
        remote = f"{server.url}#lamp"
        with listening(tmp_path / "data", models=("emoji", remote)) as api:
            found = {each["id"]: each for each in api.client.get("/v1/videos/models").json()["data"]}
            assert (found[remote]["licence"], found[remote]["commercial"]) == ("cc-by-nc-4.0", False)
            assert api.ask(model=remote, num_frames=None)["num_frames"] == 8
            assert "choose one of emoji" in api.refused(status=404, model="http://127.0.0.1:9#lamp")
    with listening(tmp_path / "other", models=("emoji", remote)) as api:  # that one is down now
        assert [each["id"] for each in api.client.get("/v1/videos/models").json()["data"]] == ["emoji"]
        assert "cannot reach" in api.refused(model=remote)
