"""`lumiere evaluate baselines`: does one pass over all frames beat keyframes and a cascade, as Lumiere claims?

Two baselines of the paper's section 2, grown from the same text-to-image network and trained on the same clips for the
same time (`configs/emoji/baselines/`):

- *cascade*: a fixed-rate network makes every other frame, and a second one fills in what lies between, in windows that
  share nothing but a keyframe, as ImagenVideo does;
- *fixed rate*: the same inflation without time resampling, on 16 frames, as AnimateDiff and ZeroScope; longer clips by
  temporal MultiDiffusion over overlapping windows, as their users make them.

Each method makes the same scenes, in a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openlumiere import files
from openlumiere.clock import clip_seconds
from openlumiere.data.emoji.scenes import SECONDS, Scene, SceneSampler, Split, shortest_period, vocabulary
from openlumiere.errors import LumiereError
from openlumiere.evaluation import cache
from openlumiere.evaluation.clips import ClipMaker, Job
from openlumiere.evaluation.features.cache import Extraction
from openlumiere.evaluation.judges import Judges, accuracies, load_judges
from openlumiere.evaluation.metrics.bootstrap import percentile_interval
from openlumiere.evaluation.metrics.periodicity import AXES, PERIODS, is_still, keeps_to_axis, periodicity_error, swing
from openlumiere.evaluation.metrics.pixels import SIDE
from openlumiere.evaluation.metrics.temporal import flicker
from openlumiere.evaluation.real_clips import SCENES, atlases_of, real_clips
from openlumiere.tables import table, wilson

from .baseline_methods import (
    GENERAL,
    PERIODIC,
    REAL,
    Method,
    clip_name,
    clip_path,
    make_in_own_process,
    method_folder,
)  # fmt: skip
from .distributions import FVDSettings, fvd
from .xt import draw_slices

if TYPE_CHECKING:
    from openlumiere.data.emoji.drawing import Atlas

_SHOWN = 3  # periodic clips whose slices are drawn
_DRAWS = 20_000  # scenes looked at for the next one that is asked for


def evaluate_baselines(
    methods: Sequence[Method],
    data: Path | dict[str, Atlas],
    output: Path,
    *,
    clips: int = 24,
    num_frames: int = 80,
    seed: int = 0,
    subjects: Sequence[str] | None = None,
    motions: Sequence[str] | None = None,
    periods: tuple[float, float] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    judges: Judges | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Compare methods on the same scenes, and write ``baselines.json``, ``baselines.md`` and ``slices-N.png``.

    A stopped evaluation goes on where it was: each clip is kept under ``output/methods`` as it comes. So a method can
    be added later, and the others' clips are not made again.

    Args:
        data: folder that `lumiere data emoji` wrote, or the subjects' animations themselves.
        clips: of scenes of all motions, half of them of the test split; and as many again of periodic motions.
        subjects: that all of the methods know; None = the first method's.
        motions: that all of the methods know (``data.motions``), a periodic one among them; None = all. If all of them
            are periodic, those are the only scenes.
        periods: shortest and longest, in seconds, of as many periodic motions again, for methods that were trained on
            them (``data.periods``): six to nine frames are what keyframes barely show.
        judges: already loaded ones; None = those in ``data/classifier``, trained there when absent.

    Returns:
        For each method, and for real clips of the same scenes: accuracies, FVD-emoji, flicker, seconds a clip (median),
        peak memory of the process in MiB; of periodic motions, the periodicity error (mean, median, and mean of the
        clips that move), the share that goes along the motion's axis, that of still clips, and the amplitude (median
        ratio of a clip's swing to that of the real clip of its scene), with 95 % intervals.
    """
    # A motion repeats itself for the eye once it was seen twice.
    longest = clip_seconds(num_frames) / 2
    if longest <= max((shortest_period(), *(periods or ()))):
        raise LumiereError(f"clips of {num_frames} frames show no period twice; compare clips of 32 or more")
    from openlumiere.pipelines.load import load_pipeline, resolve_model

    if len({method.folder for method in methods}) < max(len(methods), 1) or clips < 2:
        raise LumiereError("give the methods names of their own, one method at least, and at least 2 clips")
    asked = sorted(motions or vocabulary()["motions"])
    periodic = sorted(set(PERIODS).intersection(asked))
    if unknown := [motion for motion in asked if motion not in vocabulary()["motions"]]:
        raise LumiereError(f"no motion is called {unknown[0]!r}: choose among {', '.join(vocabulary()['motions'])}")
    if not periodic:
        raise LumiereError(f"none of the motions repeats itself: ask for {' or '.join(PERIODS)} too")
    models = {name for method in methods for name in (method.model, method.between) if name}
    for model in models:
        resolve_model(model)  # a mistyped name is reported at once
    weights, subjects_of = {}, {}
    for model in models:
        pipe = load_pipeline(model, device="cpu")
        weights[model], subjects_of[model] = cache.weights_hash(pipe), pipe.config.subjects
    atlases = atlases_of(data, SIDE)
    known = list(subjects or subjects_of[methods[0].model] or atlases)
    if judges is None:
        judges = load_judges(atlases, (output if isinstance(data, dict) else data) / "classifier", progress=progress)
    settings = {
        "num_frames": num_frames,
        "seed": seed,
        "subjects": known,
        "data_sha256": cache.data_fingerprint(atlases),
    }
    if dtype != "auto":  # older reports, all of them "auto", do not name it
        settings["dtype"] = dtype
    if motions is not None:
        settings["motions"] = asked
    made_by = {}
    for method in methods:
        used = {name: weights[name] for name in (method.model, method.between) if name}
        made_by[method.name] = {**asdict(method), "weights_sha256": used}
        cache.continue_or_start(method_folder(output, method.name), {**settings, **made_by[method.name]})
    cache.continue_or_start(method_folder(output, REAL), settings)
    scenes = {} if asked == periodic else {GENERAL: _scenes(known, clips, seed, motions=asked)}
    scenes[PERIODIC] = _scenes(known, clips, seed, motions=periodic, longest=longest)
    if periods is not None:
        chosen = "periods-{:g}-{:g}".format(*periods)
        scenes[chosen] = _scenes(known, clips, seed, motions=periodic, periods=periods)
    for method in methods:
        make_in_own_process(
            method, scenes, output, num_frames=num_frames, seed=seed, device=device, dtype=dtype, progress=progress
        )
    _draw_real(scenes, atlases, output, num_frames)

    report: dict[str, Any] = {**settings, "made_by": made_by, "clips": clips, "periods": periods, "methods": {}}
    for name in [method.name for method in methods] + [REAL]:
        report["methods"][name] = _measured(name, scenes, judges, output, seed, progress)
    report["judges"] = {"subject": judges.subject.card, "motion": judges.motion.card}
    files.write_json(output / "baselines.json", report, indent=1)
    files.write_text(output / "baselines.md", markdown(report))
    shown = [REAL, *(method.name for method in methods)]
    for index, scene in enumerate(scenes[PERIODIC][:_SHOWN]):
        read = [cache.read_array(clip_path(output, name, PERIODIC, index)) for name in shown]
        axis = ("row", "column")[AXES[scene.motion]]
        draw_slices(read, [f"{name}: {scene.caption}" for name in shown], output / f"slices-{index}.png", axis=axis)
    return report


def markdown(report: dict[str, Any]) -> str:
    """Return the comparison as a Markdown table."""
    names = list(report["methods"])

    def row(title: str, measure: str, shape: str) -> list[str]:
        cells = []
        for name in names:
            found = report["methods"][name]
            value, interval = found.get(measure), found.get("intervals_95", {}).get(measure)
            cell = "" if value is None else shape.format(value)
            if interval is not None:
                cell += f" ({' to '.join(map(shape.format, interval))})"
            cells.append(cell)
        return [title, *cells]

    def repetition(of: str, prefix: str = "") -> list[list[str]]:
        return [
            row(f"motion as asked, {of}", f"{prefix}periodic_motion", "{:.1%}"),
            row(f"further along the motion's axis than across it, {of}", f"{prefix}along_axis", "{:.1%}"),
            row(f"still clips, {of}", f"{prefix}still", "{:.1%}"),
            row(f"amplitude, to the real clip's, {of}, median", f"{prefix}amplitude", "{:.2f}"),
            row(f"periodicity error (less is better), {of}", f"{prefix}periodicity_error", "{:.3f}"),
            row("the same, median", f"{prefix}periodicity_error_median", "{:.3f}"),
            row("the same, of clips that move", f"{prefix}periodicity_error_moving", "{:.3f}"),
        ]

    rows = [
        row("FVD-emoji (less is better)", "fvd_emoji", "{:.1f}"),
        row("subject as asked", "subject", "{:.1%}"),
        row("background as asked", "background", "{:.1%}"),
        row("motion as asked", "motion", "{:.1%}"),
        *repetition("swaying and bouncing"),
        *(repetition("periods of {:g} to {:g} s".format(*report["periods"]), "chosen_") if report["periods"] else []),
        row("flicker", "flicker", "{:.4f}"),
        row("seconds a clip", "seconds", "{:.1f}"),
        row("peak memory, MiB", "peak_mib", "{:.0f}"),
    ]
    only_periodic = set(report.get("motions") or vocabulary()["motions"]) <= set(PERIODS)
    scenes = "periodic motions" if only_periodic else "all motions, as many of periodic ones"
    return f"{table(['', *names], rows)}\n\n{report['clips']} clips of {scenes}. In brackets: 95 % intervals.\n"


def _scenes(
    subjects: Sequence[str], count: int, seed: int, *,
    motions: Sequence[str], longest: float = float("inf"), periods: tuple[float, float] | None = None,
) -> list[Scene]:  # fmt: skip
    """Return scenes of these motions, every other one of the test split.

    Args:
        longest: periods to take, in seconds; of longer ones a clip shows too little.
        periods: see `SceneSampler`.
    """
    words = vocabulary()["subjects"]
    names = {key: words[key]["names"] if key in words else [key] for key in subjects}
    splits: tuple[Split, Split] = ("train", "combinations")
    samplers = [SceneSampler(names, split=split, seed=SCENES + seed, periods=periods) for split in splits]
    found: list[Scene] = []
    index, since = 0, 0  # the last one that was found
    while len(found) < count:
        scene = samplers[len(found) % 2](index)
        index += 1
        if index - since > _DRAWS:
            raise LumiereError(
                f"hardly any scene of {', '.join(motions)} repeats itself within {longest:g} s, or is held out: "
                "ask for more motions or subjects, or longer clips"
            )
        if scene.motion in motions and (scene.period is None or scene.period <= longest):
            found.append(scene)
            since = index
    return found


def _draw_real(scenes: Mapping[str, list[Scene]], atlases: Mapping[str, Atlas], output: Path, num_frames: int) -> None:
    """Draw the real clips of the scenes, which are made like any other's."""
    maker = ClipMaker(
        lambda listed, _seeds: real_clips(atlases, listed, num_frames=num_frames), method_folder(output, REAL)
    )
    for kind, listed in scenes.items():
        maker.make([Job(clip_name(kind, index), scene, 0) for index, scene in enumerate(listed)], progress=False)


def _measured(
    name: str, scenes: dict[str, list[Scene]], judges: Judges, output: Path, seed: int, progress: bool
) -> dict[str, Any]:
    verdicts: dict[str, list[Any]] = {kind: [] for kind in scenes}
    flickers, seconds, peaks = [], [], []
    for kind, listed in scenes.items():
        for index, scene in enumerate(listed):
            path = clip_path(output, name, kind, index)
            clip = cache.read_array(path)
            verdicts[kind].append(judges.verdict(clip, scene, index=index))
            flickers.append(flicker(clip / 255))
            if path.with_suffix(".json").exists():
                facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
                seconds.append(facts["seconds"])
                if facts["peak_mib"] is not None:
                    peaks.append(facts["peak_mib"])
    scores = {kind: accuracies(listed) for kind, listed in verdicts.items()}
    general = scores.get(GENERAL, scores[PERIODIC])
    found: dict[str, Any] = {
        **{measure: general[measure]["accuracy"] for measure in ("subject", "background", "motion")},
        "flicker": float(np.mean(flickers)),
        "seconds": float(np.median(seconds)) if seconds else None,
        "peak_mib": max(peaks) if peaks else None,
        "scores": scores,
        "intervals_95": {},
    }
    for kind, listed in scenes.items():
        if kind == GENERAL:
            continue
        prefix = "" if kind == PERIODIC else "chosen_"
        measured = _repetition(name, kind, listed, output, seed)
        intervals = measured.pop("intervals_95")
        found[f"{prefix}periodic_motion"] = scores[kind]["motion"]["accuracy"]
        found |= {f"{prefix}{measure}": value for measure, value in measured.items()}
        found["intervals_95"] |= {f"{prefix}{measure}": value for measure, value in intervals.items()}
    if name != REAL:
        real, made = (method_folder(output, which) / "clips" for which in (REAL, name))
        settings = FVDSettings(features="emoji", sampling="spread", seed=seed)
        score = fvd(real, made, settings=settings, extraction=Extraction(progress=progress))
        found["fvd_emoji"] = score.value
        found["fvd"] = score.as_dict()
    return found


def _repetition(name: str, kind: str, scenes: Sequence[Scene], output: Path, seed: int) -> dict[str, Any]:
    """Return how well a method's clips of periodic motions repeat themselves, and how far they go."""
    errors, swings, ratios, along = [], [], [], 0
    for index, scene in enumerate(scenes):
        clip, real = (cache.read_array(clip_path(output, which, kind, index)) for which in (name, REAL))
        # About which a clip's own is looked for.
        period = PERIODS[scene.motion] * SECONDS if kind == PERIODIC else float(scene.period or 0)
        errors.append(periodicity_error(clip, period / clip_seconds(len(clip))))
        swings.append(swing(clip))
        ratios.append(swings[-1] / swing(real))
        along += keeps_to_axis(clip, scene.motion)
    still = sum(map(is_still, swings))
    moving = [error for error, length in zip(errors, swings, strict=True) if not is_still(length)]
    return {
        "periodicity_error": float(np.mean(errors)),
        "periodicity_error_median": float(np.median(errors)),
        "periodicity_error_moving": float(np.mean(moving)) if moving else None,
        "periodicity_errors": errors,
        "along_axis": along / len(swings),
        "still": still / len(swings),
        "amplitude": float(np.median(ratios)),
        "amplitudes": ratios,
        "intervals_95": {
            "periodicity_error": percentile_interval(errors, seed=seed),
            "periodicity_error_median": percentile_interval(errors, np.median, seed=seed),
            "periodicity_error_moving": percentile_interval(moving, seed=seed),
            "along_axis": wilson(along, len(swings)),
            "still": wilson(still, len(swings)),
            "amplitude": percentile_interval(ratios, np.median, seed=seed),
        },
    }
