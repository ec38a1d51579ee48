"""What a watermark says: 48 bits on which model made a clip, when, and under whose key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from openlumiere.errors import LumiereError

_FIELDS = {"model": 16, "version": 12, "month": 12, "key_id": 8}  # bits of each, most significant first
BITS = sum(_FIELDS.values())
_FIRST_YEAR = 2020  # of month 0


@dataclass(frozen=True, kw_only=True)
class Payload:
    """The fields of a watermark.

    Attributes:
        model: number of the model, below 65536.
        version: number of its version, below 4096.
        month: of the making, counted from January 2020, below 4096; see `month_of`.
        key_id: number of the key, below 256.

    Raises:
        LumiereError: a field out of range.
    """

    model: int
    version: int
    month: int
    key_id: int

    def __post_init__(self) -> None:
        for name, bits in _FIELDS.items():
            if not 0 <= getattr(self, name) < 1 << bits:
                raise LumiereError(f"a watermark's {name} is from 0 to {(1 << bits) - 1}, not {getattr(self, name)}")

    @property
    def made(self) -> date:
        """The first day of the month in which the clip was made."""
        years, months = divmod(self.month, 12)
        return date(_FIRST_YEAR + years, months + 1, 1)

    def to_bits(self) -> np.ndarray:
        """Return the fields as bits, uint8 (48,)."""
        text = "".join(format(getattr(self, name), f"0{bits}b") for name, bits in _FIELDS.items())
        return np.array(list(text), dtype=np.uint8)

    @classmethod
    def from_bits(cls, bits: np.ndarray) -> Payload:
        """Read the fields from bits, (48,)."""
        text, fields, start = "".join(map(str, bits)), {}, 0
        for name, width in _FIELDS.items():
            fields[name] = int(text[start : start + width], 2)
            start += width
        return cls(**fields)


def month_of(day: date) -> int:
    """Return a day's month as `Payload.month` counts it."""
    return (day.year - _FIRST_YEAR) * 12 + day.month - 1
