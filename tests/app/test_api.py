"""The routes of the API, in this process, on a real store: what is asked for, shown, found again, deleted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from api_tools import TIGER, Api, clip_file, line_of, picture, running

from openlumiere.app.settings import Limits, RequestLimits, UploadLimits
from openlumiere.generation.recipe import Recipe

pytestmark = pytest.mark.slow


def test_a_clip_is_asked_for_by_json_and_by_form(api: Api) -> None:
    by_json = api.ask(style={"flat": 0.7, "noto": 0.3}, extra_params={"loop": True})
    assert (by_json["status"], by_json["progress"], by_json["object"]) == ("queued", 0, "video")
    assert (by_json["seconds"], by_json["size"], by_json["seed"]) == ("1", "512x512", 7)
    assert (by_json["request"]["styles"], by_json["loop"]) == ([["flat", 0.7], ["noto", 0.3]], True)
    form = {"prompt": (None, "a tiger"), "num_frames": (None, "16"), "style[flat]": (None, "0.7")}
    by_form = api.client.post("/v1/videos", files=form).json()
    assert by_form["request"]["styles"] == [["flat", 0.7]]
    assert by_form["position"] == by_json["position"] + 1
    plain = api.client.post("/v1/videos", data={"prompt": "a cat", "seconds": "5"}).json()
    assert (plain["seconds"], plain["num_frames"], plain["model"]) == ("5", 80, "emoji")


def test_a_picture_is_kept_and_shown(api: Api) -> None:
    sent = {"input_reference": ("../../x.exe", picture("JPEG"), "text/html"), "mask": ("m", picture(mode="L"), "")}
    answer = api.client.post("/v1/videos", data={**TIGER, "task": "cinemagraph"}, files=sent)
    video = answer.json()
    assert (video["task"], video["source"]) == ("cinemagraph", True)
    assert (video["request"]["source"], video["request"]["mask"]) == ("source.png", "mask.png")
    for name, kind in (("source", "image/png"), ("mask", "image/png")):
        found = api.client.get(f"/v1/videos/{video['id']}/source", params={"name": name})
        assert (found.status_code, found.headers["content-type"]) == (200, kind)
        assert found.content.startswith(b"\x89PNG")
    assert line_of(api.client.get(f"/v1/videos/{video['id']}/source?name=last_frame"), 404)
    default = api.client.post("/v1/videos", data=TIGER, files={"input_reference": picture()}).json()
    assert default["task"] == "animate"


def test_a_finished_clip_is_the_source_of_others(api: Api, tmp_path: Path) -> None:
    first = api.ask()["id"]
    assert "there is no finished video" in api.refused(video_reference={"id": first}, task="restyle")
    api.finish(first)
    for task, fields in (
        ("restyle", {"video_reference": first}), ("extend", {"video_reference": {"id": first}}),
        ("inpaint", {"input_reference": json.dumps({"id": first}), "box": "0,0,0.5,0.5"}),
    ):  # fmt: skip
        video = api.ask(task=task, **fields)
        assert video["request"]["source"] == "source.webp"
        assert api.client.get(f"/v1/videos/{video['id']}/source").headers["content-type"] == "image/webp"
    edits = api.client.post("/v1/videos/edits", data={"prompt": "a lion"}, files={"video": clip_file(tmp_path)}).json()
    assert (edits["task"], edits["prompt"]) == ("restyle", "a lion")
    boxed = api.client.post("/v1/videos/edits", json={"prompt": "a lion", "video": {"id": first}, "box": "1,1,9,9"})
    assert boxed.json()["task"] == "inpaint"
    more = api.client.post("/v1/videos/extensions", json={"prompt": "it jumps", "video": first, "seconds": "2"}).json()
    assert (more["task"], more["request"]["num_frames"]) == ("extend", 32)
    remix = api.client.post(f"/v1/videos/{first}/remix", json={"prompt": "a lion"}).json()
    assert (remix["prompt"], remix["seed"], remix["remixed_from_video_id"]) == ("a lion", 7, first)
    again = api.client.post(f"/v1/videos/{more['id']}/remix", json={"prompt": "it sleeps"}).json()
    assert api.client.get(f"/v1/videos/{again['id']}/source").status_code == 200


def test_wrong_requests_are_refused_in_one_line(api: Api) -> None:
    client = api.client
    assert api.refused(model="sora-2", status=404).startswith("model: there is no 'sora-2'")
    assert api.refused(mystery=1) == "mystery: there is no such field"
    assert api.refused(task="sing").startswith("task: unknown task 'sing'; choose one of generate,")
    assert api.refused(seed="x").startswith("seed: ")
    assert (
        api.refused(extra_params={"prompt": "x"}) == "extra_params: give an object of fields that aren't given besides"
    )
    assert "does not list" in api.refused(callback_url="http://169.254.169.254/")
    assert api.refused(input_reference={"image_url": "http://x/"}).endswith("give a file, or the id of a video")
    assert api.refused(input_reference="https://example.org/a.png").startswith("input_reference: there is no finished")
    both = {"input_reference": picture(), "video_reference": picture()}
    assert "leave one out" in line_of(client.post("/v1/videos", data=TIGER, files=both))
    assert line_of(client.post("/v1/videos", data=TIGER, files={"style": picture()})) == "style: that takes no file"
    assert line_of(client.post("/v1/videos", content=b"{", headers={"Content-Type": "application/json"}))
    assert line_of(client.post("/v1/videos", content=b"x" * 9, headers={"Content-Type": "text/plain"}), 415)
    assert line_of(client.post("/v1/videos", content=b"x", headers={"Content-Type": "multipart/form-data"}))
    twice = [("prompt", (None, "a")), ("prompt", (None, "b"))]
    assert line_of(client.post("/v1/videos", files=twice)) == "prompt is given twice"
    assert line_of(client.get("/v1/videos?limit=0")).startswith("limit: ")
    assert line_of(client.get("/v1/nothing"), 404)
    assert line_of(client.put("/v1/videos"), 405)
    for id in ("video_", "..", "%2e%2e%2fetc", "video_" + "x" * 22, "x" * 3000):
        assert client.get(f"/v1/videos/{id}").status_code == 404
        assert client.get(f"/v1/videos/{id}/content").status_code == 404


def test_lists_have_pages(tmp_path: Path) -> None:
    with running(tmp_path) as api:
        ids = [api.ask(prompt=prompt)["id"] for prompt in ("a Tiger", "a lion", "a tiger asleep")]
        page = api.client.get("/v1/videos?limit=2").json()
        assert ([video["id"] for video in page["data"]], page["has_more"]) == (ids[:0:-1], True)
        rest = api.client.get(f"/v1/videos?limit=2&after={page['last_id']}").json()
        assert ([video["id"] for video in rest["data"]], rest["has_more"]) == (ids[:1], False)
        assert [v["id"] for v in api.client.get("/v1/videos?order=asc").json()["data"]] == ids
        assert [v["id"] for v in api.client.get("/v1/videos?search=tiger").json()["data"]] == [ids[2], ids[0]]
        api.client.put(f"/v1/videos/{ids[1]}/favourite", json={"favourite": True})
        assert [v["id"] for v in api.client.get("/v1/videos?favourites=true").json()["data"]] == [ids[1]]
        assert api.client.get("/v1/videos?status=completed").json()["data"] == []


def test_what_is_deleted_or_cancelled_can_be_taken_back(api: Api) -> None:
    id = api.ask()["id"]
    deleted = api.client.delete(f"/v1/videos/{id}").json()
    assert deleted == {"id": id, "object": "video.deleted", "deleted": True, "undo_seconds": 60.0}
    assert line_of(api.client.get(f"/v1/videos/{id}"), 404) == "there is no such video"
    assert line_of(api.client.delete(f"/v1/videos/{id}"), 404)
    restored = api.client.post(f"/v1/videos/{id}/restore").json()
    assert (restored["status"], restored["error"]["code"]) == ("failed", "cancelled")
    assert line_of(api.client.post(f"/v1/videos/{id}/restore"), 404)
    other = api.ask()["id"]
    assert api.client.post(f"/v1/videos/{other}/cancel").json()["error"]["code"] == "cancelled"
    assert line_of(api.client.get(f"/v1/videos/{other}/content"), 409) == "the video could not be made"


def test_queue_and_quota_and_rate_have_their_limits(tmp_path: Path) -> None:
    limits = Limits(max_queued=2, max_queued_per_owner=9, max_jobs_per_day=9)
    with running(tmp_path, limits=limits, requests=RequestLimits(per_minute=6)) as api:
        api.ask()
        api.ask()
        full = api.client.post("/v1/videos", json=TIGER, files=None)
        assert "jobs wait already" in line_of(full, 429)
        assert int(full.headers["retry-after"]) > 0
        assert full.json()["error"]["code"] == "queue_full"
        for _ in range(3):
            api.client.get("/v1/videos")
        many = api.client.get("/v1/videos")
        assert line_of(many, 429) == "more than 6 requests a minute"
        assert 1 <= int(many.headers["retry-after"]) <= 10
        assert api.client.get("/healthz").status_code == 200
    with running(tmp_path / "other", limits=Limits(max_jobs_per_day=1)) as api:
        api.ask()
        assert api.client.post("/v1/videos", json=TIGER).json()["error"]["code"] == "quota_exceeded"


def test_bodies_are_refused_before_they_are_read(tmp_path: Path) -> None:
    with running(tmp_path, uploads=UploadLimits(bytes=1000)) as api:
        big = api.client.post("/v1/videos", data=TIGER, files={"mask": bytes(300_000)})
        assert "at most" in line_of(big, 413)
        assert "at most" in line_of(api.client.post("/login", content=bytes(70_000)), 413)
        chunks = api.client.post("/v1/videos", content=iter([b"{", b"}"]))
        assert line_of(chunks, 411).startswith("say how long the body is")
        part = api.client.post("/v1/videos", files={"prompt": (None, "x" * 70_000)})
        assert line_of(part)


def test_settings_come_back_from_a_clip_of_ours(api: Api, tmp_path: Path) -> None:
    job = api.finish(api.ask(style="flat")["id"])
    file = api.parts.results.fetch(job.id, "clip.webp").read_bytes()
    found = api.client.post("/v1/videos/inspect", files={"file": ("a.webp", file)}).json()
    assert found["request"]["prompt"] == TIGER["prompt"]
    assert found["request"]["styles"] == [["flat", 1.0]]
    assert job.recipe is not None
    recipe = Recipe.from_metadata(job.recipe, "clip.webp")
    assert recipe is not None
    assert (found["model"], found["command"]) == ("emoji", recipe.command())
    assert found["python"].startswith("from openlumiere")
    shown = api.client.get(f"/v1/videos/{job.id}").json()
    assert (shown["command"], shown["python"]) == (found["command"], found["python"])
    assert (shown["size"], shown["seconds"], shown["status"]) == ("32x32", "0.75", "completed")
    others = api.client.post("/v1/videos/inspect", files={"file": clip_file(tmp_path)})
    assert "holds no settings" in line_of(others)
    assert line_of(api.client.post("/v1/videos/inspect", json={}), 415)
    assert line_of(api.client.post("/v1/videos/inspect", data={"a": "b"}, files={"x": b"y"}))


def test_models_and_session_say_what_there_is(api: Api) -> None:
    models = api.client.get("/v1/videos/models").json()["data"]
    assert [(model["id"], model["default"]) for model in models] == [("emoji", True)]
    assert "flat" in models[0]["styles"]
    assert "telegram" in models[0]["stickers"]
    assert models[0]["error"] is None
    api.parts.store.note_model("emoji", "its weights are cut off")
    assert api.client.get("/v1/videos/models").json()["data"][0]["error"] == "its weights are cut off"
    api.parts.store.note_model("emoji", None)
    session = api.client.get("/v1/session").json()
    assert (session["signed_in"], session["keys_needed"]) == (True, False)
    assert session["limits"]["num_frames"] == RequestLimits().num_frames


def test_the_page_and_nothing_else_is_served(api: Api) -> None:
    for path in ("/", "/v/video_x"):
        page = api.client.get(path)
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert api.client.get("/page/main.js").headers["content-type"].startswith("text/javascript")
    for path in ("/page/", "/page/..%2fserver.py", "/page/%2e%2e/server.py", "/page/../keys.py", "/page//etc/passwd",
                 "/docs", "/redoc", "/static/x", "/jobs.sqlite"):  # fmt: skip
        assert line_of(api.client.get(path), 404)
