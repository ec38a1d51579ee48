"""What an operator chooses: where jobs and results are kept, and how much anyone may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from openlumiere.bundled import DEFAULT_MODEL
from openlumiere.errors import LumiereError
from openlumiere.generation.plain import from_plain, to_plain

DAY = 86400.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one may ask for.

    Attributes:
        max_queued: jobs that wait, everyone's together.
        max_queued_per_owner: jobs of one key that wait or run.
        max_jobs_per_day: jobs that one key may start in any 24 hours; None = no quota.
    """

    max_queued: int = 200
    max_queued_per_owner: int = 50
    max_jobs_per_day: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise LumiereError(f"{name} {value}: choose 1 or more")


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """What users' files may hold.

    Attributes:
        bytes: of all files of a request together.
        pixels: of a picture, and of a clip's frame.
        clip_pixels: of all frames of a clip together.
        frames, seconds: of a clip.
    """

    bytes: int = 64 * 2**20
    pixels: int = 40_000_000
    clip_pixels: int = 160_000_000
    frames: int = 1200
    seconds: float = 60.0


@dataclass(frozen=True, kw_only=True)
class RequestLimits:
    """What one request may ask for, and how many there may be.

    Attributes:
        prompt: characters of a prompt, and of a negative one.
        num_frames: of a clip.
        frame_pixels, video_pixels: of a frame, and of all frames together, where a size is asked for.
        num_inference_steps: of each stage.
        per_minute: requests of one key, or of one address where no key is needed.
        wrong_keys_per_minute: from one address.
    """

    prompt: int = 2000
    num_frames: int = 480
    frame_pixels: int = 2_100_000
    video_pixels: int = 160_000_000
    num_inference_steps: int = 250
    per_minute: int = 6000
    wrong_keys_per_minute: int = 20


@dataclass(frozen=True, kw_only=True)
class ModerationSettings:
    """What may not be asked for.

    Attributes:
        block_list: file of words, see `moderation.block_list`; "" = none.
        classifier: address that texts and pictures are sent to, see `moderation.classifier`; "" = none.
        classifier_key: sent to it; "" = none.
        classifier_seconds: what it has not answered then is refused.
    """

    block_list: str = ""
    classifier: str = ""
    classifier_key: str = ""
    classifier_seconds: float = 10.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the server and its workers are started with.

    Attributes:
        data: folder of all that is kept, and of work under way.
        database_url: ``postgresql://...``, for workers on several machines; "" = SQLite in the data folder.
        results: folder or fsspec address of finished clips; "" = in the data folder. Workers on several machines need
            one that all of them reach.
        models: that requests may name, beside the bundled ones; the first is the one of requests that name none, and
            the one that a worker loads first. () = the bundled ones alone, loaded with the first job.
        expiry_seconds: after which results are removed, favourites excepted; None = never.
        undo_seconds: for so long what is deleted can be restored.
        heartbeat_seconds: between two signs of life of a worker.
        vanished_seconds: a worker that gave none for so long has its job taken over.
        max_attempts: a job whose worker died so often fails.
        memory_bytes: of the device, which a job must fit into; None = what it has.
        webhooks: addresses that are told of finished and failed jobs: all of them, or the one that a request names.
        webhook_secret: ``whsec_`` and base64, signs the calls.
        log_prompts: write prompts into the log.
        mark: put watermarks into clips, and sign them; the log tells of clips that are not.
        host, port: to listen on; port 0 = any free one.
        hosts: names by which browsers may address the server, besides loopback's, its own and IP addresses.
        keys: whether a key is needed; None = on all addresses but loopback's.
        uploads, requests: how much a file may hold, and a request ask for.
        moderation: what may not be asked for.
    """

    data: str
    database_url: str = ""
    results: str = ""
    limits: Limits = Limits()
    models: tuple[str, ...] = (DEFAULT_MODEL,)
    expiry_seconds: float | None = None
    undo_seconds: float = 60.0
    heartbeat_seconds: float = 2.0
    vanished_seconds: float = 20.0
    max_attempts: int = 3
    memory_bytes: int | None = None
    webhooks: tuple[str, ...] = ()
    webhook_secret: str = ""
    log_prompts: bool = False
    mark: bool = True
    host: str = "127.0.0.1"
    port: int = 8000
    hosts: tuple[str, ...] = ()
    keys: bool | None = None
    uploads: UploadLimits = UploadLimits()
    requests: RequestLimits = RequestLimits()
    moderation: ModerationSettings = ModerationSettings()

    def __post_init__(self) -> None:
        scheme = urlsplit(self.database_url).scheme.partition("+")[0]
        if scheme not in ("", "postgres", "postgresql"):
            raise LumiereError(f"--database-url {scheme}://...: choose postgresql://USER:PASSWORD@HOST/NAME, or none")
        for address in self.webhooks:
            if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
                raise LumiereError(f"webhook {address!r}: give an http or https address")
        if self.webhooks and not self.webhook_secret:
            raise LumiereError("webhooks are signed: set a secret, whsec_ and 24 or more random bytes in base64")
        if self.vanished_seconds < 3 * self.heartbeat_seconds:
            raise LumiereError(
                "a worker counts as vanished after three heartbeats at the earliest; choose more seconds"
            )

    @property
    def folder(self) -> Path:
        """Return the data folder."""
        return Path(self.data)

    @property
    def store_url(self) -> str:
        """Return where jobs, keys and workers are kept, as SQLAlchemy takes it."""
        return self.database_url or f"sqlite:///{self.folder.resolve() / 'jobs.sqlite'}"

    @property
    def queue_url(self) -> str:
        """Return where DBOS keeps its queue. SQLite locks whole files, so the queue has one of its own."""
        return self.database_url or f"sqlite:///{self.folder.resolve() / 'queue.sqlite'}"

    @property
    def results_address(self) -> str:
        """Return the folder or address of finished clips."""
        return self.results or str(self.folder.resolve() / "results")

    @property
    def work(self) -> Path:
        """Return the folder of clips in the making, of this machine."""
        return self.folder / "work"

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON, secrets included; `settings_from_json` reads it back."""
        plain: dict[str, Any] = to_plain(self)
        return plain


def settings_from_json(data: object) -> Settings:
    """Read what `Settings.to_json` gave.

    Raises:
        LumiereError: an unknown key, a missing one, or a value of another type or out of its range.
    """
    return from_plain(Settings, data, "settings: ")
