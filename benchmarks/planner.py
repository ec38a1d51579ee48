"""How often a planner's paths do what prompts say: `python benchmarks/planner.py runs/emoji/planner/export/planner`.

Prints, for training captions, held-out combinations and held-out paraphrases, the share of paths whose motion is the
one that was asked for, and whether periods, places and sizes are.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import get_args

import numpy as np
import torch

from openlumiere.clock import clip_seconds
from openlumiere.data.emoji.scenes import SceneSampler, Split, speed, vocabulary
from openlumiere.evaluation.metrics.paths import describe_path
from openlumiere.pipelines.planner import PathPlanner
from openlumiere.pipelines.text import embed, load_text_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("planner", help="folder of the planner")
    parser.add_argument("--count", type=int, default=400, help="captions of each split, default: 400")
    parser.add_argument("--frames", type=int, default=80, help="length of the clips, default: 80")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--real", action="store_true", help="judge the scenes' own paths instead")
    parser.add_argument("--loop", action="store_true")
    args = parser.parse_args()
    planner = PathPlanner.from_pretrained(args.planner).eval()
    tokenizer, encoder = load_text_encoder()
    names = {key: entry["names"] for key, entry in vocabulary()["subjects"].items()}
    print("| split | " + " | ".join(vocabulary()["motions"]) + " | all | period | pace | place | size |")
    print("| --- " * (len(vocabulary()["motions"]) + 6) + "|")
    for split in get_args(Split):
        sampler = SceneSampler(names, split=split, seed=args.seed)
        scenes = [sampler(index) for index in range(args.count)]
        text = embed([scene.caption for scene in scenes], tokenizer, encoder, layers=planner.config.text_layers)
        generator = torch.Generator().manual_seed(args.seed)
        seconds = clip_seconds(args.frames, planner.config.fps)
        paths = planner.plan(text, args.frames, loop=args.loop, generator=generator).numpy()
        print(row(split, scenes, paths, seconds, real=args.real))


def row(split: str, scenes: list, paths: np.ndarray, seconds: float, *, real: bool) -> str:
    """One line of the table."""
    from openlumiere.data.emoji.scenes import trajectory

    words = vocabulary()
    right: dict[str, list[bool]] = defaultdict(list)
    for scene, planned in zip(scenes, paths, strict=True):
        path = trajectory(scene, np.arange(len(planned)) * seconds / len(planned), seconds) if real else planned
        told = describe_path(path, seconds)
        right[scene.motion].append(told.motion == scene.motion)
        right["all"].append(told.motion == scene.motion)
        usual = words["motions"][scene.motion].get("period")
        if usual and told.period and told.motion == scene.motion:
            slowness = 0.5 + np.log(told.period / usual) / (2 * np.log(2))
            right["period"].append(-0.1 < slowness < 1.1)  # half to twice the usual
            pace = speed(scene)
            said = [p for p in ("fast", "slow") if any(w in scene.caption.split() for w in _paces(p))]
            if said and pace:
                right["pace"].append(slowness < 0.43 if pace == "fast" else slowness > 0.57)
        if scene.motion in ("still", "spin", "grow", "shrink"):
            right["place"].append(told.place == scene.place)
        right["size"].append(told.size == scene.size)
    columns = [*words["motions"], "all", "period", "pace", "place", "size"]
    return f"| {split} | " + " | ".join(f"{100 * np.mean(right[c]):.0f}" if right[c] else "-" for c in columns) + " |"


def _paces(pace: str) -> list[str]:
    entry = vocabulary()["speeds"][pace]
    return [*entry["words"], *entry["unseen"]]


if __name__ == "__main__":
    main()
