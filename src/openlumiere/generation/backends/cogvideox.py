"""CogVideoX 1.0 and 1.5: text, a picture, a clip.

Yang et al., "CogVideoX: Text-to-Video Diffusion Models with An Expert Transformer", 2024, arXiv:2408.06072.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openlumiere.errors import LumiereError
from openlumiere.generation.abilities import Abilities

from .base import Loading
from .diffusers_loading import load_whole
from .diffusers_model import DiffusersBackend, pictures
from .licences import allows_commercial_use, licence_of
from .source import Source

if TYPE_CHECKING:
    import torch

    from openlumiere.generation.inputs import EditInputs
    from openlumiere.generation.requests import ClipRequest

_EVERY: tuple[str, ...] = ("generate", "animate", "inpaint", "outpaint", "cinemagraph", "restyle", "extend")
_OF_PICTURES: tuple[str, ...] = ("animate", "cinemagraph", "extend")
_LICENCES = {
    f"{owner}/{name}": licence
    for owner in ("THUDM", "zai-org")
    for name, licence in (
        ("CogVideoX-2b", "apache-2.0"),
        ("CogVideoX-5b", "CogVideoX LICENSE"), ("CogVideoX-5b-I2V", "CogVideoX LICENSE"),
        ("CogVideoX1.5-5B", "CogVideoX LICENSE"), ("CogVideoX1.5-5B-I2V", "CogVideoX LICENSE"),
    )
}  # fmt: skip


@dataclass(frozen=True)
class CogVideoXBackend(DiffusersBackend):
    """A CogVideoX of text, or of pictures."""

    @property
    def images(self) -> bool:
        """Whether its network sees a picture, in further channels."""
        net = self.pipe.transformer.config
        return bool(net.in_channels > net.out_channels)

    def pipeline(self, task: str) -> Any:
        """Return the pipeline of a picture, of a clip, or of text."""
        if self.images:
            return self.sibling("CogVideoXImageToVideoPipeline")
        of_clips = task == "restyle" and task not in self.abilities.emulated
        return self.sibling("CogVideoXVideoToVideoPipeline" if of_clips else "CogVideoXPipeline")

    def arguments(self, request: ClipRequest, inputs: EditInputs | None) -> dict[str, Any]:
        """Return the arguments of that pipeline."""
        own = super().arguments(request, inputs)
        width, height = self.abilities.width or 0, self.abilities.height or 0  # of 1.5 the places end there
        if self.pipe.transformer.config.patch_size_t and (own["width"] > width or own["height"] > height):
            raise LumiereError(
                f"size: {self.name} makes no clip larger than {width}x{height}, and this one would be "
                f"{own['width']}x{own['height']}; choose a smaller size"
            )
        if inputs is None:
            return own
        video = pictures(inputs.task.video)
        if self.images:
            return own | {"image": video[0]}
        if request.task in self.abilities.emulated:
            return own
        kept = {name: value for name, value in own.items() if name != "num_frames"}
        return kept | {"video": video, "strength": inputs.call["strength"]}

    @property
    def frames_per_latent(self) -> int:
        """Frames that each latent after the first holds."""
        frames: int = self.pipe.vae_scale_factor_temporal
        return frames

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode a clip as its scaled latents."""
        vae = self.pipe.vae
        latents: torch.Tensor = vae.encode(pixels.to(self.device, vae.dtype)).latent_dist.mode()
        return latents * vae.config.scaling_factor

    def as_sample(self, latents: torch.Tensor) -> torch.Tensor:
        """Arrange latents with frames before channels; where patches of 1.5 hold two, the first stands there twice."""
        import torch

        missing = -latents.shape[2] % (self.pipe.transformer.config.patch_size_t or 1)
        return torch.cat([latents[:, :, :1]] * missing + [latents], dim=2).transpose(1, 2)


def read_abilities(source: Source) -> Abilities:
    """Read what a CogVideoX can do from its JSON files, see `find.read_abilities`."""
    part = source.main
    vae, net = part.json("vae/config.json"), part.json("transformer/config.json")
    images = net["in_channels"] > net["out_channels"]
    newer = net.get("patch_size_t") is not None  # 1.5
    pixels = 2 ** (len(vae["block_out_channels"]) - 1)
    licence = licence_of(source, _LICENCES)
    if images:
        tasks, native = _OF_PICTURES, {"animate"}
    else:  # of 1.5, the pipeline of clips has no way to fill up their patches
        tasks, native = _EVERY, {"generate"} if newer else {"generate", "restyle"}
    return Abilities(
        model=source.name, family="cogvideox",
        tasks=tasks, emulated=tuple(task for task in tasks if task not in native), last_frame=False,
        width=net["sample_width"] * pixels, height=net["sample_height"] * pixels,
        resizable=not net.get("use_learned_positional_embeddings"), size_multiple=pixels * net["patch_size"],
        num_frames=net["sample_frames"], max_frames=net["sample_frames"] * 2 - 1 if newer else net["sample_frames"],
        fps=16.0 if newer else 8.0, frame_multiple=16 if newer else 8, frame_offset=1,
        num_inference_steps=50, guidance_scale=6.0, licence=licence, commercial=allows_commercial_use(licence),
    )  # fmt: skip


def load(source: Source, loading: Loading) -> DiffusersBackend:
    """Load a CogVideoX, see `find.load_backend`."""
    return load_whole(CogVideoXBackend, source, loading, abilities=read_abilities(source))
