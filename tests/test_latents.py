"""Codecs: pixels to what a network denoises, and back, whichever of the two it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

import tiny
from openlumiere.autoencoder import RGBAAutoencoder
from openlumiere.diffusion.alpha import EMPTY, add_alpha
from openlumiere.latents import Codec, PixelCodec, VAECodec


def vae(**options: Any) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4, latent_channels=4,
        up_block_types=("UpDecoderBlock2D",) * 2, sample_size=16, **options,
    ).eval()  # fmt: skip


def rgba() -> RGBAAutoencoder:
    torch.manual_seed(0)
    return RGBAAutoencoder(latent_channels=5, block_out_channels=(8,), sample_size=16).eval()


CODECS = {
    "pixels": lambda: PixelCodec(2), "rgba pixels": lambda: PixelCodec(2, 4), "pixels as they are": PixelCodec,
    "vae": lambda: VAECodec(vae()), "rgba vae": lambda: VAECodec(rgba()),
}  # fmt: skip


@pytest.fixture(params=list(CODECS))
def codec(request: pytest.FixtureRequest) -> Codec:
    made: Codec = CODECS[request.param]()
    return made


def clips(channels: int = 3) -> torch.Tensor:
    return torch.rand(2, channels, 3, 16, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_shapes_are_what_a_codec_says(codec: Codec) -> None:
    latents = codec.encode(clips(codec.pixel_channels))
    assert latents.shape == (2, codec.channels, 3, 16 // codec.factor, 8 // codec.factor)
    assert codec.decode(latents).shape == (2, codec.pixel_channels, 3, 16, 8)
    mask = codec.encode_mask(torch.ones(2, 1, 3, 16, 8))
    assert mask.shape == (2, codec.mask_channels, *latents.shape[2:])
    assert (mask == 1).all()
    assert codec.has_alpha == (codec.pixel_channels == 4)


def test_opaque_clips_get_an_alpha_of_1_where_there_is_alpha(codec: Codec) -> None:
    if codec.has_alpha:
        assert torch.equal(codec.encode(clips()), codec.encode(add_alpha(clips())))


def test_pixels_come_back_exactly() -> None:
    assert torch.equal(PixelCodec(4).decode(PixelCodec(4).encode(clips())), clips())


def test_what_is_unknown_is_a_blank_picture(codec: Codec) -> None:
    """Of pixels exactly; of latents what the middle of a large blank picture is encoded to."""
    latents = codec.encode(clips(codec.pixel_channels))
    mask = torch.ones(2, 1, 3, 16, 8)
    assert torch.equal(codec.keep_known(latents, codec.encode_mask(mask)), latents)
    nothing = codec.keep_known(latents, codec.encode_mask(0 * mask))
    value = EMPTY if codec.has_alpha else 0.0
    side = 24 * codec.factor
    blank = codec.encode(torch.full((1, codec.pixel_channels, 1, side, side), value))[0, :, 0, 12, 12]
    torch.testing.assert_close(nothing, blank[:, None, None, None].expand_as(latents))


def test_a_position_is_known_where_all_of_its_pixels_are() -> None:
    mask = torch.ones(1, 1, 1, 4, 4)
    mask[..., 0, 0] = 0
    assert VAECodec(vae()).encode_mask(mask).flatten().tolist() == [0, 1, 1, 1]
    assert PixelCodec(2).encode_mask(mask).sum() == 15


def test_a_vae_that_overflows_in_half_precision_runs_in_single_both_ways() -> None:
    """Stable Diffusion XL's says so by `force_upcast`; afterwards it is in half precision again."""
    net = vae(force_upcast=True)
    ran: list[torch.dtype] = []
    for part in (net.encoder, net.decoder):
        part.register_forward_pre_hook(lambda module, _args: ran.append(next(module.parameters()).dtype))
    codec = VAECodec(net)
    expected = codec.encode(clips())
    wanted = codec.decode(expected)
    ran.clear()
    net.half()
    latents = codec.encode(clips().half())
    pixels = codec.decode(expected.half())
    assert set(ran) == {torch.float32}
    assert net.dtype == torch.float16
    torch.testing.assert_close(latents.float(), expected, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(pixels.float(), wanted, rtol=1e-2, atol=1e-2)


def test_a_pipelines_codec_follows_its_vae(tmp_path: Path) -> None:
    pipe = tiny.transparent()
    first = pipe.codec
    assert pipe.codec is first  # so that what it remembers of its VAE is not computed again
    pipe.register_modules(vae=rgba())
    assert pipe.codec.channels == 5
    pipe.register_modules(vae=None)
    assert pipe.codec == PixelCodec(1)
