"""The preference study without a browser: pairing, answers, figures, and the server as a process on the loopback."""

from __future__ import annotations

import csv
import hashlib
import http.client
import json
import math
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import openlumiere
from openlumiere.cli import main
from openlumiere.errors import LumiereError
from openlumiere.study import mturk, pairs, statistics
from openlumiere.study.answers import Answers, Judgement, Turk, questions_left
from openlumiere.study.pairs import Pair, Study, create_study, load_study, prompt_key
from openlumiere.video import probe, read_clip, write_clip

PROMPTS = ("a red ball", "two blue kites", "some green frogs", "an old tram")
TURK = Turk(worker="A1", assignment="3X", hit="H", submit_to="https://www.mturk.com/mturk/externalSubmit")


def clip(path: Path, *, frames: int = 6, size: tuple[int, int] = (32, 32), fps: float = 8, **options: object) -> Path:
    """A tiny clip that gets brighter, of a colour that its name decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tint = np.frombuffer(hashlib.sha256(path.name.encode()).digest()[:3], np.uint8) / 255
    light = np.linspace(0.2, 1, frames)[:, None, None, None]
    return write_clip(np.broadcast_to(light * tint, (frames, *size, 3)), path, fps=fps, **options)  # type: ignore[arg-type]


def folder_of(path: Path, prompts: tuple[str, ...] = PROMPTS, **options: object) -> Path:
    for prompt in prompts:
        clip(path / f"{prompt.replace(' ', '-')}.mp4", **options)  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of two baselines, one without the question of the text."""
    root = tmp_path_factory.mktemp("made")
    ours = folder_of(root / "ours")
    others = {"Pika": folder_of(root / "pika"), "SVD": folder_of(root / "svd", PROMPTS[:2])}
    return create_study(
        ours, others, root / "study", no_text_question=["SVD"], pairs_per_rater=3, checks=2, progress=False
    )


@pytest.fixture
def study(made: Study) -> Iterator[Study]:
    """The same, without answers."""
    yield made
    for path in made.folder.glob("answers*"):
        path.unlink()


# --- pairing -------------------------------------------------------------------------------------------------------


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


# --- answers -------------------------------------------------------------------------------------------------------


def test_what_a_rater_sees_follows_from_seed_and_number_alone(study: Study, tmp_path: Path) -> None:
    plans = []
    for _ in range(2):
        answers = Answers(study)
        tokens = [answers.join()[0] for _ in range(3)]
        sessions = [answers.rater(token) for token in tokens]
        plans.append([answers.showings(rater.id) for rater in sessions if rater])
        (study.folder / "answers.sqlite").unlink()
    assert plans[0] == plans[1]
    assert plans[0][0] != plans[0][1]
    for plan in plans[0]:
        assert len(plan) == study.shown == len({shown.pair.id for shown in plan})
        assert {check.id for check in study.checks} <= {shown.pair.id for shown in plan}


def test_pairs_are_spread_evenly_and_sides_too(study: Study) -> None:
    answers = Answers(study)
    for _ in range(8):
        answers.join()
    seen = [shown for number in range(1, 9) for shown in answers.showings(number)]
    counts = Counter(shown.pair.id for shown in seen if not shown.pair.check)
    assert set(counts) == {pair.id for pair in study.pairs}
    assert max(counts.values()) - min(counts.values()) <= 2  # one prompt's pairs may have to wait for each other
    left = sum(shown.ours_left for shown in seen)
    assert abs(left - len(seen) / 2) <= 4


def test_the_first_answer_is_final_and_comes_once(study: Study) -> None:
    answers = Answers(study)
    answers.join()
    shown = answers.showings(1)[0]
    question = shown.pair.questions[0]
    assert answers.record(1, shown.pair.id, question, "left", 1.5) == "left"
    assert answers.record(1, shown.pair.id, question, "left", 9.0) == "left"
    assert answers.record(1, shown.pair.id, question, "right", 9.0) == "left"
    (judgement,) = answers.judgements()
    assert (judgement.left, judgement.ours, judgement.seconds) == (True, shown.ours_left, 1.5)
    assert answers.showings(1)[0].answered == (question,)


def test_only_what_was_asked_can_be_answered(study: Study) -> None:
    answers = Answers(study)
    answers.join()
    shown = {showing.pair.id for showing in answers.showings(1)}
    foreign = next(pair for pair in study.pairs if pair.id not in shown)
    with pytest.raises(LumiereError, match="not among"):
        answers.record(1, foreign.id, "quality", "left", 1)
    with pytest.raises(LumiereError, match="no such question"):
        answers.record(1, "nothing", "quality", "left", 1)
    no_text = next(check for check in study.checks if check.check == "quality")
    with pytest.raises(LumiereError, match="no such question"):
        answers.record(1, no_text.id, "text", "left", 1)
    assert answers.judgements() == []


def test_many_raters_at_once_lose_and_double_nothing(study: Study) -> None:
    answers = Answers(study)

    def work() -> None:
        token, _ = answers.join()
        rater = answers.rater(token)
        assert rater
        for shown in answers.showings(rater.id):
            for question in shown.pair.questions:
                for _ in range(2):
                    Answers(study).record(rater.id, shown.pair.id, question, "left", 1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asked = sum(len(s.pair.questions) for number in range(1, 7) for s in answers.showings(number))
    keys = [(j.rater, j.pair, j.question) for j in answers.judgements()]
    assert len(keys) == len(set(keys)) == asked
    assert all(questions_left(answers.showings(number)) == 0 for number in range(1, 7))


def test_the_file_holds_no_token_and_no_worker(study: Study) -> None:
    answers = Answers(study)
    token, secret = answers.join()
    turk_token, none = answers.join(replace(TURK, worker="AWORKER1234567"))
    assert none is None
    assert secret
    raw = b"".join(path.read_bytes() for path in study.folder.glob("answers.sqlite*"))
    for word in (token, secret, turk_token, "AWORKER1234567"):
        assert word.encode() not in raw


def test_a_worker_takes_part_once(study: Study) -> None:
    answers = Answers(study)
    token, _ = answers.join(TURK)
    assert answers.join(TURK)[0] == token  # a reload of the frame
    assert answers.raters() == 1
    with pytest.raises(LumiereError, match="another assignment"):
        answers.join(replace(TURK, assignment="3Y"))
    assert answers.join(replace(TURK, worker="A2", assignment="3Y"))[0] != token


def test_a_full_study_and_a_foreign_file_are_refused(study: Study) -> None:
    answers = Answers(study, max_raters=1)
    answers.join()
    with pytest.raises(LumiereError, match="all the raters"):
        answers.join()
    with pytest.raises(LumiereError, match="another study"):
        Answers(replace(study, fingerprint="other"))
    answers.path.write_bytes(b"not a database, but long enough to look at" * 50)
    for path in study.folder.glob("answers.sqlite-*"):
        path.unlink()
    with pytest.raises(LumiereError, match="cannot be used"):
        Answers(study)


# --- statistics ----------------------------------------------------------------------------------------------------


def test_the_binomial_test_is_exact() -> None:
    assert statistics.binomial_test(8, 10) == pytest.approx(2 * (45 + 10 + 1) / 1024)
    assert statistics.binomial_test(0, 5) == statistics.binomial_test(5, 5) == 2 / 32
    assert statistics.binomial_test(5, 10) == statistics.binomial_test(0, 0) == 1
    # 240 of 400, by another route: the sum of the probabilities' logarithms.
    tail = sum(math.exp(math.lgamma(401) - math.lgamma(k + 1) - math.lgamma(401 - k)) / 2.0**400 for k in range(161))
    assert statistics.binomial_test(240, 400) == pytest.approx(2 * tail, rel=1e-9)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_binomial_test_is_symmetric_and_a_probability(one: int, two: int) -> None:
    p = statistics.binomial_test(one, one + two)
    assert 0 < p <= 1
    assert p == statistics.binomial_test(two, one + two)


def test_holm_by_hand() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.8]) == [1, 1]
    assert statistics.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni(p: list[float]) -> None:
    for before, after in zip(p, statistics.holm(p), strict=True):
        assert before <= after <= min(1, before * len(p)) + 1e-12


def test_alpha_of_the_published_examples() -> None:
    # Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", sections A and C.
    two = ("0100000010", "1110010000")
    assert statistics.krippendorff_alpha(list(zip(*two, strict=True))) == pytest.approx(0.095, abs=5e-4)
    four = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    units = [[value for value in unit if value != "."] for unit in zip(*four, strict=True)]
    assert statistics.krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


@settings(max_examples=50)
@given(st.lists(st.lists(st.booleans(), max_size=5), max_size=8))
def test_alpha_is_one_only_for_full_agreement(units: list[list[bool]]) -> None:
    alpha = statistics.krippendorff_alpha(units)
    judged = [unit for unit in units if len(unit) > 1]
    if len({value for unit in judged for value in unit}) < 2:
        assert alpha is None
    else:
        assert alpha is not None
        assert (alpha == pytest.approx(1)) == all(len(set(unit)) == 1 for unit in judged)


def _pair(name: str, baseline: str = "", check: str = "") -> Pair:
    return Pair(
        id=name, prompt=name, questions=("quality", "text"), ours="", other="", width=1, height=1, frames=2, fps=1,
        baseline=baseline, check=check,
    )  # fmt: skip


def _answer(rater: int, pair: str, ours: bool, question: pairs.Question = "quality") -> Judgement:
    return Judgement(rater=rater, pair=pair, question=question, ours=ours, left=ours, seconds=1, at="")


@pytest.fixture
def small() -> Study:
    baselines = {name: pairs.Baseline(pairs=2, questions=("quality", "text"), left_out={}) for name in ("A", "B|C")}
    return Study(
        folder=Path(), title="t", ours="Ours", seed=0, pairs_per_rater=4, baselines=baselines, settings={},
        fingerprint="",
        pairs=(_pair("a1", "A"), _pair("a2", "A"), _pair("b1", "B|C"), _pair("b2", "B|C")),
        checks=(_pair("k1", check="quality"), _pair("k2", check="quality")),
    )  # fmt: skip


def test_a_report_counts_what_was_said(small: Study, tmp_path: Path) -> None:
    said = [_answer(rater, pair, pair != "b2") for rater in range(10) for pair in ("a1", "a2", "b1", "b2")]
    said += [_answer(rater, "k1", True) for rater in range(9)]
    said += [_answer(20, "a1", False), _answer(20, "k1", True), _answer(20, "k2", False)]  # half of the checks failed
    report = statistics.make_report(small, said)
    a, b, a_text, b_text = report["comparisons"]
    assert (a["baseline"], a["wins"], a["answers"], a["win_rate"]) == ("A", 20, 20, 1)
    assert (a["p"], a["p_holm"]) == (2 / 2**20, 4 / 2**20)
    assert (b["wins"], b["answers"], b["p"], b["agreement"]["krippendorff_alpha"]) == (10, 20, 1, 1)
    assert a["agreement"]["krippendorff_alpha"] is None
    assert a_text["answers"] == 0
    assert a_text["win_rate"] is b_text["p"] is None
    assert report["raters"] == {"answered": 11, "excluded": 1, "without_checks": 1, "counted": 10}
    assert report["answers"] == {"counted": 40, "by_excluded_raters": 1, "to_checks": 11}
    assert statistics.make_report(small, said, max_failed=0.5)["raters"]["excluded"] == 0
    text = statistics.markdown(report)
    assert "| quality and motion | A | 100.0% | 83.9-100.0 % | 20 | < 0.001 | < 0.001 | - |" in text
    assert "| match to the text | B\\|C | no answers |" in text
    assert "1 are left out, with 1 answers" in text
    statistics.plot(report, tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes()[:4] == b"\x89PNG"


def test_nothing_is_reported_of_nothing(small: Study, study: Study, tmp_path: Path) -> None:
    with pytest.raises(LumiereError, match="no answers yet"):
        statistics.report_study(study.folder, tmp_path)
    assert not (study.folder / "answers.sqlite").exists()
    with pytest.raises(LumiereError, match="no answers to report"):
        statistics.make_report(small, [])
    with pytest.raises(LumiereError, match="all 1 raters failed"):
        statistics.make_report(small, [_answer(1, "k1", False), _answer(1, "a1", True)])


# --- Mechanical Turk -----------------------------------------------------------------------------------------------


def test_a_hit_is_written_and_its_assignments_are_listed(study: Study, tmp_path: Path) -> None:
    command = ["study", "mturk", str(study.folder), "--url", "https://study.example.org/", "-o", str(tmp_path)]
    assert main([*command, "--reward", "2.5", "--raters", "60"]) == 0
    fields = json.loads((tmp_path / "hit.json").read_text())
    assert (fields["Reward"], fields["MaxAssignments"]) == ("2.50", 60)
    assert fields["Question"] == (tmp_path / "question.xml").read_text()
    root = ElementTree.fromstring(fields["Question"])
    namespace = "{http://mechanicalturk.amazonaws.com/AWSMechanicalTurkDataSchemas/2006-07-14/ExternalQuestion.xsd}"
    assert root.tag == f"{namespace}ExternalQuestion"
    assert [(child.tag.removeprefix(namespace), child.text) for child in root] == [
        ("ExternalURL", "https://study.example.org/"),
        ("FrameHeight", "0"),
    ]
    assert (tmp_path / "assignments.csv").read_text().count("\n") == 1

    answers = Answers(study)
    answers.join()  # not from Mechanical Turk
    answers.join(replace(TURK, hit="=1+1"))
    for shown in answers.showings(2):
        for question in shown.pair.questions:
            right = "left" if shown.ours_left else "right"
            answers.record(2, shown.pair.id, question, right, 1)  # type: ignore[arg-type]
    assert main(command) == 0
    with (tmp_path / "assignments.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["assignment_id"], row["hit_id"], row["complete"]) == ("3X", "'=1+1", "yes")
    assert (row["checks_failed"], row["checks_answered"], row["code"]) == ("0", "2", answers.code(2))
    assert "A1" not in row.values()


@pytest.mark.parametrize("url", ["http://study.example.org/", "study.example.org", "https://", "https://a/?x=1"])
def test_mechanical_turk_needs_an_https_address(url: str) -> None:
    with pytest.raises(LumiereError, match="no address for Mechanical Turk"):
        mturk.external_question(url)


# --- the server ----------------------------------------------------------------------------------------------------


class Server:
    """`lumiere study serve` as a process, and a client without redirects and with cookies of its own."""

    def __init__(self, study: Study, port: int = 0) -> None:
        command = [sys.executable, "-m", "openlumiere.cli", "study", "serve", str(study.folder), "--port", str(port)]
        environment = {**os.environ, "PYTHONPATH": str(Path(openlumiere.__file__).parents[1])}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", self.process.stdout.readline())
        assert found
        self.port = int(found[1])

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        self.process.wait(20)
        assert self.process.stdout
        self.process.stdout.close()

    def ask(
        self, method: str, path: str, body: str | bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
        response = connection.getresponse()
        found = response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
        connection.close()
        return found

    def join(self, **turk: str) -> tuple[str, str]:
        """Address and cookie of a new session."""
        form = urlencode({f"turk_{key}": value for key, value in turk.items()})
        status, headers, _ = self.ask("POST", "/join", form, Content_Type="application/x-www-form-urlencoded")
        assert status == 303
        return headers["location"], headers.get("set-cookie", "").split(";")[0]

    def next(self, address: str, cookie: str) -> dict:
        status, _, body = self.ask("GET", f"{address}/next", Cookie=cookie)
        assert status == 200
        return json.loads(body)

    def answer(self, address: str, cookie: str, **fields: object) -> tuple[int, dict]:
        body = json.dumps({"choice": "left", "seconds": 1, **fields})
        status, _, text = self.ask("POST", f"{address}/answers", body, Cookie=cookie, Content_Type="application/json")
        return status, json.loads(text)


@pytest.fixture
def server(study: Study) -> Iterator[Server]:
    running = Server(study)
    yield running
    running.end()


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


def test_answers_become_a_report(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    answers = Answers(study)
    for rater in range(1, 5):
        answers.join()
        for shown in answers.showings(rater):
            for question in shown.pair.questions:
                ours = shown.ours_left != (rater == 4)  # the fourth always chooses the other one, of checks as well
                answers.record(rater, shown.pair.id, question, "left" if ours else "right", 2)
    assert main(["study", "report", str(study.folder)]) == 0
    assert "| quality and motion | Pika | 100.0% |" in capsys.readouterr().out
    report = json.loads((study.folder / "report" / "report.json").read_text())
    assert report["raters"] == {"answered": 4, "excluded": 1, "without_checks": 0, "counted": 3}
    assert {entry["baseline"] for entry in report["comparisons"] if entry["question"] == "text"} == {"Pika"}
    assert {path.name for path in (study.folder / "report").iterdir()} == {"report.json", "report.md", "report.png"}


@pytest.mark.parametrize("action", [[], ["create"], ["serve"], ["report"], ["mturk"]])
def test_help_has_examples(action: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["study", *action, "--help"])
    assert end.value.code == 0
    assert "examples:" in capsys.readouterr().out


def test_sqlite_refuses_what_the_code_should_never_send(study: Study) -> None:
    Answers(study).join()
    with sqlite3.connect(study.folder / "answers.sqlite") as db:
        db.execute("PRAGMA foreign_keys = ON")
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("INSERT INTO answers VALUES (1, 'not in the plan', 'quality', 'left', 1.0, '')")
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("INSERT INTO answers SELECT 1, pair, 'quality', 'both', 1.0, '' FROM plan")
