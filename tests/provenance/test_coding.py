"""The payload and its error correction."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openlumiere.errors import LumiereError
from openlumiere.provenance import Payload, month_of
from openlumiere.provenance.coding import CODED_BITS, decode, encode

payloads = st.builds(
    Payload, model=st.integers(0, 65535), version=st.integers(0, 4095), month=st.integers(0, 4095),
    key_id=st.integers(0, 255),
)  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(payload=payloads, seed=st.integers(0, 2**32 - 1))
def test_a_payload_comes_back_through_noise(payload: Payload, seed: int) -> None:
    bits = payload.to_bits()
    assert len(bits) == 48
    assert Payload.from_bits(bits) == payload
    received = encode(bits) + np.random.default_rng(seed).normal(size=CODED_BITS) * 0.7  # one sign in 13 is wrong
    told = decode(received)
    assert told is not None
    assert Payload.from_bits(told) == payload


def test_noise_is_told_from_a_payload() -> None:
    rng = np.random.default_rng(0)
    assert all(decode(rng.normal(size=CODED_BITS)) is None for _ in range(50))


def test_the_code_is_as_strong_as_published() -> None:
    # Free distance 18, of a linear code: the lightest word of a few bits that are not all 0.
    zero = np.zeros(48, np.uint8)
    base = encode(zero)
    for length in range(1, 64):
        word = zero.copy()
        word[: length.bit_length()] = [int(bit) for bit in format(length, "b")]
        # The checksum adds to the weight, so that this is a lower limit only.
        assert (encode(word) != base).sum() >= 18


@pytest.mark.parametrize("field", ["model", "version", "month", "key_id"])
def test_fields_out_of_range_are_refused(field: str) -> None:
    fields = {"model": 1, "version": 1, "month": 1, "key_id": 1}
    for value in (-1, 1 << 16):
        with pytest.raises(LumiereError, match=field):
            Payload(**(fields | {field: value}))


def test_months() -> None:
    assert month_of(date(2020, 1, 31)) == 0
    month = month_of(date(2026, 11, 24))
    assert Payload(model=0, version=0, month=month, key_id=0).made == date(2026, 11, 1)
