"""A request as a model takes it before it is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from .abilities import Abilities
from .requests import Request, UpscaleRequest

R = TypeVar("R", bound=Request)


def for_model(request: R, abilities: Abilities) -> R:
    """Return a request without transparency where the model has none, so that its file is named after what it holds.

    Raises:
        LumiereError: it asks for what the model lacks.
    """
    abilities.check(request)
    if abilities.transparent or isinstance(request, UpscaleRequest):
        return request
    return replace(request, transparent=False)
