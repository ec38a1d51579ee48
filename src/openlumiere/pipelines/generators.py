"""Random generators of the two stages."""

from __future__ import annotations

import torch

Generators = torch.Generator | list[torch.Generator] | None


def restarted(generator: Generators) -> Generators:
    """Return fresh generators of the same seeds, for the second stage.

    So a clip is the same whether both stages run at once or one after the other, each with its own generator.
    """
    if isinstance(generator, list):
        return [_restarted(each) for each in generator]
    return None if generator is None else _restarted(generator)


def _restarted(generator: torch.Generator) -> torch.Generator:
    return torch.Generator(generator.device).manual_seed(generator.initial_seed())
