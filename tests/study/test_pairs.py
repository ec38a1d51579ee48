"""Pairing: which clips belong together, what is made of them, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from openlumiere.cli import main
from openlumiere.errors import LumiereError
from openlumiere.study import pairs
from openlumiere.study.pairs import Study, create_study, load_study, prompt_key
from openlumiere.video import probe, read_clip, write_clip
from study_tools import PROMPTS, clip, folder_of


@pytest.mark.parametrize(
    ("written", "same"),
    [
        ("A tiger, walking!", "a-tiger_walking"),
        ("Ein BÄR läuft", "ein-bär-läuft"),
        ("ﬁve  cats", "five cats"),
        ("虎 走る", "虎-走る"),
    ],
)
def test_prompts_match_by_their_words(written: str, same: str) -> None:
    assert prompt_key(written) == prompt_key(same) != prompt_key(f"{same} now")


def test_a_prompt_is_found_in_the_list_then_in_the_clip_then_in_the_name(tmp_path: Path) -> None:
    clip(tmp_path / "1.mp4", metadata={"prompt": "A dog, asleep"})
    clip(tmp_path / "a-cat_awake.mp4")
    (tmp_path / "notes.txt").write_text("mine")
    found, ignored = pairs.read_folder(tmp_path)
    assert {key: source.path.name for key, source in found.items()} == {
        "a dog asleep": "1.mp4",
        "a cat awake": "a-cat_awake.mp4",
    }
    assert ignored == ["notes.txt"]
    (tmp_path / "prompts.csv").write_text('\ufefffile,prompt\n1.mp4,"a fox, running"\n', encoding="utf-8")
    found, ignored = pairs.read_folder(tmp_path)
    assert list(found) == ["a fox running"]
    assert ignored == ["a-cat_awake.mp4", "notes.txt"]


@pytest.mark.slow
def test_both_clips_of_a_pair_are_alike_in_all_but_what_they_show(tmp_path: Path) -> None:
    clip(tmp_path / "ours" / "a-dog.mp4", frames=32, size=(48, 64), fps=16, metadata={"prompt": "a dog", "seed": 3})
    clip(tmp_path / "them" / "a-dog.webp", frames=15, size=(65, 37), fps=10)
    study = create_study(tmp_path / "ours", {"them": tmp_path / "them"}, tmp_path / "study", checks=1, progress=False)
    (pair,) = study.pairs
    # 1.5 s of the shorter one, at the lower rate, on the common part of both frames, with even sides.
    assert (pair.frames, pair.fps, pair.height, pair.width) == (15, 10, 48, 36)
    streams = []
    for name in (pair.ours, pair.other):
        with av.open(str(study.clip(name))) as file:
            stream = file.streams.video[0]
            context = stream.codec_context
            streams.append(
                (context.name, context.pix_fmt, context.width, context.height, stream.frames, stream.average_rate,
                 stream.duration, context.profile, dict(file.metadata))
            )  # fmt: skip
    assert streams[0] == streams[1]
    assert streams[0][:6] == ("h264", "yuv420p", 36, 48, 15, 10)
    assert "dog" not in str(streams)
    assert "seed" not in str(streams)
    names = {path.name for path in (study.folder / "clips").iterdir()}
    assert names == {pair.ours, pair.other, study.checks[0].ours, study.checks[0].other}
    assert all(re.fullmatch(r"[0-9a-f]{32}\.mp4", name) for name in names)
    assert len({path.stat().st_mtime for path in (study.folder / "clips").iterdir()}) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("fps", "expected"), [("lower", 8), ("higher", 16), (12.0, 12)])
def test_rates_are_made_equal_as_asked_and_time_stays_true(tmp_path: Path, fps: pairs.Rate, expected: float) -> None:
    clip(tmp_path / "ours" / "a.mp4", frames=16, fps=16)
    clip(tmp_path / "them" / "a.mp4", frames=8, fps=8)
    study = create_study(tmp_path / "ours", {"t": tmp_path / "them"}, tmp_path / "s", fps=fps, checks=0, progress=False)
    for name in (study.pairs[0].ours, study.pairs[0].other):
        info = probe(study.clip(name))
        assert (info.fps, info.duration) == (expected, pytest.approx(1, abs=0.01))
        light = read_clip(study.clip(name)).frames.mean((1, 2, 3))
        assert np.abs(light / light[-1] - np.linspace(0.2, 1, len(light))).max() < 0.08


@pytest.mark.slow
def test_clips_without_a_partner_are_named_and_counted(made: Study) -> None:
    assert made.baselines["Pika"].pairs == 4
    assert made.baselines["SVD"].left_out == {"without a partner in SVD": ["an-old-tram.mp4", "some-green-frogs.mp4"]}
    assert {pair.questions for pair in made.pairs if pair.baseline == "SVD"} == {("quality",)}
    assert {pair.questions for pair in made.pairs if pair.baseline == "Pika"} == {("quality", "text")}


def test_checks_have_one_right_answer(made: Study) -> None:
    quality, text = sorted(made.checks, key=lambda check: check.check)
    assert (quality.questions, text.questions) == (("quality",), ("text",))
    intact, spoilt = (read_clip(made.clip(name)).frames.astype(float) for name in (quality.ours, quality.other))
    assert intact.shape == spoilt.shape
    assert np.diff(spoilt, axis=2).std() > 20 * np.diff(intact, axis=2).std()
    assert len(text.sources) == 2  # clips of two prompts


@pytest.mark.slow
def test_a_seed_decides_everything_and_another_one_something_else(made: Study, tmp_path: Path) -> None:
    root = made.folder.parent
    others = {"Pika": root / "pika", "SVD": root / "svd"}
    options = {"no_text_question": ["SVD"], "pairs_per_rater": 3, "checks": 2, "progress": False}
    again = create_study(root / "ours", others, tmp_path / "again", **options)  # type: ignore[arg-type]
    assert (again.folder / "study.json").read_bytes() == (made.folder / "study.json").read_bytes()
    for path in (made.folder / "clips").iterdir():
        assert path.read_bytes() == (again.folder / "clips" / path.name).read_bytes()
    other = create_study(root / "ours", others, tmp_path / "other", seed=1, **options)  # type: ignore[arg-type]
    assert not {pair.id for pair in other.pairs} & {pair.id for pair in made.pairs}


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, them, output = folder_of(tmp_path / "ours"), folder_of(tmp_path / "them"), tmp_path / "study"
    whole = create_study(ours, {"t": them}, tmp_path / "whole", progress=False)
    written: list[Path] = []

    def stop(*args: object, **options: object) -> Path:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(write_clip(*args, **options))  # type: ignore[arg-type]
        return written[-1]

    monkeypatch.setattr(pairs, "write_clip", stop)
    with pytest.raises(KeyboardInterrupt):
        create_study(ours, {"t": them}, output, progress=False)
    assert not output.exists()
    early = {path.name: path.stat().st_ino for path in written}
    monkeypatch.undo()
    study = create_study(ours, {"t": them}, output, progress=False)
    assert study.pairs == whole.pairs
    assert {name: study.clip(name).stat().st_ino for name in early} == early
    assert not (tmp_path / "study.partial").exists()


def _empty(folder: Path) -> None:
    folder.mkdir()


def _broken(folder: Path) -> None:
    folder.mkdir()
    (folder / "a-red-ball.mp4").write_bytes(b"no video")


def _listed(text: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        folder_of(folder)
        (folder / "prompts.csv").write_text(text, encoding="utf-8")

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "not a folder"),
        (_empty, "holds no clips"),
        (_broken, "corrupt"),
        (lambda folder: folder_of(folder, ("something else",)), "no prompt of .* is in"),
        (lambda folder: (folder_of(folder), clip(folder / "A_RED_BALL.mp4")), "of one prompt"),
        (lambda folder: folder_of(folder, PROMPTS[:1], frames=1), "less than 2 frames"),
        (lambda folder: folder_of(folder, PROMPTS[:1], size=(8, 8)), "8x8 pixels in common"),
        (lambda folder: clip(folder / "---.mp4"), "no prompt can be told"),
        (_listed("name,text\n"), "must begin with the line: file,prompt"),
        (_listed("file,prompt\na-red-ball.mp4\n"), "entry 2"),
        (_listed("file,prompt\nmissing.mp4,a ball\n"), "lists missing.mp4"),
        (_listed("file,prompt\na-red-ball.mp4,a\na-red-ball.mp4,b\n"), "listed twice"),
    ],
)
def test_bad_folders_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], object], words: str
) -> None:
    make(tmp_path / "them")
    ours = folder_of(tmp_path / "ours", PROMPTS[:1])
    command = ["study", "create", str(ours), "--baseline", f"them={tmp_path / 'them'}", "-o", str(tmp_path / "study")]
    assert main(command) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("lumiere: error: ")
    assert re.search(words, line)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--baseline", "them"], "NAME=FOLDER"),
        (["--baseline", "Ours={them}"], "both ours and a baseline"),
        (["--baseline", "a/b={them}"], "no name for a method"),
        (["--baseline", "t={them}", "--baseline", "t={them}"], "two baselines"),
        (["--baseline", "t={them}", "--no-text-question", "x"], "no baseline is named 'x'"),
        (["--baseline", "t={them}", "--fps", "0"], "a number above 0"),
        (["--baseline", "t={them}", "--background", "dark"], "no colour"),
        (["--baseline", "t={them}", "-o", "{them}"], "exists"),
        (["--baseline", "t={them}", "-o", "{them}/no/study"], "mkdir -p"),
    ],
)
def test_bad_requests_are_refused_in_one_line(
    made: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    them = str(made.folder.parent / "pika")
    given = [argument.replace("{them}", them) for argument in arguments]
    command = ["study", "create", str(made.folder.parent / "ours"), "-o", str(tmp_path / "study"), *given]
    try:
        code = main(command)
    except SystemExit as end:  # argparse's own errors
        code = int(end.code or 0)
    assert code == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_damaged_study_is_refused(made: Study, tmp_path: Path) -> None:
    with pytest.raises(LumiereError, match=r"no study\.json"):
        load_study(tmp_path)
    for text, words in (("{", "damaged"), ('{"format": 99}', "format 99"), ('{"format": 1}', "damaged")):
        (tmp_path / "study.json").write_text(text)
        with pytest.raises(LumiereError, match=words):
            load_study(tmp_path)
    (tmp_path / "study.json").write_bytes((made.folder / "study.json").read_bytes())
    with pytest.raises(LumiereError, match="missing"):
        load_study(tmp_path)
