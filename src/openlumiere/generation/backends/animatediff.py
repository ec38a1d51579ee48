"""AnimateDiff: a motion adapter on a base of Stable Diffusion's, for text, clips, and frames by SparseCtrl."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openlumiere.errors import LumiereError
from openlumiere.generation.abilities import Abilities

from .base import Loading
from .diffusers_loading import choose_device, pretrained, ready
from .diffusers_model import SIZE_MULTIPLE, DiffusersBackend, given_frames, on_components_of, pictures
from .licences import allows_commercial_use, licence_of
from .source import Part, Source

if TYPE_CHECKING:
    from openlumiere.generation.inputs import EditInputs
    from openlumiere.generation.requests import ClipRequest

_BASE = "stable-diffusion-v1-5/stable-diffusion-v1-5"  # of an adapter that is named alone
_LICENCES = {_BASE: "creativeml-openrail-m"}
_BASE_CLASS, _CONTROLNET = "StableDiffusionPipeline", "SparseControlNetModel"
_NUM_FRAMES, _FPS = 16, 8.0  # that adapters were trained at
_BY_FRAMES = ("animate", "interpolate")  # what SparseCtrl does
_HELD = ("animate", "inpaint", "outpaint", "cinemagraph", "extend", "interpolate")
# Adapters were trained on linear betas, not on the base's (Guo et al. 2024; their configuration files).
_SCHEDULER = {
    "beta_schedule": "linear", "clip_sample": False, "timestep_spacing": "linspace", "steps_offset": 1,
}  # fmt: skip


@dataclass(frozen=True)
class AnimateDiffBackend(DiffusersBackend):
    """AnimateDiff; clips are completed by holding what is given, or by SparseCtrl where whole frames are."""

    def pipeline(self, task: str) -> Any:
        """Return the pipeline of text, of video to video, or of sparse frames."""
        if task == "restyle":
            return self.sibling("AnimateDiffVideoToVideoPipeline")
        return self.sibling("AnimateDiffSparseControlNetPipeline" if self._by_frames(task) else "AnimateDiffPipeline")

    def arguments(self, request: ClipRequest, inputs: EditInputs | None) -> dict[str, Any]:
        """Return that pipeline's arguments."""
        own = super().arguments(request, inputs)
        if request.task == "restyle":
            assert inputs is not None
            del own["num_frames"]
            return own | {"video": pictures(inputs.task.video), "strength": inputs.call["strength"]}
        if self._by_frames(request.task):
            assert inputs is not None
            indices = given_frames(inputs)
            frames = pictures(inputs.task.video[indices])
            return own | {"conditioning_frames": frames, "controlnet_frame_indices": indices}
        return own

    def _by_frames(self, task: str) -> bool:
        return task in _BY_FRAMES and task not in self.abilities.emulated


@dataclass(frozen=True)
class _Parts:
    """What an AnimateDiff is put together of; `whole` is a pipeline that was saved with all of it."""

    whole: Part | None
    adapter: Part | None
    base: Part
    controlnet: Part | None

    @classmethod
    def of(cls, source: Source) -> _Parts:
        main, *others = source.parts
        if main.class_name != "MotionAdapter":
            return cls(main, None, main, next((part for part in others if part.class_name == _CONTROLNET), None))
        controlnet = next((part for part in others if part.class_name == _CONTROLNET), None)
        bases = [part for part in others if part is not controlnet] or [Part(_BASE, source.may_download)]
        found = bases[0].class_name
        if len(bases) > 1 or found != _BASE_CLASS:
            raise LumiereError(
                f"{source.name}: {bases[-1].name} holds a {bases[-1].class_name or 'nothing known'}; put an adapter on "
                f"a {_BASE_CLASS}, and at most one {_CONTROLNET}: ADAPTER+BASE[+CONTROLNET]"
            )
        return cls(None, main, bases[0], controlnet)

    @property
    def named(self) -> str:
        """All of it, with the base that was not said."""
        parts = (self.whole or self.adapter, None if self.whole else self.base, self.controlnet)
        return "+".join(part.name for part in parts if part is not None)

    @property
    def network(self) -> dict[str, Any]:
        """The configuration of what moves: the adapter's, or the whole network's."""
        return self.adapter.json("config.json") if self.adapter is not None else self.base.json("unet/config.json")

    @property
    def control(self) -> dict[str, Any] | None:
        """The configuration of what is told frames."""
        if self.controlnet is not None:
            return self.controlnet.json("config.json")
        return self.base.json("controlnet/config.json") if self.base.component("controlnet") else None


def read_abilities(source: Source) -> Abilities:
    """Read what a model can do from its JSON files, see `find.read_abilities`."""
    parts = _Parts.of(source)
    network, control = parts.network, parts.control
    if network.get("conv_in_channels") not in (None, 4):
        raise LumiereError(f"{source.name} is an adapter of PIA, which makes no clips here; choose another")
    if control is not None and not control["use_simplified_condition_embedding"]:
        raise LumiereError(f"{source.name} takes sketches; choose a SparseCtrl of pictures (RGB)")
    factor = 2 ** (len(parts.base.json("vae/config.json")["block_out_channels"]) - 1)
    side = parts.base.json("unet/config.json")["sample_size"] * factor
    held = tuple(task for task in _HELD if control is None or task not in _BY_FRAMES)
    longest = min(each["motion_max_seq_length"] for each in (network, control) if each is not None)
    licence = licence_of(Source(parts.named, source.may_download), _LICENCES)
    return Abilities(
        model=source.name,
        family="animatediff",
        tasks=("generate", "restyle", *_HELD),
        emulated=held,
        width=side,
        height=side,
        resizable=True,
        size_multiple=SIZE_MULTIPLE,
        num_frames=min(_NUM_FRAMES, longest),
        fps=_FPS,
        max_frames=longest,
        num_inference_steps=25,
        guidance_scale=7.5,
        licence=licence,
        commercial=allows_commercial_use(licence),
    )


def load(source: Source, loading: Loading) -> DiffusersBackend:
    """Load an AnimateDiff, or put it together, see `find.load_backend`."""
    from diffusers import AnimateDiffPipeline, DDIMScheduler, DiffusionPipeline, MotionAdapter, SparseControlNetModel

    abilities, parts = read_abilities(source), _Parts.of(source)
    _, dtype = choose_device(loading)
    if parts.adapter is None:
        pipe = pretrained(DiffusionPipeline, parts.base, loading=loading, torch_dtype=dtype)
    else:
        if loading.quantize:
            raise LumiereError(
                f"--quantize {loading.quantize}: {source.name} is put together after loading, of weights that must be "
                "whole; leave it out"
            )
        adapter = pretrained(MotionAdapter, parts.adapter, torch_dtype=dtype)
        pipe = pretrained(AnimateDiffPipeline, parts.base, motion_adapter=adapter, torch_dtype=dtype)
        pipe.register_modules(scheduler=DDIMScheduler.from_config(pipe.scheduler.config, **_SCHEDULER))
    pipe.register_modules(motion_adapter=None)  # the network has a copy of its weights
    if parts.controlnet is not None:
        controlnet = pretrained(SparseControlNetModel, parts.controlnet, torch_dtype=dtype)
        pipe = on_components_of(pipe, "AnimateDiffSparseControlNetPipeline", controlnet=controlnet)
    whole = Source(parts.named, source.may_download)
    return ready(AnimateDiffBackend, pipe, source=whole, abilities=abilities, loading=loading)
