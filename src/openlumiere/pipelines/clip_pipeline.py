"""What the pipelines on clips share: prompts, guidance, denoising in windows, pixels and latents."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput

from openlumiere.diffusion.alpha import add_alpha, unpremultiply
from openlumiere.diffusion.conditioning import masked, propagate_in_time
from openlumiere.diffusion.guidance import classifier_free_guidance
from openlumiere.diffusion.timesteps import sampling_timesteps
from openlumiere.diffusion.windows import Denoiser, Windows, denoise_in_windows, frame_positions
from openlumiere.errors import LumiereError
from openlumiere.latents import Codec, PixelCodec, VAECodec

from .text import TextConditions, encode, load_text_encoder


@dataclass
class LumierePipelineOutput(BaseOutput):
    """`frames`: (B, F, H, W, 3) float32 in [0, 1] for "np", (B, F, 3, H, W) for "pt", or lists of PIL images.

    Transparent ones have alpha as a fourth channel, straight: colours are not multiplied by it.
    """

    frames: Any


@dataclass(frozen=True)
class ConcatCondition:
    """What a network is given beside the noisy clip.

    Attributes:
        channels: concatenated to the clip's own, (B, C, F, h, w).
        class_labels: (B,), such as the noise level of a super-resolution network.
        spread_by: so many of the last channels are M; C and M are spread over time in each window, see
            `diffusion.conditioning.propagate_in_time`. 0 = they are left as they are.
    """

    channels: torch.Tensor
    class_labels: torch.Tensor | None = None
    spread_by: int = 0

    def seen(self, frames: torch.Tensor) -> torch.Tensor:
        """What windows of the clips see, (B * w, C, L, h, w); `frames` as (w, L)."""
        parts = self.channels[:, :, frames.to(self.channels.device)].transpose(1, 2).flatten(0, 1)
        if not self.spread_by:
            return parts
        given, mask = parts.tensor_split([-self.spread_by], dim=1)
        return torch.cat(propagate_in_time(given, mask), dim=1)


@dataclass(frozen=True)
class Img2ImgStart:
    """Denoising from a noisy version of a clip rather than from noise alone (SDEdit, Meng et al. 2021).

    Attributes:
        clip: without noise, (B, C, F, h, w) as the network sees it.
        strength: the share of the steps that is taken, in [0, 1].
    """

    clip: torch.Tensor
    strength: float


@dataclass(frozen=True)
class KnownRegion:
    """What is given of a clip, kept on its own way from noise to itself while the rest is denoised.

    In training the noisy clip holds what is given under its noise; so it must in sampling, where the network alone
    would leave that way.

    Attributes:
        clip: without noise, (B, C, F, h, w) as the network sees it.
        mask: 1 where it is given, of the same shape.
    """

    clip: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True)
class Conditions:
    """What a whole clip is denoised with.

    Attributes:
        text: of the B clips, and then of what they are guided away from; without guidance the first half alone.
        num_frames: of the clip.
        guidance_scale, guidance_rescale: see `diffusion.guidance`.
        beside: given to the network beside the clip.
        loop: the clip's end flows into its start.
        layout: where the subject of each of the B clips is, (B, F, 6), see `diffusion.layout`; None = not told.
    """

    text: TextConditions
    num_frames: int
    guidance_scale: float = 1.0
    guidance_rescale: float = 0.0
    beside: ConcatCondition | None = None
    loop: bool = False
    layout: torch.Tensor | None = None


class ClipPipeline(DiffusionPipeline):
    """Base of the pipelines on clips; their constructors register the modules and options that are used here."""

    _callback_tensor_inputs: ClassVar = ["latents"]

    # What only some families have.
    text_encoder_2: Any = None
    tokenizer_2: Any = None
    vae: Any = None
    _vae_codec: VAECodec | None = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """As diffusers'; also loads the text encoder that the folder names but does not carry."""
        pipe = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        if getattr(pipe.text_encoder, "pooler", None) is not None:
            # Prompts are encoded token by token. A BERT saved without its pooling layer comes back with a random one.
            pipe.text_encoder.pooler = None
        if pipe.text_encoder is None and pipe.config.text_encoder_id:
            tokenizer, encoder = load_text_encoder(pipe.config.text_encoder_id)
            pipe.register_modules(tokenizer=tokenizer, text_encoder=encoder.to(pipe.unet.dtype))
        return pipe

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """As diffusers'; an encoder that `text_encoder_id` names is not written."""
        carried = {"text_encoder": self.text_encoder, "tokenizer": self.tokenizer}
        if self.config.text_encoder_id:
            self.register_modules(text_encoder=None, tokenizer=None)
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self.register_modules(**carried)

    def _denoise(
        self,
        latents: torch.Tensor,
        conditions: Conditions,
        windows: Windows,
        *,
        num_inference_steps: int,
        start: Img2ImgStart | None = None,
        held: KnownRegion | None = None,
        window_batch_size: int = 1,
        devices: Sequence[str | torch.device] | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        callback: Callable[..., dict[str, Any]] | None = None,
        callback_tensor_inputs: tuple[str, ...] = ("latents",),
    ) -> torch.Tensor:
        """From noise to a clip, (B, C, F, h, w), in windows merged at every step, on the device of `latents`."""
        own = self._execution_device
        places = [own] if devices is None else [torch.device(device) for device in devices]
        nets = [self.unet if place == own else copy.deepcopy(self.unet).to(place) for place in places]
        self._set_timesteps(num_inference_steps, latents.device)
        timesteps, noise = self.scheduler.timesteps, latents
        if start is None:
            latents = latents * self.scheduler.init_noise_sigma
        else:
            latents, timesteps = self._begin(start, latents, timesteps)
        self._num_timesteps = len(timesteps)
        wanted = inspect.signature(self.scheduler.step).parameters
        extra = {"generator": generator} if "generator" in wanted else {}
        with self.progress_bar(total=len(timesteps)) as bar:
            for i, t in enumerate(timesteps):
                denoisers = [
                    Denoiser(partial(self._predict, net, conditions, t.to(place)), place)
                    for net, place in zip(nets, places, strict=True)
                ]
                scaled = self.scheduler.scale_model_input(latents, t)
                prediction = denoise_in_windows(denoisers, scaled, windows, batch_size=window_batch_size)
                latents = self.scheduler.step(prediction, t, latents, **extra, return_dict=False)[0]
                if held is not None:
                    known = held.clip.to(latents)
                    if i + 1 < len(timesteps):
                        known = self.scheduler.add_noise(known, noise, timesteps[i + 1 : i + 2])
                    latents = torch.lerp(latents, known, held.mask.to(latents))
                if callback is not None:
                    tensors = dict.fromkeys(callback_tensor_inputs, latents)
                    latents = (callback(self, i, t, tensors) or {}).get("latents", latents)
                bar.update()
        return latents

    @property
    def num_timesteps(self) -> int:
        """Steps that the call in progress takes."""
        return self._num_timesteps

    def _begin(
        self, start: Img2ImgStart, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The clip with the noise of the first step that is taken, and the timesteps from there on."""
        skipped = len(timesteps) - round(len(timesteps) * start.strength)
        clip = start.clip.to(noise)
        if skipped == len(timesteps):
            return clip, timesteps[:0]
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(skipped)
        return self.scheduler.add_noise(clip, noise, timesteps[skipped : skipped + 1]), timesteps[skipped:]

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
    def codec(self) -> Codec:
        """Pixels to what the network denoises, and back."""
        if self.vae is None:
            return PixelCodec(self.config.pixel_unshuffle)
        if self._vae_codec is None or self._vae_codec.vae is not self.vae:
            self._vae_codec = VAECodec(self.vae)
        return self._vae_codec

    @property
    def has_alpha(self) -> bool:
        """Whether clips inside are RGBA, premultiplied (see `diffusion.alpha`), so that they can be transparent."""
        return self.codec.has_alpha

    def encode_prompts(self, prompts: list[str], *, together: bool = False) -> TextConditions:
        """Prompts as the network is told of them; `together`: see `text.embed`."""
        tokenizers = [t for t in (self.tokenizer, self.tokenizer_2) if t is not None]
        encoders = [e for e in (self.text_encoder, self.text_encoder_2) if e is not None]
        if not encoders:
            raise LumiereError("the pipeline has no text encoder; pass text_encoder= and tokenizer=")
        return encode(prompts, tokenizers, encoders, max_length=self.config.max_text_length, together=together)

    @torch.no_grad()
    def encode_clips(self, clips: torch.Tensor) -> torch.Tensor:
        """Encode clips as the network sees them, without noise: (B, 3, F, H, W) in [-1, 1] -> (B, C, F, h, w).

        Models with alpha take (B, 4, F, H, W), premultiplied; three channels are taken for opaque clips.
        """
        return self.codec.encode(clips)

    @property
    def condition_channels(self) -> int:
        """Channels of C and M beside the noisy clip, as `encode_condition` makes them."""
        return int(self.unet.spatial.config["in_channels"]) + self.codec.mask_channels

    def encode_condition(self, clips: torch.Tensor, mask: torch.Tensor) -> ConcatCondition:
        """Encode C and M, which a network with condition channels takes beside the noisy clips.

        Args:
            clips: as `encode_clips`; read where they are given, blank elsewhere.
            mask: M, (B, 1, F, H, W), 1 = given.
        """
        codec = self.codec
        clips = add_alpha(clips) if codec.has_alpha else clips
        return self.condition_of(self.encode_clips(masked(clips, mask, blank=codec.blank)), codec.encode_mask(mask))

    def condition_of(self, given: torch.Tensor, where: torch.Tensor) -> ConcatCondition:
        """Return C and M of clips that are encoded already.

        Args:
            given: (B, C, F, h, w), as `encode_clips` returns it; read where it is given.
            where: M as `codec.encode_mask` returns it, (B, m, F, h, w).
        """
        channels = torch.cat([self.codec.keep_known(given, where), where.to(given)], dim=1)
        return ConcatCondition(channels, spread_by=self.codec.mask_channels if self.config.spread_condition else 0)

    def _hold(self, clips: torch.Tensor, mask: torch.Tensor) -> KnownRegion:
        """What is given, for the sampler; arguments as `encode_condition`'s."""
        latents = self.encode_clips(clips)
        where = self.codec.encode_mask(mask)
        return KnownRegion(latents, where.repeat(1, latents.shape[1] // where.shape[1], 1, 1, 1))

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
        self,
        net: Callable[..., Any],
        conditions: Conditions,
        t: torch.Tensor,
        sample: torch.Tensor,
        frames: torch.Tensor,
    ) -> torch.Tensor:
        """The prediction for windows of each of B clips, (B * w, C, L, h, w), guided where the text holds both halves.

        Args:
            frames: (w, L), the frames of the clip that the windows see.
        """
        count, device = len(frames), sample.device
        channels, clips = sample.shape[1], len(sample) // count
        guided = len(conditions.text.hidden_states) == 2 * clips
        copies = 2 if guided else 1
        given, labels = sample, None
        if conditions.beside is not None:
            given = torch.cat([sample, conditions.beside.seen(frames).to(sample)], dim=1)
            if conditions.beside.class_labels is not None:
                labels = conditions.beside.class_labels.to(device).repeat_interleave(count).repeat(copies)
        place = frame_positions(frames, conditions.num_frames, loop=conditions.loop)
        place = place.to(device).repeat(clips * copies, 1)
        told: dict[str, torch.Tensor] = {}
        if conditions.layout is not None:  # the same with and without the prompt
            told["layout"] = (
                conditions.layout[:, frames.to(conditions.layout.device)].flatten(0, 1).repeat(copies, 1, 1)
            )
        out = self.call_network(
            net, given.repeat(copies, 1, 1, 1, 1), t, conditions.text.repeat(count).to(device),
            class_labels=labels, frame_positions=place, **told,
        )  # fmt: skip
        # DeepFloyd IF also predicts a variance, in as many channels again.
        prediction, variance = out.split(channels, dim=1) if out.shape[1] > channels else (out, None)
        if guided:
            conditional, unconditional = prediction.chunk(2)
            prediction = classifier_free_guidance(
                conditional, unconditional, conditions.guidance_scale, rescale=conditions.guidance_rescale
            )
        if variance is not None and self._takes_variance:
            prediction = torch.cat([prediction, variance[: len(sample)]], dim=1)
        return prediction

    def call_network(
        self, net: Callable[..., Any], sample: torch.Tensor, t: torch.Tensor, text: TextConditions, **given: Any
    ) -> torch.Tensor:
        """Evaluate `net`, this pipeline's network or a wrapper of it, with all that its family is told.

        Args:
            given: further arguments of `STUNet.forward`.
        """
        added = None
        if text.pooled is not None:
            added = {"text_embeds": text.pooled, "time_ids": self._time_ids(sample)}
        return net(sample, t, text.hidden_states.to(sample.dtype), added_cond_kwargs=added, **given).sample

    @property
    def _takes_variance(self) -> bool:
        # A scheduler made from another's config remembers options that it doesn't have: ask its constructor too.
        known = inspect.signature(type(self.scheduler).__init__).parameters
        return "variance_type" in known and self.scheduler.config.variance_type in ("learned", "learned_range")

    def _time_ids(self, sample: torch.Tensor) -> torch.Tensor:
        """Stable Diffusion XL's size conditioning: original size, crop and target size, (B, 6)."""
        size = [side * self.codec.factor for side in sample.shape[-2:]]
        return torch.tensor([[*size, 0, 0, *size]], device=sample.device, dtype=sample.dtype).repeat(len(sample), 1)

    @staticmethod
    def _to_user(clips: torch.Tensor, output_type: str) -> Any:
        if clips.shape[1] == 4:
            clips = unpremultiply(clips)
        clips = ((clips.float() + 1) / 2).clamp_(0, 1).transpose(1, 2)
        if output_type == "pt":
            return clips
        arrays: np.ndarray = clips.permute(0, 1, 3, 4, 2).cpu().numpy()
        return arrays if output_type == "np" else [VaeImageProcessor.numpy_to_pil(clip) for clip in arrays]
