"""What the pipelines on clips share: prompts, guidance, denoising in windows, pixels and latents."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

from openlumiere.bundled import model_folder
from openlumiere.diffusion.alpha import add_alpha, unpremultiply
from openlumiere.diffusion.canonical import CanonicalFrame
from openlumiere.diffusion.conditioning import masked, move_along
from openlumiere.diffusion.guidance import classifier_free_guidance
from openlumiere.diffusion.layout import is_told
from openlumiere.diffusion.noise import progressive_noise
from openlumiere.diffusion.sampling import (
    Img2ImgStart,
    KnownRegion,
    check_scheduler,
    denoise,
    set_timesteps,
    start_from,
)
from openlumiere.diffusion.windows import Denoiser, Windows, frame_positions, plan_windows
from openlumiere.errors import LumiereError
from openlumiere.latents import Codec, PixelCodec, VAECodec

from .conditions import ConcatCondition, Conditions
from .prompts import PromptMixin
from .text import TextConditions

# M where C was moved along with its subject: 1 would be given, and the gate then leaves a subject no motion of its own.
# With 1 / (1 + d), as where C stays in its place, the bundled model makes little of it.
_MOVED = 0.75
_PICTURE_STEPS = 16  # of pictures that clips start from: a frame of one costs a hundredth of a clip's
OUTPUT_TYPES = ("np", "pt", "pil", "latent")


@dataclass
class LumierePipelineOutput(BaseOutput):
    """`frames`: (B, F, H, W, 3) float32 in [0, 1] for "np", (B, F, 3, H, W) for "pt", or lists of PIL images.

    Transparent ones have alpha as a fourth channel, straight: colours are not multiplied by it. For "latent" what the
    network denoised, (B, C, F, h, w), as it sees it.
    """

    frames: Any


class ClipPipeline(PromptMixin, DiffusionPipeline):
    """Base of the pipelines on clips; their constructors register the modules and options that are used here."""

    _callback_tensor_inputs: ClassVar = ["latents", "denoised"]

    vae: Any = None  # of latent families
    _vae_codec: VAECodec | None = None
    _canonical: CanonicalFrame | None = None  # of the call in progress, if it draws in one

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Put the class where diffusers looks for it, so that `DiffusionPipeline.from_pretrained(folder)` finds it."""
        super().__init_subclass__(**kwargs)
        if not hasattr(diffusers, cls.__name__):
            setattr(diffusers, cls.__name__, cls)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """As diffusers'; also takes a bundled model's name, and loads the text encoder that the folder names only.

        Raises:
            LumiereError: a bundled model's name where another model is in a folder of that name, too.
        """
        folder = model_folder(pretrained_model_name_or_path)
        pipe = super().from_pretrained(str(folder or pretrained_model_name_or_path), **kwargs)
        if "text_encoder" not in kwargs:
            pipe._complete_text_encoder()
        return pipe

    def save_pretrained(
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        """As diffusers'; an encoder that `text_encoder_id` names is not written."""
        shared = {"text_encoder": self.text_encoder, "tokenizer": self.tokenizer}
        if self.config.text_encoder_id:
            self.register_modules(text_encoder=None, tokenizer=None)
        try:
            super().save_pretrained(
                save_directory, safe_serialization=safe_serialization, variant=variant, max_shard_size=max_shard_size,
                **kwargs,
            )  # fmt: skip
        finally:
            self.register_modules(**shared)

    def _register(self, arguments: dict[str, Any]) -> None:
        """Register modules and options as diffusers wants them; `arguments` are a constructor's ``locals()``."""
        modules, options = map(set, self._get_signature_keys(type(self)))
        self.register_modules(**{name: value for name, value in arguments.items() if name in modules})
        self.register_to_config(**{name: value for name, value in arguments.items() if name in options - modules})

    def _check_call(
        self, output_type: str, callback_tensor_inputs: Sequence[str], generator: Any, *, num_clips: int
    ) -> None:
        """Refuse what no call can do, before anything is computed.

        Raises:
            LumiereError: an unknown `output_type`, a tensor that callbacks are not given, another number of generators
                than of clips, a scheduler that does not fit.
        """
        if output_type not in OUTPUT_TYPES:
            raise LumiereError(f"output_type {output_type!r}: use one of {', '.join(map(repr, OUTPUT_TYPES))}")
        unknown = [name for name in callback_tensor_inputs if name not in self._callback_tensor_inputs]
        if unknown:
            raise LumiereError(
                f"callback_on_step_end_tensor_inputs: {', '.join(map(repr, unknown))} is not among "
                f"{', '.join(map(repr, self._callback_tensor_inputs))}, which callbacks are given"
            )
        if isinstance(generator, list) and len(generator) != num_clips:
            raise LumiereError(f"{len(generator)} generators for {num_clips} clips: give one, or one each")
        config = self.config
        check_scheduler(self.scheduler, shift=config.timestep_shift, noise_correlation=config.noise_correlation)

    def _sampling_options(
        self, steps: int | None, guidance_scale: float | None, guidance_rescale: float | None
    ) -> tuple[int, float, float]:
        """Return steps, guidance scale and rescale of a call: the model's own when None."""
        config = self.config
        steps = config.num_inference_steps if steps is None else steps
        if steps < 1:
            raise LumiereError("the number of steps must be at least 1")
        return (
            steps,
            config.guidance_scale if guidance_scale is None else guidance_scale,
            config.guidance_rescale if guidance_rescale is None else guidance_rescale,
        )

    def _initial_noise(
        self, shape: tuple[int, ...], latents: torch.Tensor | None, generator: Any, device: torch.device, *, loop: bool
    ) -> torch.Tensor:
        """Return `latents`, or noise correlated as in training, of the shape (B, C, F, h, w)."""
        if latents is None:
            noise = randn_tensor(shape, generator=generator, device=device, dtype=self.unet.dtype)
            return progressive_noise(noise, self.config.noise_correlation, loop=loop)
        if latents.shape != shape:
            raise LumiereError(f"latents have the shape {tuple(latents.shape)}; this call needs {shape}")
        return latents

    def _denoise(
        self,
        noise: torch.Tensor,
        conditions: Conditions,
        windows: Windows,
        *,
        num_inference_steps: int,
        start: Img2ImgStart | None = None,
        known: KnownRegion | None = None,
        window_batch_size: int = 1,
        devices: Sequence[str | torch.device] | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        callback: Callable[..., dict[str, Any]] | None = None,
        callback_tensor_inputs: Sequence[str] = ("latents",),
    ) -> torch.Tensor:
        """Denoise clips, (B, C, F, h, w), by `diffusion.sampling.denoise`, with diffusers' callback and progress bar.

        Args:
            noise: of unit variance; clips stay on its device, windows of them go to the networks.
            devices: a copy of the network on each denoises some of the windows, with and without the prompt apart; the
                pipeline's own, and both at once, when None.
        """
        own = self._execution_device
        on = [own] if devices is None else [torch.device(device) for device in devices]
        nets = [self.unet if device == own else copy.deepcopy(self.unet).to(device) for device in on]
        set_timesteps(self.scheduler, num_inference_steps, noise.device, shift=self.config.timestep_shift)
        latents, timesteps = start_from(self.scheduler, noise, start)
        self._num_timesteps = len(timesteps)
        denoisers_at = partial(
            self._denoisers_at, list(zip(nets, on, strict=True)), conditions, noise.shape[:2], apart=devices is not None
        )

        def on_step(i: int, t: torch.Tensor, latents: torch.Tensor, denoised: torch.Tensor | None) -> torch.Tensor:
            if callback is not None:
                every = {"latents": latents, "denoised": denoised}
                tensors = {name: every[name] for name in callback_tensor_inputs}
                latents = (callback(self, i, t, tensors) or {}).get("latents", latents)
            bar.update()
            return latents

        with self.progress_bar(total=len(timesteps)) as bar:
            return denoise(
                denoisers_at, self.scheduler, latents, timesteps, windows, noise=noise, known=known,
                generator=generator, window_batch_size=window_batch_size, on_step=on_step,
                wants_denoised=callback is not None and "denoised" in callback_tensor_inputs,
            )  # fmt: skip

    def _denoisers_at(
        self,
        nets: Sequence[tuple[Callable[..., Any], torch.device]],
        conditions: Conditions,
        shape: Sequence[int],
        t: torch.Tensor,
        *,
        apart: bool = False,
    ) -> list[Denoiser]:
        """Return networks, each on its device, as what denoises windows of B clips of C channels, `shape`, at t.

        Args:
            apart: what is predicted with and without the prompt can be predicted on two devices.
        """
        now = conditions.at(float(t) / self.scheduler.config.num_train_timesteps, shape[0])
        parts = now.halves(shape[0]) if apart else [now]
        merge = partial(self._guided, now, shape)
        return [
            Denoiser([partial(self._predict, net, part, t.to(device)) for part in parts], device, merge)
            for net, device in nets
        ]

    def _draw_pictures(
        self, conditions: Conditions, shape: tuple[int, ...], generator: torch.Generator | list[torch.Generator] | None
    ) -> torch.Tensor:
        """Draw a picture of each clip's prompt by the T2I alone, where the clip's first frame has its subject.

        Args:
            shape: of the clips, (B, C, F, h, w).

        Returns:
            As the network sees them, without noise, (B, C, 1, h, w).
        """
        batch, channels, _, height, width = shape
        device = self._execution_device
        if conditions.layout is not None:
            conditions = replace(conditions, layout=conditions.layout[:, :1])
        noise = self._initial_noise((batch, channels, 1, height, width), None, generator, device, loop=False)
        set_timesteps(self.scheduler, _PICTURE_STEPS, device, shift=self.config.timestep_shift)
        latents, timesteps = start_from(self.scheduler, noise)
        nets = [(partial(self.unet, temporal_layers=False), device)]
        return denoise(
            partial(self._denoisers_at, nets, replace(conditions, num_frames=1), (batch, channels)),
            self.scheduler, latents, timesteps, plan_windows(1, 1, 0), noise=noise, generator=generator,
        )  # fmt: skip

    @property
    def num_timesteps(self) -> int:
        """Steps that the call in progress takes."""
        return self._num_timesteps

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

    @torch.no_grad()
    def encode_clips(self, clips: torch.Tensor) -> torch.Tensor:
        """Encode clips as the network sees them, without noise: (B, 3, F, H, W) in [-1, 1] -> (B, C, F, h, w).

        Models with alpha take (B, 4, F, H, W), premultiplied; three channels are taken for opaque clips.
        """
        return self.codec.encode(clips)

    @torch.no_grad()
    def decode_clips(
        self,
        latents: torch.Tensor,
        output_type: Literal["np", "pt", "pil"] = "np",
        *,
        frames: list[int] | None = None,
    ) -> Any:
        """Decode clips as the network sees them, (B, C, F, h, w), to those of `LumierePipelineOutput`.

        For previews: a callback that asks for "denoised" is given such clips, and any of their frames will do.

        Args:
            frames: which frames these are of the clips that the call in progress makes, so that subjects are shown
                where they will be; None = they are shown as they are drawn.
        """
        pixels = self.codec.decode(latents.to(self.unet.dtype))
        if self._canonical is not None and frames is not None:
            pixels = self._canonical.moved(pixels, frames)
        return self._to_user(pixels, output_type)

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
        return ConcatCondition(
            channels,
            mask_channels=self.codec.mask_channels if self.config.spread_condition else 0,
        )

    @torch.no_grad()
    def follow(
        self,
        condition: ConcatCondition,
        layout: torch.Tensor | None,
        *,
        clips: torch.Tensor | None = None,
        rigid: torch.Tensor | None = None,
    ) -> ConcatCondition:
        """Return a condition whose clips are filled along with their subject, if the model's `follow_layout` says so.

        Those are filled of which frames are given whole, and where the subject is told in all frames.

        Args:
            layout: (B, F, 6), see `diffusion.layout`; None = not told.
            clips: what is given, as pixels, (B, C, F, H, W); decoded from the condition when None.
            rigid: of which clips the subject has no motion of its own, (B,), so that M is 1 wherever C was moved to;
                none of them when None.
        """
        if not self.config.follow_layout or not condition.mask_channels or layout is None:
            return condition
        given, mask = condition.channels.tensor_split([-condition.mask_channels], dim=1)
        whole = (mask > 0.5).flatten(3).all(3).all(1)
        follows = whole.any(1) & ~whole.all(1) & is_told(layout).to(whole.device)
        if not follows.any():
            return condition
        moved = condition.channels.clone()
        for row in follows.nonzero()[:, 0].tolist():
            at, missing = whole[row].nonzero()[:, 0], (~whole[row]).nonzero()[:, 0]
            shown = self.codec.decode(given[row : row + 1, :, at])[0] if clips is None else clips[row, :, at]
            filled, seen = move_along(shown, at, layout[row].to(shown.device))
            sure = self.codec.encode_mask(seen[None, None, missing].float()).to(moved)
            new = self.codec.encode(filled[None, :, missing]).to(moved)
            sure = sure * (1.0 if rigid is not None and rigid[row] else _MOVED)
            new = torch.cat([self.codec.keep_known(new, sure), sure], dim=1)[0]
            known = mask[row, :, missing] > 0.5  # of frames that are given in part
            known = torch.cat([known.repeat(given.shape[1] // len(known), 1, 1, 1), known])
            moved[row, :, missing] = torch.where(known, moved[row, :, missing], new)
        return replace(condition, moved=moved, follows=follows)

    def _known_region(self, clips: torch.Tensor, mask: torch.Tensor) -> KnownRegion:
        """Return what is given, for the sampler; arguments as `encode_condition`'s."""
        latents = self.encode_clips(clips)
        where = self.codec.encode_mask(mask)
        return KnownRegion(latents, where.repeat(1, latents.shape[1] // where.shape[1], 1, 1, 1))

    def _predict(
        self,
        net: Callable[..., Any],
        conditions: Conditions,
        t: torch.Tensor,
        sample: torch.Tensor,
        frames: torch.Tensor,
    ) -> torch.Tensor:
        """Predict windows of each of B clips, (B * w, C, L, h, w); twice as many where the text holds both halves.

        Args:
            frames: (w, L), the frames of the clip that the windows see.
        """
        count, device = len(frames), sample.device
        clips = len(sample) // count
        copies = len(conditions.text.hidden_states) // clips
        channels_in, labels = sample, None
        if conditions.concat is not None:
            channels_in = torch.cat([sample, conditions.concat.seen(frames).to(sample)], dim=1)
            if conditions.concat.class_labels is not None:
                labels = conditions.concat.class_labels.to(device).repeat_interleave(count).repeat(copies)
        positions = frame_positions(frames, conditions.num_frames, loop=conditions.loop)
        positions = positions.to(device).repeat(clips * copies, 1)
        layout = conditions.layout
        if layout is not None:  # the same with and without the prompt
            layout = layout[:, frames.to(layout.device)].flatten(0, 1).repeat(copies, 1, 1)
        return self.call_network(
            net, channels_in.repeat(copies, 1, 1, 1, 1), t, conditions.text.repeat(count).to(device),
            class_labels=labels, frame_positions=positions, layout=layout,
        )  # fmt: skip

    def _guided(self, conditions: Conditions, shape: Sequence[int], *parts: torch.Tensor) -> torch.Tensor:
        """Return the prediction for windows of B clips of C channels, `shape`, from what `_predict` made of them."""
        clips, channels = shape
        out = parts[0] if len(parts) == 1 else torch.cat(parts)
        # DeepFloyd IF also predicts a variance, in as many channels again.
        prediction, variance = out.split(channels, dim=1) if out.shape[1] > channels else (out, None)
        if len(conditions.text.hidden_states) == 2 * clips:
            conditional, unconditional = prediction.chunk(2)
            prediction = classifier_free_guidance(
                conditional, unconditional, conditions.guidance_scale, rescale=conditions.guidance_rescale
            )
        if variance is not None and self._takes_variance:
            prediction = torch.cat([prediction, variance[: len(prediction)]], dim=1)
        return prediction

    def call_network(
        self, net: Callable[..., Any], sample: torch.Tensor, t: torch.Tensor, text: TextConditions, **given: Any
    ) -> torch.Tensor:
        """Evaluate `net`, this pipeline's network or a wrapper of it, with all conditions of its family.

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
