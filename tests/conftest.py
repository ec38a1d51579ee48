"""What every test starts from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _subnormal_numbers() -> Iterator[None]:
    """Training flushes them to zero for the whole process; hypothesis, rightly, does not put up with that."""
    yield
    torch.set_flush_denormal(False)
