"""Transparent clips: premultiplied and straight alpha, the pipeline, its conditions, the second stage."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tiny
from clips import seen, sticker
from openlumiere import LumierePipeline
from openlumiere.autoencoder import RGBAAutoencoder
from openlumiere.diffusion.alpha import EMPTY, add_alpha, lay_over, premultiply, unpremultiply, without_haze
from openlumiere.diffusion.upsampling import upsample_lanczos
from openlumiere.errors import LumiereError
from openlumiere.pipelines.inputs import InpaintInput, as_clips, paste_given, rgb
from openlumiere.pipelines.tasks import animate, extend, inpaint

FAINT = 8 / 255


# ------------------------------------------------------------------------------------------- straight, premultiplied


def test_transparent_pixels_are_nothing_whatever_colour_they_hide() -> None:
    pixels = as_clips(sticker())
    clear = (pixels[:, 3:] == -1).expand_as(pixels)
    assert clear.any()
    assert (premultiply(pixels)[clear] == EMPTY).all()
    opaque = torch.rand(1, 3, 2, 4, 4) * 2 - 1
    assert torch.equal(premultiply(opaque)[:, :3], opaque)
    assert (premultiply(opaque)[:, 3] == 1).all()
    assert torch.equal(add_alpha(add_alpha(opaque)), premultiply(opaque))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**16), st.integers(1, 20), st.sampled_from([1, 3, 16]))
def test_unpremultiplying_is_the_inverse_where_a_colour_can_be_seen(seed: int, frames: int, side: int) -> None:
    pixels = torch.rand(2, 4, frames, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    back = unpremultiply(premultiply(pixels))
    torch.testing.assert_close(back[:, 3], pixels[:, 3])
    clear = ((pixels[:, 3:] + 1) / 2 >= FAINT).expand(-1, 3, -1, -1, -1)
    torch.testing.assert_close(back[:, :3][clear], pixels[:, :3][clear], atol=1e-4, rtol=0)


def test_colours_spread_into_what_is_hardly_seen_and_no_further() -> None:
    """A red square on nothing, under haze of another colour, as networks leave it."""
    clip = torch.full((1, 4, 1, 16, 16), EMPTY)
    clip[:, :, 0, 4:8, 4:8] = torch.tensor([1.0, -1, -1, 1])[:, None, None]
    clip[:, 1:4:2] = clip[:, 1:4:2].clamp(min=-1 + 2e-3)  # green
    straight = unpremultiply(clip)[0, :, 0]
    beside = straight[:3, 4:8, 8:10]
    assert (beside[0] > 0.8).all()
    assert (beside[1] < -0.8).all()
    bare = unpremultiply(torch.full((1, 4, 1, 16, 16), EMPTY))
    assert (bare == -1).all()


def test_what_no_pixel_can_be_is_cut() -> None:
    """Colours above alpha, and values beyond the range: networks leave both."""
    wild = torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * 3
    straight = unpremultiply(wild)
    assert torch.isfinite(straight).all()
    assert straight.abs().max() <= 1
    over = lay_over(wild, (0.2, 0.4, 0.6))
    assert over.abs().max() <= 1 + 1e-6
    assert over.shape == (1, 3, 2, 8, 8)


def test_haze_becomes_nothing_and_what_is_all_but_opaque_opaque() -> None:
    straight = torch.tensor([[0.4, 0.8, 0.2, alpha] for alpha in (0.0, 5 / 255, 0.1, 0.5, 0.9, 250 / 255, 1.0)])
    clips = premultiply(straight.T[None, :, None, None] * 2 - 1)
    alpha = (without_haze(clips)[0, 3, 0, 0] + 1) / 2
    torch.testing.assert_close(alpha, torch.tensor([0.0, 0.0, 0.1, 0.5, 0.9, 1.0, 1.0]))
    colours = (unpremultiply(without_haze(clips))[0, :3, 0, 0].T + 1) / 2
    torch.testing.assert_close(colours[3:], straight[3:, :3], atol=1e-4, rtol=0)
    assert (without_haze(clips)[..., :2] == EMPTY).all()


def test_laid_over_a_colour_as_pillow_does_it() -> None:
    pixels = sticker(1)
    below = Image.new("RGBA", (16, 16), "#336699")
    wanted = np.asarray(Image.alpha_composite(below, Image.fromarray(pixels[0])).convert("RGB"))
    found = lay_over(premultiply(as_clips(pixels)), rgb("#336699"))
    found = ((found[0, :, 0] + 1) * 127.5).permute(1, 2, 0).numpy()
    assert np.abs(found - wanted).max() < 1.01


def test_lanczos_is_pillows_inside_and_does_not_ring() -> None:
    smooth = torch.nn.functional.avg_pool3d(torch.rand(1, 1, 1, 44, 40), (1, 9, 9), stride=1)
    picture = Image.fromarray(smooth[0, 0, 0].numpy())
    wanted = np.asarray(picture.resize((3 * picture.width, 3 * picture.height), Image.Resampling.LANCZOS))
    found = upsample_lanczos(smooth, 3)[0, 0, 0].numpy()
    inside = np.abs(found - wanted)[12:-12, 12:-12]
    assert inside.mean() < 2e-4  # all but at its peaks, which Pillow's exceeds
    disc = as_clips(sticker(2))[:, 3:]
    large = upsample_lanczos(disc, 4)
    assert large.shape == (1, 1, 2, 64, 64)
    assert large.min() == -1
    assert large.max() == 1
    edge = torch.full((1, 1, 1, 8, 8), -1.0)
    edge[..., 4:] = 1
    rows = upsample_lanczos(edge, 4)[0, 0, 0]
    assert (rows[:, :14] == -1).all()
    assert (rows[:, 18:] == 1).all()
    assert (rows[:, 14:18].diff(dim=1) > 0).all()


# ------------------------------------------------------------------------------------------------- the pipeline


@pytest.fixture
def pipe() -> LumierePipeline:
    return tiny.transparent()


def make(pipe: LumierePipeline, **options: Any) -> np.ndarray:
    options = {"num_frames": 8, "guidance_scale": 2.0, "generator": torch.Generator().manual_seed(3)} | options
    return pipe("a tiger", **options)[0]


@pytest.mark.slow
def test_frames_have_alpha_where_asked_and_else_lie_over_the_background(pipe: LumierePipeline) -> None:
    assert pipe.has_alpha
    assert pipe.frame_size == (16, 16)
    clear = make(pipe, transparent=True)
    assert clear.shape == (1, 8, 16, 16, 4)
    assert clear.min() >= 0
    assert clear.max() <= 1
    assert clear[..., 3].std() > 0.01
    for name in ("white", "#336699"):
        laid = make(pipe, background=name)
        assert laid.shape == (1, 8, 16, 16, 3)
        wanted = clear[..., :3] * clear[..., 3:] + np.array(rgb(name)) * (1 - clear[..., 3:])
        np.testing.assert_allclose(laid, wanted, atol=FAINT / 2)  # the colours of faint pixels are their neighbours'
        np.testing.assert_allclose(laid[clear[..., 3] >= FAINT], wanted[clear[..., 3] >= FAINT], atol=1e-5)
    np.testing.assert_array_equal(make(pipe), make(pipe, background="white"))


@pytest.mark.slow
def test_pictures_and_tensors_have_alpha_too(pipe: LumierePipeline) -> None:
    clear = make(pipe, transparent=True)
    tensors = make(pipe, transparent=True, output_type="pt")
    np.testing.assert_array_equal(tensors.permute(0, 1, 3, 4, 2).numpy(), clear)
    pictures = make(pipe, transparent=True, output_type="pil")
    assert {picture.mode for picture in pictures[0]} == {"RGBA"}
    np.testing.assert_array_equal(np.asarray(pictures[0][3]), (clear[0, 3] * 255).round().astype(np.uint8))


@pytest.mark.slow
def test_a_model_without_alpha_says_so_and_lays_what_it_is_given_over_the_background() -> None:
    opaque = tiny.conditioned()
    with pytest.raises(LumiereError, match="leave transparent out") as told:
        make(opaque, transparent=True)
    assert "\n" not in str(told.value)
    with pytest.raises(LumiereError, match="no colour"):
        make(opaque, background="blurple")
    made = make(opaque, video=sticker(), mask=np.zeros((16, 16), bool), background="#336699")[0]
    pixels = seen(sticker())
    np.testing.assert_allclose(made, pixels[..., :3] + np.array(rgb("#336699")) * (1 - pixels[..., 3:]), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("sharpened", [None, 3, 4])
def test_what_is_given_keeps_its_alpha(sharpened: int | None) -> None:
    pipe = tiny.transparent(sharpened=sharpened)
    side = 16 * pipe.scale
    picture = sticker(1, side)[0]
    task = animate(picture, 8)
    made = task.finish(make(pipe, transparent=True, **task.given)[0])
    assert made.shape == (8, side, side, 4)
    np.testing.assert_allclose(seen(made[0]), seen(picture), atol=FAINT)
    strong = picture[..., 3] >= 8
    np.testing.assert_array_equal((made[0] * 255).round()[strong], picture[strong])
    laid = make(pipe, background="#336699", **task.given)[0]
    assert laid.shape == (8, side, side, 3)
    wanted = seen(picture)[..., :3] + np.array(rgb("#336699")) * (1 - seen(picture)[..., 3:])
    np.testing.assert_allclose(laid[0], wanted, atol=1e-5)


@pytest.mark.slow
def test_colours_hidden_by_transparency_are_not_looked_at(pipe: LumierePipeline) -> None:
    """Clips that look alike are alike to the network, and opaque ones are RGBA with an alpha of 1."""
    task = animate(sticker(1)[0], 8)
    other = sticker(1)[0]
    other[other[..., 3] == 0] = 0
    made = [make(pipe, transparent=True, **each.given) for each in (task, animate(other, 8))]
    np.testing.assert_array_equal(*made)
    photo = sticker(1)[0][..., :3]
    solid = np.concatenate([photo, np.full_like(photo[..., :1], 255)], axis=-1)
    made = [make(pipe, transparent=True, **animate(each, 8).given) for each in (photo, solid)]
    np.testing.assert_allclose(made[0], made[1], atol=1e-6)
    assert (made[0][0, 0, ..., 3] == 1).all()


def test_given_at_the_second_stages_size_a_clip_is_shrunk_premultiplied() -> None:
    """A bright colour hidden by transparency must not bleed into what can be seen."""
    picture = np.zeros((1, 2, 2, 4), np.float32)
    picture[..., 0] = 1
    picture[:, :, 0, :] = [0, 1, 0, 1]  # the left half is green, the right half hides red
    small = InpaintInput.read(picture, None, (1, 1, 1, 1), 2, alpha=True).clips.flatten()
    assert ((small + 1) / 2).tolist() == [0, 0.5, 0, 0.5]


@pytest.mark.slow
def test_what_is_not_given_is_transparent_to_the_network(pipe: LumierePipeline) -> None:
    """C is the autoencoder's code of the middle of an empty picture, whatever is shown; M tells it from a given one."""
    clips = premultiply(as_clips(sticker()))
    mask = torch.zeros(1, 1, 8, 16, 16)
    mask[:, :, 0] = 1
    channels = pipe.encode_condition(clips, mask).channels
    empty = pipe.encode_clips(torch.full((1, 4, 1, 64, 64), EMPTY))[:, :, :, 16:17, 16:17]
    torch.testing.assert_close(channels[:, :4, 1:], empty.expand(-1, -1, 7, 8, 8))
    assert (channels[:, :4, 0] - empty[:, :, 0]).abs().max() > 1e-3
    assert torch.equal(channels[:, 4:], mask[..., ::2, ::2])
    opaque = torch.rand(1, 3, 8, 16, 16) * 2 - 1
    found = pipe.encode_condition(opaque, mask).channels
    assert torch.equal(found, pipe.encode_condition(premultiply(opaque), mask).channels)
    torch.testing.assert_close(pipe.encode_clips(opaque), pipe.encode_clips(add_alpha(opaque)))


@pytest.mark.slow
def test_a_model_can_start_from_a_transparent_clip(pipe: LumierePipeline) -> None:
    """SDEdit by nothing is the autoencoder's own picture of the clip."""
    made = make(pipe, video=sticker(), strength=0.0, transparent=True)
    clips = premultiply(as_clips(sticker()))
    with torch.no_grad():
        wanted = pipe.codec.decode(pipe.encode_clips(clips))
    np.testing.assert_allclose(made, pipe._to_user(wanted, "np"), atol=1e-4)
    assert np.abs(make(pipe, video=sticker(), strength=0.5, transparent=True) - made).max() > 1e-3


def test_pasting_fades_in_premultiplied_colours() -> None:
    """Half of an opaque red and half of nothing is half transparent red, not half transparent brown."""
    red = np.zeros((1, 8, 8, 4), np.float32)
    red[..., 0] = red[..., 3] = 1
    nothing = np.zeros_like(red)
    nothing[..., 1] = 1  # hides green
    mask = np.zeros((8, 8), bool)
    mask[:, 4:] = True
    out = paste_given(red, nothing, mask, feather=3)
    faded = (out[..., 3] > 0.1) & (out[..., 3] < 0.9)
    assert faded.any()
    np.testing.assert_allclose(out[faded][:, :3], [[1, 0, 0]] * faded.sum(), atol=1e-5)
    laid = paste_given(red[..., :3], nothing, mask, background="blue")
    np.testing.assert_allclose(laid[:, :, :4], np.broadcast_to([0, 0, 1.0], (1, 8, 4, 3)), atol=1e-6)


@pytest.mark.slow
def test_the_size_of_a_position_is_what_the_autoencoder_says(pipe: LumierePipeline) -> None:
    assert pipe.codec.factor == 2
    pipe.register_modules(vae=RGBAAutoencoder())  # whose three levels don't tell
    assert pipe.codec.factor == 8
    assert pipe.frame_size == (64, 64)


@pytest.mark.slow
def test_saved_and_loaded_it_is_the_same(pipe: LumierePipeline, tmp_path: Any) -> None:
    pipe.save_pretrained(tmp_path)
    back = LumierePipeline.from_pretrained(tmp_path)
    back.set_progress_bar_config(disable=True)
    assert back.has_alpha
    np.testing.assert_allclose(make(back, transparent=True), make(pipe, transparent=True), atol=1e-5)


# ---------------------------------------------------------------------------------------------- applications


def test_ends_are_made_alike_and_what_comes_before_fits_what_was_made() -> None:
    clear, photo = sticker(2)[0], sticker(2)[1][..., :3]
    for first, last in ((clear, photo), (photo, clear)):
        video = animate(first, 4, last=last).video
        assert video.shape == (4, 16, 16, 4)
        for place, picture in ((0, first), (-1, last)):
            np.testing.assert_array_equal(video[place][..., : picture.shape[-1]], picture)
    assert (animate(photo, 4, last=clear).video[0, ..., 3] == 255).all()
    task = extend(sticker(6), 2, context=2)
    made = task.video / np.float32(255)
    whole = task.finish(made)
    np.testing.assert_array_equal(whole[:6], sticker(6) / np.float32(255))
    laid = task.finish(made[..., :3], background="#336699")
    assert laid.shape == (8, 16, 16, 3)
    pixels = seen(sticker(6)[:4])
    np.testing.assert_allclose(laid[:4], pixels[..., :3] + np.array(rgb("#336699")) * (1 - pixels[..., 3:]), atol=1e-6)
    assert extend(sticker(6)[..., :3], 2, context=2).finish(made).shape == (8, 16, 16, 4)


@pytest.mark.slow
def test_a_region_of_a_sticker_changes_and_nothing_else(pipe: LumierePipeline) -> None:
    region = np.zeros((16, 16), bool)
    region[4:9, 4:12] = True
    made = make(pipe, transparent=True, **inpaint(sticker(), region).given)[0]
    np.testing.assert_allclose(seen(made[:, ~region]), seen(sticker()[:, ~region]), atol=FAINT)
    assert np.abs(seen(made[:, region]) - seen(sticker()[:, region])).max() > 0.05


# ---------------------------------------------------------------------------------------------- the second stage


@pytest.mark.slow
@pytest.mark.parametrize("channels", [3, 4])
def test_the_second_stage_keeps_alpha_and_only_where_it_is(channels: int) -> None:
    stage = tiny.second_stage(channels=channels)
    assert stage.has_alpha == (channels == 4)

    def sharpen(clip: np.ndarray) -> np.ndarray:
        return stage(clip, generator=torch.Generator().manual_seed(0))[0]

    clear = sharpen(sticker())
    assert clear.shape == (1, 8, 32, 32, 4)
    assert sharpen(sticker()[..., :3]).shape == (1, 8, 32, 32, 3)
    bare = sticker()
    bare[bare[..., 3] == 0] = 0
    np.testing.assert_array_equal(sharpen(bare), clear)
    if channels == 3:
        alpha = upsample_lanczos(as_clips(sticker())[:, 3:], 2)
        np.testing.assert_allclose(clear[..., 3], (alpha[:, 0] + 1) / 2, atol=1e-6)


@pytest.mark.slow
def test_a_second_stage_on_rgba_that_adds_nothing_enlarges_premultiplied() -> None:
    """Colours and alpha go through the network together, so that edges keep their colour."""
    stage = tiny.second_stage(channels=4)
    net = copy.deepcopy(stage.unet)
    for weight in (net.spatial.conv_out.weight, net.spatial.conv_out.bias):
        torch.nn.init.zeros_(weight)
    stage.register_modules(
        unet=net, scheduler=type(stage.scheduler).from_config(stage.scheduler.config, prediction_type="sample")
    )
    stage.register_to_config(residual_scale=5.0)
    red = np.zeros((8, 16, 16, 4), np.float32)
    red[:, 4:12, 4:12] = [1, 0, 0, 1]
    red[..., 2] = red[..., 3] < 1  # hides blue
    sharp = stage(red, generator=torch.Generator().manual_seed(0), noise_level=0)[0][0]
    edge = (sharp[..., 3] > 0.2) & (sharp[..., 3] < 0.8)
    assert edge.any()
    np.testing.assert_allclose(sharp[edge][:, :3], [[1, 0, 0]] * edge.sum(), atol=0.1)  # level 0 has some noise


@pytest.mark.slow
def test_hidden_colours_draw_no_rim_around_what_is_enlarged_by_rgb_alone() -> None:
    """The network sees the subject's own colour beyond its edge."""
    stage = tiny.second_stage()
    net = copy.deepcopy(stage.unet)
    for weight in (net.spatial.conv_out.weight, net.spatial.conv_out.bias):
        torch.nn.init.zeros_(weight)
    stage.register_modules(
        unet=net, scheduler=type(stage.scheduler).from_config(stage.scheduler.config, prediction_type="sample")
    )
    stage.register_to_config(residual_scale=5.0)
    red = np.zeros((8, 16, 16, 4), np.float32)
    red[:, 4:12, 4:12] = [1, 0, 0, 1]
    sharp = stage(red, generator=torch.Generator().manual_seed(0), noise_level=0)[0][0]
    shown = sharp[..., 3] > 0.05
    np.testing.assert_allclose(sharp[shown][:, :3], [[1, 0, 0]] * shown.sum(), atol=0.1)
