"""The report's figures against closed forms and published examples, and the report itself."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openlumiere.cli import main
from openlumiere.errors import LumiereError
from openlumiere.study import pairs, statistics
from openlumiere.study.answers import Answers, Judgement
from openlumiere.study.pairs import Pair, Study


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_nothing_is_reported_of_nothing(small: Study, study: Study, tmp_path: Path) -> None:
    with pytest.raises(LumiereError, match="no answers yet"):
        statistics.report_study(study.folder, tmp_path)
    assert not (study.folder / "answers.sqlite").exists()
    with pytest.raises(LumiereError, match="no answers to report"):
        statistics.make_report(small, [])
    with pytest.raises(LumiereError, match="all 1 raters failed"):
        statistics.make_report(small, [_answer(1, "k1", False), _answer(1, "a1", True)])


@pytest.mark.slow
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
