"""Text to clip with the base model: one STUNet, one pass over all frames."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

from openlumiere.diffusion.guidance import guide
from openlumiere.diffusion.pixels import fold, unfold
from openlumiere.diffusion.timesteps import sampling_timesteps
from openlumiere.errors import LumiereError
from openlumiere.stunet import STUNet

from .text import TextConditions, encode, load_text_encoder

_DECODED_AT_ONCE = 8  # frames; decoding all 80 with a VAE would take more memory than denoising them


@dataclass
class LumierePipelineOutput(BaseOutput):
    """`frames`: (B, F, H, W, 3) float32 in [0, 1] for "np", (B, F, 3, H, W) for "pt", or lists of PIL images."""

    frames: Any


class LumierePipeline(DiffusionPipeline):
    """Text to a clip by a space-time U-Net.

    Args:
        unet: the network.
        scheduler: any of diffusers' that steps on ``(prediction, timestep, sample)``.
        text_encoder, tokenizer: the T2I's own; None = loaded from `text_encoder_id`.
        text_encoder_2, tokenizer_2: Stable Diffusion XL's second ones.
        vae: of latent T2Is; None = the network works on pixels.
        pixel_unshuffle: side of the blocks of pixels folded into channels, for networks on pixels.
        text_encoder_id: hub id or folder of the encoder, where the pipeline's folder does not carry it.
        max_text_length: tokens that the bundled models read.
        num_inference_steps, guidance_scale, guidance_rescale: the model's own defaults.
        timestep_shift: above 1 samples more at high noise, see `diffusion.timesteps`.
        subjects: what a model of a small vocabulary was trained to show; None = not told.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->vae"
    _optional_components: ClassVar = ["text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "vae"]
    _callback_tensor_inputs: ClassVar = ["latents"]

    def __init__(
        self,
        unet: STUNet,
        scheduler: Any,
        text_encoder: Any = None,
        tokenizer: Any = None,
        text_encoder_2: Any = None,
        tokenizer_2: Any = None,
        vae: Any = None,
        pixel_unshuffle: int = 1,
        text_encoder_id: str | None = None,
        max_text_length: int = 24,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        guidance_rescale: float = 0.0,
        timestep_shift: float = 1.0,
        subjects: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            unet=unet,
            scheduler=scheduler,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            vae=vae,
        )
        self.register_to_config(
            pixel_unshuffle=pixel_unshuffle,
            text_encoder_id=text_encoder_id,
            max_text_length=max_text_length,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_rescale=guidance_rescale,
            timestep_shift=timestep_shift,
            subjects=subjects,
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> LumierePipeline:
        """As diffusers'; also loads the text encoder that the folder names but does not carry."""
        pipe = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        if pipe.text_encoder is None and pipe.config.text_encoder_id:
            tokenizer, encoder = load_text_encoder(pipe.config.text_encoder_id)
            pipe.register_modules(tokenizer=tokenizer, text_encoder=encoder.to(pipe.unet.dtype))
        return pipe

    @classmethod
    def from_t2i(cls, t2i: DiffusionPipeline, **options: Any) -> LumierePipeline:
        """Inflate a text-to-image pipeline: Stable Diffusion 1, 2 or XL, DeepFloyd IF, or one shaped like them.

        Args:
            options: of `STUNet.from_unet`.

        Raises:
            LumiereError: if its U-Net cannot be inflated.
        """
        parts = t2i.components
        if parts.get("unet") is None:
            raise LumiereError(f"{type(t2i).__name__} has no U-Net to inflate; choose a U-Net text-to-image model")
        known = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "vae", "scheduler")
        return cls(
            unet=STUNet.from_unet(parts["unet"], **options), **{name: parts[name] for name in known if name in parts}
        )

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """As diffusers'; an encoder that `text_encoder_id` names is not written."""
        carried = {"text_encoder": self.text_encoder, "tokenizer": self.tokenizer}
        if self.config.text_encoder_id:
            self.register_modules(text_encoder=None, tokenizer=None)
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self.register_modules(**carried)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        *,
        negative_prompt: str | list[str] | None = None,
        num_frames: int = 80,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_rescale: float | None = None,
        num_videos_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: Literal["np", "pt", "pil"] = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: tuple[str, ...] = ("latents",),
    ) -> LumierePipelineOutput | tuple[Any]:
        """Make clips.

        Args:
            prompt: one, or a list: a clip for each.
            negative_prompt: what to keep away from; the empty prompt when None.
            num_frames: a multiple of ``unet.frame_multiple``.
            height, width: in pixels; the size that the network was trained at when None.
            num_inference_steps, guidance_scale, guidance_rescale: the model's own when None; guidance 1 = none.
            generator: one, or a list with one for each clip; a clip then does not depend on its batch.
            latents: the noise to start from, of unit variance, (B, C, F, h, w) as the network sees it.
            output_type: see `LumierePipelineOutput`.
            callback_on_step_end: called as diffusers' pipelines do, ``(pipe, step, timestep, {"latents": ...})``.

        Raises:
            LumiereError: an empty prompt, a number of frames or a size that the network does not divide, an unknown
                `output_type`, another number of generators, negative prompts or latents than of clips.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        rescale = self.config.guidance_rescale if guidance_rescale is None else guidance_rescale
        self._check(prompts, num_frames, steps, num_videos_per_prompt, output_type)
        shape = (len(prompts) * num_videos_per_prompt, *self._sample_shape(num_frames, height, width))
        if isinstance(generator, list) and len(generator) != shape[0]:
            raise LumiereError(f"{len(generator)} generators for {shape[0]} clips: give one, or one each")
        device = self._execution_device

        text = self._encode(prompts, negative_prompt, guided=scale > 1.0).repeat(num_videos_per_prompt)
        self._set_timesteps(steps, device)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=self.unet.dtype)
        elif latents.shape != shape:
            raise LumiereError(f"latents have the shape {tuple(latents.shape)}; this call needs {shape}")
        latents = latents.to(device, self.unet.dtype) * self.scheduler.init_noise_sigma
        wanted = inspect.signature(self.scheduler.step).parameters
        extra = {"generator": generator} if "generator" in wanted else {}

        with self.progress_bar(total=len(self.scheduler.timesteps)) as bar:
            for i, t in enumerate(self.scheduler.timesteps):
                prediction = self._predict(latents, t, text, scale, rescale)
                latents = self.scheduler.step(prediction, t, latents, **extra, return_dict=False)[0]
                if callback_on_step_end is not None:
                    tensors = dict.fromkeys(callback_on_step_end_tensor_inputs, latents)
                    latents = (callback_on_step_end(self, i, t, tensors) or {}).get("latents", latents)
                bar.update()

        frames = self._to_user(self._decode(latents), output_type)
        self.maybe_free_model_hooks()
        return LumierePipelineOutput(frames=frames) if return_dict else (frames,)

    def _check(self, prompts: list[str], num_frames: int, steps: int, num_videos: int, output_type: str) -> None:
        if not prompts or any(not isinstance(p, str) or not p.strip() for p in prompts):
            raise LumiereError("the prompt is empty: say what the clip should show")
        if num_frames < 1 or num_frames % self.unet.frame_multiple:
            raise LumiereError(
                f"{num_frames} frames: choose a multiple of {self.unet.frame_multiple}, which this model's temporal "
                "levels divide"
            )
        if steps < 1 or num_videos < 1:
            raise LumiereError("the number of steps and of clips must be at least 1")
        if output_type not in ("np", "pt", "pil"):
            raise LumiereError(f"output_type {output_type!r}: use 'np', 'pt' or 'pil'")

    def _set_timesteps(self, steps: int, device: torch.device) -> None:
        shift = self.config.timestep_shift
        if shift == 1.0:
            self.scheduler.set_timesteps(steps, device=device)
        elif "timesteps" in inspect.signature(self.scheduler.set_timesteps).parameters:
            chosen = sampling_timesteps(steps, self.scheduler.config.num_train_timesteps, shift)
            self.scheduler.set_timesteps(timesteps=chosen, device=device)
        else:
            raise LumiereError(
                f"{type(self.scheduler).__name__} cannot sample at chosen timesteps, which this model needs; "
                "use DPMSolverMultistepScheduler"
            )

    @property
    def _pixels_per_position(self) -> int:
        """Pixels of the frame along one side of a position of the network's input."""
        if self.vae is None:
            return self.config.pixel_unshuffle
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def _sample_shape(self, num_frames: int, height: int | None, width: int | None) -> tuple[int, int, int, int]:
        trained = self.unet.spatial.config["sample_size"]
        trained_h, trained_w = (trained, trained) if isinstance(trained, int) else trained
        unit = self._pixels_per_position
        multiple = unit * 2 ** (len(self.unet.spatial.down_blocks) - 1)
        for name, side in (("height", height), ("width", width)):
            if side is not None and (side < multiple or side % multiple):
                raise LumiereError(f"{name} {side}: choose a multiple of {multiple} pixels")
        h = trained_h if height is None else height // unit
        w = trained_w if width is None else width // unit
        return self.unet.spatial.config["in_channels"], num_frames, h, w

    def encode_prompts(self, prompts: list[str]) -> TextConditions:
        """Prompts as the network is told of them."""
        tokenizers = [t for t in (self.tokenizer, self.tokenizer_2) if t is not None]
        encoders = [e for e in (self.text_encoder, self.text_encoder_2) if e is not None]
        if not encoders:
            raise LumiereError("the pipeline has no text encoder; pass text_encoder= and tokenizer=")
        return encode(prompts, tokenizers, encoders, max_length=self.config.max_text_length)

    @torch.no_grad()
    def encode_clips(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips as the network sees them, without noise: (B, 3, F, H, W) in [-1, 1] -> (B, C, F, h, w)."""
        if self.vae is None:
            return fold(clips, self.config.pixel_unshuffle)
        frames = clips.transpose(1, 2).flatten(0, 1).to(self.vae.dtype)
        latents = [self.vae.encode(part).latent_dist.mode() for part in frames.split(_DECODED_AT_ONCE)]
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        scaled = (torch.cat(latents) - shift) * self.vae.config.scaling_factor
        return scaled.unflatten(0, (len(clips), -1)).transpose(1, 2)

    def _encode(self, prompts: list[str], negative: str | list[str] | None, *, guided: bool) -> TextConditions:
        text = self.encode_prompts(prompts)
        if guided:
            against = [negative or ""] * len(prompts) if not isinstance(negative, list) else negative
            if len(against) != len(prompts):
                raise LumiereError(f"{len(against)} negative prompts for {len(prompts)} prompts: give one, or one each")
            nothing = self.encode_prompts(against)
            if self.text_encoder_2 is not None and negative is None:
                # Stable Diffusion XL was trained with zeros, not with the empty prompt.
                assert nothing.pooled is not None
                nothing = TextConditions(
                    torch.zeros_like(nothing.hidden_states), pooled=torch.zeros_like(nothing.pooled)
                )
            text = text.beside(nothing)
        return text

    def _predict(
        self, latents: torch.Tensor, t: torch.Tensor, text: TextConditions, scale: float, rescale: float
    ) -> torch.Tensor:
        """The network's prediction, guided where the text holds both halves."""
        guided = len(text.hidden_states) == 2 * len(latents)
        sample = self.scheduler.scale_model_input(torch.cat([latents, latents]) if guided else latents, t)
        out = self.call_network(self.unet, sample, t, text)
        # DeepFloyd IF also predicts a variance, in as many channels again.
        prediction, variance = out.split(latents.shape[1], dim=1) if out.shape[1] > latents.shape[1] else (out, None)
        if guided:
            conditional, unconditional = prediction.chunk(2)
            prediction = guide(conditional, unconditional, scale, rescale=rescale)
        if variance is not None and self._takes_variance:
            prediction = torch.cat([prediction, variance[: len(latents)]], dim=1)
        return prediction

    def call_network(
        self, net: Callable[..., Any], sample: torch.Tensor, t: torch.Tensor, text: TextConditions
    ) -> torch.Tensor:
        """Evaluate `net`, this pipeline's network or a wrapper of it, with all that its family is told."""
        added = None
        if text.pooled is not None:
            added = {"text_embeds": text.pooled, "time_ids": self._time_ids(sample)}
        return net(sample, t, text.hidden_states.to(sample.dtype), added_cond_kwargs=added).sample

    @property
    def _takes_variance(self) -> bool:
        # A scheduler made from another's config remembers options that it doesn't have: ask its constructor too.
        known = inspect.signature(type(self.scheduler).__init__).parameters
        return "variance_type" in known and self.scheduler.config.variance_type in ("learned", "learned_range")

    def _time_ids(self, sample: torch.Tensor) -> torch.Tensor:
        """Stable Diffusion XL's size conditioning: original size, crop and target size, (B, 6)."""
        size = [sample.shape[-2] * self._pixels_per_position, sample.shape[-1] * self._pixels_per_position]
        return torch.tensor([[*size, 0, 0, *size]], device=sample.device, dtype=sample.dtype).repeat(len(sample), 1)

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        """To pixels: (B, C, F, h, w) -> (B, 3, F, H, W) in [-1, 1]."""
        if self.vae is None:
            return unfold(latents, self.config.pixel_unshuffle)
        frames = latents.transpose(1, 2).flatten(0, 1) / self.vae.config.scaling_factor
        shift = getattr(self.vae.config, "shift_factor", None)
        if shift:
            frames = frames + shift
        if self.vae.dtype == torch.float16 and self.vae.config.force_upcast:
            self.vae.float()  # overflows in half precision
        pixels = [self.vae.decode(part.to(self.vae.dtype)).sample for part in frames.split(_DECODED_AT_ONCE)]
        return torch.cat(pixels).unflatten(0, (len(latents), -1)).transpose(1, 2)

    @staticmethod
    def _to_user(clips: torch.Tensor, output_type: str) -> Any:
        clips = ((clips.float() + 1) / 2).clamp(0, 1).transpose(1, 2)
        if output_type == "pt":
            return clips
        arrays: np.ndarray = clips.permute(0, 1, 3, 4, 2).cpu().numpy()
        return arrays if output_type == "np" else [VaeImageProcessor.numpy_to_pil(clip) for clip in arrays]
