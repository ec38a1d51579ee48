"""`lumiere evaluate editing`: does a conditioned model do what its commands promise?

Clips of the test split are given in part, and what comes back is compared with what was given, with the real
clip, and with what was asked for. All of it looks at the base model's clips, before anything is pasted back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from openlumiere import files
from openlumiere.clock import frame_seconds
from openlumiere.data.emoji.captions import caption
from openlumiere.data.emoji.drawing import Atlas, draw
from openlumiere.data.emoji.scenes import SECONDS, Scene, SceneSampler, is_test_artwork, trajectory, vocabulary
from openlumiere.data.emoji.shards import load_atlases
from openlumiere.diffusion.layout import layout_of
from openlumiere.errors import LumiereError
from openlumiere.evaluation import cache
from openlumiere.evaluation.judges import Judges, load_judges
from openlumiere.evaluation.metrics.pixels import SIDE
from openlumiere.evaluation.real_clips import SCENES
from openlumiere.tables import table

from .editing_tasks import METRICS, UNKNOWN, Item, TaskMaker, measures_of

if TYPE_CHECKING:
    from openlumiere.pipelines.lumiere import LumierePipeline

TASKS = tuple(METRICS)


def evaluate_editing(
    pipe: LumierePipeline,
    data: Path | Mapping[str, Atlas],
    output: Path,
    *,
    clips: int = 12,
    num_frames: int = 80,
    tasks: Sequence[str] = TASKS,
    seed: int = 0,
    judges: Judges | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure every application, and write ``editing.json``, ``editing.md`` and a picture for each task.

    A stopped evaluation goes on where it was: each clip is kept under ``output/clips`` as it comes.

    Args:
        data: folder that `lumiere data emoji` wrote, or the subjects' animations themselves.
        clips: real clips that each task starts from.
        tasks: of `TASKS`.
        judges: already loaded ones; None = those in ``data/classifier``, trained there when absent.

    Returns:
        For each task the means of its `METRICS` over clips, and the values of each clip.

    Raises:
        LumiereError: an unknown task, a model that takes no condition, or an `output` made with other settings.
    """
    unknown = [task for task in tasks if task not in TASKS]
    if unknown or not tasks or clips < 1:
        raise LumiereError(f"unknown tasks {unknown} or no clips; choose tasks from {', '.join(TASKS)}")
    if not pipe.unet.config["condition_channels"]:
        raise LumiereError("this model takes no clip to keep a part of; train one: lumiere train conditional")
    if isinstance(data, Mapping):
        atlases, folder = data, output / "classifier"
    else:
        atlases = load_atlases(Path(data), list(vocabulary()["subjects"]), side=2 * max(SIDE, *pipe.frame_size))
        folder = Path(data) / "classifier"
    if judges is None:
        small = atlases if isinstance(data, Mapping) else load_atlases(Path(data), list(atlases), side=2 * SIDE)
        judges = load_judges(small, folder, progress=progress)
    settings = {"weights_sha256": cache.weights_hash(pipe), "num_frames": num_frames, "seed": seed}
    cache.continue_or_start(output, settings)

    maker = TaskMaker(pipe, output / "clips", seed)
    measure = measures_of(maker, judges)
    items = _items(pipe, atlases, clips, num_frames, seed)
    strangers = _strangers(pipe, atlases, clips, num_frames, seed) if UNKNOWN in tasks else []
    if not strangers:  # the model knows all that there is
        tasks = [task for task in tasks if task != UNKNOWN]
    each: dict[str, list[dict[str, float]]] = {task: [] for task in tasks}
    with tqdm(total=clips * len(tasks), desc="editing", unit="task", disable=not progress) as bar:
        for index in range(clips):
            for task in tasks:
                each[task].append(measure[task]((strangers if task == UNKNOWN else items)[index]))
                bar.update()
    report = {
        **settings,
        "clips": clips,
        "judges": {"subject": judges.subject.card, "motion": judges.motion.card},
        "figures": {
            task: {name: float(np.mean([one[name] for one in found])) for name in METRICS[task]}
            for task, found in each.items()
        },
        "each": each,
    }
    files.write_json(output / "editing.json", report, indent=1)
    files.write_text(output / "editing.md", markdown(report))
    for task, rows in maker.shown.items():
        _sheet(rows, output / f"{task}.png")
    return report


def markdown(report: Mapping[str, Any]) -> str:
    """Return the means as a Markdown table."""
    rows = [
        [task, title, f"{report['figures'][task][name]:.{2 if 'psnr' in name else 4}f}"]
        for task in report["figures"]
        for name, title in METRICS[task].items()
    ]
    return table(["task", "metric", f"mean of {report['clips']} clips"], rows) + "\n"


# ------------------------------------------------------------------------------------------------ inputs


def _items(pipe: LumierePipeline, atlases: Mapping[str, Atlas], count: int, num_frames: int, seed: int) -> list[Item]:
    """Return clips of the test split of the subjects that the model knows, at its own size."""
    known = [key for key in pipe.config.subjects or atlases if key in atlases]
    if len(known) < 2 or pipe.frame_size[0] != pipe.frame_size[1]:
        raise LumiereError("two subjects at least that the model knows, and square frames, are needed")
    return _drawn({key: atlases[key] for key in known}, pipe.frame_size[0], count, num_frames, seed)


def _strangers(
    pipe: LumierePipeline, atlases: Mapping[str, Atlas], count: int, num_frames: int, seed: int
) -> list[Item]:
    """Return clips of still pictures that the model was never shown; none where it knows all that there is."""
    known, words = set(pipe.config.subjects or atlases), vocabulary()["subjects"]
    unknown = {
        key: replace(atlas, frames=atlas.frames[:1])
        for key, atlas in atlases.items()
        if key not in known and is_test_artwork(words[key]["emoji"] if key in words else key)
    }
    moving = [motion for motion in vocabulary()["motions"] if motion != "still"]
    return _drawn(unknown, pipe.frame_size[0], count, num_frames, seed, moving) if unknown else []


def _drawn(
    atlases: Mapping[str, Atlas], size: int, count: int, num_frames: int, seed: int, motions: list[str] | None = None
) -> list[Item]:
    names = {key: atlas.names for key, atlas in atlases.items()}
    sampler = SceneSampler(names, split="combinations", seed=SCENES + seed, motions=motions)
    items = []
    for index in range(count):
        scene = sampler(index)
        pixels, alpha = draw(scene, atlases[scene.subject], size=size, num_frames=num_frames)
        clip = ((pixels + 1) / 2).permute(1, 2, 3, 0).contiguous().numpy()
        seconds = frame_seconds(np.arange(num_frames), num_frames / SECONDS)
        layout = layout_of(torch.from_numpy(trajectory(scene, seconds, SECONDS)).float())
        another = _with_another(scene, names, seed + index) if len(names) > 1 else scene
        items.append(Item(index, scene, clip, alpha[0].numpy(), another, layout))
    return items


def _with_another(scene: Scene, names: Mapping[str, list[str]], seed: int) -> Scene:
    """Return the same scene with another subject, and a caption that says so."""
    rng = np.random.default_rng([SCENES, seed])
    others = [key for key in sorted(names) if key != scene.subject]
    subject = others[int(rng.integers(len(others)))]
    words = caption(
        rng, names=names[subject], background=scene.background, size=scene.size, place=scene.place, motion=scene.motion
    )
    return replace(scene, subject=subject, caption=words)


def _sheet(rows: Sequence[tuple[np.ndarray, np.ndarray]], path: Path, *, columns: int = 8, side: int = 96) -> None:
    """Draw for each of the first clips some frames of what was given, gray where it was not, above what was made."""
    from PIL import Image

    lines = []
    for pair in rows[:4]:
        for clip in pair:
            at = np.linspace(0, len(clip) - 1, columns).round().astype(int)
            lines.append(np.concatenate(list(clip[at]), axis=1))
    page = Image.fromarray(cache.eight_bit(np.concatenate(lines)))
    height = rows[0][0].shape[1]
    page.resize((columns * side, page.height * side // height), Image.Resampling.NEAREST).save(path)
