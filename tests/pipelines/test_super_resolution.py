"""Sharpening clips: against diffusers' own super-resolution of pictures, over windows, and whatever a user hands in."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from PIL import Image

import tiny
from openlumiere import STUNet
from openlumiere.diffusion.upsampling import add_noise, downsample, noise_augment, upsample
from openlumiere.errors import LumiereError
from openlumiere.pipelines.inputs import as_clips
from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline

SCALE, WINDOW = 2, 8


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory: pytest.TempPathFactory) -> LumiereSuperResolutionPipeline:
    """A network on folded pixels, as the bundled one, its temporal layers awake; without text encoders."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=24, out_channels=12, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4, attention_head_dim=4, cross_attention_dim=384, class_embed_type="timestep",
    )  # fmt: skip
    pipe = LumiereSuperResolutionPipeline(
        unet=tiny.wake(STUNet.from_unet(unet)),
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing",
            rescale_betas_zero_snr=True,
        ),
        pixel_unshuffle=2, scale=SCALE, num_inference_steps=2, window_frames=WINDOW, noise_level=100,
        text_encoder_id="sentence-transformers/all-MiniLM-L6-v2",
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("upscaler")
    pipe.save_pretrained(folder)
    assert not (folder / "text_encoder").exists()
    pipe = LumiereSuperResolutionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def clip(frames: int = 12, height: int = 8, width: int = 12, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(0).random((batch, frames, height, width, 3), dtype=np.float32)


def sharpen(pipe: LumiereSuperResolutionPipeline, given: Any, **options: Any) -> np.ndarray:
    return pipe(given, **({"generator": seeded()} | options)).frames


@pytest.mark.slow
@pytest.mark.parametrize("negative", [None, "blurry"])
def test_a_clip_of_one_frame_is_what_diffusers_makes_of_the_picture(negative: str | None, tmp_path: Path) -> None:
    theirs = tiny.deepfloyd_if_upscaler(tmp_path)
    theirs.scheduler = DPMSolverMultistepScheduler()
    picture = torch.rand(1, 3, 8, 8, generator=seeded(3))
    options = {"num_inference_steps": 3, "guidance_scale": 4.0, "noise_level": 250, "negative_prompt": negative}
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        image=picture * 2 - 1, prompt="a tiger", height=16, width=16, generator=seeded(), clean_caption=False,
        output_type="np", **options,
    ).images  # fmt: skip
    ours = LumiereSuperResolutionPipeline.from_t2i(theirs, resampled_levels=[])
    ours.register_to_config(scale=2)
    ours.set_progress_bar_config(disable=True)
    frames = sharpen(ours, picture[:, None], prompt="a tiger", **options)
    np.testing.assert_allclose(frames[0], expected, atol=1e-3)
    assert frames.std() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("size", [(8, 12), (7, 9), (1, 1)])
@pytest.mark.parametrize("frames", [1, 3, 7, 8, 9, 21])
def test_any_size_and_length(upscaler: LumiereSuperResolutionPipeline, frames: int, size: tuple[int, int]) -> None:
    out = sharpen(upscaler, clip(frames, *size))
    assert out.shape == (1, frames, SCALE * size[0], SCALE * size[1], 3)
    assert np.isfinite(out).all()


@pytest.mark.slow
def test_every_form_of_a_clip_gives_the_same(upscaler: LumiereSuperResolutionPipeline) -> None:
    given = (clip() * 255).round().astype(np.uint8)
    expected = sharpen(upscaler, given)
    for form in (
        given[0],
        given.astype(np.float32) / 255,
        torch.from_numpy(given).permute(0, 1, 4, 2, 3).float() / 255,
        torch.from_numpy(given[0]).permute(0, 3, 1, 2),
        [Image.fromarray(frame) for frame in given[0]],
        [[Image.fromarray(frame) for frame in given[0]]],
    ):
        np.testing.assert_allclose(sharpen(upscaler, form), expected, atol=1e-6)


@pytest.mark.slow
def test_alpha_is_enlarged_beside_the_colours(upscaler: LumiereSuperResolutionPipeline) -> None:
    given = (clip() * 255).round().astype(np.uint8)
    alpha = np.full_like(given[..., :1], 255)
    opaque = sharpen(upscaler, np.concatenate([given, alpha], axis=-1))
    np.testing.assert_allclose(opaque[..., :3], sharpen(upscaler, given), atol=1e-6)
    assert (opaque[..., 3] == 1).all()
    alpha[:, :, :, :6] = 0  # the left half is not there
    half = sharpen(upscaler, np.concatenate([given, alpha], axis=-1))
    assert half.shape[-1] == 4
    assert (half[..., :10, 3] == 0).all()
    assert (half[..., 14:, 3] == 1).all()
    pictures = [Image.fromarray(frame) for frame in np.concatenate([given, alpha], axis=-1)[0]]
    np.testing.assert_allclose(sharpen(upscaler, pictures), half, atol=1e-6)


@pytest.mark.slow
def test_windows_of_any_batch_on_any_devices_give_the_same(upscaler: LumiereSuperResolutionPipeline) -> None:
    expected = sharpen(upscaler, clip(30))
    for options in (
        {"window_batch_size": 3}, {"devices": ["cpu", "cpu"]}, {"offload_frames": True},
    ):  # fmt: skip
        np.testing.assert_allclose(sharpen(upscaler, clip(30), **options), expected, atol=1e-5)


@pytest.mark.slow
def test_merging_windows_changes_what_a_window_alone_says(upscaler: LumiereSuperResolutionPipeline) -> None:
    merged, alone = sharpen(upscaler, clip(30)), sharpen(upscaler, clip(30), merge_windows=False)
    assert np.abs(merged - alone).max() > 1e-3
    one = sharpen(upscaler, clip(WINDOW))
    np.testing.assert_allclose(one, sharpen(upscaler, clip(WINDOW), merge_windows=False), atol=1e-6)
    np.testing.assert_allclose(one, sharpen(upscaler, clip(WINDOW), window_frames=40), atol=1e-6)


@pytest.mark.slow
def test_a_loop_can_start_anywhere(upscaler: LumiereSuperResolutionPipeline) -> None:
    """Windows wrap around: shifting clip and noise by a window's spacing shifts the result, across the seam."""
    given, noise = clip(24), torch.randn(2, 1, 12, 24, 8, 12, generator=seeded())
    plain = sharpen(upscaler, given, loop=True, latents=noise[0], noise_level=0)
    moved = sharpen(upscaler, np.roll(given, 6, axis=1), loop=True, latents=noise[0].roll(6, 2), noise_level=0)
    np.testing.assert_allclose(np.roll(plain, 6, axis=1), moved, atol=0.02)  # noise of level 0 is almost none
    straight = sharpen(upscaler, given, latents=noise[0], noise_level=0)
    assert np.abs(straight - plain).max() > 0.05


def test_clips_do_not_depend_on_their_batch(upscaler: LumiereSuperResolutionPipeline) -> None:
    both = clip(12, batch=2)
    together = sharpen(upscaler, both, prompt=["a tiger", "a heart"], generator=[seeded(1), seeded(2)])
    alone = sharpen(upscaler, both[1], prompt="a heart", generator=[seeded(2)])
    np.testing.assert_allclose(together[1:], alone, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        ([], {}, "no frames"),
        (clip(0), {}, "cannot be read"),
        (clip()[..., :2], {}, "3 colours"),
        (clip(), {"prompt": ["a", "b"]}, "2 prompts for 1 clips"),
        (clip(), {"noise_level": 1000}, "choose 0 to 999"),
        (clip(), {"window_frames": 7}, "windows of 7 frames"),
        (clip(), {"output_type": "mp4"}, "use one of 'np'"),
        (clip(), {"latents": torch.zeros(1, 12, 3, 4, 4)}, "this call needs"),
    ],
)
def test_what_cannot_be_sharpened_is_refused(
    upscaler: LumiereSuperResolutionPipeline, given: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(LumiereError, match=words) as told:
        sharpen(upscaler, given, **options)
    assert "\n" not in str(told.value)


def test_a_network_that_is_not_told_the_noise_level_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LumiereError, match="no super-resolution U-Net"):
        LumiereSuperResolutionPipeline.from_t2i(tiny.deepfloyd_if(tmp_path))


# --- What the network is given ----------------------------------------------------------------------------------------


def residual_upscaler(upscaler: LumiereSuperResolutionPipeline, **options: Any) -> LumiereSuperResolutionPipeline:
    """The same, but for a network that says there is no residual."""
    net = copy.deepcopy(upscaler.unet)
    torch.nn.init.zeros_(net.spatial.conv_out.weight)
    torch.nn.init.zeros_(net.spatial.conv_out.bias)
    config = {
        key: value for key, value in upscaler.config.items() if key in inspect.signature(type(upscaler)).parameters
    }
    modules = upscaler.components | {
        "unet": net,
        "scheduler": DPMSolverMultistepScheduler.from_config(upscaler.scheduler.config, prediction_type="sample"),
    }
    pipe = LumiereSuperResolutionPipeline(**config | modules | {"residual_scale": 5.0} | options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_without_a_residual_the_enlarged_clip_comes_back(upscaler: LumiereSuperResolutionPipeline) -> None:
    given = clip()
    wanted = (upsample(as_clips(given), SCALE) + 1) / 2
    out = sharpen(residual_upscaler(upscaler), given, noise_level=0)
    np.testing.assert_allclose(out, wanted.permute(0, 2, 3, 4, 1), atol=1e-2)  # level 0 is not quite without noise
    rough = sharpen(residual_upscaler(upscaler), given, noise_level=300)
    assert 0.02 < np.abs(rough - out).mean() < 0.3


def test_the_residual_is_the_networks_own_share(upscaler: LumiereSuperResolutionPipeline) -> None:
    """What a network says, it says of the sharp clip's difference to the enlarged one, times the scale."""
    pipe = residual_upscaler(upscaler)
    torch.nn.init.constant_(pipe.unet.spatial.conv_out.bias, 1.0)
    given = np.full((1, 12, 8, 12, 3), 0.25, np.float32)
    # 1 / 5 in [-1, 1] is 1 / 10 in [0, 1].
    np.testing.assert_allclose(sharpen(pipe, given, noise_level=0), 0.35, atol=2e-2)


def test_shrinking_what_was_enlarged_keeps_a_flat_clip() -> None:
    flat = torch.full((1, 3, 2, 4, 6), 0.3)
    torch.testing.assert_close(downsample(upsample(flat, 4), 4), flat)
    assert upsample(flat, 4).shape == (1, 3, 2, 16, 24)


def test_noise_of_a_level_keeps_the_variance() -> None:
    clips, noise = torch.randn(2, 3, 4, 32, 32, generator=seeded(1)), torch.randn(2, 3, 4, 32, 32, generator=seeded(2))
    alphas = torch.linspace(1, 0, 10)
    noisy = noise_augment(clips, noise, alphas, torch.tensor([0, 4]))
    assert torch.equal(noisy[0], clips[0])
    assert noisy[1].std() == pytest.approx(1, abs=0.03)
    assert torch.allclose(noise_augment(clips, noise, alphas, torch.tensor([9, 9])), noise)


def test_noise_before_enlarging_has_the_same_share_but_keeps_the_clip() -> None:
    clips, noise = torch.randn(2, 3, 4, 32, 32, generator=seeded(1)), torch.randn(2, 3, 4, 32, 32, generator=seeded(2))
    alphas, levels = torch.linspace(1, 0, 10), torch.tensor([0, 4])
    rough = add_noise(clips, noise, alphas, levels)
    assert torch.equal(rough[0], clips[0])
    torch.testing.assert_close(
        rough * alphas[levels].sqrt()[:, None, None, None, None], noise_augment(clips, noise, alphas, levels)
    )


def test_arrays_and_tensors_are_read_alike() -> None:
    frames = clip(2, 3, 5)
    torch.testing.assert_close(as_clips(frames), as_clips(torch.from_numpy(frames).permute(0, 1, 4, 2, 3)))
    assert as_clips(frames).shape == (1, 3, 2, 3, 5)
