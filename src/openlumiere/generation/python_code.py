"""A few lines of Python that make a clip again, beside the command that does."""

from __future__ import annotations

from dataclasses import fields

from .recipe import Recipe
from .requests import Request, Sticker


def python_code(recipe: Recipe) -> str:
    """Return Python that makes a clip again as the request's `output`, as `Recipe.command` does."""
    request, model = recipe.request, recipe.model
    names = [type(request).__name__, *(["Sticker"] if request.sticker else [])]
    return (
        f"from openlumiere.generation.backends.base import Loading\n"
        f"from openlumiere.generation.backends.find import load_backend\n"
        f"from openlumiere.generation.make import make\n"
        f"from openlumiere.generation.requests import {', '.join(names)}\n\n"
        f"model = load_backend({model.name!r}, Loading(device={model.device!r}, dtype={model.dtype!r}))\n"
        f"make({_call(request)}, model)\n"
    )


def _call(value: Request | Sticker) -> str:
    """The constructor's call, without what is at its default."""
    given = []
    for field in fields(value):
        own = getattr(value, field.name)
        if own != field.default:
            given.append(f"{field.name}={_call(own) if isinstance(own, Sticker) else repr(own)}")
    return f"{type(value).__name__}({', '.join(given)})"
