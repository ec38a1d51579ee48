"""LTX-Video: text, a picture; from 0.9.5 on keyframes, and clips that go on.

HaCohen et al., "LTX-Video: Realtime Video Latent Diffusion", 2024, arXiv:2501.00103.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openlumiere.generation.abilities import Abilities

from .base import Loading
from .diffusers_loading import load_whole
from .diffusers_model import DiffusersBackend, given_frames, pictures
from .licences import allows_commercial_use, licence_of
from .source import Source

if TYPE_CHECKING:
    import torch

    from openlumiere.generation.inputs import EditInputs
    from openlumiere.generation.requests import ClipRequest

_HELD = ("inpaint", "outpaint", "cinemagraph")  # what putting back known latents can do; see `holding`
_KEYFRAMES = "LTXConditionPipeline"  # from 0.9.5 on; those before were not trained for it
_DECODING = {"decode_timestep": 0.05, "decode_noise_scale": 0.025}  # as the model cards; the pipelines say 0
_LICENCES = dict.fromkeys(
    ("Lightricks/LTX-Video-0.9.7-dev", "Lightricks/LTX-Video-0.9.7-distilled"), "LTXV Open Weights License"
)


@dataclass(frozen=True)
class LTXBackend(DiffusersBackend):
    """An LTX-Video, with keyframes or without."""

    @property
    def keyframes(self) -> bool:
        """Whether it was trained to be given frames anywhere in a clip."""
        return type(self.pipe).__name__ == _KEYFRAMES

    def pipeline(self, task: str) -> Any:
        """Return the pipeline of keyframes, of a picture, or of text."""
        if self.keyframes:
            return self.pipe
        return self.sibling("LTXImageToVideoPipeline" if task == "animate" else "LTXPipeline")

    def arguments(self, request: ClipRequest, inputs: EditInputs | None) -> dict[str, Any]:
        """Return the arguments of that pipeline."""
        own = super().arguments(request, inputs)
        fps = getattr(request, "fps", None) or self.abilities.fps
        own["frame_rate"] = fps if inputs is None else inputs.fps
        if self.pipe.vae.config.timestep_conditioning:
            own |= _DECODING
        if inputs is None or request.task in self.abilities.emulated:
            return own
        if inputs.task.mask is None:
            import torch

            from openlumiere.pipelines.inputs import as_clips

            with torch.no_grad():
                latents = self.encode(as_clips(inputs.task.video))
            return own | {"latents": latents, "denoise_strength": inputs.call["strength"]}
        if not self.keyframes:
            return own | {"image": pictures(inputs.task.video[:1])[0]}
        return own | {"conditions": _conditions(inputs)}

    @property
    def frames_per_latent(self) -> int:
        """Frames that each latent after the first holds."""
        frames: int = self.pipe.vae_temporal_compression_ratio
        return frames

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode a clip as its standardised latents."""
        vae = self.pipe.vae
        latents = vae.encode(pixels.to(self.device, vae.dtype)).latent_dist.mode()
        mean, std = (each.view(1, -1, 1, 1, 1).to(latents) for each in (vae.latents_mean, vae.latents_std))
        standardised: torch.Tensor = (latents - mean) * vae.config.scaling_factor / std
        return standardised

    def as_sample(self, latents: torch.Tensor) -> torch.Tensor:
        """Arrange latents as a sequence of tokens."""
        patch, patch_t = self.pipe.transformer_spatial_patch_size, self.pipe.transformer_temporal_patch_size
        tokens: torch.Tensor = self.pipe._pack_latents(latents, patch, patch_t)
        return tokens


def _conditions(inputs: EditInputs) -> list[Any]:
    """The frames that are given: those at the start as a clip, whose latents they are, all others one by one."""
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

    given = given_frames(inputs)
    start = next((n for n, index in enumerate(given) if n != index), len(given))
    frames = pictures(inputs.task.video)
    conditions = [LTXVideoCondition(video=frames[:start], frame_index=0)] if start else []
    return conditions + [LTXVideoCondition(image=frames[index], frame_index=index) for index in given[start:]]


def read_abilities(source: Source) -> Abilities:
    """Read what an LTX can do from its JSON files, see `find.read_abilities`."""
    part = source.main
    vae, net = part.json("vae/config.json"), part.json("transformer/config.json")
    keyframes = part.class_name == _KEYFRAMES
    tasks = ("generate", "animate", *_HELD, "restyle", "extend", *(("interpolate",) if keyframes else ()))
    licence = licence_of(source, _LICENCES)
    pixels = vae["patch_size"] * 2 ** sum(vae["spatio_temporal_scaling"])
    frames = vae["patch_size_t"] * 2 ** sum(vae["spatio_temporal_scaling"])
    distilled = "distilled" in source.name.lower()
    return Abilities(
        model=source.name, family="ltx", tasks=tasks, emulated=_HELD if keyframes else (*_HELD, "restyle", "extend"),
        last_frame=keyframes, width=704, height=512, resizable=True,
        size_multiple=(vae.get("spatial_compression_ratio") or pixels) * net["patch_size"],
        num_frames=121, max_frames=257, fps=25.0,
        frame_multiple=vae.get("temporal_compression_ratio") or frames, frame_offset=1,
        num_inference_steps=8 if distilled else 50, guidance_scale=1.0 if distilled else 3.0,
        licence=licence, commercial=allows_commercial_use(licence),
    )  # fmt: skip


def load(source: Source, loading: Loading) -> DiffusersBackend:
    """Load an LTX-Video, see `find.load_backend`."""
    return load_whole(LTXBackend, source, loading, abilities=read_abilities(source))
