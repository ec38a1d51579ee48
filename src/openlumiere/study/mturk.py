"""A study as a HIT of Amazon Mechanical Turk: an ExternalQuestion that shows our page in a frame.

Nothing is sent from here: the files are for Amazon's own command line (``aws mturk create-hit --cli-input-json``), and
for approving assignments afterwards. Source: Amazon Mechanical Turk API reference, version 2017-01-17, CreateHIT and
ExternalQuestion.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

from openlumiere import files
from openlumiere.errors import LumiereError

from .answers import FILE, Answers, questions_left
from .pairs import Study

_SCHEMA = "http://mechanicalturk.amazonaws.com/AWSMechanicalTurkDataSchemas/2006-07-14/ExternalQuestion.xsd"
_COLUMNS = ("assignment_id", "hit_id", "worker_hash", "code", "complete", "answers", "checks_failed", "checks_answered")


def external_question(url: str) -> str:
    """Return the ExternalQuestion XML of a page; height 0 fills the worker's window.

    Raises:
        LumiereError: the address is not https, which Mechanical Turk asks for.
    """
    address = urlsplit(url)
    if address.scheme != "https" or not address.hostname or address.query or address.fragment:
        raise LumiereError(f"{url!r} is no address for Mechanical Turk; give one as https://study.example.org/")
    root = ElementTree.Element("ExternalQuestion", xmlns=_SCHEMA)
    ElementTree.SubElement(root, "ExternalURL").text = url
    ElementTree.SubElement(root, "FrameHeight").text = "0"
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def hit(study: Study, url: str, *, reward: str, raters: int, minutes: int, days: int) -> dict[str, Any]:
    """Return what CreateHIT takes: one HIT, an assignment for each rater.

    Args:
        reward: US dollars, e.g. "2.50".
        raters: workers that may take part, each once.
        minutes: for one assignment, at most.
        days: that the HIT stays open, and that approving it by hand is waited for.
    """
    fields = {
        "Title": study.title,
        "Description": f"Watch {study.shown} pairs of short silent videos and say which one is better.",
        "Keywords": "video, comparison, preference, survey, research",
        "Reward": reward,
        "MaxAssignments": raters,
        "AssignmentDurationInSeconds": 60 * minutes,
        "LifetimeInSeconds": 86400 * days,
        "AutoApprovalDelayInSeconds": 86400 * days,
        "Question": external_question(url),
    }
    # So that sending it twice makes one HIT.
    token = hashlib.sha256(json.dumps([study.fingerprint, fields]).encode()).hexdigest()
    return {**fields, "UniqueRequestToken": token}


def assignments(answers: Answers) -> str:
    """The workers' assignments as CSV, for approving them: done or not, the code they hand in, checks failed."""
    study = answers.study
    checks = {check.id for check in study.checks}
    given: dict[int, list] = {}
    for judgement in answers.judgements():
        given.setdefault(judgement.rater, []).append(judgement)
    rows: list[Sequence[object]] = [_COLUMNS]
    for rater, assignment, hit_id, worker in answers.assignments():
        own = given.get(rater, [])
        checked = [judgement.ours for judgement in own if judgement.pair in checks]
        complete = questions_left(answers.showings(rater)) == 0
        rows.append(
            (assignment, hit_id, worker, answers.code(rater), "yes" if complete else "no", len(own),
             checked.count(False), len(checked))
        )  # fmt: skip
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_plain(cell) for cell in row] for row in rows)
    return text.getvalue()


def _plain(cell: object) -> str:
    """Ids come from the web: one that a spreadsheet would take for a formula is quoted."""
    text = str(cell)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def export(
    study: Study, url: str, output: Path, *, reward: str = "2.00", raters: int | None = None, minutes: int = 45,
    days: int = 7,
) -> list[Path]:  # fmt: skip
    """Write ``question.xml``, ``hit.json`` and ``assignments.csv`` (of the answers so far).

    Args:
        raters: default: as many as give about 400 answers to each baseline's question.

    Raises:
        LumiereError: a bad address.
    """
    fields = hit(study, url, reward=reward, raters=raters or study.raters_for(), minutes=minutes, days=days)
    table = assignments(Answers(study)) if (study.folder / FILE).exists() else ",".join(_COLUMNS) + "\n"
    output.mkdir(parents=True, exist_ok=True)
    contents = {
        "question.xml": fields["Question"], "hit.json": json.dumps(fields, indent=1) + "\n", "assignments.csv": table,
    }  # fmt: skip
    for name, text in contents.items():
        files.write_text(output / name, text)
    return [output / name for name in contents]
