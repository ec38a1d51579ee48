"""How closely subjects follow paths that a user draws.

`python benchmarks/paths.py MODEL --data data/emoji-256 -o runs/paths`

Each subject is asked to go along a line, a figure eight, a spiral, a zigzag, a way with a stop, and to grow and turn as
it goes. Printed is how far, on average and at most, the subject's centre is from where the drawn animation's centre is
on the same path, in pixels of a frame of 128 (the animation's own centre is not that of its square), and the same for
the path itself. Clips and a sheet to look at, what was asked for in white and what was measured in black, go into the
folder; clips that are there are not made again.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import report

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when PyTorch loads, as `lumiere` sets it

import torch
from PIL import Image, ImageDraw

from openlumiere.clock import clip_seconds, frame_seconds
from openlumiere.data.emoji.drawing import Sprites, draw_batch, ground, over
from openlumiere.data.emoji.scenes import SceneSampler, vocabulary
from openlumiere.data.emoji.shards import load_atlases
from openlumiere.diffusion.layout import path_through
from openlumiere.diffusion.way_points import parse_way_points
from openlumiere.errors import LumiereError
from openlumiere.evaluation.clips import ClipMaker, Job, pipeline_sample
from openlumiere.evaluation.metrics.tracks import centres
from openlumiere.pipelines.load import load_pipeline

_SIDE = 128  # pixels that distances are told in
_GROUND = "blue"
_USUAL_SIDE = 0.75  # of the subject's square, where points leave it open, see `path_through`
_SHOWN = 5  # frames that a picture of the sheet lays over each other


def _spiral(count: int = 17, turns: int = 2) -> str:
    angles, radii = np.linspace(0, 2 * np.pi * turns, count), np.linspace(0.3, 0, count)
    return " ".join(f"{0.5 + r * np.cos(a):.3f},{0.5 + r * np.sin(a):.3f}" for r, a in zip(radii, angles, strict=True))


def _eight(count: int = 13) -> str:
    angles = np.linspace(0, 2 * np.pi, count)
    return " ".join(f"{0.5 + 0.3 * np.sin(a):.3f},{0.5 + 0.2 * np.sin(2 * a):.3f}" for a in angles)


SHAPES = {
    "line": "0.2,0.5 0.8,0.5",
    "figure eight": _eight(),
    "spiral": _spiral(),
    "zigzag": "0.2,0.3 0.35,0.7 0.5,0.3 0.65,0.7 0.8,0.3",
    "stop": "0.2,0.7 0.5,0.3@0.3 0.5,0.3@0.7 0.8,0.7",
    "grow and turn": "0.3,0.5,0.4,0 0.7,0.5,0.8,180",
}


def main() -> int:
    """Make, measure, print, write."""
    args = _arguments()
    words = vocabulary()["subjects"]
    try:
        if unknown := set(args.subjects) - set(words):
            raise LumiereError(f"unknown subjects {', '.join(sorted(unknown))}; known: {', '.join(words)}")
        pipe = load_pipeline(args.model, device="cpu")
        if not pipe.unet.takes_layout:
            raise LumiereError(f"{args.model} is not told where its subject goes; give a model that is")
        atlases = load_atlases(args.data, args.subjects, side=2 * _SIDE)
    except LumiereError as error:
        print(f"paths.py: error: {error}", file=sys.stderr)
        return 2
    pipe.set_progress_bar_config(disable=True)
    found = report.machine(torch.get_num_threads())
    print(report.describe(found), flush=True)
    steps = {} if args.steps is None else {"num_inference_steps": args.steps}
    # Without a planner, what points leave open is what `path_through` takes for it.
    sample = pipeline_sample(pipe, num_frames=args.frames, upscale=False, planner=False, **steps)
    maker = ClipMaker(sample, args.output)
    rows, tiles = [], []
    for shape, text in SHAPES.items():
        points = parse_way_points(text)
        jobs = [
            Job(
                f"{shape}-{subject}".replace(" ", "-"),
                f"a {words[subject]['names'][0]} on a {_GROUND} background",
                number,
            )
            for number, subject in enumerate(args.subjects)
        ]
        maker.make(jobs, title=shape, layout=points)
        usual = torch.tensor([0, 0, _USUAL_SIDE, 0]).expand(args.frames, -1)
        path = path_through(points, args.frames, default=usual).numpy()
        for job, subject in zip(jobs, args.subjects, strict=True):
            clip = maker.read(job.name)
            made, drawn = centres(clip[..., :3]), centres(_drawn(Sprites({subject: atlases[subject]}), subject, path))
            rows.append((shape, subject, _pixels(made - drawn), _pixels(made - path[:, :2])))
            tiles.append(_tile(clip[..., :3], path, made))
    print(_table(rows))
    sheet = args.output / "sheet.png"
    _sheet(tiles, len(args.subjects)).save(sheet)
    print(f"wrote {sheet}")
    if args.json:
        clips = [
            {"shape": shape, "subject": subject, "pixels": list(map(float, near)), "from_path": list(map(float, far))}
            for shape, subject, near, far in rows
        ]
        report.write_json(args.json, {"machine": found, "model": args.model, "clips": clips})
    return 0


def _drawn(sprites: Sprites, subject: str, path: np.ndarray) -> np.ndarray:
    """Draw a subject's own animation along a path: float (F, H, W, 3) in [0, 1]."""
    scene = replace(SceneSampler({subject: [subject]})(0), background=_GROUND)
    rgba, _ = draw_batch(
        [scene], sprites, size=_SIDE, seconds=frame_seconds(np.arange(len(path))), duration=clip_seconds(len(path)),
        view=lambda row, own: path,
    )  # fmt: skip
    return over(rgba, ground([_GROUND]))[0, :3].permute(1, 2, 3, 0).clamp(0, 1).numpy()


def _pixels(difference: np.ndarray) -> np.ndarray:
    """Return the lengths of differences, (F, 2) in units of half a frame, in pixels."""
    return np.linalg.norm(difference, axis=1) * _SIDE / 2


def _table(rows: list[tuple[str, str, np.ndarray, np.ndarray]]) -> str:
    def row(name: str, chosen: list[tuple[str, str, np.ndarray, np.ndarray]]) -> list[str]:
        near, far = np.stack([each[2] for each in chosen]), np.stack([each[3] for each in chosen])
        worst = max(chosen, key=lambda each: each[2].mean())
        return [name, str(len(chosen)), f"{near.mean():.1f}", f"{np.quantile(near, 0.95):.1f}",
                f"{worst[2].mean():.1f} ({worst[1]})", f"{far.mean():.1f}"]  # fmt: skip

    shapes = list(dict.fromkeys(each[0] for each in rows))
    head = ["path", "clips", "mean, px", "95 %, px", "worst clip, px", "from the path itself, px"]
    lines = [row(shape, [each for each in rows if each[0] == shape]) for shape in shapes]
    return report.table(head, [*lines, row("all", rows)])


def _tile(clip: np.ndarray, path: np.ndarray, made: np.ndarray) -> Image.Image:
    """Lay some frames over each other, with the path in white and the measured one in black."""
    shown = clip[np.linspace(0, len(clip) - 1, _SHOWN).round().astype(int)].astype(np.float32)
    ground_ = np.median(clip.reshape(-1, 3), axis=0)
    away = np.abs(shown - ground_).sum(axis=-1, keepdims=True)
    weight = np.clip(away / 60, 0, 1)
    mixed = ground_ + (weight * (shown - ground_)).sum(axis=0) / np.maximum(weight.sum(axis=0), 1)
    tile = Image.fromarray(mixed.clip(0, 255).astype(np.uint8)).resize((2 * _SIDE, 2 * _SIDE))
    pen = ImageDraw.Draw(tile)
    for line, colour in ((path, "white"), (made, "black")):
        pen.line([(float(x + 1) * _SIDE, float(y + 1) * _SIDE) for x, y in line[:, :2]], fill=colour, width=2)
    return tile


def _sheet(tiles: list[Image.Image], columns: int) -> Image.Image:
    side, gap = tiles[0].width, 6
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (side + gap) - gap, rows * (side + gap) - gap), "white")
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % columns * (side + gap), number // columns * (side + gap)))
    return sheet


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model that is told where its subject is, as --model takes it")
    parser.add_argument("--data", type=Path, default=Path("data/emoji"), help="folder of `lumiere data emoji`")
    parser.add_argument("--subjects", nargs="+", default=["frog", "cat", "heart", "rocket"])
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--steps", type=int, help="of denoising; default: the model's")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the clips and the sheet")
    parser.add_argument("--json", type=Path, help="write everything there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
