"""Provenance: marks that tell which clips were made here."""

from .detect import Detection, detect
from .payload import Payload, month_of
from .watermark import embed

__all__ = ["Detection", "Payload", "detect", "embed", "month_of"]
