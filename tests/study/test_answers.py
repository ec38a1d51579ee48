"""Answers: what a rater sees, and that each answer is kept once, whoever writes."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from openlumiere.errors import LumiereError
from openlumiere.study.answers import Answers, questions_left
from openlumiere.study.pairs import Study
from study_tools import TURK


@pytest.mark.slow
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


def test_sqlite_refuses_what_the_code_should_never_send(study: Study) -> None:
    Answers(study).join()
    with sqlite3.connect(study.folder / "answers.sqlite") as db:
        db.execute("PRAGMA foreign_keys = ON")
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("INSERT INTO answers VALUES (1, 'not in the plan', 'quality', 'left', 1.0, '')")
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("INSERT INTO answers SELECT 1, pair, 'quality', 'both', 1.0, '' FROM plan")
