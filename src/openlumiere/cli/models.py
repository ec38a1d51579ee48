"""`lumiere models`, `lumiere inflate` and `lumiere doctor`: what there is, and what can be made of it."""

from __future__ import annotations

import argparse
import json
import textwrap
from dataclasses import asdict
from pathlib import Path

from openlumiere.errors import LumiereError
from openlumiere.generation.abilities import Abilities
from openlumiere.generation.backends.base import Loading
from openlumiere.generation.options import parse_size

from . import parsing
from .parsing import Commands, add_command


def register(commands: Commands) -> None:
    models = add_command(
        commands,
        "models",
        run_models,
        help="list the bundled models, or say what a model can do",
        more="Of a hub's model only small files are fetched for that.",
        example=[
            "lumiere models",
            "lumiere models Wan-AI/Wan2.1-VACE-1.3B-diffusers",
            "lumiere models guoyww/animatediff-motion-adapter-v1-5-3+stable-diffusion-v1-5/stable-diffusion-v1-5",
            "lumiere models http://127.0.0.1:8000#emoji --json",
        ],
    )
    models.add_argument("model", nargs="?", help="as --model of lumiere generate")
    models.add_argument(
        "--memory", nargs="?", const=0, type=parsing.memory, metavar="12GB",
        help="say what a clip needs of a device's memory, and how it is made to fit",
    )  # fmt: skip
    models.add_argument("--size", type=parsing.of(parse_size), metavar="WxH", help="of that clip, default: the model's")
    models.add_argument("--frames", type=parsing.positive_int, help="of that clip, default: the model's")
    models.add_argument("--json", action="store_true", help="print what it can do as JSON")

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


def run_models(args: argparse.Namespace) -> None:
    if args.model is not None:
        from openlumiere.generation.backends.find import read_abilities

        abilities = read_abilities(args.model, may_download=True)
        print(json.dumps(asdict(abilities), indent=2) if args.json else _described(abilities))
        if args.memory is not None:
            print(f"\n{_memory(args, abilities)}")
        return
    if args.json or args.memory is not None:
        raise LumiereError("say which model: lumiere models NAME")
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


def _memory(args: argparse.Namespace, abilities: Abilities) -> str:
    """What a clip needs of a device's memory, and, of a device that has so much, how it is made to fit."""
    from openlumiere.generation.backends.find import is_address
    from openlumiere.generation.backends.needs import needs
    from openlumiere.generation.backends.source import Source

    if is_address(args.model):
        raise LumiereError("--memory: that model is on another machine; leave it out")
    found = needs(Source(args.model, may_download=True), abilities, size=args.size, num_frames=args.frames)
    if not args.memory:
        return str(found)
    fits = [name for name, way in found.ways(Loading(memory=args.memory)) if found.total(way) <= args.memory]
    said = f"{args.memory / 1e9:g} GB"
    return f"{found}\n\n" + (f"fits into {said}: {fits[0]}" if fits else f"nothing fits into {said}")


def _described(abilities: Abilities) -> str:
    """What a model can do, a line each."""
    own = [task for task in abilities.tasks if task not in abilities.emulated]
    rule = f"a multiple of {abilities.frame_multiple}" if abilities.frame_multiple > 1 else "any number"
    rule += f" and {abilities.frame_offset}" if abilities.frame_offset else ""
    longest = "" if abilities.max_frames is None else f", {abilities.max_frames} at most"
    sides = f", or others whose sides {abilities.size_multiple} divides" if abilities.resizable else ""
    size = "as large as the source" if abilities.width is None else f"{abilities.width}x{abilities.height}{sides}"
    also = {
        "negative prompts": abilities.negative_prompt, "loops": abilities.loop, "transparency": abilities.transparent,
        "paths": abilities.path, "its own paths": abilities.planner,
        "subjects kept as drawn": abilities.rigid,
        "a last frame": abilities.last_frame and not abilities.last_frame_needed,
        "a last frame, always": abilities.last_frame_needed,
        f"up to {abilities.references} reference pictures": abilities.references > 0,
    }  # fmt: skip
    commerce = {True: "", False: "; no commercial use", None: ""}[abilities.commercial]
    lines = {
        "model": f"{abilities.model} ({abilities.family})",
        "tasks": ", ".join(own),
        "by its sampler": f"{', '.join(abilities.emulated)}: what is given is put back at every step"
        if abilities.emulated else "",
        "takes": ", ".join([*(["prompts"] if abilities.prompt else []), *(name for name, has in also.items() if has)]),
        "styles": ", ".join(abilities.styles),
        "frames": f"{abilities.num_frames} at {abilities.fps:g} a second by default; {rule}{longest}",
        "size": size + (f", by a second stage of {abilities.scale} times the base's" if abilities.scale > 1 else ""),
        "steps, guidance": f"{abilities.num_inference_steps}, {abilities.guidance_scale}",
        "subjects": ", ".join(abilities.subjects),
        "licence": f"{abilities.licence or 'not told'}{commerce}",
    }  # fmt: skip
    width = max(map(len, lines))
    return "\n".join(
        textwrap.fill(text, 110, initial_indent=f"{name:<{width}}  ", subsequent_indent=" " * (width + 2))
        for name, text in lines.items() if text
    )  # fmt: skip


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
