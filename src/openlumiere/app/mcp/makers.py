"""Who makes the clips that an assistant asks for: this process, see `local_maker`, or a server, see `server_maker`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from openlumiere.errors import LumiereError
from openlumiere.generation.abilities import Abilities
from openlumiere.generation.requests import Request

if TYPE_CHECKING:
    from openlumiere.provenance.marking import Marker

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class ClipState:
    """How far a clip is.

    Attributes:
        progress: 0 to 100, never falls.
        doing: what is being done, such as "denoise, step 3 of 15".
        path: of the finished file.
        seed: with which it is made again.
        command: that makes it again.
        message: why it failed, what is kept of a cancelled one, or what was given up for a sticker.
    """

    id: str
    status: Status
    progress: int = 0
    doing: str = ""
    path: Path | None = None
    seed: int | None = None
    command: str = ""
    message: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in ("completed", "failed", "cancelled")

    @property
    def file(self) -> Path:
        """The finished file.

        Raises:
            LumiereError: it is not finished.
        """
        if self.path is None:
            raise LumiereError(f"{self.id} is {self.status.replace('_', ' ')}; wait for it with get_clip")
        return self.path


class Maker(Protocol):
    """Makes clips one after the other, and puts the finished files into a folder. Methods may be called by any thread.

    Attributes:
        folder: of the files.
        interval: seconds after which it is worth asking for a state again.
        marker: marks and signs what is made in this process; None = nothing does.
    """

    folder: Path
    marker: Marker | None
    interval: float

    def submit(self, request: Request, *, model: str = "", suffix: str = "") -> str:
        """Take a request and return the clip's id.

        Args:
            request: its `output` is left to the maker; a `source` may be the id of another clip.
            model: "" = the maker's own.
            suffix: of the file, such as ".gif"; "" = one that fits.

        Raises:
            LumiereError: it cannot be made.
        """
        ...

    def state(self, id: str) -> ClipState:
        """Return how far a clip is; a finished one's file is in the folder.

        Raises:
            LumiereError: there is no such clip.
        """
        ...

    def cancel(self, id: str) -> None:
        """Stop a clip within a step; one that is over stays as it is."""
        ...

    def fetch(self, source: str) -> Path:
        """Return the file of a finished clip, or one of this machine that a path names.

        Raises:
            LumiereError: there is none, or the clip is not finished.
        """
        ...

    def detect(self, source: str) -> dict[str, Any]:
        """Return whether a file, named as for `fetch`, was made here, as `detection.detection` tells.

        Raises:
            LumiereError: there is none, or it can't be read.
        """
        ...

    def abilities(self, model: str) -> Abilities:
        """Return what a model can do; "" = the maker's own.

        Raises:
            LumiereError: there is none of that name.
        """
        ...

    def models(self) -> list[dict[str, Any]]:
        """Return what each model can do, as `GET /v1/videos/models` does, the maker's own first."""
        ...

    def close(self) -> None:
        """Free what the maker holds."""
        ...


def local_file(path: str, folder: Path) -> Path:
    """Return the file that an assistant names: an absolute path, or one in `folder`.

    Raises:
        LumiereError: there is none.
    """
    found = folder / Path(path).expanduser()
    if not path or not found.exists():
        raise LumiereError(f"there is no file {found}; give an absolute path, or the id of a clip")
    return found
