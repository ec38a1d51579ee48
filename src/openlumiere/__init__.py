"""Lumiere, the space-time diffusion model for video, as open software.

>>> from openlumiere import LumierePipeline, STUNet, load_pipeline
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openlumiere.pipelines.load import load_pipeline
    from openlumiere.pipelines.lumiere import LumierePipeline
    from openlumiere.stunet import STUNet

__version__ = "0.1.0"
__all__ = ["LumierePipeline", "STUNet", "__version__", "load_pipeline"]

# Imported at first use: torch takes seconds, and `lumiere --help` needs none of it.
_MODULES = {
    "LumierePipeline": "openlumiere.pipelines.lumiere",
    "STUNet": "openlumiere.stunet",
    "load_pipeline": "openlumiere.pipelines.load",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
