"""Classifier-free guidance."""

from __future__ import annotations

import torch


def classifier_free_guidance(
    conditional: torch.Tensor, unconditional: torch.Tensor, scale: float, *, rescale: float = 0.0
) -> torch.Tensor:
    """Classifier-free guidance (Ho & Salimans 2022), optionally rescaled (Lin et al. 2023, equations 15-16).

    Args:
        conditional, unconditional: predictions with and without the prompt, (B, ...).
        scale: 1 = no guidance.
        rescale: in [0, 1], how far the guided prediction's standard deviation, which guidance inflates, is brought
            back to the conditional one's. It keeps colours from saturating, above all at zero terminal SNR.
    """
    guided = unconditional + scale * (conditional - unconditional)
    if rescale == 0.0:
        return guided
    dims = tuple(range(1, guided.ndim))
    ratio = conditional.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True).clamp(min=1e-8)
    return guided * (rescale * ratio + 1.0 - rescale)
