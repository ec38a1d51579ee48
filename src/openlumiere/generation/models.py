"""Models by name: what can be said of them before they are loaded, and a loaded one."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from openlumiere.bundled import bundled_folder, bundled_models, fingerprint
from openlumiere.errors import LumiereError

from .recipe import ModelIdentity
from .requests import Request

if TYPE_CHECKING:
    from openlumiere.pipelines.lumiere import LumierePipeline
    from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline

R = TypeVar("R", bound=Request)

DEFAULT_MODEL = "emoji-nano"


@dataclass(frozen=True)
class LoadedModel:
    """A pipeline, and what tells where its clips come from.

    Attributes:
        name: as `pipelines.load.load_pipeline` takes it.
        pipe: the second stage alone makes `UpscaleRequest`s only.
    """

    name: str
    pipe: LumierePipeline | LumiereSuperResolutionPipeline

    @cached_property
    def identity(self) -> ModelIdentity:
        """What files tell of the model."""
        name, weights = identify(self.name)
        dtype = str(self.pipe.unet.dtype).removeprefix("torch.")
        return ModelIdentity(name=name, weights=weights, device=self.pipe.device.type, dtype=dtype)


def check_model(name: str) -> None:
    """Refuse a model that is nowhere, before PyTorch is imported."""
    is_hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if name not in bundled_models() and not Path(name).is_dir() and not is_hub_id:
        known = ", ".join(bundled_models()) or "none"
        raise LumiereError(f"unknown model {name!r}: give a bundled one ({known}), a folder, or a hub id")


def identify(name: str) -> tuple[str, str]:
    """Return a model's name as any working folder finds it, and its weights' fingerprint where they are local."""
    if name in bundled_models():
        return name, fingerprint(bundled_folder(name))
    if Path(name).is_dir():
        return str(Path(name).resolve()), fingerprint(Path(name))
    return name, ""


def for_model(request: R, name: str) -> R:
    """Return a request without transparency where the model has none, as far as that shows before it is loaded.

    Raises:
        LumiereError: it asks for transparency.
    """
    if may_have_alpha(name):
        return request
    if request.transparent:
        raise opaque_model(name)
    return replace(request, transparent=False)


def may_have_alpha(model: str) -> bool:
    """Return whether a model's clips can be transparent, as far as that shows before it is loaded: a hub's may be."""
    folder = bundled_folder(model) if model in bundled_models() else Path(model)
    if not folder.is_dir():
        return True
    try:
        vae = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(vae.get("in_channels") == 4)


def opaque_model(model: str) -> LumiereError:
    """Return the error of asking a model without alpha for transparency."""
    return LumiereError(f"--transparent: {model} makes opaque clips; leave it out, or choose another --model")
