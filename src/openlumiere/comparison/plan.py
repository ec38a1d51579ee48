"""What there is to make: each entry's request for each shot, checked before anything slow is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from openlumiere import files
from openlumiere.errors import LumiereError
from openlumiere.generation.abilities import Abilities
from openlumiere.generation.backends.find import read_abilities
from openlumiere.generation.requests import AnimateRequest, ClipRequest, GenerateRequest
from openlumiere.study.pairs import read_folder

from .entries import Entry
from .pictures import pictures_of
from .prompts import Shot

OWN = ".comparison"  # folder of what is known of clips, and of pictures to start from
STUDY = "study"
SUFFIXES = (".mp4", ".webm")  # of clips: what browsers play
_RECORD_KEYS = {"output", "source", "references"}  # of a request, which say nothing of how a clip is made


@dataclass(frozen=True)
class Plan:
    """A comparison whose entries can be made.

    Attributes:
        folder: for all that is made.
        entries: in the order in which they are made: those whose clips others start from before these.
        shots: the clips of each.
        abilities: of the entries that are models, by name.
        given: the clips of the entries that are folders, by name and by `Shot.key`.
        pictures: that entries start from, by name and by `Shot.key`.
    """

    folder: Path
    entries: tuple[Entry, ...]
    shots: tuple[Shot, ...]
    abilities: Mapping[str, Abilities]
    given: Mapping[str, Mapping[str, Path]]
    pictures: Mapping[str, Mapping[str, Path]]

    def entry(self, name: str) -> Entry:
        """Return the entry of a name.

        Raises:
            LumiereError: there is none.
        """
        found = next((entry for entry in self.entries if entry.name == name), None)
        if found is None:
            raise LumiereError(f"nothing is named {name!r}; there are {', '.join(each.name for each in self.entries)}")
        return found

    def clip(self, entry: Entry, shot: Shot) -> Path | None:
        """Return an entry's clip; None if it is not there."""
        paths = (self.path(entry, shot, suffix) for suffix in SUFFIXES)
        return next((path for path in paths if path.exists()), None)

    def path(self, entry: Entry, shot: Shot, suffix: str = SUFFIXES[0]) -> Path:
        """Return where an entry's clip goes."""
        return self.folder / entry.folder / f"{shot.stem}{suffix}"

    def record(self, entry: Entry, shot: Shot) -> Path:
        """Return the file that holds what is known of a clip beside its pixels."""
        return self.folder / OWN / entry.folder / f"{shot.stem}.json"

    def is_wanted(self, entry: Entry, shot: Shot) -> bool:
        """Return whether an entry has such a clip: a folder has one of a prompt at most."""
        return not entry.clips or (shot.index == 0 and shot.key in self.given[entry.name])

    def follows_text(self, entry: Entry) -> bool:
        """Return whether an entry is told the prompt; of clips of other programs that is assumed."""
        return entry.clips != "" or self.abilities[entry.name].prompt

    def request(self, entry: Entry, shot: Shot, picture: Path | None = None) -> ClipRequest:
        """Return what a model is asked for.

        Args:
            picture: what it starts from, if it does.
        """
        abilities = self.abilities[entry.name]
        common: dict[str, Any] = {
            "prompt": shot.prompt if abilities.prompt else "",
            "negative_prompt": (shot.negative_prompt or entry.negative_prompt or "") if abilities.prompt else "",
            "seed": shot.seed, "num_inference_steps": entry.num_inference_steps,
            "guidance_scale": entry.guidance_scale, "num_frames": entry.num_frames, "fps": entry.fps,
            "size": entry.size, "transparent": False, "output": str(self.path(entry, shot)),
        }  # fmt: skip
        if self.starts_from_picture(entry):
            return AnimateRequest(source=str(picture or "picture"), **common)
        return GenerateRequest(**common)

    def starts_from_picture(self, entry: Entry) -> bool:
        """Return whether a model is given a picture."""
        return entry.pictures is not None or entry.picture_from is not None


def make_plan(
    folder: Path,
    entries: Sequence[Entry],
    shots: Sequence[Shot],
    *,
    pictures: str | None = None,
    picture_from: str | None = None,
) -> Plan:
    """Find models, clips and pictures, without loading anything.

    Args:
        pictures, picture_from: as `Options`', of the models that cannot make clips of a prompt.

    Raises:
        LumiereError: an unknown model, one that cannot do what is asked of it, a folder without a clip of one of the
            prompts, missing pictures, or clips that were made with other settings.
    """
    abilities = {
        entry.name: _of(entry, read_abilities, entry.model, may_download=True) for entry in entries if entry.model
    }
    entries = [_started(entry, abilities, pictures, picture_from) for entry in entries]
    for entry in entries:
        if entry.folder == STUDY:
            raise LumiereError(f"{entry.name!r}: the study is called so; give another name")
        if entry.picture_from == entry.name or entry.picture_from not in {None, *(each.name for each in entries)}:
            raise LumiereError(
                f"{entry.name}: picture_from {entry.picture_from!r} is no other entry's name; correct it"
            )
    plan = Plan(
        folder, _in_order(entries), tuple(shots), abilities,
        given={entry.name: _given(entry, shots) for entry in entries if entry.clips},
        pictures={entry.name: pictures_of(Path(entry.pictures), shots) for entry in entries if entry.pictures},
    )  # fmt: skip
    for entry in plan.entries:
        if entry.model:
            _check_requests(plan, entry)
    return plan


def _of(entry: Entry, ask: Any, *values: Any, **more: Any) -> Any:
    """What a function returns; errors say of which entry."""
    try:
        return ask(*values, **more)
    except LumiereError as error:
        raise LumiereError(f"{entry.name}: {error}") from error


def _started(entry: Entry, abilities: Mapping[str, Abilities], pictures: str | None, picture_from: str | None) -> Entry:
    """The entry, told what it starts from if it cannot do without."""
    if entry.clips or "generate" in abilities[entry.name].tasks or entry.pictures or entry.picture_from:
        return entry
    if not (pictures or picture_from):
        raise LumiereError(
            f"{entry.name} makes no clip of a prompt alone; say what it starts from: --pictures FOLDER, or "
            "--picture-from NAME for the first frames of another's clips"
        )
    return replace(entry, pictures=pictures, picture_from=picture_from)


def _in_order(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    ordered: list[Entry] = []
    waiting = list(entries)
    while waiting:
        known = {entry.name for entry in ordered}
        ready = [entry for entry in waiting if entry.picture_from is None or entry.picture_from in known]
        if not ready:
            names = " and ".join(entry.name for entry in waiting)
            raise LumiereError(f"{names} start from each other's clips; let one of them start from pictures")
        ordered += ready
        waiting = [entry for entry in waiting if entry not in ready]
    return tuple(ordered)


def _given(entry: Entry, shots: Sequence[Shot]) -> dict[str, Path]:
    """The clips of a folder by `Shot.key`, those of the prompts alone."""
    clips, _ = _of(entry, read_folder, Path(entry.clips))
    found = {shot.key: clips[shot.key].path for shot in shots if shot.key in clips}
    if not found:
        raise LumiereError(
            f"{entry.name}: no clip in {entry.clips} is of one of the prompts; name the clips after them, or list them "
            f"in {entry.clips}/prompts.csv"
        )
    return found


def _check_requests(plan: Plan, entry: Entry) -> None:
    """Refuse what the model cannot do, and clips that are there and were made otherwise."""
    abilities = plan.abilities[entry.name]
    for shot in plan.shots:
        request = _of(entry, plan.request, entry, shot)
        _of(entry, abilities.check, request)
        known = read_record(plan.record(entry, shot)) if plan.clip(entry, shot) else {}
        asked = asked_of(entry, request)
        differing = next((key for key in asked if known and known["asked"].get(key) != asked[key]), None)
        if differing is not None:
            was, now = known["asked"].get(differing), asked[differing]
            raise LumiereError(
                f"{plan.clip(entry, shot)} was made with another {differing} ({was}, now {now}); choose another -o, or "
                f"delete {plan.folder / entry.folder} to make its clips anew"
            )


def asked_of(entry: Entry, request: ClipRequest) -> dict[str, Any]:
    """Return what decides a clip, as its record holds it."""
    plain = request.to_json()
    return {"model": entry.model, **{key: value for key, value in plain.items() if key not in _RECORD_KEYS}}


def read_record(path: Path) -> dict[str, Any]:
    """Return what is known of a clip; {} if nothing is."""
    return files.read_json(path, otherwise="delete it") if path.exists() else {}
