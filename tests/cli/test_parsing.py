"""Words of the command line that stand for numbers."""

from __future__ import annotations

import argparse

import pytest

from openlumiere.cli import parsing
from openlumiere.generation.options import parse_size


def test_amounts_of_memory() -> None:
    read = [parsing.memory(text) for text in ("12GB", "12", "1.5GiB", "800mb", "2 T")]
    assert read == [12 * 10**9, 12 * 10**9, 3 * 2**29, 800 * 10**6, 2 * 10**12]
    for text in ("", "much", "0GB", "-1GB", "12XB", "GB"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not an amount of memory such as 12GB"):
            parsing.memory(text)


def test_sizes() -> None:
    assert parse_size("832x480") == parse_size("832X480") == (832, 480)
    for text in ("832", "832x", "0x480", "832x480x3", "99999x1", "-8x8"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a width and a height such as 832x480"):
            parsing.of(parse_size)(text)
