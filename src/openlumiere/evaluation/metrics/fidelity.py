"""How like a reference a clip is: PSNR, SSIM, edges, and the seam where it was pasted into one."""

from __future__ import annotations

import numpy as np
import torch


def psnr(
    clip: np.ndarray,
    reference: np.ndarray,
    where: np.ndarray | None = None,
    *,
    peak: float = 1.0,
    highest: float = 100.0,
) -> float:
    """Return the peak signal-to-noise ratio of all values together, in dB.

    Args:
        clip, reference: arrays of one shape, (F, H, W, C) where `where` is given.
        where: compare these pixels alone, bool (F, H, W).
        peak: the largest value, 1 or 255.
        highest: the largest ratio returned, as where nothing differs or nothing is compared.
    """
    error = np.square(clip.astype(np.float64) - reference)
    if where is not None:
        error = error[where]
    mean = float(error.mean()) if error.size else 0.0
    return min(10 * float(np.log10(peak**2 / mean)), highest) if mean else highest


def frame_psnr(clip: np.ndarray, reference: np.ndarray) -> float:
    """Return the mean over frames of their PSNR in dB; both clips float32 (F, H, W, 3) in [0, 1]."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return float(peak_signal_noise_ratio(_frames(clip), _frames(reference), data_range=1.0, dim=(1, 2, 3)))


def ssim(clip: np.ndarray, reference: np.ndarray) -> float:
    """Return the structural similarity (Wang et al. 2004), mean over frames, 1 = equal; both float32 (F, H, W, 3)."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    found = structural_similarity_index_measure(_frames(clip), _frames(reference), data_range=1.0)
    assert isinstance(found, torch.Tensor)
    return float(found)


def _frames(clip: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(clip).permute(0, 3, 1, 2).contiguous()


def seam_energy(clip: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean squared difference between neighbouring pixels on both sides of a mask's border.

    Args:
        clip: (F, H, W, 3); mask: bool (F, H, W).
    """
    total, count = 0.0, 0
    for axis in (1, 2):
        crossing = np.diff(mask, axis=axis)
        differences = np.square(np.diff(clip.astype(np.float64), axis=axis)).mean(-1)
        total, count = total + float(differences[crossing].sum()), count + int(crossing.sum())
    return total / max(count, 1)


def edge_correlation(clip: np.ndarray, reference: np.ndarray) -> float:
    """Return the correlation of two clips' edges, the length of the gradient of their mean colour; 1 = the same."""
    edges = []
    for each in (clip, reference):
        down, across = np.gradient(each.astype(np.float64).mean(-1), axis=(1, 2))
        edges.append(np.hypot(down, across).ravel())
    return float(np.corrcoef(*edges)[0, 1]) if min(e.std() for e in edges) > 0 else 0.0
