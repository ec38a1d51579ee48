"""Tiny data: animated loops as the emoji set has them, their scenes, and drawn pictures."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from openlumiere.data.emoji import shards as builder
from openlumiere.data.emoji.drawing import Atlas
from openlumiere.data.emoji.scenes import Scene
from openlumiere.data.emoji.shards import build

SIDE = 32  # of a drawing


def make_data(folder: Path) -> None:
    """A tiger and a heart of a few frames, through the real builder."""
    loops = {"1f405": (240, 150, 30), "2764-fe0f": (220, 30, 60)}
    files = {}
    for key, color in loops.items():
        frames = []
        for i in range(6):
            frame = np.zeros((64, 64, 4), dtype=np.uint8)
            frame[10 + i : 50 + i, 8:56] = (*color, 255)
            frames.append(Image.fromarray(frame))
        buffer = io.BytesIO()
        frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=125, lossless=True)
        files[f"package/assets/{key}.webp"] = buffer.getvalue()
    cache = folder / "packages"
    cache.mkdir(parents=True)
    for n, package in enumerate(builder.PACKAGES):
        name = f"{package.removeprefix('@').replace('/', '-')}-{builder.PACKAGE_VERSION}.tgz"
        with tarfile.open(cache / name, "w:gz") as tar:
            for path, data in files.items() if n == 0 else ():
                info = tarfile.TarInfo(path)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    assert build(folder, size=32, workers=1).written == 2


def tiny_atlas(key: str, *, loop: int = 16, side: int = 64) -> Atlas:
    """A two-coloured shape without symmetry, on whose face a dot wanders."""
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    shape, second = {
        "ell": ((x.abs() < 0.7) & (y.abs() < 0.8) & ((x < -0.1) | (y > 0.3)), y > 0.3),
        "wedge": ((y.abs() < 0.7) & (x > -0.8) & (x < y), x > -0.2),
        "flag": (((x + 0.6).abs() < 0.15) & (y.abs() < 0.85) | (x.abs() < 0.7) & (y < 0) & (y > -0.8), x > -0.4),
        "dial": (x**2 + y**2 < 0.6, (x > 0) & (y.abs() < 0.3)),
    }[key]
    colors = {"ell": (20, 200, 220), "wedge": (240, 90, 20), "flag": (230, 60, 170), "dial": (150, 220, 40)}
    frames = torch.zeros(loop, 4, side, side, dtype=torch.uint8)
    for i in range(loop):
        angle = 2 * torch.pi * torch.tensor(i / loop)
        dot = (x - 0.5 * torch.cos(angle)) ** 2 + (y - 0.5 * torch.sin(angle)) ** 2 < 0.06
        color = torch.tensor(colors[key]).view(3, 1, 1).expand(3, side, side).clone()
        color[:, second] = torch.tensor([40, 30, 90])[:, None]
        color[:, dot] = torch.tensor([250, 250, 200])[:, None]
        frames[i, :3] = (color * shape).to(torch.uint8)
        frames[i, 3] = shape.to(torch.uint8) * 255
    return Atlas(key, [key], frames)


def scene(**changes: object) -> Scene:
    plain = Scene("ell", "green", "medium", "center", "still", "an ell on a green background", (0.5, 0.5, 0.0))
    return replace(plain, **changes)  # type: ignore[arg-type]


def drawing(seed: int) -> Image.Image:
    """A disc and a square of random colours, transparent around them."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGBA", (SIDE, SIDE))
    pen = ImageDraw.Draw(picture)
    for shape in (pen.ellipse, pen.rectangle):
        left, top = rng.integers(0, SIDE // 2, 2).tolist()
        shape((left, top, left + 14, top + 14), fill=(*rng.integers(0, 256, 3).tolist(), 255))
    return picture
