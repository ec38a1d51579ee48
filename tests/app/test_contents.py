"""Files of a finished clip: formats made on demand, ranges, ETags, stickers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from api_tools import Api, clip, line_of, running

from openlumiere.app.api.objects import FORMATS
from openlumiere.app.jobs.store import Job
from openlumiere.provenance.credentials import check
from openlumiere.video import read_clip, read_metadata
from openlumiere.video.stickers import check_sticker, target_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def job(api: Api) -> Job:
    return api.finish(api.ask(prompt="a tiger: left!")["id"], alpha=True)


def _get(api: Api, job: Job, **query: object) -> bytes:
    answer = api.client.get(f"/v1/videos/{job.id}/content", params=query)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return answer.content


@pytest.mark.parametrize("format", ["mp4", "gif", "apng", "webm", "mov"])
def test_other_formats_are_made_once_with_the_recipe_inside(api: Api, job: Job, format: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:  # at the same time: it is made once for all of them
        made = list(pool.map(lambda _: _get(api, job, format=format), range(3)))
    assert made[0] == made[1] == made[2] == _get(api, job, format=format)
    path = tmp_path / f"a.{format}"
    path.write_bytes(made[0])
    assert read_metadata(path)["prompt"] == "a tiger: left!"
    read = read_clip(path)
    assert (len(read.frames), read.fps) == (6, pytest.approx(8))
    assert read.frames.shape[-1] == (3 if format == "mp4" else 4)
    if format == "apng":
        shown = clip(alpha=True)
        assert np.array_equal(read.frames * (shown[..., 3:] > 0), shown * (shown[..., 3:] > 0))
    known = api.parts.store.get(job.id)
    assert known is not None
    assert f"clip.{format}" in known.files


@pytest.mark.parametrize("wanted", [{"format": "mp4"}, {"format": "gif"}, {"sticker": "slack"}])
def test_other_formats_of_a_marked_clip_are_signed(api: Api, wanted: dict[str, str], tmp_path: Path) -> None:
    marker = api.parts.marker
    assert marker is not None
    mark = marker.of({"model": "emoji"})
    job = api.finish(api.ask()["id"], watermark=mark.words)
    path = tmp_path / f"a.{wanted.get('format', 'gif')}"
    path.write_bytes(_get(api, job, **wanted))
    credentials = check(path, identity=marker.identity)
    assert credentials is not None
    assert (credentials.state, credentials.soft_binding) == ("trusted", mark.payload)
    assert path.stat().st_size <= 128_000


def test_mp4_is_the_usual_format_and_names_are_safe(api: Api, job: Job) -> None:
    answer = api.client.get(f"/v1/videos/{job.id}/content?download=1")
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-disposition"] == 'attachment; filename="a-tiger-left.mp4"'
    assert _get(api, job, format="webp").startswith(b"RIFF")
    for format, kind in FORMATS.items():
        if format != "png":
            assert api.client.get(f"/v1/videos/{job.id}/content?format={format}").headers["content-type"] == kind


def test_parts_are_given_and_nothing_is_given_twice(api: Api, job: Job) -> None:
    path = f"/v1/videos/{job.id}/content?format=webp"
    whole = api.client.get(path)
    assert whole.headers["accept-ranges"] == "bytes"
    part = api.client.get(path, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole.content)}"
    assert api.client.get(path, headers={"Range": "bytes=999999-"}).status_code == 416
    etag = whole.headers["etag"]
    known = api.client.get(path, headers={"If-None-Match": f'W/"x", {etag}'})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", etag)
    other = api.client.get(f"/v1/videos/{job.id}/content?format=mp4")
    assert other.headers["etag"] != etag
    assert api.client.get(path, headers={"Range": "bytes=0-1", "If-Range": '"other"'}).status_code == 200


def test_stickers_are_made_for_every_service(api: Api, job: Job, tmp_path: Path) -> None:
    for target, suffix in (("telegram", ".webm"), ("slack", ".gif"), ("whatsapp", ".webp")):
        path = tmp_path / f"{target}{suffix}"
        path.write_bytes(_get(api, job, sticker=target))
        check_sticker(path, target_for(target), suffix=suffix, transparent=True)
    ask = f"/v1/videos/{job.id}/content"
    assert "no stickers for" in line_of(api.client.get(f"{ask}?sticker=myspace"))
    assert "leave format out" in line_of(api.client.get(f"{ask}?sticker=slack&format=gif"))
    assert line_of(api.client.get(f"{ask}?variant=thumbnail&format=gif"))
    assert line_of(api.client.get(f"{ask}?variant=poster")).startswith("variant: ")
    assert line_of(api.client.get(f"{ask}?variant=thumbnail"), 404)


def test_a_clip_that_lacks_its_second_stage_is_given_as_it_is(api: Api) -> None:
    asked = api.ask()["id"]
    assert line_of(api.client.get(f"/v1/videos/{asked}/content"), 409) == "the video is not finished yet"
    done = api.finish(api.ask()["id"])
    api.parts.store.start(asked, "worker", max_attempts=3)
    api.parts.results.put(asked, "base.webp", api.parts.results.fetch(done.id, "clip.webp"))
    api.parts.store.cancelled(asked, files=["base.webp"])
    shown = api.client.get(f"/v1/videos/{asked}").json()
    assert (shown["error"]["code"], "webp" in shown["formats"]) == ("cancelled", True)
    assert api.client.get(f"/v1/videos/{asked}/content?format=webp").content.startswith(b"RIFF")
    assert api.client.get(f"/v1/videos/{asked}/content").headers["content-type"] == "video/mp4"


def test_previews_are_told_apart_by_their_version(api: Api) -> None:
    id = api.ask()["id"]
    assert line_of(api.client.get(f"/v1/videos/{id}/preview.webp"), 404)
    done = api.finish(api.ask()["id"])
    api.parts.results.put(id, "preview.webp", api.parts.results.fetch(done.id, "clip.webp"))
    api.parts.store.start(id, "worker", max_attempts=3)
    tags = []
    for version in (1, 2):
        api.parts.store.tell(
            id, stage="denoise", step=version, total_steps=9, progress=5, seconds_left=3.0, preview=version
        )
        found = api.client.get(f"/v1/videos/{id}/preview.webp?v={version}")
        assert (found.status_code, found.headers["content-type"]) == (200, "image/webp")
        tags.append(found.headers["etag"])
    assert tags[0] != tags[1]


def test_results_elsewhere_are_given_from_a_copy_that_goes(tmp_path: Path) -> None:
    with running(tmp_path, results="memory://clips") as api:
        job = api.finish(api.ask()["id"])
        assert _get(api, job, format="webp").startswith(b"RIFF")
        assert _get(api, job, format="gif").startswith(b"GIF89a")
        part = api.client.get(f"/v1/videos/{job.id}/content?format=gif", headers={"Range": "bytes=0-3"})
        assert part.content == b"GIF8"
        again = api.ask(task="restyle", video_reference=job.id)
        assert api.client.get(f"/v1/videos/{again['id']}/source").content.startswith(b"RIFF")
        api.check_tidy()
