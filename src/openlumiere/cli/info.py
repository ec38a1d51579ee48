"""`lumiere info`: what a clip is, and how it was made."""

from __future__ import annotations

import argparse
from pathlib import Path

from openlumiere.generation.recipe import STICKER_KEY, Recipe

from .parsing import Commands, add_command


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "info",
        run,
        help="say what a clip is and how to make it again",
        more="A clip made by lumiere carries its prompt, seed, settings, model and version.",
        example=["lumiere info tiger.mp4", "lumiere info frames/"],
    )
    parser.add_argument("file", help="a clip or sticker: any video or animated picture, or a folder of frames")


def run(args: argparse.Namespace) -> None:
    from openlumiere.video import is_clip, probe, read_metadata

    shape = probe(args.file)
    metadata = read_metadata(args.file)
    recipe = Recipe.from_metadata(metadata, args.file)
    sheet = recipe is not None and Path(args.file).suffix.lower() == ".png" and not is_clip(args.file)
    if sheet:
        print(f"{args.file}: contact sheet of {shape.width}x{shape.height} pixels")
    else:
        print(
            f"{args.file}: {round(shape.duration * shape.fps)} frames of {shape.width}x{shape.height} pixels, "
            f"{shape.fps:.4g} frames per second, {shape.duration:.2f} s"
        )
    if metadata.get(STICKER_KEY):
        print(f"a sticker, made with {metadata[STICKER_KEY]}")
    if recipe is None:
        print("carries no lumiere metadata")
        return
    for key, value in recipe.metadata().items():
        if key != STICKER_KEY:
            print(f"  {key:<20} {value}")
    print(f"make it again with:\n  {recipe.command()}")
