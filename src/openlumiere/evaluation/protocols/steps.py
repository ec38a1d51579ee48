"""`lumiere evaluate steps`: what fewer denoising steps cost, of one model or of several, such as distilled ones.

Each model makes the scenes of `lumiere evaluate emoji` in each number of steps; a report of its own stays of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openlumiere import files
from openlumiere.data.emoji.drawing import Atlas
from openlumiere.errors import LumiereError
from openlumiere.evaluation.judges import MEASURES, Judges
from openlumiere.tables import table, wilson

from .emoji import EmojiSettings, evaluate
from .emoji_report import cell

# Measures against those of real clips, and what they are called; "sharpness" is the largest distance of features.
_RATIOS = {"amplitude": "path, to real", "wobble": "wobble, to real", "sharpness": "distance, to real"}


def evaluate_steps(
    models: Sequence[str],
    steps: Sequence[int],
    data: Path | Mapping[str, Atlas],
    output: Path,
    settings: EmojiSettings | None = None,
    *,
    guidance_scale: float | None = None,
    device: str = "auto",
    dtype: str = "auto",
    judges: Judges | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure models at several numbers of steps, and write ``steps.json``, ``steps.md`` and ``steps.png``.

    A stopped evaluation goes on where it was.

    Args:
        models: bundled names, local folders or hub ids.
        steps: denoising steps, one or more numbers.
        guidance_scale: of all models; None = each one's own, which is 1 of distilled ones.

    Returns:
        ``points``, one for each model and number: accuracies over all splits with their 95 % intervals, and `_RATIOS`.

    Raises:
        LumiereError: a model or number twice or none, and what `emoji.evaluate` raises.
    """
    if not models or not steps or len(set(models)) < len(models) or len(set(steps)) < len(steps) or min(steps) < 1:
        raise LumiereError("give one model and one number of steps or more, each once, and numbers above 0")
    points = []
    for index, model in enumerate(models):
        for count in steps:
            report = evaluate(
                model, data, output / f"model-{index + 1}" / f"{count}-steps", settings,
                num_inference_steps=count, guidance_scale=guidance_scale, device=device, dtype=dtype, judges=judges,
                progress=progress,
            )  # fmt: skip
            points.append({"model": model, "steps": count, **_point(report)})
    report = {"models": list(models), "steps": list(steps), "points": points}
    files.write_json(output / "steps.json", report, indent=1)
    files.write_text(output / "steps.md", markdown(report))
    plot(report, output / "steps.png")
    return report


def _point(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told of one report of `lumiere evaluate emoji`."""
    found: dict[str, Any] = {"guidance_scale": report["protocol"]["guidance_scale"]}
    for measure in MEASURES:
        shares = [split["model"][measure] for split in report["splits"].values()]
        right, of = (sum(share[key] for share in shares) for key in ("right", "of"))
        found[measure] = {"accuracy": right / of, "interval_95": wilson(right, of)}
    looks = report["looks"]
    for name in ("amplitude", "wobble"):
        ours, real = looks["model"][name], looks["real"][name]
        found[name] = ours / real if ours is not None and real else None
    ratios = [each["ratio"] for each in report["sharpness"].values() if each and each.get("ratio") is not None]
    found["sharpness"] = max(ratios) if ratios else None
    return found


def markdown(report: Mapping[str, Any]) -> str:
    """Return the points as a Markdown table."""
    rows = []
    for point in report["points"]:
        shares = [cell(point[measure]) for measure in MEASURES]
        ratios = ["-" if point[name] is None else f"{point[name]:.2f}" for name in _RATIOS]
        rows.append([point["model"], str(point["steps"]), f"{point['guidance_scale']:g}", *shares, *ratios])
    heads = ["model", "steps", "guidance", *MEASURES, *_RATIOS.values()]
    return f"{table(heads, rows)}\n\nIn brackets: Wilson 95 % intervals, over all splits.\n"


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Plot each measure against the number of steps, a line for each model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3), layout="constrained")
    steps = sorted(report["steps"])
    for axes, name in zip(figure.subplots(1, len(MEASURES) + len(_RATIOS)), (*MEASURES, *_RATIOS), strict=True):
        for shift, model in enumerate(report["models"]):
            points = sorted((p for p in report["points"] if p["model"] == model), key=lambda p: p["steps"])
            if name in _RATIOS:
                known = [(p["steps"], p[name]) for p in points if p[name] is not None]
                axes.plot(*zip(*known, strict=True), marker="o", label=model) if known else axes.plot([], label=model)
            else:
                at = [p["steps"] * 1.03**shift for p in points]  # so that bars stand side by side
                values = [100 * p[name]["accuracy"] for p in points]
                below, above = (
                    [abs(100 * p[name]["interval_95"][end] - value) for p, value in zip(points, values, strict=True)]
                    for end in (0, 1)
                )
                axes.errorbar(at, values, yerr=[below, above], marker="o", capsize=2, label=model)
        axes.set(xlabel="steps", title=_RATIOS.get(name, f"{name}, %"), xscale="log", xticks=steps)
        if name in _RATIOS:
            axes.axhline(1, color="black", linewidth=1, linestyle=":")
        else:
            axes.set_ylim(0, 105)
        axes.set_xticklabels([str(count) for count in steps])
        axes.minorticks_off()
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, ncols=3, loc="outside lower center")
    figure.savefig(path, dpi=120)
