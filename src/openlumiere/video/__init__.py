"""Clips as files."""

from .alpha import bleed, opaque
from .fitting import FITS, Fit, fit, is_clip, over, read_fitted, read_mask, read_mask_picture, read_picture
from .metadata import read_metadata
from .opening import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from .pixels import colour
from .reading import (
    Clip,
    ClipInfo,
    Frame,
    iter_frames,
    probe,
    read_clip,
    sample_frames,
)
from .sheet import contact_sheet
from .writing import check_writable, write_clip

__all__ = [
    "FITS",
    "PICTURE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Clip",
    "ClipInfo",
    "Fit",
    "Frame",
    "bleed",
    "check_writable",
    "colour",
    "contact_sheet",
    "fit",
    "is_clip",
    "iter_frames",
    "opaque",
    "over",
    "probe",
    "read_clip",
    "read_fitted",
    "read_mask",
    "read_mask_picture",
    "read_metadata",
    "read_picture",
    "sample_frames",
    "write_clip",
]
