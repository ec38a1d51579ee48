"""Whatever is written for a user is marked and signed, says so, and keeps what was given to the pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from openlumiere.bundled import bundled_models
from openlumiere.errors import LumiereError
from openlumiere.generation import recipe
from openlumiere.generation.abilities import Abilities, Fitted
from openlumiere.generation.backends import find
from openlumiere.generation.backends.base import Backend, Clip
from openlumiere.generation.make import Made, make
from openlumiere.generation.progress import Watch
from openlumiere.generation.recipe import ModelIdentity, Recipe
from openlumiere.generation.requests import GenerateRequest, Request, Sticker
from openlumiere.generation.stickers import sticker_from_file
from openlumiere.provenance import Detection, detect, in_files, marking, model_numbers
from openlumiere.provenance.credentials import can_hold, check
from openlumiere.provenance.identity import Identity
from openlumiere.provenance.in_files import detect_in_file, files_in, spans
from openlumiere.provenance.marking import Marker, payload_in, release_of, version_number
from openlumiere.provenance.model_numbers import model_name, model_number
from openlumiere.video import read_clip, read_metadata, write_clip
from openlumiere.video.metadata import Metadata

RECIPE: Mapping[str, Any] = {"openlumiere": "0.1.0", "prompt": "a disc", "seed": 3, "model": "emoji"}


def drawn(num_frames: int = 16, size: int = 128, channels: int = 3) -> np.ndarray:
    """A disc that crosses a ground with a gradient, transparent around it where alpha is asked for: uint8."""
    y, x = np.mgrid[:size, :size] / size
    frames = np.empty((num_frames, size, size, channels), np.uint8)
    for i, frame in enumerate(frames):
        frame[..., :3] = (90 + 60 * y + 20 * x)[..., None]
        inside = np.hypot(y - 0.5, x - 0.3 - 0.4 * i / num_frames)
        frame[inside < 0.25, :3] = (200, 80, 40)
        frame[..., 3:] = 255 * (inside < 0.45)[..., None]
    return frames


@dataclass(frozen=True)
class Drawing(Backend):
    """A backend that draws."""

    clip: Clip

    def fit(self, request: Request) -> Fitted:
        return Fitted(request)

    def make(self, request: Request, watch: Watch) -> Clip:
        return self.clip


def backend(clip: Clip) -> Drawing:
    return Drawing(Abilities(model="emoji", tasks=("generate",)), ModelIdentity(name="emoji"), clip)


@pytest.fixture(scope="module")
def identity() -> Identity:
    return Identity.load()


@pytest.fixture
def marker(identity: Identity) -> Marker:
    return Marker(identity)


def written(path: Path, marker: Marker | None, clip: Clip | None = None, **fields: Any) -> Made:
    request = GenerateRequest(prompt="a disc", seed=3, output=str(path), **fields)
    return make(request, backend(clip or Clip(drawn(), 16)), marker=marker)


def look(path: Path, identity: Identity) -> Detection:
    return detect_in_file(path, [identity.watermark_key])


# ------------------------------------------------------------------------------------------------ the mark


def test_a_mark_hangs_on_the_recipe_alone(marker: Marker) -> None:
    mark = marker.of(RECIPE, today=date(2026, 11, 29))
    assert mark.words.endswith(f"(emoji, openlumiere 0.1, 2026-11, key {marker.identity.key_id})")
    assert marker.of({**RECIPE, "watermark": "none"}, today=date(2026, 11, 1)) == mark
    assert marker.of({**RECIPE, "seed": 4}).clip_id != mark.clip_id
    np.testing.assert_array_equal(mark.put_into(drawn(4)), mark.put_into(drawn(4)))


def test_a_recipe_tells_what_the_mark_says(marker: Marker) -> None:
    mark = marker.of(RECIPE)
    told = {**RECIPE, "watermark": mark.words}
    assert payload_in(told) == mark.payload
    assert marker.carried(told) == replace(mark, is_there=True)
    frames = drawn(2)
    assert marker.of(told).put_into(frames) is frames  # no second one on top
    for nothing in ({}, {"watermark": "none"}, {"watermark": "00110010526 (short)"}, {"watermark": 7}):
        assert payload_in(nothing) is None
        assert marker.carried({**RECIPE, **nothing}) is None
    assert (recipe.WATERMARK_KEY, recipe.UNMARKED) == (marking.RECIPE_KEY, marking.UNMARKED)


def test_what_was_given_keeps_every_pixel(marker: Marker) -> None:
    frames, where = drawn(), np.zeros((16, 128, 128), bool)
    where[2:, :, :64] = True
    marked = marker.of(RECIPE).put_into(frames, where)
    np.testing.assert_array_equal(marked[~where], frames[~where])
    assert (marked[where] != frames[where]).mean() > 0.3
    found = detect(marked, [marker.identity.watermark_key], fps=16)
    assert found.payload == marker.of(RECIPE).payload
    left, right = np.split(np.array(found.regions), 2, axis=1)
    assert left.all()
    assert not right.any()


def test_releases_have_numbers() -> None:
    for version, number, told in (("0.1.0", 1, "0.1"), ("1.12.3", 112, "1.12"), ("2.0rc1", 200, "2.0")):
        assert version_number(version) == number
        assert release_of(number) == told


def test_models_keep_their_numbers() -> None:
    """They stand in clips that are out already: a number that changes its meaning tells lies of them."""
    assert model_numbers._BUNDLED == {"emoji-nano": 16, "emoji": 17}
    assert model_numbers._FAMILIES == {
        "stunet": 256, "animatediff": 257, "zeroscope": 258, "svd": 259, "wan": 260, "ltx": 261, "cogvideox": 262,
        "remote": 263,
    }  # fmt: skip
    assert {*find._FAMILIES, "remote"} == set(model_numbers._FAMILIES)
    makers = [name for name in bundled_models() if "generate" in find.read_abilities(name).tasks]
    assert set(makers) <= set(model_numbers._BUNDLED)
    assert [model_number(*of) for of in (("emoji", "stunet"), ("emoji+ssr", "stunet"), ("x/y", "wan"), ("x/y",))] == [
        17, 17, 260, 0,
    ]  # fmt: skip
    assert [model_name(number) for number in (0, 16, 256, 260, 999)] == [
        "another model", "emoji-nano", "a model of one's own", "wan", "model 999",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.webm", "a.webp", "a.gif", "a.apng", "frames"])
def test_files_are_marked_signed_and_say_so(marker: Marker, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    made = written(path, marker)
    found = look(path, marker.identity)
    assert found.payload is not None
    assert found.payload == payload_in(made.recipe.metadata())
    assert found.payload.model == 17
    again = Recipe.from_metadata(read_metadata(path), str(path))
    assert again is not None
    assert again.watermark == made.recipe.watermark
    assert "--no-mark" not in made.recipe.command()
    credentials = check(path, identity=marker.identity)
    assert (credentials is not None) == can_hold(path)
    if credentials is not None:
        assert credentials.state == "trusted"
        assert credentials.soft_binding == found.payload


def test_a_contact_sheet_is_signed(marker: Marker, tmp_path: Path) -> None:
    written(tmp_path / "sheet.png", marker)
    assert check(tmp_path / "sheet.png", identity=marker.identity) is not None


def test_without_a_marker_nothing_changes(identity: Identity, tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    made = written(path, None)
    np.testing.assert_array_equal(read_clip(path).frames, drawn())
    assert made.recipe.watermark == "none"
    assert made.recipe.command().endswith(" --no-mark")
    assert check(path) is None
    assert not look(path, identity).present


def test_tiny_clips_are_marked_as_they_are_shown(marker: Marker, tmp_path: Path) -> None:
    small, where = drawn(16, 32), np.ones((16, 32, 32), bool)
    where[0] = False
    written(tmp_path / "a.webp", marker, Clip(small, 16, where))
    frames = read_clip(tmp_path / "a.webp").frames
    np.testing.assert_array_equal(frames[0], small[0].repeat(4, 0).repeat(4, 1))
    assert look(tmp_path / "a.webp", marker.identity).present


def test_a_clip_of_a_server_that_marks_keeps_its_mark(marker: Marker, tmp_path: Path) -> None:
    theirs = marker.of({**RECIPE, "seed": 9})
    frames = theirs.put_into(drawn())
    made = written(tmp_path / "a.webp", marker, Clip(frames, 16, watermark=theirs.words))
    np.testing.assert_array_equal(read_clip(tmp_path / "a.webp").frames, frames)
    assert made.recipe.watermark == theirs.words


def test_a_clip_that_was_marked_before_gets_its_own_mark(marker: Marker, tmp_path: Path) -> None:
    """As one that is upscaled or restyled: one of both is told."""
    older = marker.of({**RECIPE, "seed": 9, "model": "emoji-nano"})
    made = written(tmp_path / "a.mp4", marker, Clip(older.put_into(drawn()), 16))
    found = look(tmp_path / "a.mp4", marker.identity)
    assert found.present
    assert found.payload in (payload_in(made.recipe.metadata()), older.payload)


# ------------------------------------------------------------------------------------------------ stickers


@pytest.mark.parametrize(("target", "name"), [("telegram", "a.webm"), ("slack", "a.gif"), ("discord", "a.apng")])
def test_stickers_are_marked_and_signed_within_their_bytes(
    marker: Marker, tmp_path: Path, target: str, name: str
) -> None:
    path = tmp_path / name
    made = written(path, marker, sticker=Sticker(target=target))
    assert look(path, marker.identity).payload == payload_in(made.recipe.metadata())
    assert payload_in(read_metadata(path)) == payload_in(made.recipe.metadata())
    credentials = check(path, identity=marker.identity)
    assert (credentials is not None) == can_hold(path)
    assert f"{path.stat().st_size / 1000:.0f} KB of" in made.note


def test_stickers_of_files(marker: Marker, tmp_path: Path) -> None:
    """One of ours keeps its mark, or gets one; one of other programs is left alone."""
    ours, unmarked, others = (tmp_path / f"{name}.webp" for name in ("ours", "unmarked", "others"))
    made = written(ours, marker)
    written(unmarked, None)
    write_clip(drawn(), others, lossless=True)
    told = {}
    for source in (ours, unmarked, others):
        output = tmp_path / f"{source.stem}.gif"
        sticker_from_file(str(source), Sticker(target="slack"), output, marker=marker)
        told[source.stem] = (look(output, marker.identity).payload, check(output, identity=marker.identity) is not None)
    payload = payload_in(made.recipe.metadata())
    assert told == {"ours": (payload, True), "unmarked": (payload, True), "others": (None, False)}
    assert payload_in(read_metadata(tmp_path / "unmarked.gif")) == payload


# ------------------------------------------------------------------------------------------------ files that are read


def test_a_marked_part_of_a_long_film_is_found(marker: Marker, tmp_path: Path) -> None:
    film = np.concatenate([drawn(8)] * 30)  # half a minute at 8 frames a second
    film[96:144] = marker.of(RECIPE).put_into(film[96:144])
    write_clip(film, tmp_path / "film.mp4", fps=8)
    done: list[float] = []
    found = detect_in_file(tmp_path / "film.mp4", [marker.identity.watermark_key], progress=done.append)
    assert found.payload == marker.of(RECIPE).payload
    assert len(found.seconds) == 30
    assert spans(found.seconds) == [(12, 18)]
    assert done == [10, 20, 30]


def test_large_frames_are_shrunk_before_they_are_kept(
    marker: Marker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []

    def noted(frames: np.ndarray, *args: Any, **options: Any) -> Detection:
        seen.append(frames.shape)
        return detect(frames, *args, **options)

    monkeypatch.setattr(in_files, "detect", noted)
    for channels in (3, 4):
        frames = marker.of(RECIPE).put_into(drawn(6, 780, channels))
        write_clip(frames, tmp_path / "large.apng", fps=6)
        assert look(tmp_path / "large.apng", marker.identity).present
    assert [shape[:3] for shape in seen] == [(6, 260, 260)] * 2


def test_a_picture_of_a_frame_is_enough(marker: Marker, tmp_path: Path) -> None:
    frame = marker.of(RECIPE).put_into(drawn())[7]
    for name in ("shot.png", "shot.jpg", "shot.bmp"):
        Image.fromarray(frame).save(tmp_path / name, quality=90)  # of the one that has it
        assert look(tmp_path / name, marker.identity).payload == marker.of(RECIPE).payload


def test_folders_are_searched(tmp_path: Path) -> None:
    note: Metadata = {"prompt": "a disc"}
    (tmp_path / "below" / "empty").mkdir(parents=True)
    for name in ("b.webp", "below/a.gif", "below/frames"):
        write_clip(drawn(2, 32), tmp_path / name, metadata=note)
    (tmp_path / "notes.txt").write_text("nothing to look at")
    (tmp_path / ".hidden.png").write_bytes(b"")
    assert files_in(tmp_path) == [tmp_path / name for name in ("b.webp", "below/a.gif", "below/frames")]
    assert files_in(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]  # what is named is looked at, and refused
    for path, says in ((tmp_path / "below" / "empty", "holds no clips"), (tmp_path / "none", "does not exist")):
        with pytest.raises(LumiereError, match=says):
            files_in(path)
