"""Text to clip: the base STUNet over all frames at once, then super-resolution where the model has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from diffusers import DiffusionPipeline

from openlumiere.diffusion.alpha import lay_over, premultiply, without_haze
from openlumiere.diffusion.canonical import CanonicalFrame
from openlumiere.diffusion.layout import is_told
from openlumiere.diffusion.sampling import Img2ImgStart, steps_left
from openlumiere.diffusion.windows import Windows, plan_windows
from openlumiere.errors import LumiereError
from openlumiere.lengths import Lengths
from openlumiere.stunet import STUNet

from .backgrounds import without_background
from .clip_pipeline import ClipPipeline, LumierePipelineOutput
from .conditions import Conditions
from .familiarity import knows
from .generators import restarted
from .inputs import InpaintInput, rgb
from .layouts import given_paths, layout_condition
from .planner import PathPlanner
from .second_stage import SecondStageMixin
from .styles import StyleMixin
from .super_resolution import LumiereSuperResolutionPipeline

_NUM_FRAMES = 80  # of the paper's clips, and of models that name no length of their own


class LumierePipeline(SecondStageMixin, StyleMixin, ClipPipeline):
    """Text to a clip by a space-time U-Net, and to one of more pixels by a second.

    Each stage can be used alone: the base by ``upscale=False``, the second through `super_resolution`.

    Args:
        unet: the network.
        scheduler: any of diffusers' that steps on ``(prediction, timestep, sample)``.
        text_encoder, tokenizer: the T2I's own; None = loaded from `text_encoder_id`.
        text_encoder_2, tokenizer_2: Stable Diffusion XL's second ones.
        vae: of latent T2Is; None = the network works on pixels.
        super_resolution: the second stage, a pipeline of its own that reads prompts by this one's text encoder; None =
            there is none.
        planner: turns prompts into paths, for networks that take a layout; None = only the user gives one.
        pixel_unshuffle: side of the blocks of pixels that are channels, for networks on pixels.
        text_encoder_id: hub id or folder of the encoder, where the pipeline's folder does not carry it.
        max_text_length: tokens that the bundled models read.
        num_inference_steps, guidance_scale, guidance_rescale, guidance_interval: the model's own defaults.
        timestep_shift: above 1 samples more at high noise, see `diffusion.timesteps`.
        noise_correlation: of adjacent frames' noise, as in training, see `diffusion.noise`. Above 0, use a scheduler
            that adds no noise of its own, such as the bundled models': what it added would be independent.
        window_frames: length of the windows that longer clips are denoised in, as in training; None = a clip is always
            denoised as a whole.
        spread_condition: fill what is not given of C from other frames, as in training, see
            `diffusion.conditioning.propagate_in_time`; False = leave it blank, as the paper does.
        follow_layout: move what fills it along with the subject, where the layout is known.
        canonical: draw subjects upright in the middle where the layout is known, and move them along it afterwards, see
            `diffusion.canonical`; for models whose subjects stand before plain ground or none.
        picture_strength: start such clips from a picture that the T2I alone draws of the prompt, with so much noise
            that this share of the steps is left (SDEdit), so that all frames show the same subject; 1 = from noise
            alone.
        subjects: what a model of a small vocabulary was trained to show; None = not told.
        transparent_words: what asks a model with alpha for no background; added to prompts that name none, whose clips
            are then laid over `background` where they are to be opaque. None = prompts are taken as they are.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->vae"
    _optional_components: ClassVar = [
        "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "vae", "super_resolution", "planner",
    ]  # fmt: skip

    def __init__(
        self,
        unet: STUNet,
        scheduler: Any,
        text_encoder: Any = None,
        tokenizer: Any = None,
        text_encoder_2: Any = None,
        tokenizer_2: Any = None,
        vae: Any = None,
        super_resolution: LumiereSuperResolutionPipeline | None = None,
        planner: PathPlanner | None = None,
        pixel_unshuffle: int = 1,
        text_encoder_id: str | None = None,
        max_text_length: int = 24,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        guidance_rescale: float = 0.0,
        guidance_interval: list[float] | tuple[float, float] = (0.0, 1.0),  # diffusers knows no Sequence
        timestep_shift: float = 1.0,
        noise_correlation: float = 0.0,
        window_frames: int | None = None,
        spread_condition: bool = False,
        follow_layout: bool = False,
        canonical: bool = False,
        picture_strength: float = 1.0,
        subjects: list[str] | None = None,
        transparent_words: str | None = None,
    ) -> None:
        arguments = locals()
        super().__init__()
        self._forget_styles()
        self._register(arguments)

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

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width (pixels) of the base clips that the network was trained on."""
        trained = self.unet.spatial.config["sample_size"]
        height, width = (trained, trained) if isinstance(trained, int) else trained
        return height * self.codec.factor, width * self.codec.factor

    @property
    def size_multiple(self) -> int:
        """What the network divides base clips' height and width (pixels) by."""
        return self.codec.factor * 2 ** (len(self.unet.spatial.down_blocks) - 1)

    @property
    def scale(self) -> int:
        """How many times as wide and high the second stage makes clips; 1 where there is none."""
        return 1 if self.super_resolution is None else int(self.super_resolution.config.scale)

    def enough_frames(self, num_frames: int) -> int:
        """Return the smallest number of frames that the model makes which is no less than one."""
        return Lengths(multiple=self.unet.frame_multiple, window=self.config.window_frames).enough(num_frames)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        *,
        negative_prompt: str | list[str] | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_rescale: float | None = None,
        guidance_interval: Sequence[float] | None = None,
        num_videos_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        negative_pooled_prompt_embeds: torch.Tensor | None = None,
        video: torch.Tensor | np.ndarray | list[Any] | None = None,
        mask: torch.Tensor | np.ndarray | Any | None = None,
        strength: float | None = None,
        hold_given: bool = True,
        paste_given: bool = True,
        layout: Any | None = None,
        planner: bool = True,
        rigid: bool | None = None,
        canonical: bool | None = None,
        feather: int = 0,
        upscale: bool | None = None,
        upscale_steps: int | None = None,
        on_base_clips: Callable[[np.ndarray], None] | None = None,
        loop: bool = False,
        window_frames: int | None = None,
        window_overlap: int | None = None,
        window_batch_size: int = 1,
        devices: Sequence[str | torch.device] | None = None,
        offload_frames: bool = False,
        transparent: bool = False,
        background: str = "white",
        output_type: Literal["np", "pt", "pil", "latent"] = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> LumierePipelineOutput | tuple[Any]:
        """Make clips.

        Args:
            prompt: one, or a list: a clip for each; may be empty where a video is given.
            negative_prompt: what to keep away from; the empty prompt when None.
            num_frames: a multiple of ``unet.frame_multiple``; any number from `window_frames` on; the model's own
                length when None.
            height, width: in pixels; the size that the network was trained at when None.
            num_inference_steps, guidance_scale, guidance_rescale: the model's own when None; guidance 1 = none. Of the
                steps a share is taken where a clip starts from a picture, see `picture_strength`, or from a video.
            guidance_interval: leave guidance out at noise below and above these shares of the schedule's timesteps
                (Kynkäänniemi et al. 2024), which halves the cost of those steps: (0.4, 1) guides at high noise alone,
                where a clip's subject and motion are decided. The model's own when None.
            generator: one, or a list with one for each clip; a clip then does not depend on its batch. The second stage
                gets fresh ones of the same seeds, as `lumiere upscale --seed` does.
            latents: the noise to start from, of unit variance, (B, C, F, h, w) as the network sees it.
            prompt_embeds, negative_prompt_embeds: text embeddings instead of prompts, (B, L, D), as the model's text
                encoder makes them; guidance encodes the negative prompt where it is given the first alone.
            pooled_prompt_embeds, negative_pooled_prompt_embeds: likewise (B, P), for Stable Diffusion XL.
            video: clips of which a part is given, as `pipelines.inputs.as_clips` takes them, one for each clip to make
                or one for all, of the length to make and the size of the base's clips, or of the second stage's;
                `pipelines.tasks` makes it and its mask for each application.
            mask: what of `video` should change, 1 or white; see `pipelines.inputs.as_mask`.
            strength: start from `video` with so much noise that this share of the steps is left (SDEdit, Meng et al.
                2021), for which a mask may be left out: 0 returns it, 1 and None start from noise alone.
            hold_given: after each step set what is given to itself under the noise of that step, as in training; False
                = leave it to the network.
            paste_given: put what is given back over the clip at the end, so that it is kept to the pixel; a video of
                the base's size is kept to the base clip's pixels.
            rigid: what is given in whole frames has no motion of its own, and is kept as it is wherever it moves: for
                pictures of what the network doesn't know, of which it would make something that it does. None = if it
                doesn't, see `pipelines.familiarity`. For models with `follow_layout`.
            canonical: draw the subject where it is easiest to draw, and move it along the layout afterwards; where it
                is told in all frames, and no video is given. False = as the paper, and as the network was trained; the
                model's own when None.
            feather: pixels over which it then fades into what was made.
            layout: where the subject is, for models that are told: way points such as ``[(0.1, 0.5), (0.9, 0.5)]``,
                see `diffusion.layout.path_through`; or the numbers of each frame, (F, 6) or (B, F, 6), as
                `diffusion.layout` has them.
            planner: let the model's planner, where it has one, make of the prompt what `layout` leaves open; at random,
                so that no two seeds are alike. With a `video` it is asked only for what way points leave open. False =
                the paper's model.
            upscale: run the second stage too; None = where there is one, and `output_type` is not "latent".
            upscale_steps: of the second stage, which then must run; its own when None.
            on_base_clips: given the base model's clips, (B, F, H, W, 3 or 4) in [0, 1], before the second stage runs.
            loop: make the clip's end flow into its start; a path that leads anywhere leads back again.
            window_frames, window_overlap: longer clips are denoised in windows of so many frames that overlap by so
                many, merged at each step (temporal MultiDiffusion); the model's own, and half a window, when None.
            window_batch_size: windows denoised at once.
            devices: share the windows between these, and of each window what is predicted with and without the prompt;
                the clip is the same, to the bit, whichever and however many they are. The pipeline's own when None,
                both predicted at once.
            offload_frames: keep the clip on the CPU, so that memory on the device does not grow with its length.
            transparent: keep the clips' alpha, as a fourth channel, where the model has it (`has_alpha`); a video's
                transparency is then kept too.
            background: a colour's name or ``#rrggbb``, which what is transparent is laid over otherwise.
            output_type: see `LumierePipelineOutput`.
            callback_on_step_end: called as diffusers' pipelines do, ``(pipe, step, timestep, {"latents": ...})``, in
                both stages.
            callback_on_step_end_tensor_inputs: what it is given: "latents", still noisy, and "denoised", what they are
                on the way to.

        Raises:
            LumiereError: an empty prompt, a number of frames or a size that the network does not divide, an unknown
                `output_type`, another number of generators, negative prompts, embeddings or latents than of clips; a
                video without a mask or of another size, or a model that takes none; likewise a layout; `transparent` of
                a model without alpha, `upscale` of one without a second stage; a scheduler that does not fit; an
                interval of guidance that is none.
        """
        steps, scale, rescale = self._sampling_options(num_inference_steps, guidance_scale, guidance_rescale)
        interval = self._guidance_interval(guidance_interval)
        self._num_timesteps = steps  # for who asks before the first one
        embeds = self._given_text("prompt_embeds", prompt_embeds, pooled_prompt_embeds)
        against = self._given_text("negative_prompt_embeds", negative_prompt_embeds, negative_pooled_prompt_embeds)
        prompts = self._prompts(prompt, embeds is not None, needs_words=video is None)
        clips = num_videos_per_prompt * (len(prompts or []) if embeds is None else len(embeds.hidden_states))
        num_frames = self.config.window_frames or _NUM_FRAMES if num_frames is None else num_frames
        self._check_call(output_type, callback_on_step_end_tensor_inputs, generator, num_clips=clips)
        self._check(num_videos_per_prompt, strength, transparent=transparent)
        ground = rgb(background)
        stage = self._second_stage(upscale, upscale_steps, output_type)
        windows = self._windows(num_frames, window_frames, window_overlap, loop=loop)
        shape = (clips, *self._sample_shape(num_frames, height, width))
        device = self._execution_device
        kept_on = torch.device("cpu") if offload_frames else device

        given = self._given(video, mask, shape, strength, kept_on, background)
        words = self.config.transparent_words
        if prompts is not None and words and (transparent or given is None or given.is_transparent):
            prompts = [without_background(each, words) for each in prompts]
        text = self._encode(prompts, negative_prompt, guided=scale > 1.0, given=embeds, negative_given=against).repeat(
            num_videos_per_prompt
        )
        noise = self._initial_noise(shape, latents, generator, device, loop=loop)
        seen = None
        if given is not None and self.config.follow_layout:
            seen = given_paths(given.clips, None if mask is None else given.mask)
        asked = self.planner if planner else None
        layout = layout_condition(
            self.unet, layout, asked, self._planner_text(asked, prompts, text, clips), num_frames,
            loop=loop, given=given is not None, seen=seen, generator=generator,
        )  # fmt: skip
        canonical = self.config.canonical if canonical is None else canonical
        self._canonical = None
        if canonical and given is None and layout is not None and is_told(layout).all():
            self._canonical = CanonicalFrame.of(layout)
            layout = self._canonical.layout
        concat, start, known = None, None, None
        if given is not None and mask is not None:
            may_move = self.config.follow_layout and rigid is not False and bool(given.whole_frames.any())
            if layout is not None and may_move:
                unknown = torch.ones(clips, dtype=torch.bool)
                if rigid is None:
                    unknown = ~knows(self, given.clips, given.mask, text.select(slice(clips)), layout)
                given = given.moved_along(layout, unknown & is_told(layout).cpu())
            known = self._known_region(given.clips, given.mask) if hold_given else None
        if given is not None and strength is not None and strength < 1:
            start = Img2ImgStart(self.encode_clips(given.clips), strength)
        conditions = Conditions(text, num_frames, scale, rescale, None, loop, layout, interval)
        left = steps_left(steps, self.config.picture_strength, least=1)
        if self._canonical is not None and left < steps:
            self._num_timesteps = left
            start = Img2ImgStart(self._draw_pictures(conditions, shape, generator).expand(shape), left / steps)
        shared: dict[str, Any] = {"window_batch_size": window_batch_size, "devices": devices}
        if known is not None and bool((known.mask == 1).all()):  # nothing is left to be made
            denoised = known.clip
        else:
            if given is not None and mask is not None:
                concat = self.follow(self.encode_condition(given.clips, given.mask), layout, clips=given.clips)
            denoised = self._denoise(
                noise.to(kept_on, self.unet.dtype),
                replace(conditions, concat=concat),
                windows,
                num_inference_steps=steps,
                start=start,
                known=known,
                generator=generator,
                callback=callback_on_step_end,
                callback_tensor_inputs=callback_on_step_end_tensor_inputs,
                **shared,
            )
        if output_type == "latent":
            self.maybe_free_model_hooks()
            return LumierePipelineOutput(frames=denoised) if return_dict else (denoised,)
        pixels = self.codec.decode(denoised)
        if self.has_alpha:
            pixels = without_haze(pixels)
        if self._canonical is not None:
            pixels = self._canonical.moved(pixels)
        pasted = given if paste_given else None
        if pasted is not None:
            last = stage is None or pasted.high_res_clips is None
            pixels = pasted.paste_onto(pixels, feather=feather if last else 0)
        if self.has_alpha and not transparent:
            # Before the second stage, which then sees the edges as they will be.
            pixels, pasted = lay_over(pixels, ground), pasted and pasted.over(background)
        if stage is not None and pasted is not None and pasted.all_in_high_res is not None:
            pixels, stage = pasted.all_in_high_res, None
        frames = None
        if stage is not None:
            if on_base_clips is not None:
                on_base_clips(self._to_user(pixels, "np"))
            self.maybe_free_model_hooks()  # so that two networks are never on the device at once
            frames = stage(
                self._to_user(pixels, "pt"),
                None if prompts is None else [each for each in prompts for _ in range(num_videos_per_prompt)],
                prompt_embeds=None if embeds is None else text.hidden_states[:clips],
                num_inference_steps=upscale_steps,
                generator=restarted(generator),
                loop=loop,
                offload_frames=offload_frames,
                output_type=output_type if pasted is None else "pt",
                callback_on_step_end=callback_on_step_end,
                callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
                **shared,
            )[0]
            if pasted is not None:
                pixels = frames.transpose(1, 2) * 2 - 1
                pixels = pasted.paste_onto(premultiply(pixels) if transparent else pixels, feather=feather)
        if stage is None or pasted is not None:
            frames = self._to_user(pixels, output_type)
        self.maybe_free_model_hooks()
        return LumierePipelineOutput(frames=frames) if return_dict else (frames,)

    def _prompts(self, prompt: str | list[str] | None, embeds: bool, *, needs_words: bool) -> list[str] | None:
        """Return the prompts as a list; None where embeddings are given."""
        if embeds:
            if prompt is not None:
                raise LumiereError("give a prompt or prompt_embeds, not both")
            return None
        prompts = [prompt] if isinstance(prompt, str) else list(prompt or [])
        if not prompts or any(not isinstance(p, str) or (needs_words and not p.strip()) for p in prompts):
            raise LumiereError("the prompt is empty: say what the clip should show")
        return prompts

    def _guidance_interval(self, given: Sequence[float] | None) -> tuple[float, float]:
        low, high = self.config.guidance_interval if given is None else given
        if not 0 <= low <= high <= 1:
            raise LumiereError(f"guidance_interval {low:g}, {high:g}: give two shares from 0 to 1, the smaller first")
        return low, high

    def _check(self, num_videos: int, strength: float | None, *, transparent: bool) -> None:
        if num_videos < 1:
            raise LumiereError("the number of clips must be at least 1")
        if strength is not None and not 0 <= strength <= 1:
            raise LumiereError(f"a strength of {strength}: choose 0, which changes nothing, to 1, which keeps nothing")
        if transparent and not self.has_alpha:
            raise LumiereError("this model makes opaque clips: leave transparent out, or choose a model with alpha")

    def _second_stage(
        self, upscale: bool | None, steps: int | None, output_type: str
    ) -> LumiereSuperResolutionPipeline | None:
        """Return the second stage if this call runs it."""
        upscale = True if steps is not None and upscale is None else upscale
        if upscale and output_type == "latent":
            raise LumiereError("output_type 'latent' is the base model's: leave upscale out")
        if upscale and self.super_resolution is None:
            raise LumiereError("this model has no super-resolution stage; leave upscale out")
        return self.super_resolution if upscale or (upscale is None and output_type != "latent") else None

    def _given(
        self, video: Any, mask: Any, shape: tuple[int, ...], strength: float | None, device: torch.device,
        background: str,
    ) -> InpaintInput | None:  # fmt: skip
        """Read what is given; None where nothing is. `shape` is of the latents."""
        if video is None and mask is None:
            if strength is not None:
                raise LumiereError("strength says how far a video may change: give the video too")
            return None
        if video is None or (mask is None and strength is None):
            raise LumiereError("give both a video and a mask of what should change in it, or a strength")
        if mask is not None and not self.unet.config["condition_channels"]:
            raise LumiereError("this model takes no clip to keep a part of; train one: lumiere train conditional")
        batch, _, frames, *size = shape
        height, width = (side * self.codec.factor for side in size)
        given = InpaintInput.read(
            video, mask, (batch, frames, height, width), self.scale, alpha=self.has_alpha, background=background
        )
        return given.to(device, self.unet.dtype)

    def _windows(self, num_frames: int, length: int | None, overlap: int | None, *, loop: bool) -> Windows:
        if length is None:
            length = self.config.window_frames or num_frames
        if length % self.unet.frame_multiple:
            raise LumiereError(f"windows of {length} frames: choose a multiple of {self.unet.frame_multiple}")
        if num_frames < 1 or (num_frames < length and num_frames % self.unet.frame_multiple):
            raise LumiereError(
                f"{num_frames} frames: choose a multiple of {self.unet.frame_multiple}, which this model's temporal "
                "levels divide"
            )
        overlap = length // 2 if overlap is None else overlap
        # Neighbours share much and matter least at their ends: what they show must become one thing.
        return plan_windows(num_frames, length, overlap, loop=loop, tapered=True)

    def _sample_shape(self, num_frames: int, height: int | None, width: int | None) -> tuple[int, int, int, int]:
        unit, multiple = self.codec.factor, self.size_multiple
        for name, side in (("height", height), ("width", width)):
            if side is not None and (side < multiple or side % multiple):
                raise LumiereError(f"{name} {side}: choose a multiple of {multiple} pixels")
        own = self.frame_size
        size = (own[0] if height is None else height, own[1] if width is None else width)
        return self.unet.spatial.config["in_channels"], num_frames, size[0] // unit, size[1] // unit
