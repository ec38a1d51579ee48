"""What raters say, in SQLite: each answer is on the disk before the rater is told so.

A rater is a random token; nothing else is known of them, but for Mechanical Turk's workers a salted hash, so that none
takes part twice. What a rater is to see, in which order and on which sides, is drawn from the seed and the rater's
number when they join, and kept. The first answer to a question is final.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from openlumiere.errors import LumiereError

from .pairs import Pair, Question, Study

Choice = Literal["left", "right"]

FILE = "answers.sqlite"
_OPEN = timedelta(hours=1)  # for so long a pair that was handed out counts as if it were answered
_SCHEMA = """
CREATE TABLE study (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE raters (
    id INTEGER PRIMARY KEY,
    token TEXT NOT NULL UNIQUE,   -- SHA-256 of what stands in the rater's address
    secret TEXT,                  -- SHA-256 of the cookie that writing needs; NULL inside Mechanical Turk's frame
    joined TEXT NOT NULL,
    worker TEXT UNIQUE,           -- salted hash of Mechanical Turk's worker id
    assignment TEXT, hit TEXT, submit_to TEXT
) STRICT;
CREATE TABLE plan (
    rater INTEGER NOT NULL REFERENCES raters (id),
    position INTEGER NOT NULL,
    pair TEXT NOT NULL,
    ours_left INTEGER NOT NULL CHECK (ours_left IN (0, 1)),
    PRIMARY KEY (rater, position),
    UNIQUE (rater, pair)
) STRICT;
CREATE TABLE answers (
    rater INTEGER NOT NULL,
    pair TEXT NOT NULL,
    question TEXT NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN ('left', 'right')),
    seconds REAL NOT NULL,        -- from the first showing to the choice, as the rater's browser says
    at TEXT NOT NULL,
    PRIMARY KEY (rater, pair, question),
    FOREIGN KEY (rater, pair) REFERENCES plan (rater, pair)
) STRICT;
"""


@dataclass(frozen=True, kw_only=True)
class Turk:
    """What Mechanical Turk says of a worker's visit."""

    worker: str
    assignment: str
    hit: str
    submit_to: str


@dataclass(frozen=True, kw_only=True)
class Rater:
    """A rater's session. `secret` is the hash of the cookie that goes with it, None inside Mechanical Turk."""

    id: int
    secret: str | None
    assignment: str | None
    submit_to: str | None


@dataclass(frozen=True, kw_only=True)
class Showing:
    """A pair as a rater sees it; `answered` are its questions that are done."""

    position: int
    pair: Pair
    ours_left: bool
    answered: tuple[Question, ...]

    @property
    def clips(self) -> tuple[str, str]:
        """Return the names of the left and the right clip."""
        return (self.pair.ours, self.pair.other) if self.ours_left else (self.pair.other, self.pair.ours)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One answer: whether it was for our clip (of a check: right), and how it came about."""

    rater: int
    pair: str
    question: Question
    ours: bool
    left: bool
    seconds: float
    at: str


class Answers:
    """The answers to a study. Safe to use from several threads and processes at once.

    Args:
        study: its file is ``answers.sqlite`` in the study's folder, made when it is missing.
        max_raters: refuse more, so that a public page cannot fill the disk.

    Raises:
        LumiereError: the file is damaged, or holds the answers to another study.
    """

    def __init__(self, study: Study, *, max_raters: int = 5000) -> None:
        self.study, self.path, self.max_raters = study, study.folder / FILE, max_raters
        self._pairs = {pair.id: pair for pair in (*study.pairs, *study.checks)}
        try:
            with self._transaction() as db:
                if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'study'").fetchone():
                    for statement in _SCHEMA.split(";\n"):
                        db.execute(statement)
                    entries = {"study": study.fingerprint, "key": secrets.token_hex(32)}
                    db.executemany("INSERT INTO study VALUES (?, ?)", entries.items())
                kept = dict(db.execute("SELECT key, value FROM study"))
        except sqlite3.DatabaseError as error:
            raise LumiereError(f"{self.path} cannot be used ({error}); move it away, or restore a copy") from error
        if kept.get("study") != study.fingerprint:
            raise LumiereError(f"{self.path} holds the answers to another study; move it away")
        self._key = bytes.fromhex(kept["key"])

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; what is written is on the disk at the end."""
        with closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def join(self, turk: Turk | None = None) -> tuple[str, str | None]:
        """Add a rater, or find the session that one of Mechanical Turk's workers has.

        Returns:
            The token for the rater's address, and the secret for their cookie: None for workers, whose browsers keep no
            cookies inside a frame.

        Raises:
            LumiereError: there are `max_raters`, or the worker has taken part already, in another assignment.
        """
        if turk is None:
            token, secret, worker = secrets.token_urlsafe(24), secrets.token_urlsafe(24), None
        else:
            # Worker ids are no secret, assignment ids are: both together find a session again.
            token, secret = self._derive("token", f"{turk.worker} {turk.assignment}"), None
            worker = self._derive("worker", turk.worker)
        with self._transaction() as db:
            if turk is not None:
                before = db.execute("SELECT token FROM raters WHERE worker = ?", (worker,)).fetchone()
                if before and before[0] != digest(token):
                    raise LumiereError("you take part in this study in another assignment; please return this HIT")
                if before:
                    return token, None
            (count,) = db.execute("SELECT count(*) FROM raters").fetchone()
            if count >= self.max_raters:
                raise LumiereError("this study has all the raters it needs; thank you")
            row = (turk.assignment, turk.hit, turk.submit_to) if turk else (None, None, None)
            rater = db.execute(
                "INSERT INTO raters (token, secret, joined, worker, assignment, hit, submit_to) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (digest(token), secret and digest(secret), _now(), worker, *row),
            ).lastrowid
            assert rater is not None
            plan = self._plan(db, rater)
            db.executemany(
                "INSERT INTO plan VALUES (?, ?, ?, ?)",
                [(rater, position, pair, ours_left) for position, (pair, ours_left) in enumerate(plan)],
            )
        return token, secret

    def _plan(self, db: sqlite3.Connection, rater: int) -> list[tuple[str, bool]]:
        """Pairs and sides: the least answered pairs, of different prompts as far as there are, and all checks.

        One prompt for several baselines would show a rater the same clip of ours again, and so which one is ours.
        """
        rng = random.Random(f"{self.study.seed} rater {rater}")
        recent = (datetime.now(UTC) - _OPEN).isoformat(timespec="seconds")
        served = dict(
            db.execute(
                "SELECT plan.pair, count(*) FROM plan JOIN raters ON raters.id = plan.rater WHERE raters.joined > ? "
                "OR EXISTS (SELECT 1 FROM answers WHERE answers.rater = plan.rater AND answers.pair = plan.pair) "
                "GROUP BY plan.pair",
                (recent,),
            )
        )
        waiting = rng.sample(self.study.pairs, len(self.study.pairs))
        waiting.sort(key=lambda pair: served.get(pair.id, 0))  # stable: chance decides among equals
        seen = {check.prompt for check in self.study.checks}
        fresh: list[Pair] = []
        again: list[Pair] = []
        for pair in waiting:
            (again if pair.prompt in seen else fresh).append(pair)
            seen.add(pair.prompt)
        shown = [*(fresh + again)[: self.study.pairs_per_rater], *self.study.checks]
        rng.shuffle(shown)
        sides = [i % 2 == 0 for i in range(len(shown))]  # ours as often left as right
        rng.shuffle(sides)
        return [(pair.id, side) for pair, side in zip(shown, sides, strict=True)]

    def rater(self, token: str) -> Rater | None:
        """Return the session of a token, or None."""
        with self._transaction() as db:
            row = db.execute(
                "SELECT id, secret, assignment, submit_to FROM raters WHERE token = ?", (digest(token),)
            ).fetchone()
        return Rater(id=row[0], secret=row[1], assignment=row[2], submit_to=row[3]) if row else None

    def showings(self, rater: int) -> list[Showing]:
        """Return all pairs of a rater, in order, with what is answered."""
        with self._transaction() as db:
            plan = db.execute("SELECT position, pair, ours_left FROM plan WHERE rater = ? ORDER BY position", (rater,))
            shown = plan.fetchall()
            given = set(db.execute("SELECT pair, question FROM answers WHERE rater = ?", (rater,)))
        return [
            Showing(
                position=position, pair=self._pairs[pair], ours_left=bool(ours_left),
                answered=tuple(q for q in self._pairs[pair].questions if (pair, q) in given),
            )
            for position, pair, ours_left in shown
        ]  # fmt: skip

    def record(self, rater: int, pair: str, question: str, choice: Choice, seconds: float) -> Choice:
        """Keep an answer, unless there is one: the first is final.

        Returns:
            The choice that is kept.

        Raises:
            LumiereError: the rater was not asked this.
        """
        if pair not in self._pairs or question not in self._pairs[pair].questions:
            raise LumiereError("there is no such question")
        with self._transaction() as db:
            if not db.execute("SELECT 1 FROM plan WHERE rater = ? AND pair = ?", (rater, pair)).fetchone():
                raise LumiereError("this pair is not among the rater's")
            db.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (rater, pair, question, choice, seconds, _now()),
            )
            (kept,) = db.execute(
                "SELECT choice FROM answers WHERE rater = ? AND pair = ? AND question = ?", (rater, pair, question)
            ).fetchone()
        return kept

    def judgements(self) -> list[Judgement]:
        """Return all answers, in the order in which they came."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT rater, pair, question, choice, ours_left, seconds, at FROM answers "
                "JOIN plan USING (rater, pair) ORDER BY answers.rowid"
            ).fetchall()
        return [
            Judgement(
                rater=rater, pair=pair, question=question, ours=(choice == "left") == bool(ours_left),
                left=choice == "left", seconds=seconds, at=at,
            )
            for rater, pair, question, choice, ours_left, seconds, at in rows
        ]  # fmt: skip

    def assignments(self) -> list[tuple[int, str, str, str]]:
        """Return raters from Mechanical Turk: number, assignment, HIT and hash of the worker's id."""
        with self._transaction() as db:
            return db.execute(
                "SELECT id, assignment, hit, worker FROM raters WHERE worker IS NOT NULL ORDER BY id"
            ).fetchall()

    def raters(self) -> int:
        """Return how many have joined."""
        with self._transaction() as db:
            return int(db.execute("SELECT count(*) FROM raters").fetchone()[0])

    def code(self, rater: int) -> str:
        """Return what a rater hands in to show that they are done."""
        return self._derive("done", str(rater))[:10]

    def _derive(self, purpose: str, text: str) -> str:
        """A salted hash: tells nothing without this file, and another study's tells something else."""
        return hmac.new(self._key, f"{purpose} {text}".encode(), hashlib.sha256).hexdigest()[:40]


def digest(token: str) -> str:
    """What is kept of tokens and secrets, so that a copy of the file lets nobody write."""
    return hashlib.sha256(token.encode()).hexdigest()


def questions_left(showings: Sequence[Showing]) -> int:
    """Return how many questions a rater still has to answer."""
    return sum(len(shown.pair.questions) - len(shown.answered) for shown in showings)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
