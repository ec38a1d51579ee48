"""The RGBA autoencoder: as a diffusers VAE, its training, and the artwork that it learns from."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from openlumiere.autoencoder import RGBAAutoencoder
from openlumiere.data import artwork
from openlumiere.data.artwork import Artwork, is_test_artwork
from openlumiere.errors import LumiereError
from openlumiere.training.config_files import parse
from openlumiere.training.loop import train
from openlumiere.training.stages.autoencoder import (
    charbonnier,
    detail_loss,
    plain_ground_loss,
    reconstruction_loss,
    translate,
)
from tiny_data import SIDE

TINY = {"latent_channels": 4, "block_out_channels": [8, 16, 16], "layers_per_block": [1, 1]}


# --- The network ------------------------------------------------------------------------------------------------------


def test_it_stands_in_for_a_vae_of_diffusers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = RGBAAutoencoder(**TINY).eval()
    pictures = torch.rand(2, 4, 64, 48) * 2 - 1
    with torch.no_grad():
        latents = net.encode(pictures).latent_dist.mode()
        assert latents.shape == (2, 4, 8, 6)
        assert net.spatial_compression_ratio == 8
        assert torch.equal(net.encode(pictures, return_dict=False)[0].sample(), latents)
        decoded = net.decode(latents).sample
        assert decoded.shape == pictures.shape
        assert torch.equal(net(pictures), decoded)
        net.save_pretrained(tmp_path)
        again = RGBAAutoencoder.from_pretrained(tmp_path).eval()
        assert torch.equal(again(pictures), decoded)
        assert (again.config["in_channels"], again.config["scaling_factor"]) == (4, 1.0)


def test_latents_are_standardized_over_what_it_was_trained_on(drawings: Path) -> None:
    net = RGBAAutoencoder(**TINY).train()
    pictures = torch.stack([item["pixels"] for item in Artwork(drawings, size=SIDE).__getitems__(list(range(64)))])
    latents = net.encode(pictures).latent_dist.mode()
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(latents.var((0, 2, 3), correction=0), torch.ones(4), atol=0.03)


def test_folded_statistics_leave_the_latents_as_they_are_and_fit_into_half_precision() -> None:
    torch.manual_seed(0)
    net = RGBAAutoencoder(**TINY).eval()
    with torch.no_grad():
        net.encoder[-1].weight.mul_(3e4)
        net.standardize.running_mean.uniform_(-1e4, 1e4)
        net.standardize.running_var.fill_(9e8)
        pictures = torch.rand(2, 4, 32, 32) * 2 - 1
        before = net.encode(pictures).latent_dist.mode()
        net.fold_statistics()
        torch.testing.assert_close(net.encode(pictures).latent_dist.mode(), before, rtol=1e-3, atol=1e-4)
        half = net.half().float().encode(pictures).latent_dist.mode()
    torch.testing.assert_close(half, before, rtol=1e-2, atol=1e-2)


def test_a_deeper_decoder_decodes_the_same_until_it_is_trained() -> None:
    torch.manual_seed(0)
    net = RGBAAutoencoder(**TINY).eval()
    for weight in net.decoder.parameters():  # blocks that are the identity would hide a wrong order
        torch.nn.init.normal_(weight, std=0.1)
    deeper = net.deepened(3).eval()
    latents = torch.randn(2, 4, 4, 4)
    assert torch.equal(deeper.decode(latents).sample, net.decode(latents).sample)
    assert tuple(deeper.config["layers_per_block"]) == (1, 3)
    new = [part for part in deeper.decoder if len(list(part.parameters())) == 4]
    assert len(new) == 9  # three resolutions
    deeper.decode(latents).sample.square().mean().backward()
    assert all(part.conv2.weight.grad is not None and part.conv2.weight.grad.any() for part in new)
    with pytest.raises(ValueError, match="has 3 residual blocks"):
        deeper.deepened(2)


# --- Losses -----------------------------------------------------------------------------------------------------------


def test_the_loss_is_zero_for_the_picture_itself_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(3, 4, 16, 16, generator=generator) * 2 - 1
    assert reconstruction_loss(real, real, generator) == pytest.approx(0.0, abs=1e-6)
    for channel in range(4):
        other = real.clone()
        other[:, channel] += 0.1
        assert reconstruction_loss(other, real, generator) > 0.005
    assert charbonnier(torch.full((4,), 0.5)) == pytest.approx(0.5, abs=2e-3)


def test_soft_pictures_lack_detail_and_moved_ones_do_not() -> None:
    torch.manual_seed(0)
    real = torch.rand(2, 4, 32, 32) * 2 - 1
    soft = torch.nn.functional.avg_pool2d(real, 3, stride=1, padding=1)
    assert detail_loss(real, real) == 0
    # Another picture of the same grain is nearer than the picture itself without its grain.
    assert detail_loss(real.roll(1, 3), real) < 0.3 * detail_loss(soft, real)


def test_plain_ground_is_only_where_one_colour_lies_all_around() -> None:
    real = torch.full((1, 4, 64, 64), 0.2)
    real[..., :20, :20] = -0.5
    made = real.clone()
    made[..., 24, 24] += 0.2  # near the other colour
    assert plain_ground_loss(made, real) == pytest.approx(0.0, abs=1e-5)
    made[..., 50, 50] += 0.2
    worst = plain_ground_loss(made, real)
    made[..., 50, 50] = 0.2
    made[..., 40:, 40:] += 0.2 / 24**2  # as much error in all, spread evenly
    assert 0.02 < worst < 0.1
    assert plain_ground_loss(made, real) < 0.02 * worst
    bright = torch.ones(1, 4, 64, 64)
    assert plain_ground_loss(bright + 0.3, bright) == pytest.approx(0.0, abs=1e-5)  # cut off in a file


def test_latents_and_pictures_move_alike() -> None:
    rows = torch.arange(64.0).reshape(1, 1, 8, 8)
    moved = translate(rows, torch.tensor([[1 / 8, -2 / 8]]))  # one to the right, two up
    assert torch.allclose(moved[..., :-2, 1:], rows[..., 2:, :-1], atol=1e-4)
    half = translate(rows, torch.tensor([[0.5 / 8, 0.0]]))
    assert torch.allclose(half[..., 1:], (rows[..., 1:] + rows[..., :-1]) / 2, atol=1e-4)


# --- Training ---------------------------------------------------------------------------------------------------------


def recipe(drawings: Path, output: Path, **optim: object) -> dict:
    return {
        "stage": "autoencoder", "output": str(output), "checkpoint_every": 2, "sample_every": 4,
        "model": {"size": SIDE, "autoencoder": TINY},
        "data": {"kind": "artwork", "folder": str(drawings), "crop": 16},
        "optim": {"lr": 4e-3, "warmup_steps": 2, "max_steps": 4, "batch_size": 8, "ema_decay": 0.9, **optim},
    }  # fmt: skip


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(drawings: Path, tmp_path: Path) -> None:
    constant = {"decay_steps": 1, "final_lr_ratio": 1.0}  # a rate that does not know where the run ends
    train(parse(recipe(drawings, tmp_path / "whole", **constant)))
    train(parse(recipe(drawings, tmp_path / "parts", max_steps=2, **constant)))
    train(parse(recipe(drawings, tmp_path / "parts", **constant)))
    for name in ("weights", "ema", "buffers", "optimizer"):
        file = f"checkpoint-0000004/{name}.safetensors"
        one, two = (load_file(tmp_path / run / file) for run in ("whole", "parts"))
        assert all(torch.equal(one[key], two[key]) for key in one), name
    assert (tmp_path / "whole" / "export" / "vae" / "config.json").exists()


@pytest.mark.slow
def test_it_learns_to_reconstruct_pictures_that_it_never_saw(drawings: Path, tmp_path: Path) -> None:
    exported = train(parse(recipe(drawings, tmp_path / "run", max_steps=150)))
    torch.manual_seed(0)
    held_out = Artwork(drawings, size=SIDE, split="test", seed=5)
    real = torch.stack([item["pixels"] for item in held_out.__getitems__(list(range(16)))])
    learned = RGBAAutoencoder.from_pretrained(exported / "vae").eval()
    with torch.no_grad():
        error = (learned(real) - real).square().mean()
        latents = learned.encode(real).latent_dist.mode()
    assert error < 0.8 * real.var()  # 1: the mean of all pictures
    # Exported statistics are those of the averaged weights.
    assert 0.5 < float(latents.std()) < 1.5
    assert Image.open(tmp_path / "run" / "samples" / "0000004.png").size == (8 * SIDE, 2 * SIDE)


@pytest.mark.slow
def test_a_decoder_trains_on_while_latents_stay(drawings: Path, tmp_path: Path) -> None:
    first = train(parse(recipe(drawings, tmp_path / "first")))
    tree = recipe(drawings, tmp_path / "second", lr=1e-2)
    tree["model"] |= {"vae": str(first / "vae"), "decoder_only": True}
    second = train(parse(tree))
    one, two = (load_file(folder / "vae" / "diffusion_pytorch_model.safetensors") for folder in (first, second))
    changed = {key.split(".")[0] for key in one if not torch.equal(one[key], two[key])}
    assert changed == {"decoder"}
    tree["model"] |= {"decoder_layers": 2, "detail_weight": 0.5, "plain_weight": 1.0, "noiseless": 0.25}
    third = RGBAAutoencoder.from_pretrained(train(parse(tree | {"output": str(tmp_path / "deeper")})) / "vae")
    assert tuple(third.config["layers_per_block"]) == (1, 2)
    tree["model"]["decoder_layers"] = 0
    with pytest.raises(LumiereError, match=r"model\.decoder_layers: the decoder has 1 residual blocks"):
        train(parse(tree | {"output": str(tmp_path / "shallower")}))
    with pytest.raises(LumiereError, match=r"model\.noiseless 1\.0: choose 0 or more, below 1"):
        parse(tree | {"model": tree["model"] | {"noiseless": 1.0}})
    with pytest.raises(LumiereError, match=r"need model\.vae"):
        train(parse(recipe(drawings, tmp_path / "third") | {"model": {"size": SIDE, "decoder_only": True}}))


# --- Artwork ----------------------------------------------------------------------------------------------------------


def test_an_item_is_a_function_of_seed_and_index(drawings: Path) -> None:
    data = Artwork(drawings, size=SIDE, crop=16, seed=3)
    alone, together = data[7]["pixels"], data.__getitems__([2, 7])[1]["pixels"]
    assert torch.allclose(alone, together, atol=1e-6)
    assert alone.shape == (4, 16, 16)
    assert -1 <= float(alone.min()) <= float(alone.max()) <= 1 + 1e-5
    assert not torch.allclose(alone, Artwork(drawings, size=SIDE, crop=16, seed=4)[7]["pixels"])


def test_colours_are_premultiplied_whatever_lies_behind(drawings: Path) -> None:
    items = torch.stack([item["pixels"] for item in Artwork(drawings, size=SIDE).__getitems__(list(range(32)))])
    rgba = items / 2 + 0.5
    assert (rgba[:, :3] <= rgba[:, 3:] + 1e-4).all()
    opaque = rgba[:, 3].amin((1, 2)) > 0.999
    assert 0 < opaque.sum() < len(rgba)


def test_pictures_of_a_held_out_emoji_are_held_out_in_every_design(drawings: Path) -> None:
    keys = [str(n) for n in range(60)]
    sizes = [len(np.load(drawings / f"drawn.{split}.npy")) for split in ("train", "test")]
    assert sizes == [sum(not is_test_artwork(k) for k in keys), sum(is_test_artwork(k) for k in keys)]
    assert sizes[1] >= 1
    assert is_test_artwork("2764-fe0f") == is_test_artwork("2764")


def test_a_missing_source_is_named(drawings: Path, tmp_path: Path) -> None:
    with pytest.raises(LumiereError, match="lacks clip-art; make it with: lumiere data artwork"):
        Artwork(drawings, size=SIDE, sources=["clip-art"])
    with pytest.raises(LumiereError, match="holds no artwork"):
        Artwork(tmp_path, size=SIDE)


def test_only_public_domain_clip_art_is_taken(tmp_path: Path) -> None:
    body = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8">{}<rect width="4" height="8" fill="#00f"/></svg>'
    free = '<metadata><License rdf="http://web.resource.org/cc/PublicDomain"/></metadata>'
    for name, text in {"free": body.format(free), "other": body.format("<!-- GPL -->"), "broken": free}.items():
        (tmp_path / f"{name}.svg").write_text(text, encoding="utf-8")
    found = dict(artwork._clip_art(tmp_path, SIDE))
    assert list(found) == ["free"]
    assert found["free"].convert("RGBA").getpixel((4, 16)) == (0, 0, 255, 255)


def test_icons_are_drawn_once_without_skin_tones(tmp_path: Path) -> None:
    body = '<rect width="16" height="16" fill="#f00"/>'
    icons = {"icons": {name: {"body": body} for name in ("tiger", "hand", "hand-medium")}, "width": 16, "height": 16}
    codes = {"1f405": "tiger", "1f44b": "hand", "1f44b-1f3fd": "hand-medium"}
    design = artwork.Design("@iconify-json/tried", "1.0.0", "MIT")
    with tarfile.open(tmp_path / "iconify-json-tried-1.0.0.tgz", "w:gz") as tar:
        for file, content in (("icons.json", icons), ("chars.json", codes)):
            data = json.dumps(content).encode()
            info = tarfile.TarInfo(f"package/{file}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert [key for key, _ in artwork._icons(design, tmp_path, SIDE)] == ["1f405", "1f44b"]
