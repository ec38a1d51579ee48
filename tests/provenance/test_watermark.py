"""A mark is found and read after what happens to clips, is not seen, and is not found where it isn't."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from openlumiere.errors import LumiereError
from openlumiere.evaluation.metrics.temporal import flicker
from openlumiere.provenance import Detection, Payload, detect, embed
from openlumiere.provenance.analysis import (
    Geometry,
    details,
    evidence,
    searched,
    unmixed_waves_at,
    waves_at,
    waves_everywhere,
)
from openlumiere.provenance.carriers import PATTERNS, draw, keyed, patterns
from openlumiere.provenance.search import Plane, agreement, chance, correlations, look
from openlumiere.video import read_clip, write_clip

KEY, OTHER = b"a key of the tests", b"another key of them"
PAYLOAD = Payload(model=4711, version=10, month=82, key_id=3)


def moving(num_frames: int = 24, size: int = 128, width: int | None = None) -> np.ndarray:
    """Draw a textured disc that crosses a ground with a gradient: uint8 (F, size, width, 3)."""
    rng, width = np.random.default_rng(5), width or size
    noise = Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).resize((width, size))
    y, x = np.mgrid[:size, :width] / size
    frames = np.empty((num_frames, size, width, 3), np.uint8)
    for i, frame in enumerate(frames):
        frame[...] = (90 + 60 * y + 20 * x)[..., None]
        disc = (y - 0.5) ** 2 + (x - 0.25 - 0.5 * i / num_frames) ** 2 < 0.03
        frame[disc] = np.asarray(noise)[disc]
    return frames


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return moving()


@pytest.fixture(scope="module")
def marked(clip: np.ndarray) -> np.ndarray:
    return embed(clip, PAYLOAD, KEY, clip_id="the clip")


def psnr(before: np.ndarray, after: np.ndarray) -> float:
    return 10 * math.log10(255**2 / np.square(before.astype(float) - after).mean())


def resized(frames: np.ndarray, size: int) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(frame).resize((size, size))) for frame in frames])


def rotated(frames: np.ndarray, degrees: float) -> np.ndarray:
    turned = [Image.fromarray(frame).rotate(degrees, Image.Resampling.BICUBIC) for frame in frames]
    return np.stack([np.asarray(frame) for frame in turned])


@pytest.mark.parametrize(
    "change",
    [
        lambda frames: frames,
        lambda frames: resized(frames, 45),
        lambda frames: resized(frames, 256),
        lambda frames: frames[:, 20:111, 30:121],  # half the area
        lambda frames: rotated(frames, 10),
        lambda frames: frames[:, :, ::-1],
        lambda frames: frames[7:8],
        lambda frames: frames[[3, 3, 9, 11, 11, 11, 20]],
        lambda frames: (frames * 0.7 + 30).astype(np.uint8),
    ],
    ids=["as it is", "smaller", "larger", "cropped", "rotated", "mirrored", "one frame", "other frames", "tones"],
)
def test_a_mark_is_read_after(change: Callable[[np.ndarray], np.ndarray], marked: np.ndarray) -> None:
    found = detect(change(marked), [KEY])
    assert found.present
    assert found.p_value < 1e-6
    assert found.payload == PAYLOAD


def test_the_geometry_is_told(marked: np.ndarray) -> None:
    cropped = detect(rotated(marked, 6)[:, 16:112, 16:112], [KEY]).geometry
    assert cropped is not None
    assert cropped.scale == pytest.approx(128 / 96, rel=0.03)
    assert math.degrees(cropped.angle) == pytest.approx(6, abs=2)
    upright, turned = (detect(frames, [KEY]).geometry for frames in (marked, marked[:, :, ::-1]))
    assert upright is not None
    assert turned is not None
    assert upright.mirrored != turned.mirrored


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".webp", ".gif"])
def test_a_mark_is_read_from_a_file(suffix: str, marked: np.ndarray, tmp_path) -> None:
    assert detect(read_clip(write_clip(marked, tmp_path / f"clip{suffix}")).frames, [KEY]).payload == PAYLOAD


def test_it_is_not_seen(clip: np.ndarray, marked: np.ndarray) -> None:
    assert psnr(clip, marked) >= 42
    assert np.abs(clip.astype(int) - marked).max() <= 12
    assert flicker(marked / 255) <= flicker(clip / 255) * 1.01


def test_nothing_is_found_where_nothing_is(clip: np.ndarray, marked: np.ndarray) -> None:
    for frames, key in [(clip, KEY), (marked, OTHER)]:
        found = detect(frames, [key])
        assert found == Detection(present=False, p_value=found.p_value)
        assert found.p_value > 1e-3


def test_the_key_that_finds_it_is_told(marked: np.ndarray) -> None:
    alone, among = detect(marked, [KEY]), detect(marked, [OTHER, KEY])
    assert (alone.key, among.key) == (0, 1)
    assert among.p_value == pytest.approx(2 * alone.p_value)  # all keys are counted


def test_seconds_and_regions_are_told(clip: np.ndarray, marked: np.ndarray) -> None:
    frames = np.concatenate([marked[:16], clip[:16], marked[8:24]])
    assert detect(frames, [KEY]).seconds == (True, False, True)
    half = marked.copy()
    half[:, :, 64:] = clip[:, :, 64:]
    regions = np.array(detect(half, [KEY]).regions)
    assert regions.shape == (4, 4)
    assert regions[:, :2].mean() >= 0.75
    assert not regions[:, 2:].any()


@pytest.mark.parametrize("value", [0, 20, 128, 255])
def test_plain_ground(value: int) -> None:
    plain = np.full((8, 128, 128, 3), value, np.uint8)
    marked = embed(plain, PAYLOAD, KEY, clip_id="plain")
    assert psnr(plain, marked) >= 42
    assert detect(marked, [KEY]).payload == PAYLOAD


@pytest.mark.parametrize("size", [(128, 228), (320, 180)])
def test_other_shapes(size: tuple[int, int]) -> None:
    frames = moving(8, size[0], size[1])
    marked = embed(frames, PAYLOAD, KEY, clip_id="wide")
    assert psnr(frames, marked) >= 42
    assert detect(marked, [KEY]).payload == PAYLOAD


def test_transparent_clips_are_marked_where_they_are_visible(clip: np.ndarray) -> None:
    y, x = np.mgrid[:128, :128]
    alpha = np.clip(60 - np.hypot(y - 64, x - 64), 0, 8) / 8  # a disc with a soft edge
    alpha8 = np.broadcast_to(np.rint(alpha * 255).astype(np.uint8)[..., None], (*clip.shape[:3], 1))
    frames = np.concatenate([clip, alpha8], axis=-1)
    marked = embed(frames, PAYLOAD, KEY, clip_id="transparent")
    np.testing.assert_array_equal(marked[..., 3], frames[..., 3])
    invisible = frames[..., 3] == 0
    np.testing.assert_array_equal(marked[invisible], frames[invisible])
    assert psnr(frames[~invisible][:, :3], marked[~invisible][:, :3]) >= 42
    assert detect(marked, [KEY]).payload == PAYLOAD
    white = np.rint(marked[..., :3] * alpha[..., None] + 255 * (1 - alpha[..., None])).astype(np.uint8)
    assert detect(white, [KEY]).payload == PAYLOAD


def test_what_must_not_change_stays(clip: np.ndarray) -> None:
    where = np.zeros(clip.shape[:3], np.float32)
    where[:, :, 40:] = np.linspace(0, 1, 88)
    for frames in (clip, (clip / 200).astype(np.float32)):  # some beyond 1
        marked = embed(frames, PAYLOAD, KEY, clip_id="inpainted", where=where)
        kept = np.broadcast_to(where == 0, where.shape)
        np.testing.assert_array_equal(marked[kept], frames[kept])
        assert (marked != frames).any()
    marked = embed(clip, PAYLOAD, KEY, clip_id="inpainted", where=where > 0)
    assert psnr(clip[where > 0], marked[where > 0]) >= 39
    assert detect(marked, [KEY]).payload == PAYLOAD
    with pytest.raises(LumiereError, match="one value for each pixel"):
        embed(clip, PAYLOAD, KEY, clip_id="inpainted", where=where[0])


def test_the_picture_chooses_a_place_that_agrees_with_the_mark() -> None:
    agreements = []
    for seed in range(4):
        noise = np.random.default_rng(seed).integers(50, 200, (16, 16), dtype=np.uint8)
        still = np.asarray(Image.fromarray(noise).resize((128, 128)))[None, ..., None].repeat(3, axis=-1)
        change = embed(still, PAYLOAD, KEY, clip_id="still")[0, ..., 0].astype(np.float32) - still[0, ..., 0]
        waves, mark = (waves_at(image, Geometry()) for image in (evidence(still)[0], change))
        agreements.append(agreement(waves, mark / np.abs(mark)))
    assert np.mean(agreements) > 2  # 0 +- 0.5 at a place chosen without the picture


def test_waves_are_freed_from_what_weights_mix_into_them() -> None:
    rng = np.random.default_rng(2)
    signs = patterns(KEY)[0].amplitudes(rng.choice([-1, 1], 216).astype(np.int8))
    weights = np.zeros((128, 128), np.float32)
    weights[10:100, 20:120] = rng.uniform(0, 1, (90, 100))
    image = draw(signs, 128, 128, np.array([64.5, 64.5]), False) * weights
    mixed, unmixed = (
        abs(np.vdot(waves, signs)) / np.linalg.norm(waves) / np.linalg.norm(signs)
        for waves in (waves_at(image, Geometry()), unmixed_waves_at(image, weights, Geometry()))
    )
    assert mixed < 0.94
    assert unmixed > mixed + 0.04


def test_nothing_visible_is_left_alone() -> None:
    frames = np.zeros((2, 64, 64, 4), np.uint8)
    np.testing.assert_array_equal(embed(frames, PAYLOAD, KEY, clip_id="none"), frames)
    assert not detect(frames, [KEY]).present


def test_floats_are_marked_as_well(clip: np.ndarray) -> None:
    frames = (clip[:8] / 255).astype(np.float32)
    marked = embed(frames, PAYLOAD, KEY, clip_id="floats")
    assert marked.dtype == np.float32
    assert 0 <= marked.min() <= marked.max() <= 1
    assert psnr(255 * frames, 255 * marked) >= 42
    assert detect(marked, [KEY]).payload == PAYLOAD


def test_the_average_over_clips_does_not_tell_the_pattern() -> None:
    plain = np.full((1, 128, 128, 3), 128, np.uint8)
    changes = np.array([embed(plain, PAYLOAD, KEY, clip_id=f"clip {i}")[0, ..., 0] - 128.0 for i in range(64)])
    # What is the same in all clips would stay; what differs shrinks by the root of their number.
    assert changes.mean(axis=0).std() <= 1.5 * changes.std() / 8
    forged = np.clip(plain + np.rint(8 * changes.mean(axis=0))[..., None], 0, 255).astype(np.uint8)
    assert psnr(plain, forged) < 45  # as loud as a mark
    assert not detect(forged, [KEY]).present


def test_the_same_clip_is_marked_the_same_way(clip: np.ndarray, marked: np.ndarray) -> None:
    np.testing.assert_array_equal(embed(clip, PAYLOAD, KEY, clip_id="the clip"), marked)
    assert (embed(clip, PAYLOAD, KEY, clip_id="another") != marked).any()
    assert (embed(clip, PAYLOAD, OTHER, clip_id="the clip") != marked).any()


def test_two_marks_of_one_pattern_do_not_garble_each_other() -> None:
    """Drawn over an older mark of the same pattern, a newer one would agree most just where that one lies."""
    other = replace(PAYLOAD, model=4710)
    for key in (bytes([number]) * 32 for number in range(8)):
        once = embed(moving(8), other, key, clip_id="a")
        found = detect(embed(once, PAYLOAD, key, clip_id="a"), [key])
        assert found.payload in (PAYLOAD, other)


def test_the_bound_holds_on_unmarked_clips(clip: np.ndarray) -> None:
    seen = details(clip)
    plane = Plane(seen.evidence().sum(axis=0), seen.weights().sum(axis=0))
    scores = np.array([
        correlations(plane.upright, np.stack([p.phases for p in patterns(b"unmarked %d" % i)]), 64).max()
        for i in range(200)
    ])  # fmt: skip
    tries = 2 * PATTERNS * 64**2
    for share in (0.5, 0.1, 0.01):
        limit = math.sqrt(2 * math.log(tries / share))
        assert chance(limit, tries) == pytest.approx(share)
        assert (scores > limit).mean() <= share
    assert scores.min() > 3  # such is the highest of so many tries: the measure is no trivial one
    assert look(plane, OTHER).p_value > 1e-3


def test_the_interpolated_spectrum_is_the_exact_one(marked: np.ndarray) -> None:
    image = evidence(marked).sum(axis=0)
    everywhere = waves_everywhere(image)
    for index in (100, 700, 1300):
        exact = waves_at(image, searched()[0][index])
        agreement = np.vdot(exact, everywhere[index]) / (np.linalg.norm(exact) * np.linalg.norm(everywhere[index]))
        assert agreement.real > 0.95


def test_what_the_key_chooses_never_changes() -> None:
    # Marks of old clips must be found by new versions.
    values = keyed(KEY, b"pattern", b"\x00", count=3)
    np.testing.assert_allclose(values, [0.725348891, 0.16085272, 0.804150203], rtol=1e-6)


@pytest.mark.parametrize(
    ("frames", "keys", "message"),
    [
        (np.zeros((2, 64, 64), np.uint8), [KEY], "shape"),
        (np.zeros((0, 64, 64, 3), np.uint8), [KEY], "shape"),
        (np.zeros((2, 64, 64, 3), np.int32), [KEY], "int32"),
        (np.full((2, 64, 64, 3), np.nan, np.float32), [KEY], "not finite"),
        (np.zeros((2, 31, 64, 3), np.uint8), [KEY], "64 x 31"),
        (np.zeros((2, 64, 64, 3), np.uint8), [b"short"], "16 bytes"),
        (np.zeros((2, 64, 64, 3), np.uint8), [], "no key"),
    ],
)
def test_bad_input_is_refused(frames: np.ndarray, keys: list[bytes], message: str) -> None:
    with pytest.raises(LumiereError, match=message):
        detect(frames, keys)
    if keys:
        with pytest.raises(LumiereError, match=message):
            embed(frames, PAYLOAD, keys[0], clip_id="bad")


def test_a_rate_of_nothing_is_refused(clip: np.ndarray) -> None:
    with pytest.raises(LumiereError, match="frames per second"):
        detect(clip, [KEY], fps=0)
