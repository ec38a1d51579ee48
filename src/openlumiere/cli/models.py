"""`lumiere models`, `lumiere inflate` and `lumiere doctor`: what there is, and what can be made of it."""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path

from openlumiere.errors import LumiereError

from . import parsing
from .parsing import Commands, add_command


def register(commands: Commands) -> None:
    add_command(
        commands, "models", run_models, help="list the bundled models", example=["lumiere models"]
    )  # fmt: skip

    inflate = add_command(
        commands,
        "inflate",
        run_inflate,
        help="grow a clip model from a text-to-image model of diffusers",
        more="Its temporal layers are then to be trained; see lumiere train t2v.",
        example=[
            "lumiere inflate stable-diffusion-v1-5/stable-diffusion-v1-5 -o sd15-clips",
            "lumiere inflate ./my-t2i -o my-clips --frames 64",
            "lumiere inflate stable-diffusion-v1-5/stable-diffusion-v1-5 -o sd15-clips "
            "--motion guoyww/animatediff-motion-adapter-v1-5-2",
        ],
    )
    inflate.add_argument("source", help="hub id or folder of a text-to-image pipeline")
    inflate.add_argument("-o", "--output", required=True, type=Path, help="new folder for the model")
    inflate.add_argument("--frames", type=parsing.positive_int, default=80, help="length costed in the table: 80")
    inflate.add_argument(
        "--motion", metavar="ADAPTER",
        help="hub id or folder of an AnimateDiff motion adapter of the same shape, to start temporal attention from",
    )  # fmt: skip
    inflate.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="options of STUNet.from_unet")

    add_command(
        commands,
        "doctor",
        run_doctor,
        help="say what is installed, what can be run here, and what is missing",
        more="Exits with 0 if clips can be made, with 1 otherwise.",
        example=["lumiere doctor"],
    )


def run_models(_args: argparse.Namespace) -> None:
    from openlumiere.bundled import bundled_folder, bundled_models, styles_of, weight_files

    names = bundled_models()
    if not names:
        print("no bundled models; give --model a folder or a hub id")
    for name in names:
        folder = bundled_folder(name)
        size = sum(path.stat().st_size for path in weight_files(folder)) / 1e6
        print(f"{name:<14} {size:6.1f} MB  {folder}")
        subjects = json.loads((folder / "model_index.json").read_text(encoding="utf-8")).get("subjects")
        for title, listed in (("knows", subjects), ("styles", styles_of(folder))):
            if listed:
                print(textwrap.fill(f"{title}: {', '.join(listed)}", 100, initial_indent="  ", subsequent_indent="  "))


def run_inflate(args: argparse.Namespace) -> None:
    options = _options(args.overrides)
    from openlumiere.pipelines.inflate import inflate

    try:
        table = inflate(args.source, args.output, num_frames=args.frames, motion=args.motion, **options)
    except TypeError as error:
        if options and "unexpected keyword" in str(error):
            raise LumiereError(f"{error}; see STUNet.from_unet for the options") from error
        raise
    print(table)
    print(f"wrote {args.output}")


def run_doctor(_args: argparse.Namespace) -> int:
    from openlumiere.doctor import examine

    report = examine()
    print(report.text())
    return 0 if report.can_generate else 1


def _options(words: list[str]) -> dict[str, object]:
    import yaml

    options: dict[str, object] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator:
            raise LumiereError(f"cannot read the option {word!r}; write KEY=VALUE")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise LumiereError(f"cannot read the value of {key}: {value!r}; write it as YAML, e.g. [0, 1]") from error
    return options
