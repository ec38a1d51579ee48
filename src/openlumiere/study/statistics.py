"""From answers to a report: how often raters prefer ours, how sure that is, and how far they agree.

- Win rates with Wilson's 95 % interval (Wilson 1927).
- An exact two-sided binomial test of each against chance, 1/2; p-values adjusted for the number of comparisons in the
  report by Holm's step-down procedure (Holm 1979).
- Krippendorff's alpha for nominal data, which takes unequal numbers of raters (Krippendorff 2011).

Interval and test take answers for independent. Those of one rater, or to one pair, are not quite.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from openlumiere import files
from openlumiere.errors import LumiereError
from openlumiere.tables import table, wilson

from .answers import FILE, Answers, Judgement
from .pairs import QUESTIONS, Question, Study, load_study

Report = dict[str, Any]

_TITLES: dict[Question, str] = {"quality": "quality and motion", "text": "match to the text"}


def binomial_test(successes: int, trials: int) -> float:
    """Return the exact two-sided p-value of so many successes under chance 1/2; 1 where nothing was tried."""
    fewer = min(successes, trials - successes)
    if 2 * fewer == trials:
        return 1.0
    term = total = 1  # binomial coefficients, as whole numbers: exact for any number of trials
    for i in range(fewer):
        term = term * (trials - i) // (i + 1)
        total += term
    return min(1.0, total / 2 ** (trials - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given: an error among all of them is as rare as each says."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def krippendorff_alpha(units: Iterable[Sequence[Any]]) -> float | None:
    """Return the agreement beyond chance on nominal data: 1 perfect, 0 chance, below 0 worse.

    Args:
        units: for each thing judged, the values that it was given, by any number of raters. Single ones don't count.

    Returns:
        None where it is undefined: nothing was judged twice, or all answers are the same.
    """
    pairable = [Counter(unit) for unit in units if len(unit) > 1]
    totals: Counter[Any] = Counter()
    disagreement = 0.0
    for counts in pairable:
        of = counts.total()
        totals += counts
        disagreement += sum(count * (of - count) for count in counts.values()) / (of - 1)
    of = totals.total()
    expected = sum(count * (of - count) for count in totals.values())
    return 1 - (of - 1) * disagreement / expected if expected else None


def make_report(study: Study, judgements: Sequence[Judgement], *, max_failed: float = 0.2) -> Report:
    """Return the report of a study.

    A rater who failed more than `max_failed` of the attention checks that they answered is left out with all answers.
    One who has answered no check yet stays in. Both are counted. Answers of raters who stopped early count.

    Returns:
        ``comparisons``: for each baseline and question the count, wins of ours, win rate, interval, p-values and
        agreement (None where nothing was answered); ``raters``, ``checks``, ``agreement`` by question, ``left_side``,
        ``protocol``.

    Raises:
        LumiereError: no answers, or none of them is by a rater who stays in.
    """
    pairs = {pair.id: pair for pair in study.pairs}
    checks = {check.id: check for check in study.checks}
    passed: dict[int, list[bool]] = defaultdict(list)
    by_check: dict[str, list[bool]] = defaultdict(list)
    for judgement in judgements:
        if judgement.pair in checks:
            passed[judgement.rater].append(judgement.ours)
            by_check[judgement.pair].append(judgement.ours)
    raters = {judgement.rater for judgement in judgements}
    excluded = {rater for rater, each in passed.items() if each.count(False) > max_failed * len(each)}
    counted = [j for j in judgements if j.pair in pairs and j.rater not in excluded]
    if not counted:
        why = f": all {len(excluded)} raters failed the attention checks" if excluded else ""
        raise LumiereError(f"there are no answers to report{why}; let raters answer first")
    groups: dict[tuple[str, Question], list[Judgement]] = defaultdict(list)
    for judgement in counted:
        groups[pairs[judgement.pair].baseline, judgement.question].append(judgement)
    comparisons = [
        _compare(label, question, groups[label, question])
        for question in QUESTIONS
        for label, baseline in study.baselines.items()
        if question in baseline.questions
    ]
    tested = [entry for entry in comparisons if entry["answers"]]
    for entry, adjusted in zip(tested, holm([entry["p"] for entry in tested]), strict=True):
        entry["p_holm"] = adjusted
    left = sum(judgement.left for judgement in counted)
    return {
        "title": study.title,
        "ours": study.ours,
        "comparisons": comparisons,
        "agreement": {question: _agreement([j for j in counted if j.question == question]) for question in QUESTIONS},
        "raters": {
            "answered": len(raters), "excluded": len(excluded), "without_checks": len(raters - set(passed)),
            "counted": len({judgement.rater for judgement in counted}),
        },
        "answers": {
            "counted": len(counted),
            "by_excluded_raters": sum(j.pair in pairs and j.rater in excluded for j in judgements),
            "to_checks": sum(j.pair in checks for j in judgements),
        },
        "checks": [
            {"kind": checks[key].check, "prompt": checks[key].prompt, "passed": sum(each), "answers": len(each)}
            for key, each in sorted(by_check.items())
        ],
        "left_side": {"chosen": left, "of": len(counted), "interval_95": wilson(left, len(counted))},
        "left_out_clips": {
            label: {why: list(files) for why, files in baseline.left_out.items()}
            for label, baseline in study.baselines.items()
        },
        "protocol": {
            "study": study.fingerprint, "seed": study.seed, "pairs": len(study.pairs), "max_failed": max_failed,
            "pairs_per_rater": study.pairs_per_rater, **study.settings,
        },
    }  # fmt: skip


def _compare(label: str, question: Question, answers: Sequence[Judgement]) -> Report:
    wins, of = sum(judgement.ours for judgement in answers), len(answers)
    return {
        "baseline": label, "question": question, "answers": of, "wins": wins,
        "pairs": len({judgement.pair for judgement in answers}), "raters": len({j.rater for j in answers}),
        "win_rate": wins / of if of else None, "interval_95": wilson(wins, of) if of else None,
        "p": binomial_test(wins, of) if of else None, "p_holm": None, "agreement": _agreement(answers),
    }  # fmt: skip


def _agreement(answers: Sequence[Judgement]) -> Report:
    units: dict[str, list[bool]] = defaultdict(list)
    for judgement in answers:
        units[judgement.pair].append(judgement.ours)
    return {
        "krippendorff_alpha": krippendorff_alpha(units.values()),
        "pairs_with_two_or_more_raters": sum(len(each) > 1 for each in units.values()),
    }


def markdown(report: Report) -> str:
    """Return the report to read."""
    raters, answers, left = report["raters"], report["answers"], report["left_side"]
    low, high = (f"{100 * bound:.0f}" for bound in left["interval_95"])
    limit = report["protocol"]["max_failed"]
    tested = sum(entry["answers"] > 0 for entry in report["comparisons"])
    parts = [
        f"# Preference for {report['ours']}",
        "![Preference by baseline and question](report.png)",
        table(
            ["question", "against", "prefer ours", "95 % interval", "answers", "p", "p, Holm", "alpha"],
            [_row(entry) for entry in report["comparisons"]],
        ),
        "Two-alternative forced choice. Wilson intervals; exact two-sided binomial tests against 50 %, adjusted by "
        f"Holm's procedure for the {tested} comparisons with answers in this table; alpha is "
        "Krippendorff's, nominal, over the pairs that several raters judged (1 perfect agreement, 0 chance). "
        "Interval and test take answers for independent.",
        "## Raters",
        f"- {raters['answered']} raters answered, {raters['counted']} count.\n"
        f"- {raters['excluded']} are left out, with {answers['by_excluded_raters']} answers: they failed more than "
        f"{limit:.0%} of their attention checks. {raters['without_checks']} answered no check yet; they count.\n"
        f"- {answers['counted']} answers count. The left or upper clip was chosen in {left['chosen']} of them "
        f"({100 * left['chosen'] / left['of']:.0f} %, interval {low}-{high} %).",
    ]
    if report["checks"]:
        parts += [
            "## Attention checks",
            "A check that many fail may be a bad one: look at it before leaving raters out.",
            table(
                ["check", "prompt", "passed"],
                [
                    [entry["kind"], _cell(entry["prompt"]), f"{entry['passed']} of {entry['answers']}"]
                    for entry in report["checks"]
                ],
            ),
        ]
    lines = [
        f"- {label}: {len(files)} {why} ({', '.join(map(_cell, files))})"
        for label, reasons in report["left_out_clips"].items()
        for why, files in reasons.items()
    ]
    if lines:
        parts += ["## Clips that took no part", "\n".join(lines)]
    parts += ["## Protocol", "\n".join(f"- {key.replace('_', ' ')}: {v}" for key, v in report["protocol"].items())]
    return "\n\n".join(parts) + "\n"


def _row(entry: Mapping[str, Any]) -> list[str]:
    head = [_TITLES[entry["question"]], _cell(entry["baseline"])]
    if not entry["answers"]:
        return [*head, "no answers", "-", "0", "-", "-", "-"]
    low, high = entry["interval_95"]
    alpha = entry["agreement"]["krippendorff_alpha"]
    return [
        *head, f"{entry['win_rate']:.1%}", f"{100 * low:.1f}-{100 * high:.1f} %", str(entry["answers"]),
        _p_value(entry["p"]), _p_value(entry["p_holm"]), "-" if alpha is None else f"{alpha:.2f}",
    ]  # fmt: skip


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def plot(report: Report, path: Path) -> None:
    """Draw stacked horizontal bars, as the paper's: one for each baseline and question, ours on the left."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    shown = [entry for entry in report["comparisons"] if entry["answers"]]
    by_question = {question: [e for e in shown if e["question"] == question] for question in QUESTIONS}
    by_question = {question: entries for question, entries in by_question.items() if entries}
    heights = [len(entries) for entries in by_question.values()]
    figure = Figure(figsize=(8, 1.3 + 0.62 * sum(heights) + 0.35 * len(heights)), layout="constrained")
    ours, other = "#2a6fb5", "#d8dce1"
    for axes, (question, entries) in zip(
        figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0], by_question.items(), strict=True
    ):
        for row, entry in enumerate(entries):
            share = 100 * entry["win_rate"]
            low, high = (100 * bound for bound in entry["interval_95"])
            axes.barh(row, share, color=ours, height=0.62)
            axes.barh(row, 100 - share, left=share, color=other, height=0.62)
            axes.errorbar(share, row, xerr=[[share - low], [high - share]], color="black", capsize=3, linewidth=1.2)
            axes.text(1.2, row, f"{share:.0f} %", color="white" if share > 12 else "black", va="center", weight="bold")
            axes.text(98.8, row, f"{100 - share:.0f} %", color="black", va="center", ha="right")
        names = [f"{entry['baseline']}\n{entry['answers']} answers" for entry in entries]
        axes.set_yticks(range(len(entries)), names)
        axes.set(xlim=(0, 100), ylim=(len(entries) - 0.5, -0.5))
        axes.set_title(_TITLES[question], fontsize=10, loc="left")
        axes.axvline(50, color="black", linewidth=1, linestyle=":")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    axes.set_xlabel("raters' choices, % (bars: 95 % interval)")
    figure.legend(
        handles=[Patch(color=ours, label=report["ours"]), Patch(color=other, label="the other method")],
        loc="outside upper right", ncols=2, frameon=False,
    )  # fmt: skip
    with files.replacing(path) as partial:
        figure.savefig(partial, dpi=130, format="png")


def report_study(folder: Path, output: Path, *, max_failed: float = 0.2) -> Report:
    """Write a study's answers so far as ``report.json``, ``report.md`` and ``report.png`` in a folder.

    Raises:
        LumiereError: as `load_study` and `make_report`.
    """
    study = load_study(folder)
    if not (folder / FILE).exists():
        raise LumiereError(f"{folder} has no answers yet; let raters answer: lumiere study serve {folder}")
    report = make_report(study, Answers(study).judgements(), max_failed=max_failed)
    plot(report, output / "report.png")
    files.write_text(output / "report.md", markdown(report))
    files.write_json(output / "report.json", report)
    return report
