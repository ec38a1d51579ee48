"""Which backend drives a model: told by the classes that its files name."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

from openlumiere.bundled import DEFAULT_MODEL
from openlumiere.errors import LumiereError
from openlumiere.generation.abilities import Abilities

from .base import Backend, Loading
from .source import INDEX, Source

# Modules of this room, and the classes that a `model_index.json`, or a `config.json`, names for each.
_FAMILIES: dict[str, tuple[str, ...]] = {
    "stunet": ("LumierePipeline", "LumiereSuperResolutionPipeline"),
    "animatediff": (
        "MotionAdapter", "AnimateDiffPipeline", "AnimateDiffVideoToVideoPipeline",
        "AnimateDiffSparseControlNetPipeline",
    ),
    "zeroscope": ("TextToVideoSDPipeline", "VideoToVideoSDPipeline"),
    "svd": ("StableVideoDiffusionPipeline",),
    "wan": ("WanPipeline", "WanImageToVideoPipeline", "WanVideoToVideoPipeline", "WanVACEPipeline"),
    "ltx": ("LTXPipeline", "LTXImageToVideoPipeline", "LTXConditionPipeline"),
    "cogvideox": ("CogVideoXPipeline", "CogVideoXImageToVideoPipeline", "CogVideoXVideoToVideoPipeline"),
}  # fmt: skip
_FAMILY_OF = {name: family for family, names in _FAMILIES.items() for name in names}


class Family(Protocol):
    """What a module of a family holds; it imports PyTorch in `load` alone."""

    def read_abilities(self, source: Source) -> Abilities:
        """Read what a model can do from its JSON files."""

    def load(self, source: Source, loading: Loading) -> Backend:
        """Load it, ready to make clips."""


def drives(class_name: str) -> bool:
    """Return whether a backend drives models whose files name a class."""
    return class_name in _FAMILY_OF


def is_address(model: str) -> bool:
    """Return whether a model's name is the address of a server that has it."""
    return model.startswith(("http://", "https://"))


def read_abilities(model: str, *, may_download: bool = False) -> Abilities:
    """Read what a model can do, without its weights and without PyTorch.

    Args:
        model: name of a bundled model, a folder in diffusers' layout, a hub id (``owner/name`` or
            ``owner/name@revision``), several of these joined by ``+``, or a server's ``http://HOST:PORT#name``.
        may_download: fetch small files from the hub; else only what is on this machine is looked at.

    Raises:
        LumiereError: there is no such model, its files cannot be read, or no backend drives it.
    """
    family, source = _found(model, may_download)
    try:
        abilities: Abilities = family.read_abilities(source)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        if isinstance(error, LumiereError):
            raise
        raise LumiereError(f"{model} is damaged (no {error}); install or save the model again") from error
    return abilities


def load_backend(model: str = DEFAULT_MODEL, loading: Loading | None = None) -> Backend:
    """Load a model, or reach it, ready to make clips.

    Args:
        model: as of `read_abilities`.

    Raises:
        LumiereError: an unknown, damaged or unreachable model, no such device, or too little memory.
    """
    family, source = _found(model, may_download=True)
    loading = loading or Loading()
    if loading.memory is not None and not is_address(model):
        from .needs import within_memory

        loading = within_memory(source, family.read_abilities(source), loading)
    backend: Backend = family.load(source, loading)
    return backend


def _found(model: str, may_download: bool) -> tuple[Any, Source]:
    source = Source(model, may_download)
    if is_address(model):
        return importlib.import_module(f"{__package__}.remote.backend"), source
    name = source.main.class_name
    if not name:
        raise LumiereError(f"{model} holds no model: {INDEX} is missing")
    if name not in _FAMILY_OF:
        raise LumiereError(
            f"{model} holds a {name}, which makes no clips here; if it is a text-to-image model, inflate it first: "
            f"lumiere inflate {model} -o FOLDER"
        )
    return importlib.import_module(f"{__package__}.{_FAMILY_OF[name]}"), source
