"""Style by interpolation of weights: W = a W_style + (1 - a) W_orig (the paper's section 4.1).

Only a text-to-image network's own weights are interpolated; the temporal layers, trained on top of the original ones,
go on moving what the styled ones draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

Weights = Mapping[str, torch.Tensor]


def interpolate(original: Weights, styles: Sequence[tuple[Weights, float]]) -> dict[str, torch.Tensor]:
    """Weights between the original ones and one style's, or moved towards several styles at once.

    Several styles add up: W_orig + sum of a_i (W_i - W_orig), which for a single one is the paper's equation.

    Args:
        original: by name.
        styles: weights of the same names and shapes, or some of them, and the strength a of each: 0 = none of it, 1 =
            all of it, more or less extrapolates.

    Returns:
        Those weights that any style of strength other than 0 holds; with none of them, nothing, so that strength 0
        changes not one bit.
    """
    result: dict[str, torch.Tensor] = {}
    for weights, strength in styles:
        if strength == 0:
            continue
        for name, styled in weights.items():
            base = original[name].float()
            moved = result.get(name, base)
            result[name] = moved + strength * (styled.to(base) - base)
    return {name: value.to(original[name].dtype) for name, value in result.items()}
