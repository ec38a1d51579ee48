"""ZeroScope and what else has ModelScope's structure: text to a clip, and video to video."""

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

_HELD = ("animate", "inpaint", "outpaint", "cinemagraph", "extend", "interpolate")
_FPS = 8.0  # of ModelScope's clips, which it was tuned from; ZeroScope's card names none
# As the model cards say. In the configs of all stands ModelScope's 256 x 256.
_LICENCES = dict.fromkeys(
    (
        "cerspense/zeroscope_v2_576w", "cerspense/zeroscope_v2_XL", "cerspense/zeroscope_v2_30x448x256",
        "damo-vilab/text-to-video-ms-1.7b", "ali-vilab/text-to-video-ms-1.7b",
    ),
    "cc-by-nc-4.0",
)  # fmt: skip
_TRAINED_AT = {  # width, height, frames
    "cerspense/zeroscope_v2_576w": (576, 320, 24),
    "cerspense/zeroscope_v2_XL": (1024, 576, 24),
    "cerspense/zeroscope_v2_30x448x256": (448, 256, 30),
}
_LONGEST = 4  # times the trained length: the network has no positions and so no end, but clips fall apart


@dataclass(frozen=True)
class ZeroScopeBackend(DiffusersBackend):
    """ZeroScope; clips are completed by holding what is given."""

    def pipeline(self, task: str) -> Any:
        """Return the pipeline of text, or of video to video; their classes share all components."""
        return self.sibling("VideoToVideoSDPipeline" if task == "restyle" else "TextToVideoSDPipeline")

    def arguments(self, request: ClipRequest, inputs: EditInputs | None) -> dict[str, Any]:
        """Return that pipeline's arguments."""
        own = super().arguments(request, inputs)
        if request.task != "restyle":
            return own
        assert inputs is not None
        kept = {name: value for name, value in own.items() if name not in ("height", "width", "num_frames")}
        return kept | {"video": pictures(inputs.task.video), "strength": inputs.call["strength"]}

    def as_sample(self, latents: torch.Tensor) -> torch.Tensor:
        """Arrange latents with frames in the batch, as these pipelines step."""
        return latents[0].transpose(0, 1)


def read_abilities(source: Source) -> Abilities:
    """Read what a model can do from its JSON files, see `find.read_abilities`."""
    sample = source.main.json("unet/config.json")["sample_size"]
    factor = 2 ** (len(source.main.json("vae/config.json")["block_out_channels"]) - 1)
    width, height, num_frames = _TRAINED_AT.get(source.main.repository, (sample * factor, sample * factor, 16))
    licence = licence_of(source, _LICENCES)
    return Abilities(
        model=source.name,
        family="zeroscope",
        tasks=("generate", "restyle", *_HELD),
        emulated=_HELD,
        width=width,
        height=height,
        resizable=True,
        size_multiple=SIZE_MULTIPLE,
        num_frames=num_frames,
        fps=_FPS,
        max_frames=_LONGEST * num_frames,
        num_inference_steps=40,
        guidance_scale=9.0,
        licence=licence,
        commercial=allows_commercial_use(licence),
    )


def load(source: Source, loading: Loading) -> DiffusersBackend:
    """Load ZeroScope, see `find.load_backend`."""
    return load_whole(ZeroScopeBackend, source, loading, abilities=read_abilities(source))
