"""The report of `lumiere evaluate emoji`: a table to read, a sheet to look at."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openlumiere import files
from openlumiere.errors import LumiereError
from openlumiere.evaluation.judges import MEASURES, Verdict
from openlumiere.tables import plain_table, table

Report = dict[str, Any]

# What the bundled models aim for, on seen combinations; within 5 points of it on others.
AIMS = {"subject": 0.80, "background": 0.95, "motion": 0.90}

# Splits by the names that a reader knows them by.
TITLES = {"train": "seen", "combinations": "held-out combinations", "paraphrases": "paraphrases"}


def _rows(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return the heads and cells of the main table."""
    splits: Mapping[str, Report] = report["splits"]
    columns = {title: split["model"] for title, split in splits.items()} | {"real clips": report["real"]}
    baseline = report.get("baseline")
    if baseline:
        name = baseline["protocol"]["model"]
        columns |= {f"{name}: {title}": split["model"] for title, split in baseline["splits"].items()}
    rows = []
    for measure in (*MEASURES, "all three", "subject, whatever its sharpness"):
        aim = f">= {AIMS[measure]:.0%}" if measure in AIMS else ""
        rows.append([measure, aim, *(cell(column[measure]) for column in columns.values())])
    rows.append(["pairs of frames that differ", "", *(f"{c['moving_fraction']['mean']:.1%}" for c in columns.values())])
    rows.append(["clips", "", *(str(c["clips"]) for c in columns.values())])
    return ["", "aim", *columns], rows


def cell(share: Report) -> str:
    low, high = share["interval_95"]
    return f"{share['accuracy']:.1%} ({100 * low:.0f}-{100 * high:.0f})"


def _accuracy(value: float | None) -> str:
    return "not measured: no such subjects" if value is None else f"{value:.1%}"


def _classifiers(report: Report) -> list[str]:
    return [
        f"{kind} classifier, on {what} of real clips: {_accuracy(value)}"
        for kind, card in report["judges"].items()
        for what, value in card["accuracy"].items()
    ]


def summary(report: Report) -> str:
    """Return the main table as plain text, for the terminal."""
    heads, rows = _rows(report)
    return "\n".join([plain_table([heads, *rows]), "in brackets: 95 % interval", *_classifiers(report)])


def markdown(report: Report) -> str:
    """Return the whole report to read: main table, by motion, by subject, classifiers and protocol."""
    heads, rows = _rows(report)
    splits: Mapping[str, Report] = report["splits"]
    protocol = report["protocol"]
    parts = [
        f"# Emoji evaluation of `{protocol['model']}`",
        table(heads, rows),
        "In brackets: Wilson 95 % interval. Real clips: the same scenes drawn from the data and measured alike, so the "
        "best that a model can score. A clip in which nothing moves has no motion right.",
        *_looks(report),
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
        "## Motion by phase and speed",
        "Where in their period motions that repeat themselves begin, and how fast all of them go; neither is in "
        "most captions.",
        table(
            ["", *splits, "real clips"],
            [
                [f"{key}", *(_count(s["model"][group].get(key)) for s in splits.values()), _count(real)]
                for group in ("motion_by_phase", "motion_by_speed")
                for key, real in report["real"][group].items()
            ],
        ),
        "## Classifiers",
        "Trained on real clips of the train split only; the strict one, at the clips' own size, also on spoiled ones.",
        "\n".join(f"- {line}" for line in _classifiers(report)),
        "## Protocol",
        "\n".join(f"- {key.replace('_', ' ')}: {value}" for key, value in protocol.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _count(share: Report | None) -> str:
    return "-" if share is None else f"{share['right']}/{share['of']}"


# What `summarize_looks` finds: key, title, format.
_LOOKS = (
    ("grain", "grain on plain ground, 1/255", "{:.2f}"),
    ("wobble", "wobble of the subject, 1/255", "{:.1f}"),
    ("amplitude", "path of moving subjects, widths of the frame", "{:.2f}"),
    ("spin", "spin of subjects that should, degrees a second", "{:.0f}"),
    ("stray_spin", "of those that should not", "{:.0f}"),
)
_MOVING = ("left", "right", "up", "down", "bounce", "sway")


def summarize_looks(ours: Sequence[Report], theirs: Sequence[Report], *, seconds: float) -> Report:
    """Return the means over clips of what `looks.measure` says of a model's, and of real ones of the same scenes.

    Wobble leaves out clips that are to spin, grow or shrink; amplitude takes only those that are to cross the frame or
    to repeat a path; spins are without their sign.
    """

    def mean(values: Iterable[float]) -> float | None:
        known = [value for value in values if not math.isnan(value)]
        return float(np.mean(known)) if known else None

    def of(clips: Sequence[Report]) -> Report:
        return {
            "grain": mean(c["grain"] for c in clips),
            "wobble": mean(c["wobble"] for c in clips if c["motion"] in ("still", *_MOVING)),
            "amplitude": mean(c["amplitude"] for c in clips if c["motion"] in _MOVING),
            "spin": mean(abs(c["turn"]) / seconds for c in clips if c["motion"] == "spin"),
            "stray_spin": mean(abs(c["turn"]) / seconds for c in clips if c["motion"] != "spin"),
        }

    def storable(clips: Sequence[Report]) -> list[Report]:  # JSON has no NaN
        return [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in c.items()} for c in clips]

    return {"model": of(ours), "real": of(theirs), "clips": {"model": storable(ours), "real": storable(theirs)}}


def read_baseline(folder: Path) -> Report:
    """Read another model's report, less what no table shows of it.

    Raises:
        LumiereError: no report there, or one that lacks what this version measures.
    """
    path = folder / "report.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: found[key] for key in ("protocol", "splits", "sharpness")} | {"looks": dict(found["looks"])}
        kept["looks"].pop("clips")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LumiereError(
            f"{path} is no report of this version; make it with: lumiere evaluate emoji --model MODEL -o {folder}"
        ) from error
    return kept


def _looks(report: Report) -> list[str]:
    """Return the section on pictures and motion."""
    if "looks" not in report:
        return []
    baseline = report.get("baseline")
    columns = [("model", report["looks"]["model"], report["sharpness"])]
    if baseline:
        columns.append((baseline["protocol"]["model"], baseline["looks"]["model"], baseline["sharpness"]))
    real = report["looks"]["real"]
    rows = [
        [title, *(_number(looks[key], shape) for _, looks, _ in columns), _number(real[key], shape)]
        for key, title, shape in _LOOKS
    ]
    for name, found in report["sharpness"].items():
        cells = [_number((found.get(name) or {}).get("ratio"), "{:.1f}") for _, _, found in columns]
        rows.append([f"{name}, times that of other real clips", *cells, "1"])
        rows.append(["that is", *(_number((s.get(name) or {}).get("model"), "{:.2f}") for _, _, s in columns),
                     _number(found["real"], "{:.2f}")])  # fmt: skip
    return [
        "## Picture and motion",
        table(["", *(name for name, _, _ in columns), "real clips"], rows),
        "Grain: root mean square distance of plain ground from its colour. Wobble: mean absolute second difference in "
        "time of the subject, moved to one place and size. Path: how far the subject's centre gets. Read all of them "
        "against the real clips' column.",
    ]


def _number(value: float | None, shape: str) -> str:
    return "-" if value is None else shape.format(value)


def sheet(shown: Sequence[tuple[Verdict, np.ndarray]], path: Path, *, side: int = 96) -> None:
    """Draw a line for each clip: four of its frames, its caption, and the verdicts (green right, red wrong).

    Args:
        shown: verdicts with their frames, uint8 (F, H, W, 3), or with alpha, which a checkerboard then shows.
        side: height and width that frames are drawn at, in pixels.
    """
    from PIL import Image, ImageDraw

    gap, text = 6, 620
    page = Image.new("RGB", (4 * (side + gap) + gap + text, len(shown) * (side + gap) + gap), "white")
    pen = ImageDraw.Draw(page)
    cells = np.add(*(np.indices((side, side)) // 8)) % 2
    board = Image.fromarray(np.where(cells, 242, 191).astype(np.uint8)).convert("RGBA")
    for row, (verdict, frames) in enumerate(shown):
        top = gap + row * (side + gap)
        for column, time in enumerate(np.linspace(0, len(frames) - 1, 4).round().astype(int)):
            resampling = Image.Resampling.NEAREST if frames.shape[1] < side else Image.Resampling.BICUBIC
            picture = Image.fromarray(frames[time]).resize((side, side), resampling)
            if picture.mode == "RGBA":
                picture = Image.alpha_composite(board, picture)
            page.paste(picture, (gap + column * (side + gap), top))
        left = gap + 4 * (side + gap)
        pen.text((left, top + 2), f"{TITLES[verdict.split]} {verdict.index}: {verdict.scene.caption}", fill="black")
        for line, measure in enumerate(MEASURES):
            seen, asked = getattr(verdict, measure), getattr(verdict.scene, measure)
            right = verdict.right(measure)
            words = f"{measure}: {seen}" if right else f"{measure}: {seen}, asked {asked}"
            pen.text((left, top + 22 + 16 * line), words, fill="green" if right else "red")
        pen.text((left, top + 70), f"pairs of frames that differ: {verdict.moving:.0%}", fill="black")
    with files.replacing(path) as partial:
        page.save(partial, "PNG")
