"""Where a model's files are: read from its small JSON files, without weights and without PyTorch."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from openlumiere.bundled import bundled_models, fingerprint, model_folder
from openlumiere.errors import LumiereError
from openlumiere.files import one_line, read_json

INDEX = "model_index.json"  # what makes a folder a pipeline of diffusers


@dataclass(frozen=True)
class Part:
    """One folder, or one repository of the hub.

    Attributes:
        name: as it was given: a bundled model's name, a folder, or ``owner/name``, of the hub with ``@REVISION``.
        may_download: fetch small files from the hub; else only what is on this machine already is looked at.
    """

    name: str
    may_download: bool = False

    @cached_property
    def folder(self) -> Path | None:
        """The folder, if it is one."""
        return model_folder(self.name)

    @property
    def repository(self) -> str:
        """The hub's ``owner/name``, without a revision."""
        return self.name.partition("@")[0]

    @property
    def revision(self) -> str | None:
        """The hub's branch, tag or commit that was asked for."""
        return None if self.folder is not None else self.name.partition("@")[2] or None

    @property
    def location(self) -> str:
        """What ``from_pretrained`` takes, beside ``revision``."""
        return str(self.folder) if self.folder is not None else self.repository

    @property
    def pretrained(self) -> dict[str, Any]:
        """Further arguments of ``from_pretrained``."""
        return {"local_files_only": True} if self.folder is not None else {"revision": self.revision}

    def file(self, path: str) -> Path | None:
        """Return one of its small files; None if it has none of that name.

        Raises:
            LumiereError: neither a folder nor a hub id; the hub cannot be reached, or the file is not here and may not
                be fetched.
        """
        if self.folder is not None:
            found = self.folder / path
            return found if found.is_file() else None
        if Path(self.name).exists():
            raise LumiereError(f"{self.name} is a file; give the folder that holds {INDEX}")
        if self.repository.count("/") != 1 or self.repository.startswith((".", "/", "~")):
            known = ", ".join(bundled_models()) or "none installed"
            raise LumiereError(
                f"unknown model {self.name!r}: give a bundled one ({known}), a folder, a hub id such as owner/name, or "
                "the address of a server, such as http://127.0.0.1:8000#emoji"
            )
        return self._of_the_hub(path)

    def _of_the_hub(self, path: str) -> Path | None:
        from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        cached = try_to_load_from_cache(self.repository, path, revision=self.revision)
        if isinstance(cached, str):
            return Path(cached)
        if not self.may_download:
            if cached is _CACHED_NO_EXIST or isinstance(try_to_load_from_cache(self.repository, INDEX), str):
                return None
            raise LumiereError(
                f"{self.name} is not on this machine; load it once, or give a folder or a bundled model's name"
            )
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # of each of its tries
        try:
            return Path(hf_hub_download(self.repository, path, revision=self.revision))
        except EntryNotFoundError as error:
            if not isinstance(error, LocalEntryNotFoundError):
                return None
            raise LumiereError(f"cannot reach the hub for {self.name}: check the name and the network") from error
        except Exception as error:  # repositories that do not exist, are gated, networks that fail
            raise LumiereError(
                f"cannot load {self.name!r} from the hub: check the name and the network ({one_line(error)})"
            ) from error

    def json(self, path: str) -> dict[str, Any]:
        """Return what one of its JSON files holds; {} if it has none of that name.

        Raises:
            LumiereError: it cannot be had, or read.
        """
        found = self.file(path)
        if found is None:
            return {}
        read: dict[str, Any] = read_json(found, otherwise="install or save the model again")
        return read

    @property
    def class_name(self) -> str:
        """The class that its index, or its config, names; "" if it has neither."""
        name = (self.json(INDEX) or self.json("config.json")).get("_class_name", "")
        return str(name[-1] if isinstance(name, list) else name)  # (module, class) of a class loaded from a file

    def component(self, name: str) -> str:
        """Return the class of a component of a pipeline; "" if there is none."""
        return str((self.json(INDEX).get(name) or [None, None])[1] or "")

    @property
    def known_as(self) -> str:
        """Its name as any working folder finds it."""
        if self.folder is None or self.name in bundled_models():
            return self.name
        return str(self.folder.resolve())

    @property
    def weights(self) -> str:
        """The `bundled.fingerprint` of local weights, the commit of a hub's where it is known; else ""."""
        if self.folder is not None:
            return fingerprint(self.folder)
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.repository, INDEX, revision=self.revision)
        return Path(cached).parent.name[:12] if isinstance(cached, str) else ""


@dataclass(frozen=True)
class Source:
    """All that a model is made of.

    Attributes:
        name: of the whole: of its parts, joined by ``+``; a motion adapter and its base, for instance.
    """

    name: str
    may_download: bool = False

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Its parts; one, of all models but those that are put together."""
        if self.name in bundled_models() or Path(self.name).is_dir():  # a folder may have a plus in its name
            return (Part(self.name, self.may_download),)
        return tuple(Part(name, self.may_download) for name in self.name.split("+"))

    @property
    def main(self) -> Part:
        """The first part, which says what the others are for."""
        return self.parts[0]

    @property
    def known_as(self) -> str:
        """Its name as any working folder finds it."""
        return "+".join(part.known_as for part in self.parts)

    @property
    def weights(self) -> str:
        """What identifies its weights; "" if nothing does."""
        return "+".join(found for part in self.parts if (found := part.weights))

    @property
    def licence(self) -> str:
        """The licence that the model card of the main part names; "" if there is none."""
        card = self.main.file("README.md")
        return "" if card is None else _licence_of(card.read_text(encoding="utf-8", errors="replace"))


def _licence_of(card: str) -> str:
    """``license`` of the front matter of a model card, or ``license_name`` where that is "other"."""
    import yaml

    if not card.startswith("---"):
        return ""
    try:
        data = yaml.safe_load(card.split("---", 2)[1])
    except yaml.YAMLError:
        return ""
    if not isinstance(data, dict):
        return ""
    named = data.get("license", "")
    return str(data.get("license_name", named) if named == "other" else named or "")
