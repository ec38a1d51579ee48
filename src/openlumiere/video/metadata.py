"""The note inside a clip's file: its rate, its number of frames, and the metadata that it was made with.

The note is one JSON object, ``{"fps", "num_frames", "metadata"}``, in ASCII, which passes through every container.
Metadata are the prompt, seed and other options, as keys and values. Where each format keeps it:

- MP4, MOV, WebM: the tag ``comment`` (Matroska's tags are in upper case);
- WebP: XMP, ``dc:description``;
- PNG, APNG: a text chunk (iTXt) ``Comment``;
- GIF: the comment extension;
- a folder of frames: ``metadata.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from PIL import Image, PngImagePlugin

from .opening import decoding_errors, kind_of, open_video

Metadata = dict[str, str | int | float]

FOLDER_NOTE = "metadata.json"
_VIDEO_TAG = "comment"
_PNG_CHUNK = "Comment"
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description><rdf:Alt>'
    '<rdf:li xml:lang="x-default">{}</rdf:li>'
    "</rdf:Alt></dc:description></rdf:Description></rdf:RDF></x:xmpmeta>"
)
_XMP_TEXT = ".//{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li"
_MAX_FPS = 1000.0  # of any format


@dataclass(frozen=True)
class Note:
    """What a file says of itself.

    Attributes:
        fps: frames per second.
        num_frames: of the clip, also where equal frames are stored as one; 0 = unknown.
        metadata: see `read_metadata`.
    """

    fps: float = 16.0
    num_frames: int = 0
    metadata: Metadata = field(default_factory=dict)


def note_text(fps: float, num_frames: int, metadata: Mapping[str, str | int | float] | None) -> str:
    """Return the text that the functions below put into a file."""
    return json.dumps({"fps": float(fps), "num_frames": num_frames, "metadata": dict(metadata or {})})


def video_tags(note: str) -> dict[str, str]:
    """Return the tags that carry a note in a video container."""
    return {_VIDEO_TAG: note}


def picture_options(kind: Literal["WEBP", "PNG", "GIF"], note: str) -> dict[str, Any]:
    """Return the options of Pillow's `save` that carry a note in a picture file; an animated PNG is a PNG."""
    if kind == "WEBP":
        return {"xmp": _XMP.format(escape(note))}
    if kind == "GIF":
        return {"comment": note.encode()}
    info = PngImagePlugin.PngInfo()
    info.add_itxt(_PNG_CHUNK, note)
    return {"pnginfo": info}


def write_folder_note(folder: Path, note: str) -> None:
    """Write a note into a folder of frames, indented for people."""
    (folder / FOLDER_NOTE).write_text(json.dumps(json.loads(note), indent=2) + "\n", encoding="utf-8")


def read_metadata(path: str | Path) -> Metadata:
    """Read the metadata that `write_clip` kept in a file; empty when it holds none.

    Raises:
        LumiereError: missing, of unknown format or corrupt.
    """
    return read_note(Path(path)).metadata


def read_note(path: Path) -> Note:
    """Read the note that `write_clip` left in a file; the defaults for a file that is not from here.

    Raises:
        LumiereError: missing, of unknown format or corrupt.
    """
    kind = kind_of(path)
    path = path / FOLDER_NOTE if kind == "folder" else path
    with decoding_errors(path, "note" if kind == "folder" else "clip"):
        if kind == "folder":
            return _parse(path.read_text(encoding="utf-8") if path.exists() else None)
        if kind == "video":
            with open_video(path) as (container, _):
                return _parse({key.lower(): value for key, value in container.metadata.items()}.get(_VIDEO_TAG))
        with Image.open(path) as picture:
            return _parse(_picture_text(picture.info))


def _picture_text(info: Mapping[Any, Any]) -> str | bytes | None:
    if "xmp" not in info:
        return info.get("comment") or info.get(_PNG_CHUNK)
    try:
        return ElementTree.fromstring(info["xmp"].rstrip(b"\0")).findtext(_XMP_TEXT)
    except ElementTree.ParseError:  # somebody else's, and broken: no reason to refuse the picture
        return None


def _parse(text: str | bytes | None) -> Note:
    try:
        note = json.loads(text or "")
        fps, num_frames, metadata = float(note["fps"]), int(note["num_frames"]), dict(note["metadata"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):  # nothing, or somebody else's comment
        return Note()
    return Note(fps, num_frames, metadata) if 0 < fps <= _MAX_FPS and num_frames >= 0 else Note()
