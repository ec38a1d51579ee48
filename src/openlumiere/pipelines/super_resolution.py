"""Super-resolution: a second STUNet over short windows of frames, merged by MultiDiffusion at each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline

from openlumiere.diffusion.alpha import premultiply, unpremultiply, without_haze
from openlumiere.diffusion.upsampling import add_noise, low_res_channels, noise_augment, upsample_base, upsample_lanczos
from openlumiere.diffusion.windows import Windows, plan_windows
from openlumiere.errors import LumiereError
from openlumiere.latents import PixelCodec
from openlumiere.stunet import STUNet

from .clip_pipeline import ClipPipeline, LumierePipelineOutput
from .conditions import ConcatCondition, Conditions
from .inputs import as_clips

_AT_ONCE = 4  # frames


class LumiereSuperResolutionPipeline(ClipPipeline):
    """Upsamples clips by a space-time U-Net that sees the noisy high-res clip beside the low-res one.

    See `diffusion.upsampling` for what it is given.

    Args:
        unet: the network; it takes a clip's channels, of RGB or of premultiplied RGBA, and the low-res clip's.
        scheduler, text_encoder, tokenizer, pixel_unshuffle, text_encoder_id, max_text_length, num_inference_steps,
            guidance_scale, guidance_rescale, timestep_shift, noise_correlation: as `LumierePipeline`'s.
        image_noising_scheduler: schedule of the low-res clip's noise; None = the scheduler's own.
        scale: how many times larger the high-res clip is.
        residual_scale: what the network denoises is the high-res clip's difference to the upsampled low-res one, times
            this; None: the high-res clip itself, as DeepFloyd IF's does.
        align_corners: how the low-res clip is upsampled, as `torch.nn.functional.interpolate` means it.
        enlarge_low_res: give the network the low-res clip upsampled; False = as it is, in fewer channels, for
            networks whose `pixel_unshuffle` is a multiple of `scale`.
        residual_base: what residuals are added to, see `diffusion.upsampling.upsample_base`.
        window_frames, window_overlap: of the windows, T' and 2 in the paper.
        noise_level: timestep of the low-res clip's noise.
    """

    model_cpu_offload_seq = "text_encoder->unet"
    _optional_components: ClassVar = ["text_encoder", "tokenizer", "image_noising_scheduler"]

    def __init__(
        self,
        unet: STUNet,
        scheduler: Any,
        text_encoder: Any = None,
        tokenizer: Any = None,
        image_noising_scheduler: Any = None,
        pixel_unshuffle: int = 1,
        scale: int = 4,
        residual_scale: float | None = None,
        align_corners: bool = False,
        enlarge_low_res: bool = True,
        residual_base: str = "noisy",
        text_encoder_id: str | None = None,
        max_text_length: int = 24,
        num_inference_steps: int = 50,
        guidance_scale: float = 1.0,
        guidance_rescale: float = 0.0,
        timestep_shift: float = 1.0,
        noise_correlation: float = 0.0,
        window_frames: int = 16,
        window_overlap: int = 2,
        noise_level: int = 0,
    ) -> None:
        arguments = locals()
        super().__init__()
        self._register(arguments)

    @classmethod
    def from_t2i(cls, t2i: DiffusionPipeline, **options: Any) -> LumiereSuperResolutionPipeline:
        """Inflate a picture super-resolution pipeline such as DeepFloyd IF stage II.

        Args:
            options: of `STUNet.from_unet`.
        """
        parts = t2i.components
        if parts.get("unet") is None or parts["unet"].config["class_embed_type"] is None:
            raise LumiereError(
                f"{type(t2i).__name__} has no super-resolution U-Net that is told the noise level of its input"
            )
        known = ("text_encoder", "tokenizer", "scheduler", "image_noising_scheduler")
        return cls(
            unet=STUNet.from_unet(parts["unet"], **options),
            align_corners=True,  # as diffusers' pipeline upsamples
            noise_level=250,  # its default
            **{name: parts[name] for name in known if name in parts},
        )

    @torch.no_grad()
    def __call__(
        self,
        clip: torch.Tensor | np.ndarray | list[Any],
        prompt: str | list[str] | None = "",
        *,
        negative_prompt: str | list[str] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_rescale: float | None = None,
        noise_level: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        loop: bool = False,
        merge_windows: bool = True,
        tapered_windows: bool = False,
        window_frames: int | None = None,
        window_overlap: int | None = None,
        window_batch_size: int = 1,
        devices: Sequence[str | torch.device] | None = None,
        offload_frames: bool = False,
        output_type: Literal["np", "pt", "pil", "latent"] = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> LumierePipelineOutput | tuple[Any]:
        """Upsample clips of any length and size; each frame comes back `scale` times as wide and high.

        Args:
            clip: one clip or a batch, in any of the forms of `LumierePipelineOutput`; if it has alpha, so has what
                comes back. A network of RGB alone then upsamples the colours, and Lanczos' kernel alpha.
            prompt: what it shows, one for each clip or one for all; may be empty.
            num_inference_steps, guidance_scale, guidance_rescale, noise_level: the model's own when None.
            generator, latents, prompt_embeds, negative_prompt_embeds, loop, devices, offload_frames, output_type,
                callback_on_step_end, callback_on_step_end_tensor_inputs: as `LumierePipeline`'s.
            merge_windows: False denoises each window by itself, without overlap, which is what MultiDiffusion is
                measured against.
            tapered_windows: let a window's frames count less towards its ends, rather than all alike.
            window_frames, window_overlap: the model's own when None.
            window_batch_size: windows denoised at once.

        Raises:
            LumiereError: a clip without frames or of another shape, windows that the network does not divide, another
                number of prompts, generators or latents than of clips, an unknown `output_type`, no steps.
        """
        config = self.config
        steps, scale, rescale = self._sampling_options(num_inference_steps, guidance_scale, guidance_rescale)
        level = config.noise_level if noise_level is None else noise_level
        given = as_clips(clip)
        self._check_call(output_type, callback_on_step_end_tensor_inputs, generator, num_clips=len(given))
        low_res, transparent = self._read(given), given.shape[1] == 4
        device = self._execution_device
        kept_on = torch.device("cpu") if offload_frames else device

        count, height, width = low_res.shape[2:]
        length = config.window_frames if window_frames is None else window_frames
        low_res = self._padded(low_res, length)
        windows = self._windows(
            low_res.shape[2], length, window_overlap if merge_windows else 0, loop=loop, tapered=tapered_windows
        )
        text = self._encode(
            self._prompts(prompt, prompt_embeds, len(given)), negative_prompt, guided=scale > 1.0,
            given=self._given_text("prompt_embeds", prompt_embeds, None),
            negative_given=self._given_text("negative_prompt_embeds", negative_prompt_embeds, None),
        )  # fmt: skip
        low_res = low_res.to(kept_on, self.unet.dtype)
        noise = self._initial_noise(self._latent_shape(low_res), latents, generator, kept_on, loop=loop)
        levels = torch.full((len(low_res),), level, device=kept_on)
        concat, base = self._condition(low_res, levels, generator, loop=loop)
        latents = self._denoise(
            noise.to(kept_on, self.unet.dtype),
            Conditions(text, low_res.shape[2], scale, rescale, ConcatCondition(concat, class_labels=levels), loop),
            windows,
            num_inference_steps=steps,
            window_batch_size=window_batch_size,
            devices=devices,
            generator=generator,
            callback=callback_on_step_end,
            callback_tensor_inputs=callback_on_step_end_tensor_inputs,
        )
        if output_type == "latent":
            frames = latents
        else:
            pixels = self.codec.decode(latents)
            if config.residual_scale is not None:
                pixels = self._add_residual(base, pixels)
            pixels = pixels[:, :, :count, : height * config.scale, : width * config.scale]
            if transparent and not self.has_alpha:
                alpha = upsample_lanczos(given[:, 3:], config.scale).to(pixels)
                pixels = premultiply(torch.cat([pixels.clamp(-1, 1), alpha], dim=1))
            elif transparent:
                pixels = without_haze(pixels)
            frames = self._to_user(pixels if transparent else pixels[:, :3], output_type)
        self.maybe_free_model_hooks()
        return LumierePipelineOutput(frames=frames) if return_dict else (frames,)

    def _read(self, clips: torch.Tensor) -> torch.Tensor:
        """Return clips of straight alpha, (B, 3 or 4, F, H, W), as the network takes them."""
        if self.has_alpha:
            return premultiply(clips)
        # Colours as they are under their edges too, so that what alpha later cuts off is the ground's alone.
        return unpremultiply(premultiply(clips))[:, :3] if clips.shape[1] == 4 else clips

    @staticmethod
    def _prompts(prompt: str | list[str] | None, embeds: torch.Tensor | None, count: int) -> list[str] | None:
        """Return a prompt for each clip; None where their embeddings are given."""
        if embeds is not None:
            if prompt or len(embeds) != count:
                raise LumiereError(f"{len(embeds)} prompt_embeds for {count} clips: give one each, and no prompt")
            return None
        prompts = [prompt or ""] * count if not isinstance(prompt, list) else prompt
        if len(prompts) != count:
            raise LumiereError(f"{len(prompts)} prompts for {count} clips: give one, or one each")
        return prompts

    def _windows(self, num_frames: int, length: int, overlap: int | None, *, loop: bool, tapered: bool) -> Windows:
        length = min(length, num_frames)
        if length % self.unet.frame_multiple:
            raise LumiereError(f"windows of {length} frames: choose a multiple of {self.unet.frame_multiple}")
        overlap = min(self.config.window_overlap if overlap is None else overlap, length - 1)
        return plan_windows(num_frames, length, overlap, loop=loop, tapered=tapered)

    @property
    def codec(self) -> PixelCodec:
        """Pixels to what the network denoises, of premultiplied RGBA where it takes that, rather than of RGB alone."""
        unit = self.config.pixel_unshuffle
        low_res_unit = unit if self.config.enlarge_low_res else unit // self.config.scale
        rgba = self.unet.spatial.config["in_channels"] == 4 * (unit**2 + low_res_unit**2)
        return PixelCodec(unit, 4 if rgba else 3)

    def _latent_shape(self, low_res: torch.Tensor) -> tuple[int, ...]:
        unit = self.config.pixel_unshuffle
        height, width = (side * self.config.scale // unit for side in low_res.shape[3:])
        return len(low_res), low_res.shape[1] * unit**2, low_res.shape[2], height, width

    def _condition(
        self, low_res: torch.Tensor, levels: torch.Tensor, generator: Any, *, loop: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the channels beside the noisy clip, the low-res one with noise; and what residuals are added to."""
        alphas_cumprod = (self.image_noising_scheduler or self.scheduler).alphas_cumprod
        if self.config.residual_scale is not None:
            noise = self._initial_noise(tuple(low_res.shape), None, generator, low_res.device, loop=loop)
            noisy = add_noise(low_res, noise, alphas_cumprod, levels)
            return self._as_channels(noisy), noisy if self.config.residual_base == "noisy" else low_res
        upsampled = self._as_channels(low_res)
        noise = self._initial_noise(tuple(upsampled.shape), None, generator, low_res.device, loop=loop)
        return noise_augment(upsampled, noise, alphas_cumprod, levels), low_res

    def _as_channels(self, low_res: torch.Tensor) -> torch.Tensor:
        config = self.config
        return low_res_channels(
            low_res, config.scale, config.pixel_unshuffle, upsampled=config.enlarge_low_res,
            align_corners=config.align_corners,
        )  # fmt: skip

    def _add_residual(self, base: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Add to upsampled low-res clips what high-res ones have more; a few frames at a time, which bounds memory."""
        config = self.config
        parts = [
            upsample_base(part, part, config.scale, kind=config.residual_base, align_corners=config.align_corners).add_(
                more, alpha=1 / config.residual_scale
            )
            for part, more in zip(base.split(_AT_ONCE, 2), residual.split(_AT_ONCE, 2), strict=True)
        ]
        return torch.cat(parts, dim=2)

    def _padded(self, clips: torch.Tensor, window_frames: int) -> torch.Tensor:
        """Repeat edges, and the last frame of clips too short for one window, up to what the network divides."""
        unit = self.config.pixel_unshuffle * 2 ** (len(self.unet.spatial.down_blocks) - 1)
        frames, *sides = clips.shape[2:]
        # The high-res clip must be divided: the low-res one's side times `scale`.
        wanted = [next(s for s in range(side, side + unit + 1) if s * self.config.scale % unit == 0) for side in sides]
        more = -frames % self.unet.frame_multiple if frames < window_frames else 0
        padding = (0, wanted[1] - sides[1], 0, wanted[0] - sides[0], 0, more)
        return F.pad(clips, padding, mode="replicate") if any(padding) else clips
