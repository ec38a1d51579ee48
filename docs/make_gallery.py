"""Makes docs/gallery.md, its clips and the README's stickers with the bundled model, from fixed seeds.

python docs/make_gallery.py              # all of it, some twenty minutes on two CPU cores
python docs/make_gallery.py animate      # some entries alone; the page is written anew from what is there
python docs/make_gallery.py stickers     # those of the README

Every input is made by the model too, or drawn below, so that no picture of others is shipped.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from openlumiere.bundled import DEFAULT_MODEL
from openlumiere.cli import main
from openlumiere.video import read_clip, write_clip

DOCS = Path(__file__).resolve().parent
FOLDER = Path("images/gallery")  # beside the page
STICKERS = Path("images/stickers")
SIDE = 192  # pixels of what the pages show
STYLES = ("flat", "high-contrast", "noto", "twemoji", "sketch")


@dataclass(frozen=True)
class Entry:
    """One application: the command, whose words may name files of the gallery, and what it needs made first."""

    name: str
    text: str
    command: str
    inputs: tuple[str, ...] = ()
    prepare: tuple[Callable[[], None], ...] = field(default=())


def generated(name: str, prompt: str, seed: int) -> Callable[[], None]:
    """An input clip of the model's own, opaque; made once a run, so that none is of earlier weights."""

    @cache
    def make() -> None:
        run(f'lumiere generate "{prompt}" --seed {seed} -o {name}.webp')

    return make


def frame_of(clip: str, index: int, name: str) -> Callable[[], None]:
    """One frame of a clip as a picture."""
    return lambda: Image.fromarray(read_clip(f"{clip}.webp").frames[index]).save(f"{name}.png")


def every_fourth(clip: str, name: str) -> Callable[[], None]:
    """A choppy clip."""

    def make() -> None:
        whole = read_clip(f"{clip}.webp")
        write_clip(whole.frames[::4], f"{name}.webp", fps=whole.fps / 4)

    return make


def ellipse(name: str, box: tuple[int, int, int, int]) -> Callable[[], None]:
    """A white ellipse on black, 128 x 128."""

    def make() -> None:
        mask = Image.new("L", (128, 128))
        ImageDraw.Draw(mask).ellipse(box, fill=255)
        mask.save(f"{name}.png")

    return make


def small(clip: str, name: str) -> Callable[[], None]:
    """A clip of 64 pixels."""

    def make() -> None:
        whole = read_clip(f"{clip}.webp")
        frames = [np.asarray(Image.fromarray(frame).resize((64, 64), Image.Resampling.BOX)) for frame in whole.frames]
        write_clip(np.stack(frames), f"{name}.webp", fps=whole.fps, lossless=True)

    return make


def campfire() -> None:
    """A drawing that is not of the data set: night, logs, a flame; and a mask of the flame."""
    picture = Image.new("RGB", (512, 512), (24, 26, 60))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 380, 512, 512), fill=(50, 44, 40))
    pen.ellipse((380, 40, 450, 110), fill=(240, 236, 210))
    for turn in (-1, 1):
        pen.line((256 - 130 * turn, 430, 256 + 130 * turn, 380), fill=(110, 66, 34), width=34)
    for colour, width, height in (((230, 80, 20), 90, 230), ((250, 150, 30), 62, 160), ((255, 225, 90), 34, 95)):
        points = [(256 + width * np.sin(a) * (1 - t), 385 - height * t) for a, t in
                  [(np.pi / 2 * s, t) for s in (-1, 1) for t in np.linspace(0, 1, 12)[:: int(s)]]]  # fmt: skip
        pen.polygon(points, fill=colour)
    picture.save("campfire.png")
    mask = Image.new("L", (512, 512))
    ImageDraw.Draw(mask).ellipse((150, 130, 362, 400), fill=255)
    mask.save("flame.png")


def owl() -> None:
    """A drawing on nothing, of what the model does not know."""
    picture = Image.new("RGBA", (1024, 1024))
    pen = ImageDraw.Draw(picture)
    pen.polygon([(330, 330), (340, 220), (430, 290)], fill=(92, 64, 51))
    pen.polygon([(694, 330), (684, 220), (594, 290)], fill=(92, 64, 51))
    pen.ellipse((310, 250, 714, 790), fill=(121, 85, 61))
    pen.ellipse((390, 470, 634, 780), fill=(222, 184, 135))
    for side in (-1, 1):
        pen.ellipse((512 + 190 * side - 60, 440, 512 + 190 * side + 60, 720), fill=(92, 64, 51))
        pen.ellipse((512 + 88 * side - 84, 310, 512 + 88 * side + 84, 478), fill=(255, 248, 220))
        pen.ellipse((512 + 80 * side - 40, 354, 512 + 80 * side + 40, 434), fill=(40, 30, 30))
        pen.ellipse((512 + 90 * side - 12, 368, 512 + 90 * side + 12, 392), fill=(255, 255, 255))
        pen.ellipse((512 + 70 * side - 44, 760, 512 + 70 * side + 44, 812), fill=(240, 150, 40))
    pen.polygon([(476, 440), (548, 440), (512, 510)], fill=(240, 150, 40))
    picture.resize((512, 512), Image.Resampling.LANCZOS).save("owl.png")


WALK = "a tiger walking to the left on a green background"
SWAY = "a big cat swaying on a blue background"
BURN = "a big fire on a black background"
TIGER, CAT, FIRE = generated("tiger", WALK, 1), generated("cat", SWAY, 4), generated("fire", BURN, 2)
# Of the README: prompts, the seed of each is its place.
SIX = (
    "a waving hand", "a red heart growing", "a tiger walking to the left", "a party face bouncing",
    "a rocket moving up", "a frog jumping up and down",
)  # fmt: skip
ENTRIES = (
    Entry("generate", "Text to a clip.", 'lumiere generate "a rocket moving up on a black background" --seed 3'),
    Entry("transparent", "Without a background.", 'lumiere generate "a panda swaying" --transparent --seed 4'),
    Entry(
        "path",
        "Where it goes is drawn by hand.",
        'lumiere generate "a butterfly on a purple background" --path "0.1,0.8 0.4,0.2 0.6,0.8 0.9,0.2" --seed 2',
    ),
    Entry(
        "loop",
        "A loop: the way there leads back.",
        'lumiere generate "a penguin moving right on a yellow background" --loop --seed 5',
    ),
    Entry(
        "animate",
        "A picture moves.",
        f'lumiere animate cat.png "{SWAY}" --seed 6',
        ("cat.png",),
        (CAT, frame_of("cat", 0, "cat")),
    ),
    Entry(
        "animate-drawing",
        "A drawing of what the model does not know moves as it is.",
        'lumiere animate owl.png "an owl jumping up and down" --transparent --seed 6',
        ("owl.png",),
        (owl,),
    ),
    Entry(
        "animate-last",
        "From one picture to another.",
        f'lumiere animate left.png --last right.png "{WALK}" --seed 7',
        ("left.png", "right.png"),
        (TIGER, frame_of("tiger", 8, "left"), frame_of("tiger", 72, "right")),
    ),
    Entry(
        "inpaint",
        "A region is made anew.",
        'lumiere inpaint cat.webp "a big dog on a blue background" --mask middle.png --seed 8',
        ("cat.webp", "middle.png"),
        (CAT, ellipse("middle", (16, 16, 112, 112))),
    ),
    Entry(
        "outpaint",
        "A wider frame.",
        f'lumiere outpaint cat.webp --to 16:9 "{SWAY}" --seed 9',
        ("cat.webp",),
        (CAT,),
    ),
    Entry(
        "cinemagraph",
        "Only the flame moves, in a loop.",
        f'lumiere cinemagraph fire.png --mask flames.png "{BURN}" --seed 10',
        ("fire.png", "flames.png"),
        (FIRE, frame_of("fire", 0, "fire"), ellipse("flames", (20, 8, 108, 120))),
    ),
    Entry(
        "cinemagraph-drawing",
        "The same on a drawing of a kind that the model never saw.",
        'lumiere cinemagraph campfire.png --mask flame.png "a fire" --seed 11',
        ("campfire.png", "flame.png"),
        (campfire,),
    ),
    Entry(
        "restyle",
        "Another subject, the same path.",
        'lumiere restyle tiger.webp "a fox walking to the left on a green background" --strength 0.8 --seed 12',
        ("tiger.webp",),
        (TIGER,),
    ),
    Entry(
        "extend",
        "Two and a half seconds more.",
        f'lumiere extend cat.webp --frames 40 "{SWAY}" --seed 13',
        ("cat.webp",),
        (CAT,),
    ),
    Entry(
        "interpolate",
        "Four times as many frames.",
        f'lumiere interpolate choppy.webp --factor 4 "{WALK}" --seed 14',
        ("choppy.webp",),
        (TIGER, every_fourth("tiger", "choppy")),
    ),
    Entry(
        "upscale",
        "Four times as sharp, any clip.",
        "lumiere upscale small.webp",
        ("small.webp",),
        (CAT, small("cat", "small")),
    ),
    Entry(
        "sticker",
        "As WhatsApp takes stickers, with an outline.",
        "lumiere sticker transparent.out.webp --for whatsapp --outline 6",
    ),
    *(Entry(f"style-{n}", f"In style `{n}`.", f'lumiere generate "{WALK}" --style {n} --seed 1') for n in STYLES),
)


def run(command: str, *more: str) -> None:
    """A command, or the end of this script with its exit code."""
    print(f"$ {command}", flush=True)
    code = main([*shlex.split(command)[1:], *more])
    if code:
        sys.exit(code)


def make(chosen: list[str]) -> None:
    """Make the entries, in their folder."""
    import os

    for folder in (FOLDER, STICKERS):
        (DOCS / folder).mkdir(parents=True, exist_ok=True)
    os.chdir(DOCS / STICKERS)
    for seed, prompt in enumerate(SIX, start=1):
        if not chosen or "stickers" in chosen:
            run(f'lumiere generate "{prompt}" --transparent --seed {seed}', "-o", f"{seed}.webp")
    os.chdir(DOCS / FOLDER)
    for entry in ENTRIES:
        if not chosen or entry.name in chosen:
            for step in entry.prepare:
                step()
            run(entry.command, "-o", f"{entry.name}.out.webp")


def compress() -> None:
    """Encode the clips anew, smaller and with losses: a tenth of the bytes for a page."""
    for path in sorted(path for folder in (FOLDER, STICKERS) for path in (DOCS / folder).glob("*.webp")):
        with Image.open(path) as clip:
            if clip.height <= SIDE:
                continue  # made before
            size = [round(side * SIDE / clip.height) for side in clip.size]
            frames, delays = [], []
            for index in range(clip.n_frames):
                clip.seek(index)
                frames.append(clear(clip.resize(size, Image.Resampling.LANCZOS)))
                delays.append(clip.info["duration"])
            note = clip.info.get("xmp", b"")
        frames[0].save(
            path, save_all=True, append_images=frames[1:], duration=delays, loop=0, quality=50, alpha_quality=50,
            method=6, xmp=note,
        )  # fmt: skip
    for path in (DOCS / FOLDER).glob("*.png"):
        with Image.open(path) as picture:
            small = picture.resize((SIDE, SIDE)) if max(picture.size) > SIDE else None
        if small is not None:
            small.save(path)


def clear(picture: Image.Image) -> Image.Image:
    """Leave nothing of what is all but transparent, and nothing transparent of what is all but opaque."""
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    pixels = np.array(picture)
    alpha = pixels[..., 3]
    alpha[alpha < 8], alpha[alpha > 247] = 0, 255
    pixels[alpha == 0] = 0
    return Image.fromarray(pixels)


def page() -> str:
    """The gallery as Markdown, of what has been made."""
    parts = [
        "# Gallery",
        f"Every application, by the bundled model `{DEFAULT_MODEL}`; made by `python docs/make_gallery.py`, seeds as"
        " told, none picked.\nInputs are clips of the model itself, masks, and two drawings.",
    ]
    for entry in ENTRIES:
        if not (DOCS / FOLDER / f"{entry.name}.out.webp").exists():
            continue
        shown = [*((name, name) for name in entry.inputs), ("result", f"{entry.name}.out.webp")]
        heads = " | ".join(title for title, _ in shown)
        cells = " | ".join(f'<img src="{FOLDER}/{file}" alt="{title}" height="192">' for title, file in shown)
        parts += [
            f"## {entry.text}",
            f"```sh\n{entry.command} -o {entry.name}.out.webp\n```",
            f"| {heads} |\n|{' --- |' * len(shown)}\n| {cells} |",
        ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    known = [*(entry.name for entry in ENTRIES), "stickers"]
    if unknown := set(sys.argv[1:]) - {*known}:
        sys.exit(f"unknown entries {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    make(sys.argv[1:])
    compress()
    (DOCS / "gallery.md").write_text(page(), encoding="utf-8")
