"""STUNet: what must be true when it is freshly inflated, and after its temporal layers have learned something."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tiny
from openlumiere.stunet.blocks import AttentionBlock, ConvolutionBlock, TemporalDownsample, TemporalUpsample
from tiny import inflated, run

STRUCTURES = list(tiny.UNETS)
few = settings(max_examples=15, deadline=None)


# --- The T2I as a reference, frame by frame, by diffusers' own code ---------------------------------------------------


def fold_frames(clip: torch.Tensor) -> torch.Tensor:
    """(B, C, F, H, W) -> (B * F, C, H, W)."""
    return clip.transpose(1, 2).flatten(0, 1)


def for_frames(conditions: dict[str, Any], frames: int) -> dict[str, Any]:
    """Conditions of B clips, repeated for each of their frames."""
    return {
        key: for_frames(value, frames) if isinstance(value, dict) else value.repeat_interleave(frames, dim=0)
        for key, value in conditions.items()
        if key != "sample"
    }


@torch.no_grad()
def each_frame(t2i: UNet2DConditionModel, given_: dict[str, Any]) -> torch.Tensor:
    """The T2I's prediction for each frame alone, as a clip."""
    sample = given_["sample"]
    out = t2i(fold_frames(sample), **for_frames(given_, sample.shape[2])).sample
    return out.unflatten(0, (sample.shape[0], -1)).transpose(1, 2)


@torch.no_grad()
def nearest_in_time(
    t2i: UNet2DConditionModel, given_: dict[str, Any], resampled: list[int] | None = None
) -> torch.Tensor:
    """The T2I run block by block on frames, of which every second is dropped and repeated between the levels.

    Every block's own `forward` runs, with the arguments that the T2I itself hands to its blocks.
    """
    sample = given_["sample"]
    frames = sample.shape[2]
    told: dict[str, Any] = {}

    def listen(_: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        told.setdefault("temb", kwargs["temb"])
        if "encoder_hidden_states" in kwargs:
            told.setdefault("text", kwargs["encoder_hidden_states"])
            told.setdefault("mask", kwargs["encoder_attention_mask"])

    hooks = [block.register_forward_pre_hook(listen, with_kwargs=True) for block in t2i.down_blocks]
    t2i(sample[:, :, 0], **{k: v for k, v in given_.items() if k != "sample"})
    for hook in hooks:
        hook.remove()

    def arguments(block: nn.Module, frames: int) -> dict[str, Any]:
        spread = {k: None if v is None else v.repeat_interleave(frames, dim=0) for k, v in told.items()}
        if not getattr(block, "has_cross_attention", False):
            return {"temb": spread["temb"]}
        return {
            "temb": spread["temb"],
            "encoder_hidden_states": spread["text"],
            "encoder_attention_mask": spread["mask"],
        }

    levels = len(t2i.down_blocks)
    resampled = list(range(levels - 1)) if resampled is None else resampled
    x = fold_frames(2 * sample - 1 if t2i.config["center_input_sample"] else sample)
    x = t2i.conv_in(x)
    skips: list[torch.Tensor] = [x]
    for level, block in enumerate(t2i.down_blocks):
        x, of_block = block(hidden_states=x, **arguments(block, frames))
        if level in resampled:
            x = x.unflatten(0, (-1, frames))[:, ::2].flatten(0, 1)
            frames //= 2
            of_block = (*of_block[:-1], x)
        skips += of_block
    if t2i.mid_block is not None:
        x = t2i.mid_block(x, **arguments(t2i.mid_block, frames))
    for i, block in enumerate(t2i.up_blocks):
        count = len(block.resnets)
        skips, of_block = skips[:-count], tuple(skips[-count:])
        size = None if i == levels - 1 else skips[-1].shape[2:]
        x = block(hidden_states=x, res_hidden_states_tuple=of_block, upsample_size=size, **arguments(block, frames))
        if levels - 2 - i in resampled:
            x = x.repeat_interleave(2, dim=0)
            frames *= 2
    x = t2i.conv_out(t2i.conv_act(t2i.conv_norm_out(x)))
    return x.unflatten(0, (-1, frames)).transpose(1, 2)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# --- Freshly inflated -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("conditioning", [False, True], ids=["paper", "conditioned"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_a_still_clip_gets_the_t2is_prediction_on_every_frame(name: str, conditioning: bool) -> None:
    net, t2i, given_ = inflated(name, temporal_conditioning=conditioning)
    given_["sample"] = given_["sample"][:, :, :1].expand(-1, -1, 8, -1, -1)
    assert_close(run(net, given_), each_frame(t2i, given_))


@pytest.mark.slow
@pytest.mark.parametrize("name", STRUCTURES)
def test_any_clip_gets_the_t2is_prediction_with_nearest_neighbour_resampling_of_time(name: str) -> None:
    net, t2i, given_ = inflated(name)
    expected = nearest_in_time(t2i, given_)
    assert_close(run(net, given_), expected)
    assert not torch.allclose(expected, each_frame(t2i, given_), atol=1e-2)  # the clip does move


@pytest.mark.slow
@pytest.mark.parametrize("name", STRUCTURES)
def test_without_temporal_layers_each_frame_is_the_t2is(name: str) -> None:
    """Whatever they have learned, and for any number of frames."""
    net, t2i, given_ = inflated(name)
    tiny.wake(net)
    assert_close(run(net, given_ | {"temporal_layers": False}), each_frame(t2i, given_))
    assert not torch.allclose(run(net, given_), each_frame(t2i, given_), atol=1e-2)
    given_["sample"] = given_["sample"][:, :, :1]
    assert_close(run(net, given_ | {"temporal_layers": False}), each_frame(t2i, given_))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(9, 11), (10, 8), (5, 7)], ids=str)
@pytest.mark.parametrize("name", tiny.ANY_SIZE)
def test_sizes_that_spatial_levels_do_not_divide(name: str, size: tuple[int, int]) -> None:
    net, t2i, _ = inflated(name)
    given_ = tiny.inputs(t2i, batch=1, frames=4, size=size)
    assert_close(run(net, given_), nearest_in_time(t2i, given_))
    given_["sample"] = given_["sample"][:, :, :1].expand(-1, -1, 4, -1, -1)
    assert_close(run(net, given_), each_frame(t2i, given_))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stable-diffusion", "stable-diffusion-xl", "deepfloyd-if"])
def test_masked_tokens_are_masked_on_every_frame(name: str) -> None:
    net, t2i, given_ = inflated(name)
    given_["encoder_attention_mask"] = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    masked = run(net, given_)
    assert_close(masked, nearest_in_time(t2i, given_))
    del given_["encoder_attention_mask"]
    assert not torch.allclose(masked, run(net, given_), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("levels", [[], [0], [1]], ids=str)
def test_only_the_chosen_levels_resample_time(levels: list[int]) -> None:
    net, t2i, given_ = inflated("stable-diffusion", resampled_levels=levels)
    assert net.frame_multiple == 2 ** len(levels)
    assert_close(run(net, given_), nearest_in_time(t2i, given_, levels))
    if not levels:  # a fixed frame rate: frames know nothing of each other
        assert_close(run(net, given_), each_frame(t2i, given_))


@pytest.mark.slow
def test_a_single_number_as_timestep_and_tuples_as_result() -> None:
    net, t2i, given_ = inflated("stable-diffusion")
    given_["timestep"] = torch.full((2,), 7)
    expected = nearest_in_time(t2i, given_)
    for timestep in (7, 7.0, torch.tensor(7)):
        out = net(**{**given_, "timestep": timestep}, return_dict=False)
        assert isinstance(out, tuple)
        assert_close(out[0].detach(), expected)


@pytest.mark.slow
def test_text_is_encoded_once_for_a_clip_and_means_the_same_to_each_frame() -> None:
    net, t2i, given_ = inflated("stable-diffusion-xl")
    rows: list[int] = []
    for name, module in net.spatial.named_modules():
        if name.endswith("attn2.to_k"):
            module.register_forward_hook(lambda _m, args, _out: rows.append(len(args[0])))
    shared = run(net, given_)
    assert rows
    assert set(rows) == {2}  # of two clips, not of their 16 frames
    assert_close(shared, nearest_in_time(t2i, given_))


@pytest.mark.slow
def test_he_initialisation_differs_from_identity() -> None:
    identity, _, given_ = inflated("stable-diffusion")
    he, *_ = inflated("stable-diffusion", temporal_init="he")
    assert not torch.allclose(run(identity, given_), run(he, given_), atol=1e-2)
    weight = he.temporal.downsamplers[0].conv.weight
    fan_in = weight.shape[1] * 3
    assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, 3])
def test_number_of_attention_blocks(layers: int) -> None:
    net, _, given_ = inflated("stable-diffusion", attention_layers=layers)
    assert len(net.temporal.mid) == layers
    assert sum(isinstance(m, AttentionBlock) for m in net.temporal.modules()) == 6 * layers
    assert run(net, given_).isfinite().all()


@pytest.mark.parametrize(("channels", "head_dim"), [(24, 7), (24, 16), (40, 12), (8, 32)])
def test_any_width_of_attention_heads(channels: int, head_dim: int) -> None:
    block = AttentionBlock(channels, head_dim=head_dim)
    assert block(torch.randn(4, channels, 2, 2), num_frames=4).shape == (4, channels, 2, 2)


# --- Resampling of time -----------------------------------------------------------------------------------------------

shapes = st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 6), st.integers(1, 3))  # B, C, F / 2, H


def frames_of(x: torch.Tensor, batch: int) -> torch.Tensor:
    return x.unflatten(0, (batch, -1))


def resampler(kind: type, channels: int, *, random: bool, seed: int = 0) -> Any:
    layer = kind(channels)
    torch.manual_seed(seed)
    layer.init_he() if random else layer.init_identity()
    if random:
        nn.init.normal_(layer.conv.bias)
    return layer.requires_grad_(False)


@few
@given(shapes, st.integers(0, 9))
def test_at_identity_odd_frames_are_dropped_and_frames_are_repeated(shape: tuple[int, ...], seed: int) -> None:
    batch, channels, half, height = shape
    torch.manual_seed(seed)
    x = torch.randn(batch * 2 * half, channels, height, 3)
    down = resampler(TemporalDownsample, channels, random=False)(x, 2 * half)
    assert_close(frames_of(down, batch), frames_of(x, batch)[:, ::2])
    up = resampler(TemporalUpsample, channels, random=False)(x, 2 * half)
    assert_close(frames_of(up, batch), frames_of(x, batch).repeat_interleave(2, dim=1))


@few
@given(shapes, st.booleans(), st.integers(0, 9))
def test_a_still_clip_stays_still_whatever_the_weights(shape: tuple[int, ...], upwards: bool, seed: int) -> None:
    batch, channels, half, height = shape
    layer = resampler(TemporalUpsample if upwards else TemporalDownsample, channels, random=True, seed=seed)
    frame = torch.randn(batch, 1, channels, height, 3)
    still = frame.expand(-1, 2 * half, -1, -1, -1).flatten(0, 1)
    out = frames_of(layer(still, 2 * half), batch)
    assert_close(out, out[:, :1].expand_as(out))


@few
@given(st.integers(2, 12))
def test_gain_is_one(half: int) -> None:
    """A constant keeps its height, which a down-sampler of gain 2 would double at each level."""
    ones = torch.ones(2 * half, 3, 2, 2)
    for kind in (TemporalDownsample, TemporalUpsample):
        out = resampler(kind, 3, random=False)(ones, 2 * half)
        assert_close(out, torch.ones_like(out))


@few
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 9))
def test_shifting_a_clip_by_whole_strides_shifts_the_result(levels: int, steps: int, seed: int) -> None:
    """Down and up again with any weights: away from the borders, 2^levels frames later in gives as much later out."""
    frames, shift = 24 * 2**levels, steps * 2**levels
    layers = [resampler(TemporalDownsample, 2, random=True, seed=seed + i) for i in range(levels)]
    layers += [resampler(TemporalUpsample, 2, random=True, seed=seed + levels + i) for i in range(levels)]

    def through(x: torch.Tensor) -> torch.Tensor:
        n = len(x)
        for layer in layers:
            x = layer(x, n)
            n = len(x)
        return x

    x = torch.randn(frames, 2, 1, 1)
    moved, still = through(x.roll(shift, dims=0)), through(x)
    border = 4 * 2**levels
    assert_close(moved[shift + border : -border], still[border : -border - shift], 1e-4)
    assert not torch.allclose(moved[border:-border], still[border:-border], atol=1e-2)


@pytest.mark.slow
def test_shifting_a_clip_shifts_a_fresh_networks_prediction() -> None:
    net, _, given_ = inflated("stable-diffusion")
    shifted = {**given_, "sample": given_["sample"].roll(net.frame_multiple, dims=2)}
    assert_close(run(net, shifted), run(net, given_).roll(net.frame_multiple, dims=2))


@few
@given(st.integers(0, 9), st.integers(1, 2), st.sampled_from([4, 7, 24]))
def test_inflation_blocks_are_the_identity_until_their_projection_learns(seed: int, batch: int, frames: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(batch * frames, 8, 2, 3)
    for block in (ConvolutionBlock(8, width=16, groups=4), AttentionBlock(8, head_dim=4)):
        assert not torch.allclose(block(x, frames), x, atol=1e-3)
        block.init_zero()
        assert torch.equal(block(x, frames), x)


# --- Trained ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("conditioning", [False, True], ids=["paper", "conditioned"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_gradients_reach_every_temporal_weight_and_no_spatial_one(name: str, conditioning: bool) -> None:
    net, _, given_ = inflated(name, temporal_conditioning=conditioning)
    tiny.wake(net)(**given_).sample.square().mean().backward()
    unreached = [n for n, p in net.temporal.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A bias shared by all channels of a group vanishes in the group norm that follows, and adding the same to every
    # key changes no softmax: their gradients are zero up to rounding, and need only exist.
    assert [n for n in unreached if not n.endswith("bias")] == []
    assert all(p.grad is not None for p in net.temporal.parameters())
    assert all(p.grad is None and not p.requires_grad for p in net.spatial.parameters())


@pytest.mark.slow
def test_a_fresh_network_learns_at_once() -> None:
    """The zero projections get gradients, and so do the resampling convolutions."""
    net, _, given_ = inflated("stable-diffusion")
    net(**given_).sample.square().mean().backward()
    reached = {n for n, p in net.temporal.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    names = {n for n, _ in net.temporal.named_parameters()}
    assert {n for n in names if "projection" in n or "samplers" in n} <= reached


@pytest.mark.slow
@pytest.mark.parametrize("conditioning", [False, True], ids=["paper", "conditioned"])
def test_a_clips_result_does_not_depend_on_its_batch(conditioning: bool) -> None:
    net, _, given_ = inflated("stable-diffusion-xl", temporal_conditioning=conditioning)
    tiny.wake(net)
    together = run(net, given_)
    for row in (0, 1):
        alone = run(net, for_rows(given_, slice(row, row + 1)))
        assert_close(together[row : row + 1], alone)


def for_rows(given_: dict[str, Any], rows: slice) -> dict[str, Any]:
    return {k: for_rows(v, rows) if isinstance(v, dict) else v[rows] for k, v in given_.items()}


@pytest.mark.slow
def test_a_net_that_learned_on_8_frames_runs_on_24() -> None:
    net, t2i, _ = inflated("stable-diffusion", temporal_conditioning=True)
    tiny.wake(net)
    out = run(net, tiny.inputs(t2i, frames=24))
    assert out.shape == (2, 4, 24, 8, 8)
    assert out.isfinite().all()
    assert out.std().item() == pytest.approx(run(net, tiny.inputs(t2i, frames=8)).std().item(), rel=0.25)


@pytest.mark.slow
def test_frames_know_their_place_in_the_clip() -> None:
    net, _, given_ = inflated("bundled", temporal_conditioning=True)
    tiny.wake(net)
    whole = run(net, given_)
    evenly = (torch.arange(8) / 8).expand(2, -1)
    assert_close(run(net, given_ | {"frame_positions": evenly}), whole)
    later = run(net, given_ | {"frame_positions": evenly / 2 + 0.5})
    assert (later - whole).abs().max() > 1e-3
    # The T2I's own embedding is steered too: without any other temporal layer the place still tells.
    for module in net.temporal.modules():
        if isinstance(module, (AttentionBlock, ConvolutionBlock)):
            module.init_zero()
    steered = run(net, given_ | {"frame_positions": evenly / 2 + 0.5}) - run(net, given_)
    assert steered.abs().max() > 1e-4


def test_attention_sees_the_order_of_frames() -> None:
    torch.manual_seed(0)
    block = AttentionBlock(8, head_dim=8)
    x = torch.randn(6, 8, 1, 1)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert not torch.allclose(block(x[order], 6), block(x, 6)[order], atol=1e-4)


@pytest.mark.slow
def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    net, _, given_ = inflated("stable-diffusion", temporal_conditioning=True)
    tiny.wake(net).train()

    def gradients() -> list[torch.Tensor]:
        net.zero_grad(set_to_none=True)
        net(**given_).sample.square().mean().backward()
        return [p.grad.clone() for p in net.temporal.parameters() if p.grad is not None]

    expected = gradients()
    net.enable_gradient_checkpointing()
    assert net.gradient_checkpointing
    for a, b in zip(gradients(), expected, strict=True):
        assert_close(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stable-diffusion", "deepfloyd-if"])
def test_memory_layout_changes_nothing(name: str) -> None:
    net, _, given_ = inflated(name)
    tiny.wake(net)
    expected = run(net, given_)
    net.to(memory_format=torch.channels_last)
    assert_close(run(net, given_), expected)


@pytest.mark.slow
def test_half_precision_runs_and_is_near() -> None:
    net, _, given_ = inflated("stable-diffusion", temporal_conditioning=True)
    tiny.wake(net)
    expected = run(net, given_)
    half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in given_.items()}
    out = run(net.to(torch.bfloat16), half)
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).abs().mean() < 0.1 * expected.std()
