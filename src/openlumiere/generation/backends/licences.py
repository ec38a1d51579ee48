"""Licences of weights: what their publishers call them, and whether they allow commercial use."""

from __future__ import annotations

from collections.abc import Mapping

from .source import Source

# By Creative Commons', the Open Source Initiative's and RAIL's own names; of all others nothing is said.
_COMMERCIAL = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "openrail", "openrail++",
    "creativeml-openrail-m", "bigscience-openrail-m",
)  # fmt: skip


def licence_of(source: Source, known: Mapping[str, str] | None = None) -> str:
    """Return the licences of a model's parts, joined by `` + ``, as their model cards name them; "" = not known.

    Args:
        known: of repositories of the hub whose cards are not on this machine, or name none.
    """
    found = []
    for part in source.parts:
        named = Source(part.name, part.may_download).licence
        found.append(named if named not in ("", "other") else (known or {}).get(part.repository, named))
    return " + ".join(dict.fromkeys(name or "unknown" for name in found)) if any(found) else ""


def allows_commercial_use(licence: str) -> bool | None:
    """Return what a licence's name tells of commercial use, None = nothing; of several, as of the strictest."""
    each = [_allows(name) for name in licence.split(" + ")]
    return False if False in each else None if None in each else True


def _allows(name: str) -> bool | None:
    words = name.lower().replace("noncommercial", "nc").replace("non-commercial", "nc").split("-")
    if "nc" in words:
        return False
    return True if name.lower() in _COMMERCIAL else None


def licence_notes(licence: str, commercial: bool | None) -> tuple[str, ...]:
    """Return what whoever loads such a model is told once."""
    if commercial is not False:
        return ()
    return (f"LICENCE: non-commercial; {licence} forbids commercial use of this model",)
