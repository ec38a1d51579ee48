"""`lumiere data`: the emoji data set, and a user's own clips."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from openlumiere import extras
from openlumiere.errors import LumiereError

from . import parsing
from .parsing import Commands, add_command


def register(commands: Commands) -> None:
    data = add_command(
        commands,
        "data",
        lambda _args: None,  # a subcommand is required, and has its own
        help="make or check training data",
        example=["lumiere data emoji -o data/emoji", "lumiere data folder my-clips/"],
    )
    kinds = data.add_subparsers(title="data sets", metavar="KIND", required=True)

    emoji = add_command(
        kinds,
        "emoji",
        run_emoji,
        help="fetch the animated emoji with npm and write them as WebDataset shards",
        more="Finished shards are kept, so it can be stopped and started again.",
        example=["lumiere data emoji -o data/emoji", "lumiere data emoji -o data/tones --skin-tones"],
    )
    emoji.add_argument("-o", "--output", required=True, type=Path, help="folder for the shards and the datasheet")
    emoji.add_argument("--size", type=parsing.positive_int, default=256, help="side of a frame in pixels: 256")
    emoji.add_argument("--skin-tones", action="store_true", help="also take each emoji's variants in skin tone")
    emoji.add_argument("--workers", type=parsing.positive_int, default=os.cpu_count() or 1, help="default: all cores")
    emoji.add_argument("--cache", type=Path, help="folder with, or for, the packages; default: in the output folder")

    designs = add_command(
        kinds,
        "designs",
        run_designs,
        help="fetch the same emoji as others draw them, and draw a pencil sketch, for lumiere train style",
        example=["lumiere data designs -o data/designs --emoji data/emoji"],
    )
    designs.add_argument("-o", "--output", required=True, type=Path, help="folder for a folder of images each")
    designs.add_argument("--emoji", type=Path, help="folder that lumiere data emoji wrote, for the sketch")
    designs.add_argument("--size", type=parsing.positive_int, default=128, help="side of an image in pixels: 128")
    designs.add_argument("--cache", type=Path, help="folder with, or for, the packages; default: in the output folder")

    artwork = add_command(
        kinds,
        "artwork",
        run_artwork,
        help="fetch and draw artwork with transparency from many sources, for lumiere train autoencoder",
        more="Animated and still 3-D emoji, other designs of them, and public-domain clip art where a folder of it is "
        "given. Finished sources are kept, so it can be stopped and started again.",
        example=[
            "lumiere data artwork -o data/artwork --emoji data/emoji-256",
            "lumiere data artwork -o data/artwork --emoji data/emoji-256 --clip-art /usr/share/openclipart/svg",
        ],
    )
    artwork.add_argument("-o", "--output", required=True, type=Path, help="folder for the arrays")
    artwork.add_argument("--emoji", required=True, type=Path, help="folder that lumiere data emoji wrote")
    artwork.add_argument("--clip-art", type=Path, help="folder of SVG files; those marked as public domain are taken")
    artwork.add_argument("--size", type=parsing.positive_int, default=256, help="side of each in pixels: 256")
    artwork.add_argument("--cache", type=Path, help="folder with, or for, the packages; default: in the output folder")

    pack = add_command(
        kinds,
        "pack",
        run_pack,
        help="write what a training needs into a few small files, for a machine without a network",
        more="Loops and artwork as lossy WebP, and the text encoder in 8 bits a weight; see docs/gpu.md.",
        example=["lumiere data pack -o data/packed --emoji data/emoji-256 --artwork data/artwork"],
    )
    pack.add_argument("-o", "--output", required=True, type=Path, help="folder for the files, each below 16 MiB")
    pack.add_argument("--emoji", required=True, type=Path, help="folder that lumiere data emoji wrote")
    pack.add_argument("--subjects", default="emoji", help="a set of the vocabulary, or subjects, by commas: emoji")
    pack.add_argument("--artwork", type=Path, help="folder that lumiere data artwork wrote; default: none is packed")
    pack.add_argument("--pictures", type=parsing.positive_int, default=2000, help="pieces of artwork: 2000")
    pack.add_argument("--size", type=parsing.positive_int, default=192, help="side of these in pixels: 192")
    pack.add_argument("--quality", type=int, choices=range(101), metavar="0..100", default=90, help="WebP's: 90")

    folder = add_command(
        kinds,
        "folder",
        run_folder,
        help="check a folder of your own captioned clips, and list those that training would skip",
        more="Captions come from metadata.jsonl or metadata.csv (Hugging Face's videofolder) or a .txt beside each.",
        example=["lumiere data folder my-clips/"],
    )
    folder.add_argument("folder", type=Path, help="MP4, MOV, WebM or GIF files and their captions")
    folder.add_argument("--frames", type=parsing.positive_int, default=80, help="shorter clips are skipped: 80")
    folder.add_argument("--fps", type=parsing.positive_float, default=16.0, help="frame rate in training: 16")

    shards = add_command(
        kinds,
        "shards",
        run_shards,
        help="put captioned clips into WebDataset shards, for training from object storage; or index such shards",
        more="With -o, the usable clips of a folder (see lumiere data folder) are packed there. Without, shards that "
        "others wrote (KEY.mp4 and KEY.txt or KEY.json) get the index that training needs. What is finished is kept. "
        "Train on them with data.kind=shards data.folder=ADDRESS.",
        example=[
            "lumiere data shards my-clips/ -o s3://bucket/clips",
            "lumiere data shards gs://bucket/webvid",
        ],
    )
    shards.add_argument("source", metavar="FOLDER", help="of clips; or folder or fsspec address of shards")
    shards.add_argument("-o", "--output", metavar="ADDRESS", help="folder or fsspec address for the shards")
    shards.add_argument("--per-shard", type=parsing.positive_int, default=256, help="clips in a shard: 256")
    shards.add_argument("--frames", type=parsing.positive_int, default=80, help="shorter clips are not packed: 80")
    shards.add_argument("--fps", type=parsing.positive_float, default=16.0, help="frame rate in training: 16")


def run_emoji(args: argparse.Namespace) -> None:
    extras.require("emoji")
    from openlumiere.data.emoji.shards import build

    report = build(args.output, size=args.size, skin_tones=args.skin_tones, workers=args.workers, cache=args.cache)
    print(
        f"wrote {report.written} clips in {report.shards} shards to {args.output}; "
        f"left out {report.still} still emoji and {len(report.broken)} broken files"
    )
    for name, reason in sorted(report.broken.items()):
        print(f"  broken: {name}: {reason}")


def run_designs(args: argparse.Namespace) -> None:
    extras.require("resvg_py")
    from openlumiere.data.emoji.designs import build

    for name, lacking in build(args.output, emoji=args.emoji, size=args.size, cache=args.cache).items():
        print(f"{name}: " + (f"lacks {', '.join(lacking)}" if lacking else "complete"))
    print(f"wrote {args.output}")


def run_artwork(args: argparse.Namespace) -> None:
    extras.require("resvg_py")
    from openlumiere.data.artwork import build

    counts = build(args.output, emoji=args.emoji, clip_art=args.clip_art, size=args.size, cache=args.cache)
    for name, (train, test) in counts.items():
        print(f"{name}: {train} pieces to train on, {test} to test on")
    print(f"wrote {args.output}")


def run_pack(args: argparse.Namespace) -> None:
    from openlumiere.data.emoji.captions import every_phrase
    from openlumiere.data.emoji.vocabulary import subject_set, vocabulary
    from openlumiere.data.packed import pack_artwork, pack_loops
    from openlumiere.pipelines.text import pack_encoder

    named = args.subjects in vocabulary()["sets"]
    subjects = subject_set(args.subjects) if named else args.subjects.split(",")
    unknown = [subject for subject in subjects if subject not in vocabulary()["subjects"]]
    if unknown:
        raise LumiereError(f"--subjects: unknown {unknown}; see `sets` and `subjects` in data/emoji/vocabulary.yaml")
    packed = {"loops": pack_loops(args.emoji, args.output, subjects=subjects, quality=args.quality)}
    if args.artwork is not None:
        packed["artwork"] = pack_artwork(
            args.artwork, args.output, count=args.pictures, size=args.size, quality=args.quality
        )
    for name, done in packed.items():
        mebibytes = sum(path.stat().st_size for path in done.files) / 2**20
        print(f"{name}: {mebibytes:.1f} MiB in {len(done.files)} files, {done.psnr:.1f} dB")
    tokens = pack_encoder(args.output / "text", every_phrase())
    mebibytes = sum(path.stat().st_size for path in (args.output / "text").iterdir()) / 2**20
    print(f"text encoder: {mebibytes:.1f} MiB, {tokens} tokens")


def run_folder(args: argparse.Namespace) -> None:
    from openlumiere.data.folder import describe, scan

    print(describe(scan(args.folder, num_frames=args.frames, fps=args.fps)))


def run_shards(args: argparse.Namespace) -> None:
    from openlumiere.data.clip_shards import index, pack
    from openlumiere.data.folder import scan

    skipped = {}
    if args.output is None:
        report = index(args.source)
    else:
        found = scan(args.source, num_frames=args.frames, fps=args.fps)
        skipped = found.skipped
        report = pack(found, args.output, per_shard=args.per_shard)
    address = args.output or args.source
    print(f"{address}: {report.clips} clips in {report.shards} shards; data.kind=shards data.folder={address}")
    for name, reason in {**skipped, **report.skipped}.items():
        print(f"  skipped: {name}: {reason}")
