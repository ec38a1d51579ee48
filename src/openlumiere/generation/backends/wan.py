"""Wan 2.1 and 2.2: text, a picture, a clip; VACE for all that is said as a video and a mask.

Wan Team, "Wan: Open and Advanced Large-Scale Video Generative Models", 2025, arXiv:2503.20314; Jiang et al., "VACE:
All-in-One Video Creation and Editing", 2025, arXiv:2503.07598.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from openlumiere.generation.abilities import Abilities, Fitted
from openlumiere.generation.requests import AnimateRequest, Request

from .base import Loading
from .diffusers_loading import choose_device, pretrained, ready
from .diffusers_model import DiffusersBackend, pictures
from .licences import allows_commercial_use, licence_of
from .source import INDEX, Source

if TYPE_CHECKING:
    import numpy as np
    import torch

    from openlumiere.generation.inputs import EditInputs
    from openlumiere.generation.requests import ClipRequest

_EVERY = ("generate", "animate", "inpaint", "outpaint", "cinemagraph", "restyle", "extend", "interpolate")
_HELD = {"inpaint", "outpaint", "cinemagraph", "extend"}  # done by holding what is given, see `holding`
_MAX_WORDS = 512  # tokens of a prompt
_MOST_REFERENCES = 4  # ours: each takes as much as four frames
_LICENCES = dict.fromkeys(
    (
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "Wan-AI/Wan2.1-T2V-14B-Diffusers", "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
        "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers", "Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers",
        "Wan-AI/Wan2.1-VACE-1.3B-diffusers", "Wan-AI/Wan2.1-VACE-14B-diffusers", "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
        "Wan-AI/Wan2.2-I2V-A14B-Diffusers", "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    ),
    "apache-2.0",
)  # fmt: skip


@dataclass(frozen=True)
class _Kind:
    """What a Wan was trained for, as its configurations tell.

    Attributes:
        vace: it takes a video and a mask.
        images: its network sees a picture, in further channels.
        token_times: it is told a time for each token, so that given frames can be told as clean (2.2-5B).
        networks: 2 where one denoises the first steps, and another the last.
        pairs: it sees two pictures, always: that a clip starts with, and that it ends with.
        last_frame: it was trained to be told how a clip ends.
    """

    vace: bool
    images: bool
    token_times: bool
    networks: int
    pairs: bool
    last_frame: bool

    @classmethod
    def of(cls, index: dict[str, Any], net: dict[str, Any]) -> _Kind:
        vace = "vace_layers" in net
        images = net["in_channels"] > net["out_channels"]
        pairs = images and net.get("pos_embed_seq_len") is not None  # places for two pictures' features of CLIP
        last_frame = vace or pairs or (images and net.get("image_dim") is None)  # or none: latents tell all
        networks = sum(bool((index.get(name) or [None, None])[1]) for name in ("transformer", "transformer_2"))
        return cls(vace, images, bool(index.get("expand_timesteps")), networks, pairs, last_frame)

    @property
    def tasks(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Those that it can do, and those of them that it was not made for."""
        if self.vace:
            return _EVERY, ("restyle",)
        if self.images:
            emulated_of_images = ("cinemagraph",) if self.pairs else ("cinemagraph", "extend")
            return ("animate", *emulated_of_images), emulated_of_images
        every = tuple(task for task in _EVERY if task != "interpolate")  # a latent holds four frames: all, or none
        emulated = {*_HELD, *(() if self.token_times else ("animate",))}
        if self.token_times or self.networks == 2:  # the pipeline of video to video knows neither
            emulated |= {"restyle"}
        return every, tuple(task for task in every if task in emulated)


@dataclass(frozen=True)
class WanBackend(DiffusersBackend):
    """A Wan of any kind."""

    @property
    def kind(self) -> _Kind:
        """What it was trained for."""
        net = self.pipe.transformer if self.pipe.transformer is not None else self.pipe.transformer_2
        return _Kind.of(self.pipe.config, net.config)

    def fit(self, request: Request) -> Fitted:
        """Make every choice that a request leaves to the model; a last picture stands where its clips end."""
        fitted = super().fit(request)
        asked = fitted.request
        if self.kind.vace or not isinstance(asked, AnimateRequest) or asked.last is None:
            return fitted
        assert asked.num_frames is not None  # as the abilities have set it
        allowed = self.abilities.nearest_length(asked.num_frames)
        if allowed == asked.num_frames:
            return fitted
        line = f"num_frames: {allowed} instead of {asked.num_frames}, since {self.name} ends with a last picture there"
        return Fitted(replace(asked, num_frames=allowed), (*fitted.changes, line))

    def pipeline(self, task: str) -> Any:
        """Return the pipeline of VACE, of pictures, of a clip, or of text, with all networks that it can have."""
        if self.kind.vace:
            return self.pipe
        if task == "restyle" and task not in self.abilities.emulated:
            return self.sibling("WanVideoToVideoPipeline")
        sees = self.kind.images or (task == "animate" and task not in self.abilities.emulated)
        return self.sibling("WanImageToVideoPipeline" if sees else "WanPipeline", **self._options)

    @property
    def _options(self) -> dict[str, Any]:
        return {"boundary_ratio": self.pipe.config.get("boundary_ratio"), "expand_timesteps": self.kind.token_times}

    def arguments(self, request: ClipRequest, inputs: EditInputs | None) -> dict[str, Any]:
        """Return the arguments of that pipeline."""
        own = super().arguments(request, inputs) | self._text(request)
        if request.references:  # of VACE alone, as the abilities say
            from openlumiere.video import read_picture

            own["reference_images"] = [
                read_picture(path, background=request.background).convert("RGB") for path in request.references
            ]
        if inputs is None:
            return own
        video, mask = inputs.task.video, inputs.task.mask
        if self.kind.vace:
            return own if mask is None else own | _video_and_mask(video, mask)
        if request.task in self.abilities.emulated and not self.kind.images:
            return own
        if mask is None:
            return {name: value for name, value in own.items() if name != "num_frames"} | {
                "video": pictures(video), "strength": inputs.call["strength"]
            }  # fmt: skip
        first, last = pictures(video[[0, -1]])
        if request.task == "animate" and len(mask) > 1 and not mask[-1].any():
            return own | {"image": first, "last_image": last}
        # Where nothing moves but a region, a clip may well end as it starts.
        return own | ({"image": first, "last_image": first} if self.kind.pairs else {"image": first})

    def _text(self, request: ClipRequest) -> dict[str, Any]:
        """The prompts as the network sees them: of these pipelines only that of text does without the package ftfy."""
        import torch

        text = self.sibling("WanPipeline", **self._options)
        guided = request.guidance_scale is not None and request.guidance_scale > 1
        with torch.no_grad():
            prompt, negative = text.encode_prompt(
                request.prompt, request.negative_prompt, do_classifier_free_guidance=guided,
                max_sequence_length=_MAX_WORDS,
            )  # fmt: skip
        return {"prompt": None, "negative_prompt": None, "prompt_embeds": prompt, "negative_prompt_embeds": negative}

    @property
    def frames_per_latent(self) -> int:
        """Frames that each latent after the first holds."""
        frames: int = self.pipe.vae.config.get("scale_factor_temporal", 4)
        return frames

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode a clip as its standardised latents."""
        import torch

        vae = self.pipe.vae
        latents = vae.encode(pixels.to(self.device, vae.dtype)).latent_dist.mode()
        mean, std = (torch.tensor(vae.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
        standardised: torch.Tensor = (latents - mean.to(latents)) / std.to(latents)
        return standardised


def _video_and_mask(video: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """Arguments of VACE: what is to be made is gray in the video, as in its training, and white in the mask."""
    gray = 128 if video.dtype.kind == "u" else 0.5
    blank = video * ~mask[..., None] + (mask[..., None] * gray).astype(video.dtype)
    return {"video": pictures(blank), "mask": pictures(mask[..., None].repeat(3, -1).astype("uint8") * 255)}


def read_abilities(source: Source) -> Abilities:
    """Read what a Wan can do from its JSON files, see `find.read_abilities`."""
    part = source.main
    index, vae = part.json(INDEX), part.json("vae/config.json")
    net = part.json("transformer/config.json") or part.json("transformer_2/config.json")
    kind = _Kind.of(index, net)
    tasks, emulated = kind.tasks
    licence = licence_of(source, _LICENCES)
    width, height = 832, 480
    if kind.token_times:
        width, height = 1280, 704
    elif "720P" in source.name:
        width, height = 1280, 720
    two = 3.5 if kind.images else 4.0
    return Abilities(
        model=source.name, family="wan", tasks=tasks, emulated=emulated, last_frame=kind.last_frame,
        last_frame_needed=kind.pairs, references=_MOST_REFERENCES if kind.vace else 0,
        width=width, height=height, resizable=True,
        size_multiple=vae.get("scale_factor_spatial", 8) * net["patch_size"][1],
        num_frames=121 if kind.token_times else 81, max_frames=121 if kind.token_times else 81,
        fps=24.0 if kind.token_times else 16.0, frame_multiple=vae.get("scale_factor_temporal", 4), frame_offset=1,
        num_inference_steps=40 if kind.networks == 2 else 50, guidance_scale=two if kind.networks == 2 else 5.0,
        licence=licence, commercial=allows_commercial_use(licence),
    )  # fmt: skip


def load(source: Source, loading: Loading) -> DiffusersBackend:
    """Load a Wan, see `find.load_backend`; its autoencoder and what sees pictures in float32, which they need."""
    import torch
    from diffusers import DiffusionPipeline

    abilities = read_abilities(source)
    _, dtype = choose_device(loading)
    precise = {name: torch.float32 for name in ("vae", "image_encoder") if source.main.component(name)}
    pipe = pretrained(DiffusionPipeline, source.main, loading=loading, torch_dtype={"default": dtype, **precise})
    return ready(WanBackend, pipe, source=source, abilities=abilities, loading=loading)
