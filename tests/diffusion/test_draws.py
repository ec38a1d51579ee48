"""Random numbers of a batch that processes share: together they are those of a single one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openlumiere.diffusion import draws
from openlumiere.diffusion.draws import BatchShare

KINDS: dict[str, Callable[[int, draws.Generator], torch.Tensor]] = {
    "rand": lambda count, generator: draws.rand(count, 2, generator=generator),
    "randn": lambda count, generator: draws.randn(count, 3, 2, generator=generator),
    "randint": lambda count, generator: draws.randint(-4, 9, count, generator=generator),
    "spread": lambda count, generator: draws.spread(count, generator=generator),
    "seeds": lambda count, generator: torch.tensor(draws.seeds(count, generator=generator)),
}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.mark.parametrize("kind", KINDS)
@given(processes=st.integers(1, 5), count=st.integers(0, 4))
@settings(max_examples=20, deadline=None)
def test_shares_together_are_what_one_process_draws(kind: str, processes: int, count: int) -> None:
    total = processes * count
    whole = KINDS[kind](total, seeded())
    shares = [KINDS[kind](count, BatchShare(seeded(), rank * count, count, total)) for rank in range(processes)]
    assert torch.equal(torch.cat(shares), whole)


def test_on_one_process_they_are_what_torch_draws() -> None:
    assert torch.equal(draws.rand(5, 2, generator=seeded()), torch.rand(5, 2, generator=seeded()))
    assert torch.equal(draws.randn(5, 2, generator=seeded()), torch.randn(5, 2, generator=seeded()))
    assert torch.equal(draws.randint(0, 9, 5, generator=seeded()), torch.randint(0, 9, (5,), generator=seeded()))


@given(processes=st.sampled_from([1, 2, 3, 4, 6]), start=st.integers(0, 12), length=st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_a_part_of_the_batch_is_shared_as_it_lies(processes: int, start: int, length: int) -> None:
    """Whoever has none of the part draws all the same, so that all go on from the same state."""
    stop, count = min(start + length, 12), 12 // processes
    whole = draws.randn(stop - start, 2, generator=seeded()) if stop > start else torch.empty(0, 2)
    found, after = [], []
    for rank in range(processes):
        part = BatchShare(seeded(), rank * count, count, 12).of(start, max(stop, start))
        found.append(draws.randn(part.count, 2, generator=part))
        after.append(float(torch.rand((), generator=part.generator)))
    assert torch.equal(torch.cat(found), whole)
    assert len(set(after)) == 1


@given(chosen=st.lists(st.booleans(), min_size=6, max_size=6), processes=st.sampled_from([1, 2, 3, 6]))
@settings(max_examples=40, deadline=None)
def test_chosen_samples_are_shared_as_they_lie(chosen: list[bool], processes: int) -> None:
    mask, count = torch.tensor(chosen), 6 // processes
    parts = [BatchShare(seeded(), rank * count, count, 6).where(mask) for rank in range(processes)]
    whole = draws.rand(sum(chosen), 3, generator=seeded())
    assert torch.equal(torch.cat([draws.rand(part.count, 3, generator=part) for part in parts]), whole)


def test_a_batch_of_another_size_than_its_share_is_no_batch() -> None:
    with pytest.raises(AssertionError, match="3 samples of a share of 2"):
        draws.rand(3, generator=BatchShare(seeded(), 0, 2, 4))
