"""What all routes share."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

from fastapi import Depends, Request

from openlumiere.app.jobs.queue import Queue
from openlumiere.app.jobs.results import Results
from openlumiere.app.jobs.store import Job, Store
from openlumiere.app.moderation.moderator import Moderator
from openlumiere.app.sandbox.uploads import Uploads
from openlumiere.app.settings import Settings
from openlumiere.bundled import bundled_models
from openlumiere.errors import LumiereError
from openlumiere.files import one_line
from openlumiere.generation.abilities import Abilities
from openlumiere.generation.backends.find import read_abilities
from openlumiere.provenance.identity import Identity
from openlumiere.provenance.marking import Marker

from .errors import ApiError, missing
from .events import Changes
from .security import Gate

_LOG = logging.getLogger("openlumiere.app")


@dataclass
class Context:
    """The parts of a running server."""

    settings: Settings
    store: Store
    results: Results
    queue: Queue
    gate: Gate
    uploads: Uploads
    moderator: Moderator
    changes: Changes
    identity: Identity
    marker: Marker | None
    _models: dict[str, Abilities] = field(default_factory=dict)

    @cached_property
    def default_model(self) -> str:
        """Name of the model of requests that name none."""
        names = self.models()
        if not names:
            raise LumiereError("there is no model here; name one with --model")
        return names[0]

    def models(self) -> list[str]:
        """Names of the models that requests may ask for, as the operator gave them: never a path of a user's."""
        return list(dict.fromkeys([*self.settings.models, *bundled_models()]))

    def every_abilities(self) -> list[Abilities]:
        """Return what each model can do; one that cannot be read now, as of a server that is down, is left out."""
        found = []
        for name in self.models():
            try:
                found.append(self.abilities(name))
            except LumiereError as error:
                _LOG.warning("%s is not offered: %s", name, one_line(error))
        return found

    def abilities(self, model: str | None) -> Abilities:
        """Return what a model can do; None = the server's own.

        Raises:
            ApiError: there is none of that name.
        """
        name = self.default_model if model is None else model
        if name not in self._models and name not in self.models():
            message = f"model: there is no {name[:60]!r}; choose one of {', '.join(self.models())}, or leave it out"
            raise ApiError(404, message, param="model", code="model_not_found")
        if name not in self._models:
            self._models[name] = read_abilities(name)
        return self._models[name]

    def job(self, id: str, owner: str) -> Job:
        """Return one's own job.

        Raises:
            ApiError: there is none.
        """
        job = self.store.get(id, owner)
        if job is None:
            raise missing()
        return job


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Parts = Annotated[Context, Depends(_context)]


def _owner(request: Request, parts: Parts) -> str:
    return parts.gate.owner(request)


Owner = Annotated[str, Depends(_owner)]
