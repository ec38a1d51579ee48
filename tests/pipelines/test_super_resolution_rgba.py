"""The second stage on clips with transparency: its data, its training, and a whole model that uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

import tiny
from openlumiere import STUNet
from openlumiere.data.artwork import ArtworkClips
from openlumiere.data.emoji.dataset import EmojiClips
from openlumiere.data.emoji.drawing import crop_path
from openlumiere.diffusion.alpha import clamp_premultiplied, premultiply
from openlumiere.diffusion.upsampling import low_res_channels
from openlumiere.errors import LumiereError
from openlumiere.pipelines.load import load_pipeline
from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline
from openlumiere.training import state
from openlumiere.training.config_files import parse
from openlumiere.training.export import export
from openlumiere.training.loop import make_stage, train
from openlumiere.training.stages.super_resolution import SuperResolutionImage
from tiny_data import SIDE

pytestmark = pytest.mark.slow  # whole runs

UNET = {
    "block_out_channels": [16, 16], "layers_per_block": 1, "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "mid_block_type": "UNetMidBlock2D", "up_block_types": ["UpBlock2D", "UpBlock2D"], "norm_num_groups": 4,
    "resnet_time_scale_shift": "scale_shift", "conv_in_kernel": 1, "cross_attention_dim": 384,
}  # fmt: skip


# --- Data -------------------------------------------------------------------------------------------------------------


def test_a_crop_moves_and_enlarges_a_path_as_a_camera_does() -> None:
    path = np.array([[-0.5, 0.1, 0.9, 0.0], [0.0, 0.1, 0.6, 0.3], [0.5, 0.1, 0.6, 0.6]])
    for seed in range(40):
        seen = crop_path(path, np.random.default_rng(seed), zoom=2.0, largest=0.5)
        scaled = seen[:, 2] / path[:, 2]
        np.testing.assert_allclose(scaled, scaled[0])  # it grows as it did
        assert 0.25 * 2 <= seen[:, 2].max() <= 0.5 * 2
        np.testing.assert_allclose(np.diff(seen[:, :2], axis=0), 2 * np.diff(path[:, :2], axis=0))
        np.testing.assert_array_equal(seen[:, 3], path[:, 3])
        assert (np.abs(seen[:, :2] - 2 * path[:, :2]) <= 1 + 1e-9).all()  # it stays within the frame
        assert (np.abs(seen[:, :2]).max(1) < 1 + seen[:, 2]).any()  # and shows the subject at some time


def test_cropped_clips_show_pictures_no_larger_than_they_are(loops: Path) -> None:
    data = EmojiClips(loops, subjects=["tiger"], size=128, crop=32, window=4, channels=4, transparent=1.0, seed=2)
    assert data.sprites.frames.shape[-1] == 32
    samples = data.__getitems__(list(range(12)))
    assert all(sample["pixels"].shape == (4, 4, 32, 32) for sample in samples)
    sides = torch.stack([sample["layout"][:, 2].exp().max() for sample in samples])
    assert sides.max() <= 1 + 1e-5  # of 32 pixels
    assert sides.min() >= 0.3  # they grow and shrink within clips of 80 frames
    assert sum(float(sample["pixels"][3].max()) > 0.9 for sample in samples) >= 10
    torch.testing.assert_close(samples[5]["pixels"], data[5]["pixels"])
    with pytest.raises(LumiereError, match="a crop of 256 pixels"):
        EmojiClips(loops, subjects=["tiger"], size=128, crop=256)


def test_artwork_as_clips_is_sharp(drawings: Path) -> None:
    data = ArtworkClips(drawings, size=2 * SIDE, crop=SIDE, native_size=True)
    items = data.__getitems__(list(range(24)))
    assert {item["caption"] for item in items} == {""}
    pixels = torch.stack([item["pixels"] for item in items])
    assert pixels.shape == (24, 4, 1, SIDE, SIDE)

    def edges(clips: torch.Tensor) -> float:
        steps = clips.diff(dim=-1).abs()
        return float(steps[steps > 0.02].mean())

    soft = ArtworkClips(drawings, size=8 * SIDE, crop=SIDE)
    assert edges(pixels) > 1.5 * edges(torch.stack([item["pixels"] for item in soft.__getitems__(list(range(24)))]))


# --- What the network is given ----------------------------------------------------------------------------------------


def test_low_res_clips_are_folded_without_loss_or_enlarged() -> None:
    clips = torch.rand(2, 4, 3, 8, 12)
    folded = low_res_channels(clips, 4, 8, upsampled=False)
    assert folded.shape == (2, 16, 3, 4, 6)
    torch.testing.assert_close(torch.nn.functional.pixel_shuffle(folded.transpose(1, 2), 2).transpose(1, 2), clips)
    assert low_res_channels(clips, 4, 8, upsampled=True).shape == (2, 256, 3, 4, 6)
    with pytest.raises(LumiereError, match="that 4 divides"):
        low_res_channels(clips, 4, 2, upsampled=False)


def folded_stage(channels: int, **options: Any) -> LumiereSuperResolutionPipeline:
    torch.manual_seed(0)
    unit, scale = 4, 2
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=channels * (unit**2 + (unit // scale) ** 2), out_channels=channels * unit**2,
        class_embed_type="timestep", **UNET,
    )  # fmt: skip
    stage = tiny.second_stage()
    pipe = LumiereSuperResolutionPipeline(
        unet=tiny.wake(STUNet.from_unet(unet)), scheduler=stage.scheduler, text_encoder=stage.text_encoder,
        tokenizer=stage.tokenizer, pixel_unshuffle=unit, scale=scale, enlarge_low_res=False, window_frames=8,
        num_inference_steps=1, **options,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("channels", [3, 4])
def test_a_network_on_folded_low_res_clips_takes_any_size(channels: int) -> None:
    pipe = folded_stage(channels, residual_scale=8.0)
    assert pipe.has_alpha == (channels == 4)
    given = np.random.default_rng(0).random((9, 7, 10, 4), dtype=np.float32)
    made = pipe(given, generator=torch.Generator().manual_seed(0))[0]
    assert made.shape == (1, 9, 14, 20, 4)
    assert np.isfinite(made).all()
    assert pipe(given[..., :3], generator=torch.Generator().manual_seed(0))[0].shape == (1, 9, 14, 20, 3)


def test_without_noise_in_its_base_plain_ground_stays_plain() -> None:
    """A network that predicts nothing returns the enlarged clip: with the noise that it saw, or without."""
    grain = {}
    plain = np.full((8, 8, 8, 4), 0.5, np.float32)
    for base in ("noisy", "clean"):
        pipe = folded_stage(4, residual_scale=8.0, residual_base=base, noise_level=100)
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type="sample")
        torch.nn.init.zeros_(pipe.unet.spatial.conv_out.weight)
        torch.nn.init.zeros_(pipe.unet.spatial.conv_out.bias)
        grain[base] = pipe(plain, generator=torch.Generator().manual_seed(0))[0].std()
    assert grain["clean"] < 1e-6
    assert grain["noisy"] > 0.01


# --- Training ---------------------------------------------------------------------------------------------------------


def recipe(stage: str, output: Path, data: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "stage": stage, "output": str(output), "sample_every": 4, "checkpoint_every": 4, "sample_steps": 1,
        "sample_guidance": 1.0, "log_every": 1,
        "model": {
            "size": 32, "scale": 4, "pixel_unshuffle": 8, "enlarge_low_res": False, "residual_base": "clean",
            "max_noise_level": 8, **changes.get("model", {}),
        },
        "scheduler": tiny.TRAINING["scheduler"] | {"prediction_type": "sample"},
        "data": {"channels": 4} | data,
        "text": {"dropout": 1.0},
        "optim": {
            "max_steps": 4, "batch_size": 4, "warmup_steps": 1, "snr_gamma": 10.0, "timestep_shift": 50.0,
            "noise_correlation": 0.975, "ema_decay": 0.9, "final_lr_ratio": 1.0, **changes.get("optim", {}),
        },
    }  # fmt: skip


def of_artwork(drawings: Path) -> dict[str, Any]:
    return {"kind": "artwork", "folder": str(drawings)}


@pytest.fixture(scope="module")
def image_run(drawings: Path, vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("ssr-image")
    train(parse(recipe("ssr-image", output, of_artwork(drawings), model={"unet": UNET, "vae": str(vae)})))
    return output


def test_low_res_clips_are_what_a_first_stage_makes(drawings: Path, vae: Path, tmp_path: Path) -> None:
    stages = []
    for share in (0.0, 1.0):
        model = {"unet": UNET, "vae": str(vae), "through_vae": share}
        stage = make_stage(parse(recipe("ssr-image", tmp_path, of_artwork(drawings), model=model)), torch.device("cpu"))
        assert isinstance(stage, SuperResolutionImage)
        stages.append(stage)
    plain, passed = stages
    sharp = plain.high_res_clips(torch.utils.data.default_collate([plain.dataset[n] for n in range(4)]))
    found = [stage.low_res_of(sharp, torch.Generator().manual_seed(0)) for stage in stages]
    assert found[0].channels.shape == (4, 16, 1, 4, 4)
    assert found[0].base.shape == (4, 256, 1, 4, 4)
    assert not torch.allclose(found[0].base, found[1].base, atol=0.05)  # an untrained autoencoder spoils all
    low_res = passed.through_vae(torch.nn.functional.avg_pool3d(sharp, (1, 4, 4)), torch.Generator().manual_seed(0))
    torch.testing.assert_close(low_res, clamp_premultiplied(low_res))
    assert (low_res[:, :3] <= low_res[:, 3:]).all()


def test_it_learns_in_a_few_dozen_steps(drawings: Path, tmp_path: Path) -> None:
    model = {"unet": UNET | {"block_out_channels": [32, 32]}, "pixel_unshuffle": 4}
    tree = recipe("ssr-image", tmp_path, of_artwork(drawings), model=model)
    stage = make_stage(parse(tree), torch.device("cpu"))
    assert isinstance(stage, SuperResolutionImage)
    held_out = torch.utils.data.default_collate([stage.dataset[n] for n in range(2000, 2064)])
    sharp = stage.high_res_clips(held_out)
    untrained = loss_on(stage, held_out)
    soft = stage.low_res_of(sharp, torch.Generator().manual_seed(0))
    nothing = float((stage.codec.encode(sharp) - soft.base).mul(8.0).square().mean())
    assert nothing <= untrained < 1.5 * nothing  # it starts as the enlarged clip; low noise weighs somewhat more
    optimizer = torch.optim.AdamW(stage.module.parameters(), lr=4e-3)
    for step in range(60):
        items = [stage.dataset[n] for n in range(step * 16, step * 16 + 16)]
        generator = torch.Generator().manual_seed(step)
        loss = stage.loss(stage.module, torch.utils.data.default_collate(items), generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss_on(stage, held_out) < 0.92 * untrained  # better than Lanczos


@torch.no_grad()
def loss_on(stage: SuperResolutionImage, batch: dict[str, Any]) -> float:
    return float(stage.loss(stage.module, batch, torch.Generator().manual_seed(0)))


def test_a_run_goes_on_from_its_checkpoint_as_if_it_had_not_stopped(
    image_run: Path, drawings: Path, vae: Path, tmp_path: Path
) -> None:
    model = {"unet": UNET, "vae": str(vae)}
    for steps in (2, 4):
        optim = {"max_steps": steps}
        train(parse(recipe("ssr-image", tmp_path, of_artwork(drawings), model=model, optim=optim)))
        assert state.checkpoints(tmp_path)[-1].name.endswith(str(steps))
    one, other = (state.checkpoints(run)[-1] for run in (image_run, tmp_path))
    assert one.name == other.name
    assert (one / "ema.safetensors").read_bytes() == (other / "ema.safetensors").read_bytes()


def test_wrong_channels_are_one_line(image_run: Path, drawings: Path, loops: Path, vae: Path, tmp_path: Path) -> None:
    emoji = {"kind": "emoji", "folder": str(loops), "subjects": ["tiger"]}
    t2i = {"t2i": str(image_run / "export")}
    for stage, data, model, words in (
        ("ssr", emoji | {"channels": 3, "window": 4}, t2i, "set data.channels"),
        ("ssr", emoji | {"window": 4}, t2i | {"enlarge_low_res": True}, "enlarge_low_res as in its stage"),
        ("ssr", of_artwork(drawings), t2i, "for stage ssr-image"),
        ("ssr-image", emoji | {"channels": 3}, {"unet": UNET, "vae": str(vae)}, "takes 4 channels"),
        ("ssr-image", emoji | {"crop": 16}, {"unet": UNET}, "data.crop, 16"),
        ("ssr-image", emoji, {"unet": UNET, "pixel_unshuffle": 2}, "must divide model.pixel_unshuffle"),
        ("ssr-image", emoji, {"unet": UNET, "vae": str(vae), "size": 16, "pixel_unshuffle": 4}, "multiples of 8"),
    ):
        with pytest.raises(LumiereError, match=words):
            make_stage(parse(recipe(stage, tmp_path, data, model=model)), torch.device("cpu"))


def test_a_whole_model_makes_transparent_clips_four_times_as_large(
    image_run: Path, loops: Path, vae: Path, tmp_path: Path
) -> None:
    emoji = {"kind": "emoji", "folder": str(loops), "subjects": ["tiger", "heart"], "num_frames": 16}
    ssr = tmp_path / "ssr"
    model = {"t2i": str(image_run / "export"), "vae": str(vae), "size": 64, "temporal": {"attention_layers": 1}}
    train(parse(recipe("ssr", ssr, emoji | {"num_frames": 80, "crop": 32, "window": 8}, model=model)))
    with Image.open(ssr / "samples" / "0000004.png") as picture:
        assert picture.size == (6 * 32, 3 * 32)
    before = UNet2DConditionModel.from_pretrained(image_run / "export", subfolder="unet").state_dict()
    alone = LumiereSuperResolutionPipeline.from_pretrained(ssr / "export" / "pipeline")
    assert all(torch.equal(alone.unet.spatial.state_dict()[name], value) for name, value in before.items())
    assert alone.has_alpha

    base = {
        "output": str(tmp_path / "t2i"), "scheduler": tiny.TRAINING["scheduler"], "data": emoji, "sample_every": 0,
        "optim": {"max_steps": 1, "batch_size": 2, "warmup_steps": 1, "snr_gamma": 0.0},
    }  # fmt: skip
    unet = tiny.TRAINING["model"]["unet"]
    t2i = train(parse(base | {"stage": "t2i", "model": {"size": 32, "vae": str(vae), "unet": unet}}))
    clips = {"stage": "t2v", "output": str(tmp_path / "t2v"), "model": {"size": 32, "t2i": str(t2i)}}
    train(parse(base | clips))
    pipe = load_pipeline(str(export(tmp_path / "t2v", tmp_path / "model", super_resolution=ssr)), device="cpu")
    pipe.set_progress_bar_config(disable=True)
    stage = pipe.super_resolution
    assert stage is not None
    assert stage.has_alpha
    assert (stage.config.enlarge_low_res, stage.config.residual_base) == (False, "clean")
    options = {"num_frames": 16, "num_inference_steps": 2, "transparent": True}
    frames = pipe("a tiger", generator=torch.Generator().manual_seed(1), **options)[0]
    assert frames.shape == (1, 16, 128, 128, 4)
    assert np.isfinite(frames).all()
    # Each stage alone, one after the other, gives the same.
    low_res = pipe("a tiger", generator=torch.Generator().manual_seed(1), upscale=False, **options)[0]
    assert low_res.shape == (1, 16, 32, 32, 4)
    high_res = stage(low_res, "a tiger", generator=torch.Generator().manual_seed(1))[0]
    np.testing.assert_allclose(high_res, frames, atol=1e-4)
    seen = premultiply(torch.from_numpy(frames).permute(0, 4, 1, 2, 3) * 2 - 1)
    small = torch.nn.functional.avg_pool3d(seen, (1, 4, 4))
    wanted = premultiply(torch.from_numpy(low_res).permute(0, 4, 1, 2, 3) * 2 - 1)
    assert (small - wanted).abs().mean() < 0.2  # what the base showed is still there
    opaque = pipe("a tiger", num_frames=16, num_inference_steps=2, generator=torch.Generator().manual_seed(1))[0]
    assert opaque.shape == (1, 16, 128, 128, 3)
