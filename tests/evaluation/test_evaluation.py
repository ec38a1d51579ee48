"""The emoji evaluation: real clips score high, wrong ones low, a still picture nothing on motion."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openlumiere.data.emoji.drawing import Atlas
from openlumiere.data.emoji.scenes import TRANSPARENT, Scene, SceneSampler, vocabulary
from openlumiere.errors import LumiereError
from openlumiere.evaluation.clips import Sample
from openlumiere.evaluation.judges import Judges, load_judges
from openlumiere.evaluation.judges.classifier import ClassifierConfig, subject_classifier
from openlumiere.evaluation.judges.motion import FROZEN, MotionConfig
from openlumiere.evaluation.metrics.pixels import SIDE, as_clip, background, lab, moving_fraction
from openlumiere.evaluation.protocols.emoji import EmojiSettings, clip_seed, evaluate, measure
from openlumiere.evaluation.protocols.emoji_report import summary
from openlumiere.evaluation.real_clips import real_clips
from openlumiere.tables import wilson
from tiny_data import scene, tiny_atlas

SUBJECTS = ("ell", "wedge", "flag", "dial")
SUBJECT_CONFIG = ClassifierConfig(width=8, steps=150, batch_size=48, held_out_clips=40)
MOTION_CONFIG = MotionConfig(clips=800, steps=1600, held_out_clips=60)


@pytest.fixture(scope="module")
def atlases() -> dict[str, Atlas]:
    return {key: tiny_atlas(key) for key in SUBJECTS}


@pytest.fixture(scope="module")
def judges_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("judges")


@pytest.fixture(scope="module")
def judges(atlases: dict[str, Atlas], judges_folder: Path) -> Judges:
    return load_judges(atlases, judges_folder, subject=SUBJECT_CONFIG, motion=MOTION_CONFIG, progress=False)


# Pixels


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((1.0, 1.0, 1.0), (100.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ((1.0, 0.0, 0.0), (53.24, 80.09, 67.20)),
        ((0.0, 0.0, 1.0), (32.30, 79.19, -107.86)),
    ],
)
def test_lab_of_known_colors(rgb: tuple[float, ...], expected: tuple[float, ...]) -> None:
    assert lab(torch.tensor([rgb]))[0].tolist() == pytest.approx(expected, abs=0.05)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    subject=st.sampled_from(SUBJECTS),
    color=st.sampled_from(list(vocabulary()["backgrounds"])),
    motion=st.sampled_from(list(vocabulary()["motions"])),
    size=st.sampled_from(list(vocabulary()["sizes"])),
    drift=st.floats(0, 1),
)
def test_background_is_told_whatever_crosses_the_border(
    subject: str, color: str, motion: str, size: str, drift: float
) -> None:
    asked = scene(subject=subject, background=color, motion=motion, size=size, drift=(drift, drift, 0.0))
    clip = real_clips({subject: tiny_atlas(subject, loop=8)}, [asked], num_frames=16)[0]
    assert background(as_clip(clip))[0] == color
    assert moving_fraction(clip) > 0.5  # the dot may leave a shape for a while


@given(changes=st.lists(st.booleans(), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_moving_fraction_counts_pairs_that_differ(changes: list[bool]) -> None:
    levels = np.cumsum([0, *changes]) * 12
    clip = np.broadcast_to(levels[:, None, None, None].astype(np.uint8), (len(levels), 40, 48, 3))
    assert moving_fraction(clip) == pytest.approx(np.mean(changes))


@pytest.mark.slow
@pytest.mark.parametrize("crf", [18, 23])
def test_a_still_picture_does_not_move_even_through_a_codec(atlases: dict[str, Atlas], crf: int) -> None:
    picture = real_clips(atlases, [scene()])[0][:1]
    still = np.repeat(picture, 80, axis=0)
    assert moving_fraction(still) == 0.0
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=16)
        stream.width, stream.height, stream.pix_fmt, stream.options = 32, 32, "yuv420p", {"crf": str(crf)}
        for frame in still:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as file:
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    assert len(decoded) == 80
    assert moving_fraction(decoded) < 0.03


def test_a_clip_of_another_shape_is_refused() -> None:
    with pytest.raises(LumiereError, match="shape"):
        as_clip(np.zeros((4, 3, 32, 32), np.uint8))


# Judges


@pytest.mark.slow
def test_judges_know_real_clips_that_they_were_not_trained_on(judges: Judges) -> None:
    assert judges.subject.card["accuracy"]["held-out combinations"] >= 0.95
    assert judges.motion.card["accuracy"]["held-out combinations"] >= 0.9
    assert judges.subject.card["subjects"] == sorted(SUBJECTS)


def test_judges_say_the_same_of_a_clip_drawn_larger(judges: Judges, atlases: dict[str, Atlas]) -> None:
    clip = real_clips(atlases, [scene(motion="left")])[0]
    larger = clip.repeat(2, axis=1).repeat(2, axis=2)
    small, large = judges.verdict(clip, scene(motion="left")), judges.verdict(larger, scene(motion="left"))
    assert small.motion == large.motion == "left"
    assert (small.subject, small.background) == (large.subject, large.background) == ("ell", "green")


@pytest.mark.slow
@pytest.mark.parametrize(("shown", "backwards"), [("left", "right"), ("up", "down"), ("grow", "shrink")])
def test_a_clip_played_backwards_moves_the_other_way(
    judges: Judges, atlases: dict[str, Atlas], shown: str, backwards: str
) -> None:
    clips = [real_clips(atlases, [scene(subject=key, motion=shown, size="small")])[0] for key in SUBJECTS]
    assert [judges.motion.classify(clip) for clip in clips] == [shown] * 4
    assert [judges.motion.classify(clip[::-1]) for clip in clips] == [backwards] * 4


def test_a_still_picture_has_no_motion_right_not_even_still(judges: Judges, atlases: dict[str, Atlas]) -> None:
    still = np.repeat(real_clips(atlases, [scene()])[0][:1], 80, axis=0)
    verdict = judges.verdict(still, scene(motion="still"))
    assert verdict.motion == FROZEN
    assert not verdict.right("motion")
    assert verdict.moving == 0.0
    assert verdict.right("subject")


def test_features_are_those_of_the_frames_shown(judges: Judges, atlases: dict[str, Atlas]) -> None:
    clip = real_clips(atlases, [scene()], num_frames=5)[0]
    features = judges.subject.features(clip)
    assert features.shape == (5, 4 * SUBJECT_CONFIG.width)
    assert (features >= 0).all()
    torch.testing.assert_close(features[3:4], judges.subject.features(clip[3:4]))


@pytest.mark.slow
def test_judges_are_read_back_and_never_mixed_up(
    judges: Judges, atlases: dict[str, Atlas], judges_folder: Path, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in judges_folder.iterdir()}
    again = load_judges(atlases, judges_folder, subject=SUBJECT_CONFIG, motion=MOTION_CONFIG, progress=False)
    assert {path: path.stat().st_mtime_ns for path in judges_folder.iterdir()} == before
    for name, weight in judges.subject.state_dict().items():
        torch.testing.assert_close(again.subject.state_dict()[name], weight, rtol=0, atol=0)
    assert again.motion.card == judges.motion.card

    quick = replace(SUBJECT_CONFIG, steps=2, held_out_clips=2)
    subject_classifier(atlases, tmp_path, config=quick, progress=False)
    fewer = {key: atlases[key] for key in SUBJECTS[:3]}
    subject_classifier(fewer, tmp_path, config=quick, progress=False)
    weights = list(tmp_path.glob("subject-*.safetensors"))
    assert len(weights) == 2
    for path in weights:
        path.write_bytes(b"not weights")
    with pytest.raises(LumiereError, match="damaged"):
        subject_classifier(fewer, tmp_path, config=quick, progress=False)


# Figures


def test_wilson_interval_of_known_counts() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


@given(of=st.integers(1, 500), data=st.data())
def test_wilson_interval_holds_the_share_and_mirrors(of: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, of))
    low, high = wilson(right, of)
    assert 0.0 <= low <= right / of + 1e-12
    assert right / of - 1e-12 <= high <= 1.0
    assert wilson(of - right, of) == pytest.approx((1 - high, 1 - low))


def test_seeds_differ_between_clips_and_not_between_runs() -> None:
    seeds = [clip_seed(seed, split, i) for seed in (0, 1) for split in ("train", "combinations") for i in range(50)]
    assert len(set(seeds)) == len(seeds)
    assert clip_seed(0, "train", 3) == seeds[3]


# The whole evaluation


@pytest.mark.slow
def test_real_clips_score_high_and_wrong_ones_low(judges: Judges, atlases: dict[str, Atlas], tmp_path: Path) -> None:
    def real(scenes: list[Scene], seeds: list[int]) -> np.ndarray:
        return real_clips(atlases, scenes)

    def wrong_subject(scenes: list[Scene], seeds: list[int]) -> np.ndarray:
        following = dict(zip(SUBJECTS, SUBJECTS[1:] + SUBJECTS[:1], strict=True))
        return real_clips(atlases, [replace(s, subject=following[s.subject]) for s in scenes])

    def wrong_background_still(scenes: list[Scene], seeds: list[int]) -> np.ndarray:
        other = [replace(s, background="white" if s.background != "white" else "black") for s in scenes]
        return np.repeat(real_clips(atlases, other)[:, :1], 80, axis=1)

    found = {
        make.__name__: measure(
            make, atlases, judges, tmp_path / make.__name__, EmojiSettings(clips=10, size=SIDE),
            model={"model": make.__name__}, progress=False,
        )
        for make in (real, wrong_subject, wrong_background_still)
    }  # fmt: skip
    for title in ("seen", "held-out combinations", "paraphrases"):
        good, subject, still = (report["splits"][title]["model"] for report in found.values())
        assert good["subject"]["accuracy"] >= 0.9
        assert good["background"]["accuracy"] == 1.0
        assert good["motion"]["accuracy"] >= 0.8
        assert good["moving_fraction"]["mean"] > 0.95
        assert subject["subject"]["accuracy"] <= 0.1
        assert subject["all three"]["accuracy"] <= 0.1
        assert subject["background"]["accuracy"] == 1.0
        assert still["background"]["accuracy"] == 0.0
        assert still["motion"]["accuracy"] == 0.0
        assert still["moving_fraction"]["mean"] == 0.0
        assert still["motion_confusion"].keys() == still["motion_by_motion"].keys()

    # The ceiling is the same whatever the model made.
    assert found["real"]["real"] == found["wrong_subject"]["real"]
    output = tmp_path / "real"
    stored = json.loads((output / "report.json").read_text())
    assert stored["protocol"]["clips_per_split"] == 10
    assert {"torch", "openlumiere"} <= stored["protocol"]["versions"].keys()
    assert "held-out combinations" in (output / "report.md").read_text()
    assert (output / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert "subject classifier, on held-out combinations of real clips" in summary(found["real"])


@pytest.mark.slow
def test_transparent_scenes_are_asked_for_and_told(judges: Judges, atlases: dict[str, Atlas], tmp_path: Path) -> None:
    def real(scenes: list[Scene], seeds: list[int]) -> np.ndarray:
        return real_clips(atlases, scenes, num_frames=16, channels=4)

    def opaque(scenes: list[Scene], seeds: list[int]) -> np.ndarray:
        cut = [replace(s, background="blue" if s.background == TRANSPARENT else s.background) for s in scenes]
        return real(cut, seeds)

    def run(make: Sample, **options: object) -> dict:
        return measure(
            make, atlases, judges, tmp_path / make.__name__,
            EmojiSettings(clips=30, num_frames=16, size=SIDE, splits=("train",)), model={"model": make.__name__},
            channels=4, progress=False, **options,
        )  # fmt: skip

    good = run(real)
    cut = good["splits"]["seen"]["model"]["background_by_background"][TRANSPARENT]
    assert cut["of"] >= 1
    assert cut["right"] == cut["of"]
    assert np.load(tmp_path / "real" / "real" / "train-00000.npy").shape == (16, 32, 32, 4)
    phases = good["splits"]["seen"]["model"]["motion_by_phase"]
    repeated = [v for v in good["splits"]["seen"]["verdicts"] if v["period"]]
    assert sum(phase["of"] for phase in phases.values()) == len(repeated) > 0
    assert good["looks"]["model"] == good["looks"]["real"]
    assert good["looks"]["model"]["grain"] < 0.5
    bad = run(opaque, baseline=tmp_path / "real")
    assert bad["splits"]["seen"]["model"]["background_by_background"][TRANSPARENT]["right"] == 0
    text = (tmp_path / "opaque" / "report.md").read_text()
    assert "| real: seen |" in text
    assert "grain on plain ground" in text
    assert good["sharpness"]["FVD-emoji"]["model"] == pytest.approx(0, abs=1e-3)
    (tmp_path / "real" / "report.json").write_text("{}")
    with pytest.raises(LumiereError, match="no report of this version"):
        run(opaque, baseline=tmp_path / "real")


@pytest.mark.slow
def test_a_stopped_evaluation_goes_on_and_ends_alike(judges: Judges, atlases: dict[str, Atlas], tmp_path: Path) -> None:
    made: list[int] = []

    def make(scenes: list[Scene], seeds: list[int], *, budget: int = 10**6) -> np.ndarray:
        if len(made) >= budget:
            raise KeyboardInterrupt
        made.extend(seeds)
        return real_clips(atlases, scenes, num_frames=16) / np.float32(255)

    def run(output: Path, batch: int = 1, seed: int = 0, **options: int) -> dict:
        return measure(
            lambda scenes, seeds: make(scenes, seeds, **options), atlases, judges, output,
            EmojiSettings(
                clips=4, num_frames=16, size=SIDE, splits=("train", "combinations"), batch=batch, seed=seed
            ),
            model={"model": "real"}, progress=False,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", budget=5)
    assert not (tmp_path / "stopped" / "report.json").exists()
    assert len(made) == 5
    resumed = run(tmp_path / "stopped")
    assert len(made) == len(set(made)) == 8  # no clip was made twice
    whole = run(tmp_path / "whole", batch=3)
    assert resumed["splits"] == whole["splits"]

    with pytest.raises(LumiereError, match="another seed"):
        run(tmp_path / "stopped", seed=1)
    next((tmp_path / "stopped" / "clips").iterdir()).write_bytes(b"")
    with pytest.raises(LumiereError, match="damaged"):
        run(tmp_path / "stopped")


@pytest.mark.slow
def test_a_pipeline_is_evaluated_from_its_folder(judges: Judges, atlases: dict[str, Atlas], tmp_path: Path) -> None:
    from diffusers import DDIMScheduler, UNet2DConditionModel

    from openlumiere import LumierePipeline, STUNet
    from openlumiere.pipelines.text import MINILM

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=12, out_channels=12, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=384, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip
    pipeline = LumierePipeline(
        unet=STUNet.from_unet(unet), scheduler=DDIMScheduler(), pixel_unshuffle=2, text_encoder_id=MINILM,
        num_inference_steps=2,
    )  # fmt: skip
    pipeline.save_pretrained(tmp_path / "model")
    report = evaluate(
        str(tmp_path / "model"), atlases, tmp_path / "out",
        EmojiSettings(clips=2, num_frames=16, splits=("train",), batch=2), judges=judges, progress=False,
    )  # fmt: skip
    protocol = report["protocol"]
    assert len(protocol["weights_sha256"]) == 64
    assert protocol["num_inference_steps"] == 2
    assert report["splits"]["seen"]["model"]["clips"] == 2
    assert np.load(tmp_path / "out" / "clips" / "train-00000.npy").shape == (16, 16, 16, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clips": 0}, "at least 1"),
        ({"batch": 0}, "at least 1"),
        ({"splits": ("trian",)}, "trian"),
        ({"subjects": ["unicorn"]}, "unicorn"),
    ],
)
def test_bad_input_is_told_in_one_line(
    judges: Judges, atlases: dict[str, Atlas], tmp_path: Path, options: dict, message: str
) -> None:
    def run() -> None:
        asked = EmojiSettings(**options)
        measure(lambda *_: np.zeros(0), atlases, judges, tmp_path / "out", asked, model={}, progress=False)

    with pytest.raises(LumiereError, match=message) as told:
        run()
    assert "\n" not in str(told.value)
    with pytest.raises(LumiereError, match="unknown model"):
        evaluate("no-such-model", atlases, tmp_path / "out", progress=False)


def test_scenes_of_an_evaluation_are_held_out_from_training(atlases: dict[str, Atlas]) -> None:
    names = {key: atlas.names for key, atlas in atlases.items()}
    trained = {(s.subject, s.motion, s.background) for s in map(SceneSampler(names), range(2000))}
    asked = {(s.subject, s.motion, s.background) for s in map(SceneSampler(names, split="combinations"), range(200))}
    assert not trained & asked
