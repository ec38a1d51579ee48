"""Whether a file was made here: its watermark and its content credentials, told as plain JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from openlumiere.generation.plain import to_plain
from openlumiere.provenance.credentials import check
from openlumiere.provenance.detect import FALSE_POSITIVES
from openlumiere.provenance.identity import Identity
from openlumiere.provenance.in_files import STILL_SUFFIXES, detect_in_file, to_json
from openlumiere.video import probe, read_picture


def detection(path: Path, identity: Identity, anchors: Sequence[Path] | None = None) -> dict[str, Any]:
    """Look for a watermark and for content credentials in a clip or picture.

    Args:
        identity: whose watermark it is, and whose root is trusted.
        anchors: as of `credentials.check`.

    Returns:
        What `api.schemas.Detected` holds.

    Raises:
        LumiereError: it can't be read, or is smaller than 32 pixels.
    """
    found = to_json(detect_in_file(path, [identity.watermark_key]), ["own"])
    if path.suffix.lower() in STILL_SUFFIXES:
        (width, height), duration = read_picture(path).size, 0.0
    else:
        shape = probe(path)
        width, height = shape.width, shape.height
        duration = shape.duration if round(shape.duration * shape.fps) > 1 else 0.0
    signed = check(path, anchors, identity=identity)
    credentials = None
    if signed is not None:
        credentials = to_plain(replace(signed, when=None, soft_binding=None))
        credentials["when"] = signed.when and signed.when.isoformat()
    return {
        **found, "false_positive_rate": FALSE_POSITIVES, "width": width, "height": height, "duration": duration,
        "credentials": credentials,
    }  # fmt: skip


def in_words(found: dict[str, Any]) -> str:
    """Return what was found in a few lines."""
    chance, payload, signed = found["p_value"], found.get("payload"), found["credentials"]
    if not found["marked"]:
        lines = [f"no mark of this installation was found (p = {chance:.0e}); that does not prove that it has none"]
    elif payload is None:
        lines = [f"made here (p = {chance:.0e}); what the mark says can't be read"]
    else:
        made = f"{payload['model']}, openlumiere {payload['release']}, in {payload['month']}"
        lines = [f"made here (p = {chance:.0e}): by {made}, key {payload['key_id']}"]
    if found["marked"]:
        parts = [part for row in found["parts"] for part in row]
        spans = ", ".join(f"{start}-{end}" for start, end in found["seconds"]) or "no single one"
        lines.append(f"marked seconds: {spans}; marked parts of the picture: {sum(parts)} of {len(parts)}")
    if signed is not None:
        who = "this installation" if signed["signed_here"] else signed["signer"] or "someone unknown"
        lines.append(f"content credentials: {signed['state']}, by {who}")
    return "\n".join(lines)
