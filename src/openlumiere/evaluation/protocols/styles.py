"""`lumiere evaluate styles`: how much of a style is there, and how much of the motion is left, against its strength?

The paper's section 4.1: styled weights draw as they were taught, and the more of them are mixed in, the more the motion
that was learned with the original ones suffers. A classifier that was trained on real sets of emoji says which of them
a clip is drawn as; the motion classifier says how it moves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from openlumiere import files
from openlumiere.bundled import STYLES, styles_of
from openlumiere.data.emoji.drawing import Atlas, draw
from openlumiere.data.emoji.scenes import Scene, SceneSampler
from openlumiere.data.style_images import StyleImages
from openlumiere.errors import LumiereError
from openlumiere.evaluation import cache
from openlumiere.evaluation.clips import ClipMaker, Sample, pipeline_sample
from openlumiere.evaluation.judges import Judges, load_judges
from openlumiere.evaluation.judges.classifier import ClassifierConfig, SubjectClassifier
from openlumiere.evaluation.judges.style import CONFIG, Sets, style_classifier
from openlumiere.evaluation.metrics.pixels import SIDE
from openlumiere.evaluation.real_clips import SCENES, atlases_of
from openlumiere.tables import table

if TYPE_CHECKING:
    from openlumiere.pipelines.lumiere import LumierePipeline

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
AIM = 0.8  # of style and motion, at the same strength
ORIGINAL = "animated"  # the set that the model itself was trained on
_MEASURES = ("style", "motion", "subject")


def evaluate_styles(
    pipe: LumierePipeline,
    data: Path | Mapping[str, Atlas],
    designs: Path,
    output: Path,
    *,
    clips: int = 4,
    num_frames: int = 80,
    strengths: Sequence[float] = STRENGTHS,
    styles: Sequence[str] | None = None,
    seed: int = 0,
    judges: Judges | None = None,
    style_config: ClassifierConfig = CONFIG,
    progress: bool = True,
) -> dict[str, Any]:
    """Make clips in each style at each strength, and write ``styles.json``, ``styles.md`` and ``styles.png``.

    A stopped evaluation goes on where it was: each clip is kept under ``output/clips`` as it comes.

    Args:
        data: folder that `lumiere data emoji` wrote, or the subjects' animations themselves.
        designs: folder that `lumiere data designs` wrote; clips are classified by its sets of the same names.
        clips: of combinations of the test split, the same for each style and strength.
        styles: names of some that come with the model; None = all of them.
        judges: of subject and motion; None = those in ``data/classifier``, trained there when absent, or in
            ``output/classifier`` where `data` is no folder.
        style_config: network and training of the style classifier, kept in ``designs/classifier``.

    Returns:
        For each strength the shares of clips in which style, motion and subject are as asked, over all styles and for
        each; the same of real clips drawn with each set's pictures.

    Raises:
        LumiereError: a model without styles, a style without a set, or an `output` made with other settings.
    """
    folder = pipe.source_folder
    own = styles_of(folder) if folder else []
    chosen = list(own if styles is None else styles)
    unknown = sorted({*chosen} - {*own})
    if folder is None or unknown or not chosen or clips < 1:
        raise LumiereError(f"styles that this model lacks, {unknown}, or none; it has: {', '.join(own) or 'none'}")
    sets = _read_sets(data, designs, chosen)
    known = [key for key in pipe.config.subjects or sets[ORIGINAL] if all(key in atlases for atlases in sets.values())]
    if not known:
        raise LumiereError(f"the model's subjects are not among those of {designs}; make it anew: lumiere data designs")
    classifier = style_classifier(sets, designs / "classifier", config=style_config, progress=progress)
    if judges is None:
        kept = output if isinstance(data, Mapping) else Path(data)
        judges = load_judges(atlases_of(data, SIDE), kept / "classifier", progress=progress)
    settings = {
        **cache.drawn_by(pipe),
        "styles_sha256": {name: _hash(folder / STYLES / name) for name in chosen},
        "num_frames": num_frames, "seed": seed,
    }  # fmt: skip
    cache.continue_or_start(output, settings)

    scenes = SceneSampler({key: sets[ORIGINAL][key].names for key in known}, split="combinations", seed=SCENES + seed)
    maker = ClipMaker(_styled(pipe, num_frames=num_frames), output / "clips")
    asked = [scenes(index) for index in range(clips)]
    each: dict[str, dict[str, list[dict[str, bool]]]] = {name: {} for name in chosen}
    real: dict[str, list[dict[str, bool]]] = {}
    shown: dict[tuple[str, float], np.ndarray] = {}
    with tqdm(total=len(chosen) * len(strengths) * clips, desc="styles", unit="clip", disable=not progress) as bar:
        for name in chosen:
            drawn = (_draw_real(scene, sets[name], num_frames) for scene in asked)
            real[name] = [_verdict(clip, s, name, classifier, judges) for clip, s in zip(drawn, asked, strict=True)]
            for strength in strengths:
                found = each[name].setdefault(str(strength), [])
                for index, scene in enumerate(asked):
                    file = f"{name if strength else 'none'}-{strength}-{index:05d}"  # unstyled: the same for all
                    weights = {name: strength} if strength else {}
                    clip = maker.clip(file, scene.caption, seed + index, styles=weights)
                    found.append(_verdict(clip, scene, name, classifier, judges))
                    shown.setdefault((name, strength), clip)
                    bar.update()
    report = {
        **settings,
        "clips": clips,
        "strengths": list(strengths),
        "judges": {"style": classifier.card, "subject": judges.subject.card, "motion": judges.motion.card},
        "curve": {
            str(s): _shares([verdict for found in each.values() for verdict in found[str(s)]]) for s in strengths
        },
        "by_style": {name: {s: _shares(verdicts) for s, verdicts in found.items()} for name, found in each.items()},
        "real": {name: _shares(verdicts) for name, verdicts in real.items()},
        "each": each,
    }
    files.write_json(output / "styles.json", report, indent=1)
    files.write_text(output / "styles.md", markdown(report))
    plot(report, output / "styles.png")
    _sheet(shown, chosen, strengths, output / "sheet.png")
    return report


def markdown(report: Mapping[str, Any]) -> str:
    """Return the curve, each style's at full strength, and real clips', as Markdown tables."""
    over_all = [[s, *(f"{shares[m]:.0%}" for m in _MEASURES)] for s, shares in report["curve"].items()]
    of_each = [
        [name, *(" · ".join(f"{100 * shares[m]:.0f}" for shares in by.values()) for m in _MEASURES),
         " · ".join(f"{100 * report['real'][name][m]:.0f}" for m in _MEASURES)]
        for name, by in report["by_style"].items()
    ]  # fmt: skip
    heads = [f"{m} as asked" for m in _MEASURES]
    asked = " · ".join(report["curve"])
    both = [s for s, shares in report["curve"].items() if min(shares["style"], shares["motion"]) >= AIM]
    return (
        table(["strength", *heads], over_all) + "\n\n"
        + table(["style", *(f"{m}, % at {asked}" for m in _MEASURES), "real clips, the three"], of_each) + "\n\n"
        + f"Style and motion both at {AIM:.0%} or more: {', '.join(both) or 'at no strength'}. "
        + f"Each share is of {report['clips']} clips a style.\n"
    )  # fmt: skip


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Plot the shares against strength."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    strengths = [float(s) for s in report["curve"]]
    for measure in _MEASURES:
        shares = [100 * found[measure] for found in report["curve"].values()]
        axes.plot(strengths, shares, marker="o", label=f"{measure} as asked", clip_on=False)
    axes.axhline(100 * AIM, color="0.8", linestyle=":", zorder=0)
    axes.set(xlabel="style strength", ylabel="clips, %", ylim=(0, 103))
    figure.legend(frameon=False, loc="outside right center")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _read_sets(data: Path | Mapping[str, Atlas], designs: Path, styles: Sequence[str]) -> Sets:
    sets: dict[str, Mapping[str, Atlas]] = {ORIGINAL: atlases_of(data, SIDE)}
    for name in styles:
        if not (designs / name).is_dir():
            raise LumiereError(
                f"{designs} has no set {name!r} to classify that style by; make it: "
                f"lumiere data designs -o {designs} --emoji FOLDER, that of lumiere data emoji"
            )
        sets[name] = StyleImages(designs / name, size=SIDE).atlases
    return sets


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _styled(pipe: LumierePipeline, **call: Any) -> Sample:
    """Return the base pipeline as a function of prompts, seeds and styles; it is left without styles."""
    sample = pipeline_sample(pipe, upscale=False, **call)

    def styled(prompts: Sequence[str], seeds: Sequence[int], *, styles: Mapping[str, float]) -> np.ndarray:
        pipe.set_styles(styles)
        try:
            return sample(prompts, seeds)
        finally:
            pipe.set_styles({})

    return styled


def _draw_real(scene: Scene, atlases: Mapping[str, Atlas], num_frames: int) -> np.ndarray:
    """Draw a scene with a set's pictures: (F, SIDE, SIDE, 3) in [0, 1]."""
    drawn, _ = draw(scene, atlases[scene.subject], size=SIDE, num_frames=num_frames)
    return (drawn.permute(1, 2, 3, 0).numpy() + 1) / 2


def _verdict(
    clip: np.ndarray, scene: Scene, style: str, classifier: SubjectClassifier, judges: Judges
) -> dict[str, bool]:
    return {
        "style": classifier.classify(clip)[0] == style,
        "motion": judges.motion.classify(clip) == scene.motion,
        "subject": judges.subject.classify(clip)[0] == scene.subject,
    }


def _shares(verdicts: Sequence[Mapping[str, bool]]) -> dict[str, float]:
    return {measure: float(np.mean([v[measure] for v in verdicts])) for measure in _MEASURES}


def _sheet(
    shown: Mapping[tuple[str, float], np.ndarray], styles: Sequence[str], strengths: Sequence[float], path: Path
) -> None:
    """Draw the first clip's middle frame: a row a style, a column a strength."""
    from PIL import Image

    rows = [np.concatenate([shown[name, s][len(shown[name, s]) // 2] for s in strengths], 1) for name in styles]
    page = Image.fromarray(cache.eight_bit(np.concatenate(rows)))
    page.resize((page.width * 3, page.height * 3), Image.Resampling.NEAREST).save(path)
