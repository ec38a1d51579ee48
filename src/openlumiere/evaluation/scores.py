"""A score with all that it depends on: JSON for machines, a table for people, and the command that makes it again."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from openlumiere import __version__, files
from openlumiere.tables import table


@dataclass(frozen=True, kw_only=True)
class Score:
    """One measured value.

    Attributes:
        metric: its name: FVD and IS only with the files that everyone uses.
        value: of all clips, as others report it.
        interval_95: confidence interval of `value` at this number of clips.
        better: "less" or "more".
        details: what else was measured: for FVD the distance against the number of clips, and at infinitely many.
        protocol: all that the value depends on.
        notes: what a reader has to know, such as clips that were refused.
        command: makes it again.
    """

    metric: str
    value: float
    interval_95: tuple[float, float]
    better: str
    details: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    command: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as it is stored."""
        return asdict(self) | {"versions": versions()}

    def line(self) -> str:
        """Return the value in one line, with its interval and what it was measured on."""
        low, high = self.interval_95
        of = " against ".join(f"{side['clips']} {name}" for name, side in self.protocol.get("sets", {}).items())
        return f"{self.metric} {self.value:.2f} (95 % interval {low:.2f} to {high:.2f}), {of}"


def versions() -> dict[str, str]:
    """Return the versions of everything that can move a score."""
    names = ("torch", "numpy", "pillow", "av")
    return {"openlumiere": __version__, "python": platform.python_version()} | {n: metadata.version(n) for n in names}


def write_score(score: Score, output: Path, name: str) -> Path:
    """Write ``NAME.json`` and ``NAME.md`` into a folder; returns the JSON's path."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{name}.json"
    files.write_text(output / f"{name}.md", markdown(score))
    files.write_json(path, score.as_dict(), indent=1)
    return path


def markdown(score: Score) -> str:
    """Return the score to read."""
    low, high = score.interval_95
    rows = [[score.metric, f"**{score.value:.2f}**", f"{low:.2f} to {high:.2f}", f"{score.better} is better"]]
    infinity = score.details.get("infinity")
    if infinity:
        error = infinity["standard_error"]
        rows.append(
            [f"{score.metric} at infinitely many clips", f"{infinity['value']:.2f}", f"standard error {error:.2f}", ""]
        )
    parts = [f"# {score.metric}", table(["metric", "value", "95 % interval", ""], rows)]
    if score.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in score.notes)]
    if infinity:
        points = [[str(n), str(m), f"{value:.2f}"] for n, m, value in infinity["points"]]
        parts += ["## Against the number of clips", table(["real", "generated", score.metric], points)]
    parts += ["## Protocol", table(["", ""], [*_rows(score.protocol), *_rows({"versions": versions()})])]
    if score.command:
        parts += ["## Again", f"```sh\n{score.command}\n```"]
    return "\n\n".join(parts) + "\n"


def _rows(values: Mapping[str, Any], before: str = "") -> list[list[str]]:
    """Return nested settings as rows of name and value; long lists are counted."""
    rows: list[list[str]] = []
    for key, value in values.items():
        name = f"{before}{key.replace('_', ' ')}"
        if isinstance(value, Mapping) and len(value) <= 20:
            rows += _rows(value, f"{name}: ")
        elif isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str)):
            rows.append([name, f"{len(value)}, see the JSON" if len(value) > 20 else ", ".join(map(str, value))])
        else:
            rows.append([name, "-" if value is None else str(value).replace("|", "\\|")])
    return rows
