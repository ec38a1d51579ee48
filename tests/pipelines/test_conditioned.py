"""Clips of which a part is given: masks, the widened network, the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

import tiny
from openlumiere import LumierePipeline, STUNet
from openlumiere.diffusion.conditioning import downsample_mask, given_where, masked, paste, propagate_in_time
from openlumiere.diffusion.pixels import pixel_unshuffle
from openlumiere.errors import LumiereError
from openlumiere.training.masks import MIXTURE, draw_kind, draw_mask
from openlumiere.training.objective import target_of

pytestmark = pytest.mark.slow  # a second a test

F, H, W = 16, 24, 20


def disc_moving_right() -> tuple[torch.Tensor, torch.Tensor]:
    """A white disc that crosses a gray frame: clip (3, F, H, W), alpha (F, H, W)."""
    y, x = torch.meshgrid((torch.arange(H) + 0.5) / H, (torch.arange(W) + 0.5) / W, indexing="ij")
    centres = torch.linspace(0.25, 0.75, F)[:, None, None]
    alpha = ((y - 0.5).square() + (x - centres).square() < 0.15**2).float()
    return alpha.expand(3, -1, -1, -1).clone(), alpha


def draw(kind: str, seed: int) -> torch.Tensor:
    clip, alpha = disc_moving_right()
    return draw_kind(kind, clip, np.random.default_rng(seed), alpha=alpha)[0]


# ------------------------------------------------------------------------------------------------- masks


def test_the_mixtures_shares_add_up() -> None:
    assert sum(share for share, _ in MIXTURE.values()) == pytest.approx(1)


@pytest.mark.parametrize("kind", MIXTURE)
@pytest.mark.parametrize("with_alpha", [True, False])
def test_every_mask_is_of_zeros_and_ones_and_the_seeds_own(kind: str, with_alpha: bool) -> None:
    clip, alpha = disc_moving_right()
    for seed in range(20):
        masks = [
            draw_kind(kind, clip, np.random.default_rng(seed), alpha=alpha if with_alpha else None) for _ in range(2)
        ]
        assert masks[0].shape == (1, F, H, W)
        assert masks[0].dtype == torch.float32
        assert set(masks[0].unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(*masks)


@pytest.mark.parametrize("seed", range(8))
def test_masks_show_what_their_kind_says(seed: int) -> None:
    whole = {kind: draw(kind, seed).flatten(1).mean(1) for kind in MIXTURE}  # share of each frame that is given
    assert whole["none"].sum() == 0
    assert whole["all"].sum() == F
    assert whole["first frame"].tolist() == [1] + [0] * (F - 1)
    assert whole["first and last frame"].tolist() == [1] + [0] * (F - 2) + [1]
    first, last = int(whole["first frames"].sum()), int(whole["last frames"].sum())
    assert 2 <= first <= F // 2
    assert whole["first frames"].tolist() == [1] * first + [0] * (F - first)
    assert whole["last frames"].tolist() == [0] * (F - last) + [1] * last
    every = np.flatnonzero(whole["every n-th frame"].numpy())
    assert len(every) > 1
    assert len(set(np.diff(every))) == 1
    assert 0.1 < float(whole["region"].mean()) < 1
    border = draw("border", seed)
    assert torch.equal(border, border[:1].expand_as(border))


@pytest.mark.parametrize("seed", range(12))
def test_a_region_around_the_object_hides_most_of_it_in_every_frame(seed: int) -> None:
    _, alpha = disc_moving_right()
    kept = draw("region around the object", seed)
    hidden = (alpha * (1 - kept)).flatten(1).sum(1) / alpha.flatten(1).sum(1)
    assert hidden.min() > 0.7
    centre = [(torch.arange(W) * (1 - frame).sum(0)).sum() / (1 - frame).sum() for frame in kept]
    assert float(centre[-1]) > float(centre[0]) + W / 6  # it goes with the disc


def test_a_cinemagraph_gives_the_first_frame_and_all_that_never_moves() -> None:
    clip, _ = disc_moving_right()
    kept = draw("cinemagraph", 0)
    assert kept[0].min() == 1
    outside = kept[1:].bool().expand(3, -1, -1, -1)
    assert outside.any()
    assert torch.equal(clip[:, 1:][outside], clip[:, :1].expand(-1, F - 1, -1, -1)[outside])


def test_all_kinds_come_about_as_often_as_they_should() -> None:
    clip, alpha = disc_moving_right()
    rng = np.random.default_rng(0)
    empty = sum(not draw_mask(clip, rng, alpha=alpha).any() for _ in range(400)) / 400
    assert empty == pytest.approx(MIXTURE["none"][0], abs=0.06)


def test_kinds_can_be_asked_for_alone() -> None:
    clip, alpha = disc_moving_right()
    rng = np.random.default_rng(0)
    drawn = [draw_mask(clip, rng, alpha=alpha, kinds=["every other frame", "all"]) for _ in range(20)]
    other = torch.zeros(F)
    other[::2] = 1
    assert {tuple(mask[0, :, 0, 0].tolist()) for mask in drawn} == {tuple(other.tolist()), (1.0,) * F}
    with pytest.raises(LumiereError, match="known: none, all"):
        draw_mask(clip, rng, kinds=["keyframes"])


# ----------------------------------------------------------------------------------------- C and M as tensors


def test_users_white_is_what_changes() -> None:
    assert given_where(torch.tensor([0.0, 0.2, 0.8, 1.0])).tolist() == [1, 1, 0, 0]


def test_what_is_not_given_is_gray() -> None:
    clips, mask = torch.ones(2, 3, 4, 4, 4), torch.zeros(2, 1, 4, 4, 4)
    mask[:, :, :2] = 1
    out = masked(clips, mask)
    assert out[:, :, :2].min() == 1
    assert out[:, :, 2:].abs().max() == 0
    with pytest.raises(LumiereError, match="does not fit"):
        masked(clips, mask[:, :, :2])


@given(st.integers(0, 2**16))
def test_a_latent_position_is_given_where_all_its_pixels_are(seed: int) -> None:
    mask = (torch.rand(1, 1, 2, 8, 8, generator=torch.Generator().manual_seed(seed)) < 0.8).float()
    torch.testing.assert_close(downsample_mask(mask, 2), pixel_unshuffle(mask, 2).amin(1, keepdim=True))


def test_what_is_given_comes_back_to_the_pixel_and_fades_where_asked() -> None:
    made, kept = torch.zeros(1, 3, 2, 16, 16), torch.ones(1, 3, 2, 16, 16)
    mask = torch.zeros(1, 1, 2, 16, 16)
    mask[..., :8] = 1
    hard = paste(made, kept, mask)
    assert torch.equal(hard, mask.expand_as(hard))
    soft = paste(made, kept, mask, feather=3)[0, 0, 0, 8]
    assert soft[:4].tolist() == [1] * 4  # 4 and more pixels from the border
    assert soft[8:].tolist() == [0] * 8  # nothing is given there
    assert (soft[4:8].diff() < 0).all()


# --------------------------------------------------------------------------------------------- the network


WIDE = 5


def widened(name: str) -> STUNet:
    """A network in mid-training, then widened."""
    net = tiny.wake(STUNet.from_unet(tiny.unet(name)))
    net.add_condition_channels(WIDE)
    return net


def with_condition(inputs: dict[str, Any], seed: int = 5) -> dict[str, Any]:
    sample = inputs["sample"]
    shape = (len(sample), WIDE, *sample.shape[2:])
    beside = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return inputs | {"sample": torch.cat([sample, beside], dim=1)}


@pytest.mark.parametrize("name", tiny.UNETS)
def test_a_widened_network_starts_as_what_it_was_whatever_it_is_given(name: str) -> None:
    t2i = tiny.unet(name)
    inputs = tiny.inputs(t2i)
    with torch.no_grad():
        before = tiny.wake(STUNet.from_unet(t2i))(**inputs).sample
        net = widened(name)
        assert torch.equal(net(**inputs).sample, before)
        assert torch.equal(net(**with_condition(inputs)).sample, before)


@pytest.mark.parametrize("name", ["bundled", "no-text-in-the-middle"])
def test_no_condition_means_zeros(name: str) -> None:
    net = widened(name)
    torch.nn.init.normal_(net.temporal.condition_in.weight)
    inputs = tiny.inputs(net.spatial)
    nothing = torch.zeros(len(inputs["sample"]), WIDE, *inputs["sample"].shape[2:])
    with torch.no_grad():
        left_out = net(**inputs).sample
        zeros = net(**inputs | {"sample": torch.cat([inputs["sample"], nothing], dim=1)}).sample
        something = net(**with_condition(inputs)).sample
    torch.testing.assert_close(zeros, left_out)
    assert not torch.allclose(something, left_out, atol=1e-3)


def test_what_widens_it_is_trained_and_the_t2i_is_not() -> None:
    net = widened("bundled")
    net(**with_condition(tiny.inputs(net.spatial))).sample.square().mean().backward()
    assert net.temporal.condition_in.weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in net.spatial.parameters())


def test_a_widened_network_is_saved_and_loaded_as_one(tmp_path: Path) -> None:
    net = widened("bundled")
    torch.nn.init.normal_(net.temporal.condition_in.weight)
    net.save_pretrained(tmp_path / "net")
    net.save_temporal(tmp_path / "temporal")
    inputs = with_condition(tiny.inputs(net.spatial))
    with torch.no_grad():
        wanted = net(**inputs).sample
        assert torch.equal(STUNet.from_pretrained(tmp_path / "net")(**inputs).sample, wanted)
        again = STUNet.from_unet(tiny.unet("bundled"), temporal=tmp_path / "temporal")
        assert torch.equal(again(**inputs).sample, wanted)


def of_pixels() -> STUNet:
    """Widened by C and M of pixels folded by 2."""
    net = tiny.wake(STUNet.from_unet(tiny.unet("bundled")))
    net.add_condition_channels(12 + 4)
    return net


def given_in(inputs: dict[str, Any], where: float) -> dict[str, Any]:
    """With a condition that is given everywhere, more or less surely."""
    sample = inputs["sample"]
    clean = torch.randn(sample.shape, generator=torch.Generator().manual_seed(6))
    mask = torch.full((len(sample), 4, *sample.shape[2:]), where)
    return inputs | {"sample": torch.cat([sample, clean * bool(where), mask], dim=1)}


def test_blocks_that_look_at_the_condition_start_as_if_they_did_not() -> None:
    net = of_pixels()
    torch.nn.init.normal_(net.temporal.condition_in.weight)
    inputs = given_in(tiny.inputs(net.spatial), 1)
    with torch.no_grad():
        before = net(**inputs).sample
        net.add_condition_to_blocks()
        assert torch.equal(net(**inputs).sample, before)
    net(**inputs).sample.square().mean().backward()
    looking = {name: p for name, p in net.named_parameters() if "given_" in name}
    kinds = {name.split(".")[-2] for name in looking}
    assert kinds == {"given_conv", "given_linear"}
    assert all(p.grad.abs().max() > 0 for p in looking.values())
    with pytest.raises(LumiereError, match="widen the network first"):
        net.add_condition_to_blocks()
    with pytest.raises(LumiereError, match="widen the network first"):
        STUNet.from_unet(tiny.unet("bundled")).add_condition_to_blocks()


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
def test_a_gate_predicts_what_is_given_at_every_noise_level(prediction_type: str) -> None:
    """Where all is surely given, what is predicted is what the schedule's target is; elsewhere, what it was before."""
    schedule = DDIMScheduler(
        prediction_type=prediction_type, beta_schedule="squaredcos_cap_v2", rescale_betas_zero_snr=True
    )
    net = of_pixels()
    inputs = tiny.inputs(net.spatial)
    with torch.no_grad():
        before = net(**given_in(inputs, 0)).sample
        net.add_gate(schedule.alphas_cumprod, prediction_type)
        assert torch.equal(net(**given_in(inputs, 0)).sample, before)
        assert torch.equal(net(**inputs).sample, before)
        assert net.temporal.gate.conv.bias is not None
        net.temporal.gate.conv.bias.fill_(30)  # wide open
        clean = given_in(inputs, 1)["sample"][:, 12:24]
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(7))
        for t in (150, 600, 998):
            times = torch.tensor([t] * len(clean))
            noisy = schedule.add_noise(clean, noise, times)
            sample = torch.cat([noisy, clean, torch.full((len(clean), 4, *clean.shape[2:]), 0.5)], dim=1)
            predicted = net(**inputs | {"sample": sample, "timestep": times}).sample
            torch.testing.assert_close(predicted, target_of(schedule, clean, noise, times), atol=2e-3, rtol=1e-3)
    with pytest.raises(LumiereError, match="once"):
        net.add_gate(schedule.alphas_cumprod, prediction_type)


def test_a_gate_starts_open_where_surely_given_and_nearly_closed_far_away() -> None:
    net = of_pixels()
    inputs = tiny.inputs(net.spatial)
    with torch.no_grad():
        before = net(**inputs).sample
        net.add_gate(torch.linspace(0.999, 0, 1000), "v_prediction")
        near, far = (given_in(inputs, where) for where in (1.0, 0.05))
        torch.nn.init.zeros_(net.temporal.condition_in.weight)
        known = (net(**near).sample - before).abs().mean()
        guessed = (net(**far).sample - before).abs().mean()
    assert guessed < 0.1 * known


def test_all_that_looks_at_a_condition_is_saved_and_loaded(tmp_path: Path) -> None:
    net = of_pixels()
    net.add_condition_to_blocks()
    net.add_gate(torch.linspace(0.999, 0, 1000), "v_prediction")
    for parameter in net.temporal.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    net.save_pretrained(tmp_path / "net")
    net.save_temporal(tmp_path / "temporal")
    inputs = given_in(tiny.inputs(net.spatial), 0.5)
    with torch.no_grad():
        wanted = net(**inputs).sample
        assert torch.equal(STUNet.from_pretrained(tmp_path / "net")(**inputs).sample, wanted)
        again = STUNet.from_unet(tiny.unet("bundled"), temporal=tmp_path / "temporal")
        assert torch.equal(again(**inputs).sample, wanted)


def test_channels_that_fit_nothing_are_refused() -> None:
    net = widened("bundled")
    inputs = tiny.inputs(net.spatial)
    with pytest.raises(LumiereError, match="takes 12, or 17 with its condition"):
        net(**inputs | {"sample": inputs["sample"][:, :7]})
    with pytest.raises(LumiereError, match="widened once"):
        net.add_condition_channels(WIDE)


# -------------------------------------------------------------------------------------------- the pipeline


@pytest.fixture
def pipe() -> LumierePipeline:
    return tiny.conditioned()


def make(pipe: LumierePipeline, **options: Any) -> np.ndarray:
    options = {"num_frames": 8, "guidance_scale": 2.0, "generator": torch.Generator().manual_seed(3)} | options
    return pipe("a tiger", **options)[0]


def video(frames: int = 8) -> np.ndarray:
    return np.random.default_rng(1).random((frames, 16, 16, 3), dtype=np.float32)


def test_what_is_given_is_kept_and_steers_the_rest(pipe: LumierePipeline) -> None:
    change = np.ones((8, 16, 16), bool)
    change[0] = False
    made = make(pipe, video=video(), mask=change)
    np.testing.assert_allclose(made[0, 0], video()[0], atol=1e-6)
    bare = make(pipe, video=video(), mask=change, paste_given=False)
    np.testing.assert_array_equal(made[0, 1:], bare[0, 1:])
    # It is held at every step, and so arrives; the network alone, with random weights, would leave it.
    np.testing.assert_allclose(bare[0, 0], video()[0], atol=1e-5)
    alone = make(pipe, video=video(), mask=change, paste_given=False, hold_given=False)
    assert np.abs(alone[0, 0] - video()[0]).max() > 0.01
    assert np.abs(alone[0, 1:] - bare[0, 1:]).max() > 1e-3
    other = make(pipe, video=1 - video(), mask=change)
    assert np.abs(other[0, 1:] - made[0, 1:]).max() > 0.01
    # What lies under the mask is not looked at.
    hidden = video()
    hidden[1:] = 0
    np.testing.assert_array_equal(make(pipe, video=hidden, mask=change), made)


def test_nothing_given_is_text_alone(pipe: LumierePipeline) -> None:
    np.testing.assert_allclose(make(pipe, video=video(), mask=np.ones((16, 16), np.uint8) * 255), make(pipe), atol=1e-6)


def test_windows_are_given_their_own_part(pipe: LumierePipeline) -> None:
    change = np.zeros((12, 1, 1), np.float32)
    change[5:9] = 1
    made = make(pipe, num_frames=12, video=video(12), mask=change)
    np.testing.assert_allclose(made[0, :5], video(12)[:5], atol=1e-6)
    np.testing.assert_allclose(made[0, 9:], video(12)[9:], atol=1e-6)
    assert np.abs(made[0, 5:9] - video(12)[5:9]).max() > 0.01


@pytest.fixture(scope="module")
def cascade() -> LumierePipeline:
    return tiny.conditioned(upscale=True)


def test_what_is_given_sharp_comes_back_sharp(cascade: LumierePipeline) -> None:
    sharp = np.random.default_rng(1).random((8, 32, 32, 3), dtype=np.float32)
    change = np.zeros((32, 32), bool)
    change[:, 13:] = True  # no multiple of the second stage's factor
    made = make(cascade, video=sharp, mask=change)
    assert made.shape == (1, 8, 32, 32, 3)
    np.testing.assert_allclose(made[0][:, ~change], sharp[:, ~change], atol=1e-6)
    assert np.abs(made[0][:, change] - sharp[:, change]).max() > 0.01
    # The base sees the same, smaller: what is half to be changed counts as to be changed.
    base = make(cascade, video=sharp, mask=change, upscale=False)
    small = sharp.reshape(8, 16, 2, 16, 2, 3).mean((2, 4))
    np.testing.assert_allclose(base[0, :, :, :6], small[:, :, :6], atol=1e-6)
    assert np.abs(base[0, :, :, 6:] - small[:, :, 6:]).max() > 0.01
    faded = make(cascade, video=sharp, mask=change, feather=4)
    np.testing.assert_allclose(faded[0][:, :, :9], sharp[:, :, :9], atol=1e-6)
    assert np.abs(faded[0][:, :, 12] - sharp[:, :, 12]).max() > 0.01


@pytest.mark.parametrize("scheduler", [DPMSolverMultistepScheduler, DDIMScheduler, EulerDiscreteScheduler])
def test_strength_chooses_how_much_of_a_clip_is_made_anew(pipe: LumierePipeline, scheduler: Any) -> None:
    pipe.register_modules(scheduler=scheduler.from_config(pipe.scheduler.config))
    clip = video()
    seen: list[int] = []

    def count(_pipe: object, step: int, _t: object, tensors: dict) -> dict:
        seen.append(step)
        return tensors

    distances = []
    for strength in (0.0, 0.2, 0.5, 0.8):
        seen.clear()
        made = make(
            pipe, video=clip, strength=strength, num_inference_steps=10, callback_on_step_end=count, guidance_scale=1.0
        )
        assert len(seen) == round(10 * strength)
        distances.append(float(np.square(made[0] - clip).mean()))
    assert distances[0] < 1e-10
    assert distances == sorted(distances)
    assert distances[1] < distances[3] / 2


def test_strength_and_a_mask_go_together(pipe: LumierePipeline) -> None:
    change = np.zeros((16, 16), bool)
    change[:8] = True
    made = make(pipe, video=video(), mask=change, strength=0.5)
    np.testing.assert_allclose(made[0][:, 8:], video()[:, 8:], atol=1e-6)
    assert np.abs(made[0][:, :8] - make(pipe, video=video(), mask=change)[0][:, :8]).max() > 0.01


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"video": video()}, "both a video and a mask"),
        ({"strength": 0.5}, "give the video too"),
        ({"video": video(), "strength": 1.5}, "choose 0"),
        ({"video": video(4), "mask": np.ones((16, 16))}, "resize"),
        ({"video": video(), "mask": np.ones((8, 8))}, "does not fit"),
    ],
)
def test_what_does_not_fit_is_refused(pipe: LumierePipeline, options: dict[str, Any], words: str) -> None:
    with pytest.raises(LumiereError, match=words):
        make(pipe, **options)


def test_a_model_that_takes_no_condition_says_so(pipe: LumierePipeline) -> None:
    pipe.register_modules(unet=STUNet.from_unet(pipe.unet.spatial))
    with pytest.raises(LumiereError, match="lumiere train conditional"):
        make(pipe, video=video(), mask=np.ones((16, 16)))


def test_latent_models_get_the_clips_latents_and_a_mask_of_their_size(tmp_path: Path) -> None:
    latent = LumierePipeline.from_t2i(tiny.t2i_pipeline("stable-diffusion", tmp_path))
    latent.unet.add_condition_channels(latent.condition_channels)
    assert latent.condition_channels == 5
    latent.set_progress_bar_config(disable=True)
    side = 16
    clip = np.random.default_rng(0).random((4, side, side, 3), dtype=np.float32)
    change = np.zeros((side, side), np.float32)
    change[:, : side // 2] = 1
    made = latent("a tiger", num_frames=4, height=side, width=side, num_inference_steps=1, video=clip, mask=change)[0]
    np.testing.assert_allclose(made[0, :, :, side // 2 :], clip[:, :, side // 2 :], atol=1e-6)


def test_what_is_given_is_spread_over_time() -> None:
    """Between two given frames a blend, beyond them the last one; blank where nothing is ever given."""
    clips = torch.arange(6.0).view(1, 1, 6, 1, 1).expand(2, 2, 6, 1, 3).contiguous()
    mask = torch.zeros(2, 1, 6, 1, 3)
    mask[0, :, [1, 4], :, 0] = 1
    mask[1, :, 3, :, 1] = 1
    # As it was made to stand in for: given frames 1 and 4, so 2 and 3 lie at a third and two thirds of the way.
    clips[:, :, 4] = 7
    filled, sure = propagate_in_time(masked(clips, mask), mask)
    assert filled[0, :, :, 0, 0].tolist() == [pytest.approx([1, 1, 3, 5, 7, 7])] * 2
    assert sure[0, 0, :, 0, 0].tolist() == pytest.approx([1 / 2, 1, 1 / 2, 1 / 2, 1, 1 / 2])
    assert filled[1, :, :, 0, 1].tolist() == [[3] * 6] * 2
    assert sure[1, 0, :, 0, 1].tolist() == pytest.approx([1 / 4, 1 / 3, 1 / 2, 1, 1 / 2, 1 / 3])
    assert (filled[..., 2] == 0).all()
    assert (sure[..., 2] == 0).all()
    whole, everywhere = propagate_in_time(clips, torch.ones_like(mask))
    assert torch.equal(whole, clips)
    assert (everywhere == 1).all()


def test_spreading_follows_the_pixels_that_were_folded() -> None:
    """Each pixel of a folded position has its own mask."""
    clips = torch.rand(1, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    mask = (torch.rand(1, 1, 4, 4, 4, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    folded = propagate_in_time(pixel_unshuffle(masked(clips, mask), 2), pixel_unshuffle(mask, 2))
    for found, expected in zip(folded, propagate_in_time(masked(clips, mask), mask), strict=True):
        assert torch.equal(found, pixel_unshuffle(expected, 2))


def test_a_model_that_spreads_sees_it_in_each_window() -> None:
    pipe = tiny.conditioned()
    video, mask = torch.rand(1, 3, 16, 16, 16) * 2 - 1, torch.zeros(1, 1, 16, 16, 16)
    mask[:, :, 0] = 1
    blank = pipe.encode_condition(video, mask).seen(torch.arange(16)[None])
    assert (blank[:, :12, 1:] == 0).all()
    pipe.register_to_config(spread_condition=True)
    condition = pipe.encode_condition(video, mask)
    first, second = condition.seen(torch.arange(16).view(2, 8))
    assert torch.equal(first[:12], blank[0, :12, :1].expand(-1, 8, -1, -1))
    assert (second[:12] == 0).all()  # no frame that is given lies in it
    assert first[12:].amax((0, 2, 3)).tolist() == pytest.approx([1 / (1 + away) for away in range(8)])
    assert (second[12:] == 0).all()
