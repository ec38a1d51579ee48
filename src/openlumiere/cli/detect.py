"""`lumiere detect`: which clips are marked, and what their marks say."""

from __future__ import annotations

import argparse
import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from openlumiere.errors import LumiereError
from openlumiere.files import one_line
from openlumiere.tables import plain_table

from .parsing import Commands, add_command
from .progress import bar

if TYPE_CHECKING:
    from tqdm import tqdm

    from openlumiere.provenance import Detection

_MARKED, _UNMARKED, _UNREADABLE = 0, 1, 2  # exit codes
_OWN = "own"  # this installation's key
_KEY = re.compile(rb"\s*((?:[0-9a-fA-F]{2}){16,})\s*")  # as `Identity` keeps it
_HEADS = ("file", "marked", "false alarm", "made by", "release", "month", "key", "seconds", "parts")


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "detect",
        run,
        help="tell which clips and pictures carry a watermark, and what it says",
        more="It is looked for under this installation's key, and under those of --key; files may be re-encoded, "
        "cropped, scaled, turned and cut. The exit code is 0 if all of them are marked, 1 if some are not, 2 if some "
        "could not be read.",
        example=[
            "lumiere detect tiger.mp4",
            "lumiere detect downloads/ --key ../server/watermark.key",
            "lumiere detect *.webp --json | jq -r 'select(.marked) | .file'",
        ],
    )
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE|FOLDER",
        help="a clip, a picture, a folder of frames, or a folder that is searched for all of these",
    )  # fmt: skip
    parser.add_argument(
        "--key", action="append", default=[], type=Path, metavar="FILE",
        help="look with this key too: a watermark.key of another installation; may be given several times",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each file, as it is done")


def run(args: argparse.Namespace) -> int:
    from openlumiere.provenance.identity import Identity, default_folder
    from openlumiere.provenance.in_files import detect_in_file, files_in, to_json

    own = Identity.find()
    names = [*([] if own is None else [_OWN]), *map(str, args.key)]
    keys = [*([] if own is None else [own.watermark_key]), *map(_read_key, args.key)]
    if not keys:
        raise LumiereError(
            f"no key to look with: nothing was marked here yet ({default_folder()} is missing); give --key FILE"
        )
    files: list[Path] = []
    unreadable: list[str] = []
    for path in args.files:
        try:
            files += files_in(path)
        except LumiereError as error:
            unreadable.append(_told(path, error, as_json=args.json))
    found: list[tuple[Path, Detection]] = []
    with bar("looking", len(files), "file") as progress:
        for path in files:
            progress.set_postfix_str(path.name, refresh=False)
            try:
                detection = detect_in_file(path, keys, progress=partial(_show, progress, path))
            except (LumiereError, OSError, MemoryError) as error:
                progress.clear()
                unreadable.append(_told(path, error, as_json=args.json))
            else:
                found.append((path, detection))
                if args.json:
                    print(json.dumps({"file": str(path), **to_json(detection, names)}), flush=True)
            progress.update()
    if found and not args.json:
        print(plain_table([_HEADS, *(_row(path, detection, names) for path, detection in found)]))
        if len(found) == 1:
            _draw(found[0][1])
    if unreadable:
        return _UNREADABLE
    return _MARKED if all(detection.present for _, detection in found) else _UNMARKED


def _told(path: Path, error: Exception, *, as_json: bool) -> str:
    """A line on what could not be read, once it is printed."""
    line = one_line(error, 500)
    if as_json:
        print(json.dumps({"file": str(path), "error": line}), flush=True)
    print(f"lumiere: {line}", file=sys.stderr)
    return line


def _show(progress: tqdm, path: Path, seconds: float) -> None:
    progress.set_postfix_str(f"{path.name}, {seconds:.0f} s", refresh=True)


def _read_key(path: Path) -> bytes:
    """A watermark's key, as an installation keeps it: hexadecimal digits."""
    try:
        found = _KEY.fullmatch(path.read_bytes())
    except OSError as error:
        raise LumiereError(f"the key {path} can't be read ({(error.strerror or one_line(error)).lower()})") from error
    if found is None:
        raise LumiereError(f"{path} is no watermark key; give the watermark.key of an installation")
    return bytes.fromhex(found[1].decode())


def _row(path: Path, detection: Detection, keys: list[str]) -> list[str]:
    from openlumiere.provenance.in_files import to_json

    told = to_json(detection, keys)
    row = [str(path), "yes" if told["marked"] else "no", f"{detection.p_value:.0e}"]
    if not told["marked"]:
        return [*row, *[""] * (len(_HEADS) - len(row))]
    payload = told["payload"]
    read = ["unreadable", "", "", ""]
    if payload is not None:
        read = [payload["model"], payload["release"], payload["month"], f"{payload['key_id']} ({told['key']})"]
    seconds = ", ".join(f"{start}-{end}" for start, end in told["seconds"])
    parts = [part for line in told["parts"] for part in line]
    return [*row, *read, seconds, f"{sum(parts)} of {len(parts)}"]


def _draw(detection: Detection) -> None:
    """Show where a frame is marked, unless it is everywhere or nowhere."""
    if len({part for row in detection.regions for part in row}) == 2:
        print("parts of the frame that are marked:")
        for row in detection.regions:
            print("  " + " ".join("#" if part else "." for part in row))
