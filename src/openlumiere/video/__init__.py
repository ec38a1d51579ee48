"""Clips as files."""

from .reading import (
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    Clip,
    ClipInfo,
    Frame,
    iter_frames,
    probe,
    read_clip,
    read_metadata,
    sample_frames,
)
from .writing import check_writable, contact_sheet, opaque, write_clip

__all__ = [
    "PICTURE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Clip",
    "ClipInfo",
    "Frame",
    "check_writable",
    "contact_sheet",
    "iter_frames",
    "opaque",
    "probe",
    "read_clip",
    "read_metadata",
    "sample_frames",
    "write_clip",
]
