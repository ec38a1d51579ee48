"""The conditioning of one forward pass: timestep, text, layout and frame positions, embedded."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel

from openlumiere.clock import frame_position
from openlumiere.errors import LumiereError

from .modulation import TemporalConditioning
from .t2i import LAYOUT_DIM, Conditioning, embed, takes_layout


def embed_clip(
    unet: UNet2DConditionModel,
    temporal_conditioning: TemporalConditioning | None,
    sample: torch.Tensor,
    timestep: torch.Tensor | float | int,
    text: torch.Tensor,
    *,
    condition: torch.Tensor | None,
    masks: int,
    class_labels: torch.Tensor | None,
    timestep_cond: torch.Tensor | None,
    text_mask: torch.Tensor | None,
    added: dict[str, torch.Tensor] | None,
    positions: torch.Tensor | None,
    layout: torch.Tensor | None,
) -> Conditioning:
    """Embed all that a clip is denoised with.

    Args:
        sample, timestep, text, class_labels, timestep_cond, text_mask, added, positions, layout: see `STUNet.forward`.
        condition, masks: see `Conditioning`.

    Raises:
        LumiereError: a layout of another shape, or for a T2I that takes none.
    """
    frames = sample.shape[2]
    layout = layout_of_frames(unet, sample, layout, class_labels)

    def embedded(labels: torch.Tensor | None) -> torch.Tensor:
        return embed(unet, sample, timestep, text, labels, timestep_cond, added)

    embedding = embedded(class_labels if layout is None else layout)
    if embedding.ndim == 2:
        embedding = embedding[:, None].expand(-1, frames, -1)
    temporal = None
    if temporal_conditioning is not None:
        without_layout = embedding[:, 0] if layout is None else embedded(torch.zeros_like(layout[:, 0]))
        positions = whole_clip(sample) if positions is None else positions.to(sample.device, torch.float32)
        temporal, steering = temporal_conditioning(text, without_layout, positions, layout)
        embedding = embedding + steering
    return Conditioning(
        embedding=embedding,
        text=unet.process_encoder_hidden_states(text, added or {}),
        text_bias=None if text_mask is None else (1 - text_mask.to(sample.dtype))[:, None] * -10000.0,
        temporal=temporal,
        condition=condition,
        masks=masks,
        frames=frames,
    )


def layout_of_frames(
    unet: UNet2DConditionModel, sample: torch.Tensor, layout: torch.Tensor | None, class_labels: torch.Tensor | None
) -> torch.Tensor | None:
    """Return the layout of each frame, (B, F, 6), zeros where it is not known; None for T2Is that take none."""
    batch, _, frames, *_ = sample.shape
    if not takes_layout(unet):
        if layout is not None:
            raise LumiereError("this network's T2I was not trained to be told a layout; leave it out")
        return None
    if layout is not None and class_labels is not None:
        raise LumiereError("give a layout for each frame, or one as class_labels for all, not both")
    if layout is None:
        layout = sample.new_zeros(batch, LAYOUT_DIM) if class_labels is None else class_labels
        layout = layout[:, None].expand(-1, frames, -1)
    if layout.shape != (batch, frames, LAYOUT_DIM):
        raise LumiereError(f"a layout of shape {tuple(layout.shape)}; this clip needs {(batch, frames, LAYOUT_DIM)}")
    return layout.to(sample)


def whole_clip(sample: torch.Tensor) -> torch.Tensor:
    """Return the positions of the frames of a whole clip, (B, F)."""
    batch, _, frames, *_ = sample.shape
    evenly = frame_position(torch.arange(frames, device=sample.device, dtype=torch.float32), frames)
    return evenly.expand(batch, -1)
