"""What is kept of a clip that another server makes, so that the same command, started again, goes on with it."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from openlumiere.errors import LumiereError
from openlumiere.files import read_json, remove, sha256, write_json
from openlumiere.generation.plain import from_plain
from openlumiere.generation.requests import Request, files_of


def ticket_path(output: str) -> Path:
    """Return where the ticket of a clip lies, beside its output."""
    return Path(output.rstrip("/")).with_suffix(".remote.json")


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A clip that was asked for.

    Attributes:
        server, model: of whom.
        request: a hash of what, the seed aside: commands draw one each time.
        seed: that it was asked for with.
        key: of the request, unguessable: a server that knows idempotency keys makes one clip of it, however often it is
            asked.
        id: of the clip on the server; "" = not known.
        sent_at: UTC epoch seconds since which the server may have it.
    """

    server: str
    model: str
    request: str
    seed: int
    key: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    id: str = ""
    sent_at: float = field(default_factory=time.time)

    def with_id(self, id: str) -> Ticket:
        """Return it with the clip's id."""
        return replace(self, id=id)

    def write(self, output: str) -> None:
        """Keep it beside the output."""
        write_json(ticket_path(output), asdict(self))


def read_ticket(server: str, model: str, request: Request) -> Ticket | None:
    """Return the ticket that lies beside a request's output; None where there is none.

    Raises:
        LumiereError: it cannot be read, or is that of another request.
    """
    path = ticket_path(request.output)
    if not request.output or not path.exists():
        return None
    found = from_plain(Ticket, read_json(path, otherwise="remove it"), f"{path}: ")
    if (found.server, found.model, found.request) != (server, model, hash_of(request)):
        raise LumiereError(
            f"{path} is of another clip, {found.id or 'not known yet'}, that {found.server} may still be making; "
            "give another output, or remove that file"
        )
    return found


def remove_ticket(output: str) -> None:
    """Forget a clip that is over."""
    remove(ticket_path(output))


def hash_of(request: Request) -> str:
    """Return what tells a request from others: all it says and its files hold, but for seed, output and sticker."""
    said = {**request.to_json(), "seed": None, "output": "", "sticker": None}
    said.pop("references", None)  # those of a name have the same hash wherever they lie
    for name, path in files_of(request).items():
        files = sorted(Path(path).iterdir()) if Path(path).is_dir() else [Path(path)]
        said[name] = [sha256(file) for file in files if file.is_file()]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
