"""Verdicts into figures: accuracies with their intervals, a table to read, a sheet to look at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .judges import MEASURES, Verdict

Report = dict[str, Any]

# What the bundled models aim for, on seen combinations; within 5 points of it on held-out ones.
AIMS = {"subject": 0.80, "background": 0.95, "motion": 0.90}

# Splits by the names that a reader knows them by.
TITLES = {"train": "seen", "combinations": "held-out combinations", "paraphrases": "paraphrases"}


def wilson(right: int, of: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion; (0, 1) where nothing was counted."""
    if of == 0:
        return 0.0, 1.0
    p, scale = right / of, 1.0 + z * z / of
    middle = (p + z * z / (2 * of)) / scale
    half = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of)) / scale
    return max(middle - half, 0.0), min(middle + half, 1.0)


def scores(verdicts: Sequence[Verdict]) -> Report:
    """Accuracies of a list of clips: each measure, all three at once, by motion and by subject."""
    found: Report = {"clips": len(verdicts)}
    for measure in MEASURES:
        found[measure] = _share(v.right(measure) for v in verdicts)
    found["all three"] = _share(all(v.right(m) for m in MEASURES) for v in verdicts)
    moving = [v.moving for v in verdicts]
    found["moving_fraction"] = {"mean": float(np.mean(moving)), "least": min(moving)} if moving else None
    found["motion_by_motion"] = _by(verdicts, "motion")
    found["subject_by_subject"] = _by(verdicts, "subject")
    found["background_by_background"] = _by(verdicts, "background")
    confusion: dict[str, dict[str, int]] = {}
    for v in verdicts:
        row = confusion.setdefault(v.scene.motion, {})
        row[v.motion] = row.get(v.motion, 0) + 1
    found["motion_confusion"] = confusion
    return found


def _share(outcomes: Iterable[bool]) -> Report:
    listed = list(outcomes)
    right, of = sum(listed), len(listed)
    return {"right": right, "of": of, "accuracy": right / of if of else None, "interval_95": wilson(right, of)}


def _by(verdicts: Sequence[Verdict], measure: str) -> Report:
    groups: dict[str, list[bool]] = {}
    for v in verdicts:
        groups.setdefault(getattr(v.scene, measure), []).append(v.right(measure))
    return {key: _share(groups[key]) for key in sorted(groups)}


def _rows(report: Report) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the main table."""
    splits: Mapping[str, Report] = report["splits"]
    columns = {title: split["model"] for title, split in splits.items()} | {"real clips": report["real"]}
    rows = []
    for measure in (*MEASURES, "all three"):
        aim = f">= {AIMS[measure]:.0%}" if measure in AIMS else ""
        rows.append([measure, aim, *(_cell(column[measure]) for column in columns.values())])
    rows.append(["pairs of frames that differ", "", *(f"{c['moving_fraction']['mean']:.1%}" for c in columns.values())])
    rows.append(["clips", "", *(str(c["clips"]) for c in columns.values())])
    return ["", "aim", *columns], rows


def _cell(share: Report) -> str:
    low, high = share["interval_95"]
    return f"{share['accuracy']:.1%} ({100 * low:.0f}-{100 * high:.0f})"


def _accuracy(value: float | None) -> str:
    return "not measured: no such subjects" if value is None else f"{value:.1%}"


def _judges(report: Report) -> list[str]:
    return [
        f"{kind} judge, on {what} of real clips: {_accuracy(value)}"
        for kind, card in report["judges"].items()
        for what, value in card["accuracy"].items()
    ]


def summary(report: Report) -> str:
    """The main table as plain text, for the terminal."""
    heads, rows = _rows(report)
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [heads, *rows]]
    return "\n".join([line.rstrip() for line in lines] + ["in brackets: 95 % interval", *_judges(report)])


def markdown(report: Report) -> str:
    """The whole report to read: main table, by motion, by subject, judges and protocol."""
    heads, rows = _rows(report)
    splits: Mapping[str, Report] = report["splits"]
    protocol = report["protocol"]
    parts = [
        f"# Emoji evaluation of `{protocol['model']}`",
        table(heads, rows),
        "In brackets: Wilson 95 % interval. Real clips: the same scenes drawn from the data and judged alike, so the "
        "best that a model can score. A clip in which nothing moves has no motion right.",
        "## Motion by motion",
        table(
            ["asked", *splits, "real clips"],
            [
                [key, *(_count(s["model"]["motion_by_motion"].get(key)) for s in splits.values()), _count(real)]
                for key, real in report["real"]["motion_by_motion"].items()
            ],
        ),
        "## Subject by subject",
        table(
            ["asked", *splits, "real clips"],
            [
                [key, *(_count(s["model"]["subject_by_subject"].get(key)) for s in splits.values()), _count(real)]
                for key, real in report["real"]["subject_by_subject"].items()
            ],
        ),
        "## Judges",
        "Trained on real clips of the train split only.",
        "\n".join(f"- {line}" for line in _judges(report)),
        "## Protocol",
        "\n".join(f"- {key.replace('_', ' ')}: {value}" for key, value in protocol.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _count(share: Report | None) -> str:
    return "-" if share is None else f"{share['right']}/{share['of']}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sheet(shown: Sequence[tuple[Verdict, np.ndarray]], path: Path, *, side: int = 96) -> None:
    """Draw a line for each clip: four of its frames, its caption, and the verdicts (green right, red wrong).

    Args:
        shown: verdicts with their frames, uint8 (F, H, W, 3).
        side: height and width that frames are drawn at, in pixels.
    """
    from PIL import Image, ImageDraw

    gap, text = 6, 620
    page = Image.new("RGB", (4 * (side + gap) + gap + text, len(shown) * (side + gap) + gap), "white")
    pen = ImageDraw.Draw(page)
    for row, (verdict, frames) in enumerate(shown):
        top = gap + row * (side + gap)
        for column, time in enumerate(np.linspace(0, len(frames) - 1, 4).round().astype(int)):
            picture = Image.fromarray(frames[time]).resize((side, side), Image.Resampling.NEAREST)
            page.paste(picture, (gap + column * (side + gap), top))
        left = gap + 4 * (side + gap)
        pen.text((left, top + 2), f"{TITLES[verdict.split]} {verdict.index}: {verdict.scene.caption}", fill="black")
        for line, measure in enumerate(MEASURES):
            told, asked = getattr(verdict, measure), getattr(verdict.scene, measure)
            right = verdict.right(measure)
            words = f"{measure}: {told}" if right else f"{measure}: {told}, asked {asked}"
            pen.text((left, top + 22 + 16 * line), words, fill="green" if right else "red")
        pen.text((left, top + 70), f"pairs of frames that differ: {verdict.moving:.0%}", fill="black")
    partial = path.with_name(f"{path.name}.partial")
    page.save(partial, "PNG")
    partial.rename(path)
