"""Training stages, one file each; a new one is a file and a line of `STAGES`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from openlumiere.errors import LumiereError

if TYPE_CHECKING:
    from .base import Stage

# Names in configurations: the module here and its class, imported when they are needed.
STAGES = {
    "autoencoder": "autoencoder.Autoencode",
    "t2i": "t2i.TextToImage",
    "t2v": "t2v.TextToVideo",
    "conditional": "conditional.Conditional",
    "distill": "distill.Distill",
    "ssr-image": "super_resolution.SuperResolutionImage",
    "ssr": "super_resolution.SuperResolution",
    "style": "style.Style",
    "planner": "planner.Planner",
}


def stage_class(name: str) -> type[Stage]:
    """Return the class of a stage.

    Raises:
        LumiereError: no stage has this name.
    """
    if name not in STAGES:
        raise LumiereError(f"unknown stage {name!r}; use one of {', '.join(STAGES)}")
    module, _, attribute = STAGES[name].partition(".")
    found: type[Stage] = getattr(import_module(f".{module}", __name__), attribute)
    return found


def make_stage(config: Any, device: Any) -> Stage:
    """Return the stage that a configuration names, on a device."""
    return stage_class(config.stage)(config, device)
