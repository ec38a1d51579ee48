"""`lumiere info`: what a clip is, how it was made, who signed it and what its watermark says."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openlumiere.errors import LumiereError
from openlumiere.generation.recipe import STICKER_KEY, Recipe

from .parsing import Commands, add_command

if TYPE_CHECKING:
    from openlumiere.provenance import Detection, Payload
    from openlumiere.provenance.credentials import Credentials

_RELATIONS = {"parentOf": "edited", "componentOf": "placed", "inputTo": "used"}


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "info",
        run,
        help="say what a clip is, how to make it again, who signed it and what its watermark says",
        more="A clip made by lumiere carries its prompt, seed, settings, model and version. Its content credentials "
        "(C2PA) tell whether it was changed since; its watermark is still there when they are lost.",
        example=[
            "lumiere info tiger.mp4",
            "lumiere info frames/",
            "lumiere info theirs.mp4 --anchors their-root.pem",
            "lumiere info tiger.webp --json | jq .credentials.state",
        ],
    )
    parser.add_argument("file", help="a clip or sticker: any video or animated picture, or a folder of frames")
    parser.add_argument(
        "--anchors", action="append", type=Path, metavar="FILE|FOLDER",
        help="certificates (PEM) of authorities to trust, beside this installation's own; may be given several times; "
        "default: the folder anchors beside this installation's keys, if there is one",
    )  # fmt: skip
    parser.add_argument(
        "--no-watermark", action="store_true", help="don't look for the watermark, which takes a second or more"
    )
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")


def run(args: argparse.Namespace) -> None:
    from openlumiere.video import is_clip, probe, read_metadata

    shape = probe(args.file)
    metadata = read_metadata(args.file)
    recipe = Recipe.from_metadata(metadata, args.file)
    sheet = recipe is not None and Path(args.file).suffix.lower() == ".png" and not is_clip(args.file)
    count = round(shape.duration * shape.fps)
    if args.json:
        credentials = _check(args)
        said = {
            "file": args.file, "width": shape.width, "height": shape.height, "frames": 1 if sheet else count,
            "fps": shape.fps, "seconds": shape.duration, "recipe": None if recipe is None else recipe.metadata(),
            "command": None if recipe is None else recipe.command(),
            "credentials": credentials if credentials is None or isinstance(credentials, str) else asdict(credentials),
            "watermark": None if sheet or args.no_watermark else _as_json(_look(args.file)),
        }  # fmt: skip
        print(json.dumps(said, default=datetime.isoformat))
        return
    if sheet:
        print(f"{args.file}: contact sheet of {shape.width}x{shape.height} pixels")
    else:
        print(
            f"{args.file}: {count} frames of {shape.width}x{shape.height} pixels, "
            f"{shape.fps:.4g} frames per second, {shape.duration:.2f} s"
        )
    if metadata.get(STICKER_KEY):
        print(f"a sticker, made with {metadata[STICKER_KEY]}")
    if recipe is None:
        print("carries no lumiere metadata")
    else:
        for key, value in recipe.metadata().items():
            if key != STICKER_KEY:
                print(f"  {key:<20} {value}")
    credentials = _check(args)
    _tell_credentials(credentials)
    if not args.no_watermark and not sheet:
        print("watermark: ", end="", flush=True)  # which takes a while
        print(_watermark_in_words(_look(args.file), getattr(credentials, "soft_binding", None)))
    if recipe is not None:
        print(f"make it again with:\n  {recipe.command()}")  # the last line, which scripts run


# ------------------------------------------------------------------------------------------------ looking


def _check(args: argparse.Namespace) -> Credentials | str | None:
    """Return the file's credentials; why they can't be read; or None where there are none."""
    from openlumiere.provenance.credentials import can_hold, certificates_in, check
    from openlumiere.provenance.identity import Identity

    if args.anchors:
        certificates_in(args.anchors)  # what the user named is an error of its own
    if not can_hold(args.file):
        return None
    try:
        return check(args.file, args.anchors, identity=Identity.find())
    except LumiereError as error:
        return str(error)


def _look(path: str) -> Detection | str:
    """Return what is found of the watermark, or why it can't be looked for."""
    from openlumiere.provenance.identity import Identity
    from openlumiere.provenance.in_files import detect_in_file

    try:
        identity = Identity.find()
        if identity is None:
            return "not looked for, as this installation has no key yet"
        return detect_in_file(path, [identity.watermark_key])
    except LumiereError as error:
        return f"not looked for: {error}"


def _as_json(watermark: Detection | str) -> Any:
    from openlumiere.provenance.in_files import to_json

    return watermark if isinstance(watermark, str) else to_json(watermark, ["own"])


# ------------------------------------------------------------------------------------------------ telling


def _tell_credentials(found: Credentials | str | None) -> None:
    if found is None or isinstance(found, str):
        print(f"content credentials: {found or 'none'}")
        return
    trust = {
        "trusted": "this installation" if found.signed_here else "trusted",
        "untrusted": "not trusted here: nobody vouches for that name",
        "changed": "CHANGED SINCE IT WAS SIGNED: what follows need not be true of it",
        "invalid": f"INVALID: {found.problem}",
    }[found.state]
    print(f"content credentials: {f'signed by {found.signer}; ' if found.signer else ''}{trust}")
    rows = {
        "when": f"{found.when.astimezone(UTC):%Y-%m-%d %H:%M} UTC, as they say" if found.when else "",
        "made by": f"{found.generator}{f', model {found.model}' if found.model else ''}",
        "actions": ", ".join(action.removeprefix("c2pa.") for action in found.actions),
        "AI": "made by a model, all or part of it" if found.ai_generated else "",
        "made from": ", ".join(f"{each.title} ({_RELATIONS.get(each.relation, '?')})" for each in found.ingredients),
    }  # fmt: skip
    for key, value in rows.items():
        if value:
            print(f"  {key:<20} {value}")


def _watermark_in_words(found: Detection | str, said: Payload | None) -> str:
    """Return what was found, beside what the credentials say of it."""
    from openlumiere.provenance.marking import in_words

    if isinstance(found, str):
        return found
    if not found.present:
        return f"none of this installation's key{', though the credentials name one' if said else ''}"
    if found.payload is None:
        return f"there (false alarm {found.p_value:.0e}), but what it says can't be read any more"
    agrees = "" if said is None else ", as the credentials say"
    if said not in (None, found.payload):
        agrees = ", which is NOT what the credentials say"
    return f"{in_words(found.payload)} (false alarm {found.p_value:.0e}){agrees}"
