"""What a manifest says (C2PA Technical Specification 2.x, "Standard assertions"): put together, and read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

import openlumiere

from .payload import BITS, Payload

WATERMARK = "openlumiere.watermark.1"  # our watermark among C2PA's names of soft binding algorithms
_ACTIONS, _SOFT_BINDING = "c2pa.actions", "c2pa.soft-binding"
_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_GENERATED, _PARTLY_GENERATED = "trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"


@dataclass(frozen=True, kw_only=True)
class Ingredient:
    """A file that another was made from.

    Attributes:
        title: its name.
        relation: ``parentOf``: what was edited; ``componentOf``: what was placed in it.
    """

    title: str
    relation: str


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What a file's credentials say, and whether to believe them.

    Attributes:
        state: ``trusted``: unchanged, and an anchor vouches for the signer; ``untrusted``: unchanged, by a signer whom
            no anchor vouches for, and who may have any name; ``changed``: the file was changed since it was signed;
            ``invalid``: the credentials are damaged, or against the rules.
        problem: what is wrong, for people; "" where nothing is.
        signer: who signed, as the certificate says; "" where that can't be read.
        signed_here: whether this installation's own root vouches for the signer.
        when: the time that the signer claims; None where it claims none.
        generator: program that wrote the file, with its version.
        model: that made the clip; "" where not said.
        actions: what was done, as C2PA names it, such as ``c2pa.created``.
        ai_generated: whether an action says that a model made the media, or a part of it.
        ingredients: what it was made from.
        soft_binding: what the watermark in its frames should say; None where none of ours is named.
    """

    state: Literal["trusted", "untrusted", "changed", "invalid"]
    problem: str = ""
    signer: str = ""
    signed_here: bool = False
    when: datetime | None = None
    generator: str = ""
    model: str = ""
    actions: tuple[str, ...] = ()
    ai_generated: bool = False
    ingredients: tuple[Ingredient, ...] = ()
    soft_binding: Payload | None = None


class Source(NamedTuple):
    """A file that becomes an ingredient: what C2PA says of it, and where it is."""

    description: Mapping[str, Any]
    path: Path


# ------------------------------------------------------------------------------------------------ put together


def sources_of(edited: str | Path | None, placed: Sequence[str | Path]) -> list[Source]:
    """Return the files that a clip was made from: the one that was edited first, then those that were placed."""
    found = [_source(Path(edited), "parentOf", "edited")] if edited is not None else []
    return found + [_source(Path(path), "componentOf", f"placed {n}") for n, path in enumerate(placed, 1)]


def _source(path: Path, relation: str, label: str) -> Source:
    return Source({"title": path.name, "relationship": relation, "label": label}, path)


def created(
    title: str, *, model: str = "", sources: Sequence[Source] = (), soft_binding: Payload | None = None
) -> dict[str, Any]:
    """Return the manifest of a clip that a model made, or edited: as c2pa's `Builder` takes it.

    Args:
        sources: see `sources_of`.
    """
    made: dict[str, Any] = {"when": datetime.now(UTC).isoformat(timespec="seconds")}
    if model:
        made["softwareAgent"] = {"name": model}
    actions: list[dict[str, Any]] = []
    for source in sources:
        opened = source.description["relationship"] == "parentOf"
        name = "c2pa.opened" if opened else "c2pa.placed"
        actions.append({"action": name, "parameters": {"ingredientIds": [source.description["label"]]}})
    if actions and actions[0]["action"] == "c2pa.opened":
        actions.insert(1, {"action": "c2pa.edited", "digitalSourceType": _SOURCE_TYPES + _PARTLY_GENERATED, **made})
    else:
        actions.insert(0, {"action": "c2pa.created", "digitalSourceType": _SOURCE_TYPES + _GENERATED, **made})
    assertions = []
    if soft_binding is not None:
        actions.append({"action": "c2pa.watermarked.bound"})
        block = {"scope": {}, "value": _hexadecimal(soft_binding)}  # an empty scope: the whole clip
        assertions = [_assertion(_SOFT_BINDING, {"alg": WATERMARK, "blocks": [block]})]
    return {
        "title": title,
        "claim_generator_info": [{"name": "openlumiere", "version": openlumiere.__version__}],
        "assertions": [_assertion(f"{_ACTIONS}.v2", {"actions": actions}), *assertions],
    }


def _assertion(label: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return an assertion that the signer stands for ("created"), unlike what is passed on ("gathered")."""
    return {"label": label, "created": True, "data": data}


def _hexadecimal(payload: Payload) -> str:
    return np.packbits(payload.to_bits()).tobytes().hex()


# ------------------------------------------------------------------------------------------------ read


def credentials_of(report: Mapping[str, Any]) -> Credentials:
    """Read what c2pa reports of a file. Anybody may have written it: what is of another form is left out."""
    manifest = _dict(_dict(report.get("manifests")).get(report.get("active_manifest")))
    signature, failures = _dict(manifest.get("signature_info")), list(_failures(report))
    state, problem = _state(str(report.get("validation_state")), failures)
    generator = next(_dicts(manifest.get("claim_generator_info")), {})
    actions = [
        action
        for assertion in _dicts(manifest.get("assertions"))
        if str(assertion.get("label")).startswith(_ACTIONS)
        for action in _dicts(_dict(assertion.get("data")).get("actions"))
    ]
    types = [str(action.get("digitalSourceType")).rpartition("/")[2] for action in actions]
    return Credentials(
        state=state,
        problem=problem,
        signer=" · ".join(filter(None, map(str, (signature.get("common_name") or "", signature.get("issuer") or "")))),
        when=_first(_time(action.get("when")) for action in actions),
        generator=f"{generator.get('name', '')} {generator.get('version', '')}".strip(),
        model=_first(_agent(action.get("softwareAgent")) for action in actions) or "",
        actions=tuple(str(action.get("action")) for action in actions),
        ai_generated=any(name in (_GENERATED, _PARTLY_GENERATED) for name in types),
        ingredients=tuple(
            Ingredient(title=str(found.get("title", "")), relation=str(found.get("relationship", "")))
            for found in _dicts(manifest.get("ingredients"))
        ),
        soft_binding=_first(map(_watermark, _dicts(manifest.get("assertions")))),
    )


def _state(state: str, failures: Sequence[Mapping[str, Any]]) -> tuple[Any, str]:
    if state == "Trusted":
        return "trusted", ""
    if state == "Valid":
        return "untrusted", "no authority that is trusted here vouches for who signed"
    codes = [str(failure.get("code")) for failure in failures]
    # Bytes that are not those that were signed: of the file (data, BMFF or boxes hash), of an assertion, of the claim.
    if any(code.endswith(".mismatch") for code in codes):
        return "changed", "changed since it was signed"
    return "invalid", "; ".join(str(failure.get("explanation") or failure.get("code")) for failure in failures)


def _failures(report: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    results = _dict(report.get("validation_results"))
    yield from _dicts(_dict(results.get("activeManifest")).get("failure"))
    for ingredient in _dicts(results.get("ingredientDeltas")):
        yield from _dicts(_dict(ingredient.get("validationDeltas")).get("failure"))


def _watermark(assertion: Mapping[str, Any]) -> Payload | None:
    data = _dict(assertion.get("data"))
    if str(assertion.get("label")).partition("__")[0] != _SOFT_BINDING or data.get("alg") != WATERMARK:
        return None
    try:
        value = bytes.fromhex(str(next(_dicts(data.get("blocks")), {}).get("value")))
    except ValueError:
        return None
    bits = np.unpackbits(np.frombuffer(value, np.uint8))
    return Payload.from_bits(bits) if len(bits) == BITS else None


def _agent(value: object) -> str:
    return str(value.get("name", "")) if isinstance(value, Mapping) else value if isinstance(value, str) else ""


def _time(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        return None


def _first(values: Any) -> Any:
    return next((value for value in values if value), None)


def _dict(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _dicts(value: object) -> Iterator[Mapping[Any, Any]]:
    return (each for each in value if isinstance(each, Mapping)) if isinstance(value, list) else iter(())
