"""A clip to a sharper one: a super-resolution STUNet over short windows of frames, merged by MultiDiffusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor

from openlumiere.diffusion.alpha import premultiply, unpremultiply
from openlumiere.diffusion.noise import progressive_noise
from openlumiere.diffusion.upsampling import add_noise, low_res_channels, noise_augment, upsample_base, upsample_lanczos
from openlumiere.diffusion.windows import plan_windows
from openlumiere.errors import LumiereError
from openlumiere.latents import PixelCodec
from openlumiere.stunet import STUNet

from .clip_pipeline import ClipPipeline, ConcatCondition, Conditions, LumierePipelineOutput
from .inputs import as_clips

_AT_ONCE = 4  # frames


class LumiereSuperResolutionPipeline(ClipPipeline):
    """Sharpens clips by a space-time U-Net that sees the noisy sharp clip beside the enlarged soft one.

    See `diffusion.upsampling` for what it is given.

    Args:
        unet: the network; it takes a clip's channels, of RGB or of premultiplied RGBA, and the low-res clip's.
        scheduler, text_encoder, tokenizer, pixel_unshuffle, text_encoder_id, max_text_length, num_inference_steps,
            guidance_scale, guidance_rescale, timestep_shift, noise_correlation: as `LumierePipeline`'s.
        image_noising_scheduler: schedule of the soft clip's noise; None = the scheduler's own.
        scale: how many times larger the sharp clip is.
        residual_scale: what the network denoises is the sharp clip's difference to the enlarged soft one, times this;
            None: the sharp clip itself, as DeepFloyd IF's does.
        align_corners: how the soft clip is enlarged, as `torch.nn.functional.interpolate` means it.
        enlarge_low_res: give the network the soft clip enlarged; False = as it is, folded into fewer channels, for
            networks whose `pixel_unshuffle` is a multiple of `scale`.
        residual_base: what residuals are added to, see `diffusion.upsampling.upsample_base`.
        window_frames, window_overlap: of the windows, T' and 2 in the paper.
        noise_level: timestep of the soft clip's noise.
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
        super().__init__()
        self.register_modules(
            unet=unet,
            scheduler=scheduler,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            image_noising_scheduler=image_noising_scheduler,
        )
        self.register_to_config(
            pixel_unshuffle=pixel_unshuffle,
            scale=scale,
            residual_scale=residual_scale,
            align_corners=align_corners,
            enlarge_low_res=enlarge_low_res,
            residual_base=residual_base,
            text_encoder_id=text_encoder_id,
            max_text_length=max_text_length,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_rescale=guidance_rescale,
            timestep_shift=timestep_shift,
            noise_correlation=noise_correlation,
            window_frames=window_frames,
            window_overlap=window_overlap,
            noise_level=noise_level,
        )

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
            align_corners=True,  # as diffusers' pipeline enlarges
            noise_level=250,  # its default
            **{name: parts[name] for name in known if name in parts},
        )

    @torch.no_grad()
    def __call__(
        self,
        clip: torch.Tensor | np.ndarray | list[Any],
        prompt: str | list[str] = "",
        *,
        negative_prompt: str | list[str] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_rescale: float | None = None,
        noise_level: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        loop: bool = False,
        merge_windows: bool = True,
        tapered_windows: bool = False,
        window_frames: int | None = None,
        window_overlap: int | None = None,
        window_batch_size: int = 1,
        devices: Sequence[str | torch.device] | None = None,
        offload_frames: bool = False,
        output_type: Literal["np", "pt", "pil"] = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: tuple[str, ...] = ("latents",),
    ) -> LumierePipelineOutput | tuple[Any]:
        """Sharpen clips of any length and size; each frame comes back `scale` times as wide and high.

        Args:
            clip: one clip or a batch, in any of the forms of `LumierePipelineOutput`; if it has alpha, so has what
                comes back. A network of RGB alone then sharpens the colours, and alpha is enlarged beside them.
            prompt: what it shows, one for each clip or one for all; may be empty.
            num_inference_steps, guidance_scale, guidance_rescale, noise_level: the model's own when None.
            generator, latents, loop, devices, offload_frames, output_type, callback_on_step_end: as
                `LumierePipeline`'s.
            merge_windows: False denoises each window by itself, without overlap, which is what MultiDiffusion is
                measured against.
            tapered_windows: let a window's frames count less towards its ends, rather than all alike.
            window_frames, window_overlap: the model's own when None.
            window_batch_size: windows denoised at once.

        Raises:
            LumiereError: a clip without frames or of another shape, windows that the network does not divide,
                another number of prompts than of clips.
        """
        config = self.config
        steps = num_inference_steps or config.num_inference_steps
        scale = config.guidance_scale if guidance_scale is None else guidance_scale
        rescale = config.guidance_rescale if guidance_rescale is None else guidance_rescale
        level = config.noise_level if noise_level is None else noise_level
        if output_type not in ("np", "pt", "pil"):
            raise LumiereError(f"output_type {output_type!r}: use 'np', 'pt' or 'pil'")
        given = as_clips(clip)
        transparent = given.shape[1] == 4
        soft = premultiply(given)
        if not self.has_alpha:
            # Colours as they are under their edges too, so that what alpha later cuts off is the ground's alone.
            soft = unpremultiply(soft)[:, :3] if transparent else given
        prompts = [prompt] * len(soft) if isinstance(prompt, str) else list(prompt)
        if len(prompts) != len(soft):
            raise LumiereError(f"{len(prompts)} prompts for {len(soft)} clips: give one, or one each")
        device = self._execution_device
        kept_on = torch.device("cpu") if offload_frames else device

        count, height, width = soft.shape[2:]
        soft = self._padded(soft)
        length = min(window_frames or config.window_frames, soft.shape[2])
        if length % self.unet.frame_multiple:
            raise LumiereError(f"windows of {length} frames: choose a multiple of {self.unet.frame_multiple}")
        overlap = min(config.window_overlap if window_overlap is None else window_overlap, length - 1)
        if not merge_windows:
            overlap = 0
        windows = plan_windows(soft.shape[2], length, overlap, loop=loop, tapered=tapered_windows)

        text = self._encode(prompts, negative_prompt, guided=scale > 1.0)
        soft = soft.to(kept_on, self.unet.dtype)
        shape = self._sharp_shape(soft)
        if latents is None:
            latents = self._noise(shape, generator, kept_on, loop=loop)
        elif latents.shape != shape:
            raise LumiereError(f"latents have the shape {tuple(latents.shape)}; this call needs {shape}")
        levels = torch.full((len(soft),), level, device=kept_on)
        schedule = self.image_noising_scheduler or self.scheduler
        beside, base = self._beside(soft, schedule.alphas_cumprod, levels, generator, loop=loop)
        sharp = self._denoise(
            latents.to(kept_on, self.unet.dtype),
            Conditions(text, soft.shape[2], scale, rescale, ConcatCondition(beside, class_labels=levels), loop),
            windows,
            num_inference_steps=steps,
            window_batch_size=window_batch_size,
            devices=devices,
            generator=generator,
            callback=callback_on_step_end,
            callback_tensor_inputs=callback_on_step_end_tensor_inputs,
        )
        pixels = self.codec.decode(sharp)
        if config.residual_scale is not None:
            pixels = self._add_residual(base, pixels)
        pixels = pixels[:, :, :count, : height * config.scale, : width * config.scale]
        if transparent and not self.has_alpha:
            alpha = upsample_lanczos(given[:, 3:], config.scale).to(pixels)
            pixels = premultiply(torch.cat([pixels.clamp(-1, 1), alpha], dim=1))
        elif not transparent:
            pixels = pixels[:, :3]
        frames = self._to_user(pixels, output_type)
        self.maybe_free_model_hooks()
        return LumierePipelineOutput(frames=frames) if return_dict else (frames,)

    @property
    def codec(self) -> PixelCodec:
        """Pixels to what the network denoises, of premultiplied RGBA where it takes that, rather than of RGB alone."""
        unit = self.config.pixel_unshuffle
        low_res_unit = unit if self.config.enlarge_low_res else unit // self.config.scale
        rgba = self.unet.spatial.config["in_channels"] == 4 * (unit**2 + low_res_unit**2)
        return PixelCodec(unit, 4 if rgba else 3)

    def _sharp_shape(self, soft: torch.Tensor) -> tuple[int, ...]:
        unit = self.config.pixel_unshuffle
        height, width = (side * self.config.scale // unit for side in soft.shape[3:])
        return len(soft), soft.shape[1] * unit**2, soft.shape[2], height, width

    def _beside(
        self, soft: torch.Tensor, alphas_cumprod: torch.Tensor, levels: torch.Tensor, generator: Any, *, loop: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the network is given beside the noisy clip, the soft one with noise; and what residuals are added to."""
        if self.config.residual_scale is not None:
            noise = self._noise(tuple(soft.shape), generator, soft.device, loop=loop)
            rough = add_noise(soft, noise, alphas_cumprod, levels)
            return self._as_channels(rough), rough if self.config.residual_base == "noisy" else soft
        upsampled = self._as_channels(soft)
        noise = self._noise(tuple(upsampled.shape), generator, soft.device, loop=loop)
        return noise_augment(upsampled, noise, alphas_cumprod, levels), soft

    def _as_channels(self, soft: torch.Tensor) -> torch.Tensor:
        config = self.config
        return low_res_channels(
            soft, config.scale, config.pixel_unshuffle, upsampled=config.enlarge_low_res,
            align_corners=config.align_corners,
        )  # fmt: skip

    def _add_residual(self, base: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Low-res clips, enlarged, and what sharp ones have more; a few frames at a time, which bounds memory."""
        config = self.config
        parts = [
            upsample_base(part, part, config.scale, kind=config.residual_base, align_corners=config.align_corners).add_(
                more, alpha=1 / config.residual_scale
            )
            for part, more in zip(base.split(_AT_ONCE, 2), residual.split(_AT_ONCE, 2), strict=True)
        ]
        return torch.cat(parts, dim=2)

    def _noise(self, shape: tuple[int, ...], generator: Any, device: torch.device, *, loop: bool) -> torch.Tensor:
        noise = randn_tensor(shape, generator=generator, device=device, dtype=self.unet.dtype)
        return progressive_noise(noise, self.config.noise_correlation, loop=loop)

    def _padded(self, clips: torch.Tensor) -> torch.Tensor:
        """Repeat edges, and the last frame of clips too short for one window, up to what the network divides."""
        unit = self.config.pixel_unshuffle * 2 ** (len(self.unet.spatial.down_blocks) - 1)
        frames, *sides = clips.shape[2:]
        # The sharp clip must be divided: the soft one's side times `scale`.
        wanted = [next(s for s in range(side, side + unit + 1) if s * self.config.scale % unit == 0) for side in sides]
        more = -frames % self.unet.frame_multiple if frames < self.config.window_frames else 0
        padding = (0, wanted[1] - sides[1], 0, wanted[0] - sides[0], 0, more)
        return F.pad(clips, padding, mode="replicate") if any(padding) else clips
