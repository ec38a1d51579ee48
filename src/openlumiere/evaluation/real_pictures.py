"""Pictures with transparency that no autoencoder was trained on: animations of the test split, and unseen kinds.

All are uint8 premultiplied RGBA.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from openlumiere.data.artwork import in_square, is_test_artwork
from openlumiere.data.emoji.designs import UNSEEN
from openlumiere.data.emoji.drawing import render
from openlumiere.data.emoji.scenes import vocabulary
from openlumiere.data.emoji.shards import FPS, iterate, premultiplied
from openlumiere.errors import LumiereError
from openlumiere.video import fit

TRANSPARENT, PLAIN = "transparent", "plain colour"
NEAR = 12  # pixels from the subject within which the ground need not be exact

_SIDE = 0.75  # of the subject, as a fraction of the frame's
_SWAY, _PERIOD = (0.12, 0.06), 2.5  # the subject's path, across and down in half frames, and its period in seconds
_SUFFIXES = (".png", ".jpg", ".jpeg")


def list_test_keys(folder: Path) -> list[str]:
    """Return the code points of the test split's animations in a folder of shards, in order."""
    found = set()
    for shard in sorted(folder.glob("emoji-*.tar")):
        try:
            with tarfile.open(shard) as tar:
                found |= {Path(name).stem for name in tar.getnames() if name.endswith(".webp")}
        except (tarfile.TarError, EOFError, OSError) as error:
            raise LumiereError(
                f"{shard} is damaged; delete it and run again: lumiere data emoji -o {folder}"
            ) from error
    keys = sorted(key for key in found if is_test_artwork(key))
    if not keys:
        raise LumiereError(
            f"{folder} holds no animations of the test split; make it with: lumiere data emoji -o {folder}"
        )
    return keys


def draw_test_animations(
    folder: Path, keys: Sequence[str], *, size: int, num_frames: int, seed: int = 0
) -> Iterator[tuple[str, dict[str, tuple[np.ndarray, np.ndarray]]]]:
    """Draw animations, swaying slowly from a random phase, without a background and over a plain colour.

    Yields:
        An animation's code points; for `TRANSPARENT` and `PLAIN` its frames, (F, 4, size, size), and where their ground
        is plain and should stay so, bool (F, size, size).
    """
    colors = list(vocabulary()["backgrounds"].values())
    for meta, rgba in iterate(folder, keys):
        rng = np.random.default_rng([seed, *meta["emoji"].encode()])
        start, phase = int(rng.integers(len(rgba))), rng.uniform(0, 2 * np.pi, 2)
        color = torch.tensor(colors[int(rng.integers(len(colors)))])[:, None, None] / 255
        times = np.arange(num_frames)
        angles = 2 * np.pi * times[:, None] / FPS / _PERIOD + phase
        centres = np.sin(angles) * _SWAY
        poses = np.concatenate([centres, np.full((num_frames, 1), _SIDE), np.zeros((num_frames, 1))], axis=1)
        shown = premultiplied(rgba[(start + times) % len(rgba)], rgba.shape[1])
        subject = render(shown, torch.from_numpy(poses).float(), size=size).clamp(0, 1)
        behind = torch.cat([color, torch.ones(1, 1, 1)])
        near = F.max_pool2d(subject[:, 3:], 2 * NEAR + 1, stride=1, padding=NEAR)[:, 0]
        ground = (near == 0).numpy()
        over = subject + (1 - subject[:, 3:]) * behind
        yield meta["emoji"], {TRANSPARENT: (_eight_bit(subject), ground), PLAIN: (_eight_bit(over), ground)}


def _eight_bit(frames: torch.Tensor) -> np.ndarray:
    return (frames.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def unseen_kinds(artwork: Path) -> dict[str, Sequence[np.ndarray]]:
    """Return the kinds of pictures in `lumiere data artwork`'s folder that are never trained on, (4, side, side)."""
    missing = [name for name in UNSEEN if not (artwork / f"{name}.test.npy").exists()]
    if missing:
        raise LumiereError(f"{artwork} lacks {', '.join(missing)}; make them with: lumiere data artwork -o {artwork}")
    return {name: np.load(artwork / f"{name}.test.npy", mmap_mode="r") for name in UNSEEN}


def picture_files(folder: Path) -> list[Path]:
    """Return the PNG and JPEG files in a folder and those below."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not found:
        raise LumiereError(f"{folder} holds no PNG or JPEG files; give a folder of pictures")
    return found


def read_square(source: np.ndarray | Path, size: int) -> np.ndarray:
    """Return a stored picture, or a file, at a model's size: (4, size, size).

    A file without transparency is cropped to a square, as pipelines crop a picture; one with it is put in the middle
    of a transparent square.
    """
    if isinstance(source, np.ndarray):
        pose = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
        return _eight_bit(render(torch.from_numpy(np.array(source))[None], pose, size=size))[0]
    try:
        with Image.open(source) as picture:
            picture.load()
            transparent = picture.has_transparency_data and picture.convert("RGBA").getchannel("A").getextrema() != (
                255,
                255,
            )
            return in_square(picture if transparent else fit(picture.convert("RGB"), (size, size)), size)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise LumiereError(f"{source} is corrupt or no picture ({error}); remove it") from error
