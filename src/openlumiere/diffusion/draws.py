"""Random numbers of a batch that several processes share.

Every process draws the numbers of the whole batch and takes those of its own samples. So a training step is the same
on any number of processes, and on a single one it is what torch's own functions return.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class BatchShare:
    """Which samples of a batch are this process's, and the generator that the whole batch's numbers come from.

    Attributes:
        generator: in the same state on every process.
        first: number of its first sample in the batch.
        count: of its samples.
        total: samples of the batch.
    """

    generator: torch.Generator
    first: int
    count: int
    total: int

    @property
    def device(self) -> torch.device:
        """Where numbers are drawn."""
        return self.generator.device

    def of(self, start: int, stop: int) -> BatchShare:
        """Return the share of the batch's samples `start` to `stop`, which are drawn for as a batch of their own."""
        first = min(max(self.first, start), stop)
        end = min(max(self.first + self.count, start), stop)
        return BatchShare(self.generator, first - start, end - first, stop - start)

    def where(self, chosen: torch.Tensor) -> BatchShare:
        """Return the share of the samples that are chosen: bool, (total,)."""
        before, own = chosen[: self.first], chosen[self.first : self.first + self.count]
        return BatchShare(self.generator, int(before.sum()), int(own.sum()), int(chosen.sum()))


# What draws for a batch: a process that has all of it, or one that shares it with others.
Generator = torch.Generator | BatchShare


def share_of(generator: Generator, count: int) -> BatchShare:
    """Return the share of `count` samples: the generator's own, or the whole batch's."""
    if isinstance(generator, BatchShare):
        assert generator.count == count, f"{count} samples of a share of {generator.count}"
        return generator
    return BatchShare(generator, 0, count, count)


def rand(count: int, *shape: int, generator: Generator) -> torch.Tensor:
    """Draw `count` samples' numbers, uniform in [0, 1): (count, *shape)."""
    share = share_of(generator, count)
    return _own(torch.rand(share.total, *shape, generator=share.generator, device=share.device), share)


def randn(count: int, *shape: int, generator: Generator, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Draw `count` samples' numbers, of a standard normal distribution: (count, *shape)."""
    share = share_of(generator, count)
    return _own(torch.randn(share.total, *shape, generator=share.generator, device=share.device, dtype=dtype), share)


def randint(low: int, high: int, count: int, *shape: int, generator: Generator) -> torch.Tensor:
    """Draw `count` samples' whole numbers, `low` to `high` - 1: int64, (count, *shape)."""
    share = share_of(generator, count)
    return _own(torch.randint(low, high, (share.total, *shape), generator=share.generator, device=share.device), share)


def spread(count: int, *, generator: Generator) -> torch.Tensor:
    """Return one number for each sample, (count,): evenly spread over [0, 1) with a random offset, then shuffled."""
    share = share_of(generator, count)
    offset = torch.rand((), generator=share.generator, device=share.device)
    order = torch.randperm(share.total, generator=share.generator, device=share.device)
    return _own((order + offset) / share.total, share)


def seeds(count: int, *, generator: Generator) -> list[int]:
    """Return a seed for each sample, for what draws from a generator of its own."""
    share = share_of(generator, count)
    drawn = [int(torch.randint(2**62, (), generator=share.generator, device=share.device)) for _ in range(share.total)]
    return drawn[share.first : share.first + share.count]


def _own(drawn: torch.Tensor, share: BatchShare) -> torch.Tensor:
    # The whole batch's tensor is not kept alive, nor copied where it is all this process's.
    return drawn if share.count == share.total else drawn[share.first : share.first + share.count].clone()
