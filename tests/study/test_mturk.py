"""The HIT, and the table of its assignments."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from openlumiere.cli import main
from openlumiere.errors import LumiereError
from openlumiere.study import mturk
from openlumiere.study.answers import Answers
from openlumiere.study.pairs import Study
from study_tools import TURK


@pytest.mark.slow
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
