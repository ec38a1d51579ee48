"""Stable Video Diffusion: a picture to a clip, without a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openlumiere.generation.abilities import Abilities

from .base import Loading
from .diffusers_loading import load_whole
from .diffusers_model import SIZE_MULTIPLE, DiffusersBackend, pictures
from .licences import allows_commercial_use, licence_of
from .source import Source

if TYPE_CHECKING:
    import torch

    from openlumiere.generation.inputs import EditInputs
    from openlumiere.generation.requests import ClipRequest

_FPS = 7.0  # the rate that the network is told by default; it was trained at rates from 3 to 30 (Blattmann et al. 2023)
_TRAINED_AT = {96: (1024, 576)}  # width and height of the published models, whose configs name a side of 96 latents
_HELD = ("cinemagraph", "extend")  # what starts with a whole frame, as the network does


@dataclass(frozen=True)
class SVDBackend(DiffusersBackend):
    """Stable Video Diffusion; it is told a frame rate, and how much should move: its own default of the latter."""

    def arguments(self, request: ClipRequest, inputs: EditInputs | None) -> dict[str, Any]:
        """Return the pipeline's arguments."""
        assert inputs is not None  # as the abilities say
        width, height, num_frames = self.shape(request, inputs)
        return {
            "image": pictures(inputs.task.video[:1])[0],
            "height": height,
            "width": width,
            "num_frames": num_frames,
            "fps": max(round(inputs.fps), 1),
            "decode_chunk_size": 8,
            "num_inference_steps": request.num_inference_steps,
            # It grows from frame to frame; of a single frame the pipeline would take the smaller.
            "min_guidance_scale": 1.0 if num_frames > 1 else request.guidance_scale,
            "max_guidance_scale": request.guidance_scale,
            "generator": self.generator(request),
        }

    def as_sample(self, latents: torch.Tensor) -> torch.Tensor:
        """Arrange latents with frames before channels, as this pipeline steps."""
        return latents.transpose(1, 2)


def read_abilities(source: Source) -> Abilities:
    """Read what a model can do from its JSON files, see `find.read_abilities`."""
    network = source.main.json("unet/config.json")
    levels = len(network["block_out_channels"]) - 1
    factor = 2 ** (len(source.main.json("vae/config.json")["block_out_channels"]) - 1)
    side = network["sample_size"]
    width, height = _TRAINED_AT.get(side, (side * factor, side * factor))
    licence = licence_of(source)
    return Abilities(
        model=source.name,
        family="svd",
        tasks=("animate", *_HELD),
        emulated=_HELD,
        prompt=False,
        negative_prompt=False,
        last_frame=False,
        width=width,
        height=height,
        resizable=True,
        size_multiple=max(factor * 2**levels, SIZE_MULTIPLE),
        num_frames=network["num_frames"],
        fps=_FPS,
        max_frames=network["num_frames"],
        num_inference_steps=25,
        guidance_scale=3.0,
        licence=licence,
        commercial=allows_commercial_use(licence),
    )


def load(source: Source, loading: Loading) -> DiffusersBackend:
    """Load a Stable Video Diffusion, see `find.load_backend`."""
    return load_whole(SVDBackend, source, loading, abilities=read_abilities(source))
