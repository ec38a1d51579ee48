"""The autoencoder's gates: measures whose answer is known, what counts as held out, and the protocol on a tiny one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from openlumiere.autoencoder import RGBAAutoencoder
from openlumiere.data.artwork import UNSEEN, is_test_artwork
from openlumiere.data.emoji import shards as emoji
from openlumiere.errors import LumiereError
from openlumiere.evaluation.metrics.fidelity import psnr
from openlumiere.evaluation.protocols import autoencoder as measured
from openlumiere.evaluation.protocols.autoencoder import (
    _Clip,
    compare,
    decode,
    encode,
    evaluate_autoencoder,
    gates,
    load_vae,
)
from openlumiere.evaluation.real_pictures import PLAIN, TRANSPARENT, draw_test_animations, list_test_keys, read_square

pytestmark = pytest.mark.slow  # whole protocols

TINY: dict[str, Any] = {"latent_channels": 4, "block_out_channels": [8, 8, 8], "layers_per_block": [1, 1]}
# Some of these are held out, most are not.
KEYS = ("1f405", "1f981", "1f418", "1f992", "1f993", "1f404", "1f416", "1f40e", "1f43b", "1f98a", "1f431", "1f436")
HELD_OUT = [key for key in KEYS if is_test_artwork(key)]
SIZE = 64


def loop(seed: int, frames: int = 5) -> np.ndarray:
    """A coloured square that moves by a pixel a frame, uint8 RGBA (frames, 48, 48, 4)."""
    found = np.zeros((frames, 48, 48, 4), np.uint8)
    for n in range(frames):
        found[n, 16:32, 14 + n : 30 + n] = [*np.random.default_rng(seed).integers(0, 256, 3), 255]
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard as `lumiere data emoji` writes it."""
    import tarfile

    folder = tmp_path_factory.mktemp("emoji")
    with tarfile.open(folder / "emoji-48-0000.tar", "w") as tar:
        for seed, key in enumerate(KEYS):
            frames = loop(seed)
            meta = {"emoji": key, "names": [key], "fps": 16, "loop_frames": len(frames), "size": 48}
            emoji.add_member(tar, f"{key}.webp", emoji._encode_loop(frames))
            emoji.add_member(tar, f"{key}.json", json.dumps(meta).encode())
    return folder


@pytest.fixture(scope="module")
def artwork(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Arrays of the kinds that are never trained on."""
    folder = tmp_path_factory.mktemp("artwork")
    for seed, name in enumerate(UNSEEN):
        pictures = np.stack([loop(10 * seed + n, 1)[0].transpose(2, 0, 1) for n in range(3)])
        pictures[-1] = 0
        np.save(folder / f"{name}.test.npy", pictures)
    return folder


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny, untrained RGBAAutoencoder in its folder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vae")
    RGBAAutoencoder(sample_size=SIZE, **TINY).save_pretrained(folder)
    return folder


def clip(*, seed: int = 0, frames: int = 6) -> _Clip:
    """A clip that came back as it was; its ground is the lower half."""
    real = np.random.default_rng(seed).integers(0, 200, (frames, 4, 16, 16), np.uint8)
    ground = np.zeros((frames, 16, 16), bool)
    ground[:, 8:] = True
    return _Clip(real, real.copy(), ground)


def test_nothing_is_lost_where_nothing_changed() -> None:
    assert compare(clip()) == {
        "psnr": 99.0, "alpha_error": 0.0, "ground_exact": 1.0, "ground_error": 0.0, "flicker": 1.0,
    }  # fmt: skip


def test_each_measure_sees_its_own_fault_alone() -> None:
    grainy, thin, soft = clip(), clip(), clip()
    grainy.made[2, 1, 12, 3] += 9  # one pixel of the ground, in one channel
    found = compare(grainy)
    assert found["ground_error"] == 9
    assert found["ground_exact"] == pytest.approx(1 - 1 / (6 * 8 * 16))
    assert found["alpha_error"] == 0
    thin.made[:, 3, :8] += 51  # alpha by a fifth over half of the frame
    found = compare(thin)
    assert found["alpha_error"] == pytest.approx(10)
    assert found["ground_error"] == 0
    assert found["flicker"] == 1
    assert found["psnr"] == pytest.approx(-10 * np.log10((51 / 255) ** 2 / 8))
    soft.made[:] = soft.real.mean(0, keepdims=True).round()  # what flickered stands still
    assert compare(soft)["flicker"] == 0


def test_psnr_is_that_of_the_clip_as_a_whole() -> None:
    """Not the mean over frames, which one perfect frame would raise without end."""
    one = clip()
    one.made[0] += 10
    assert psnr(one.made, one.real, peak=255) == pytest.approx(10 * np.log10(255**2 / (100 / 6)))


def test_only_held_out_animations_are_shown(data: Path) -> None:
    assert HELD_OUT, "choose other code points"
    assert len(HELD_OUT) < len(KEYS)
    assert list_test_keys(data) == sorted(HELD_OUT)
    with pytest.raises(LumiereError, match="holds no animations of the test split"):
        list_test_keys(data / "nowhere")


def test_animations_move_and_their_ground_is_far_from_them(data: Path) -> None:
    drawn = dict(draw_test_animations(data, HELD_OUT, size=SIZE, num_frames=4, seed=1))
    assert sorted(drawn) == sorted(HELD_OUT)
    for grounds in drawn.values():
        (bare, ground), (backed, same) = grounds[TRANSPARENT], grounds[PLAIN]
        assert bare.shape == backed.shape == (4, 4, SIZE, SIZE)
        assert np.array_equal(ground, same)
        assert ground.any()
        assert not bare.transpose(0, 2, 3, 1)[ground].any()
        assert (backed[:, 3] == 255).all()
        assert len(np.unique(backed.transpose(0, 2, 3, 1)[ground], axis=0)) == 1
        assert (bare[:, :3].astype(int) <= bare[:, 3:].astype(int) + 1).all(), "not premultiplied"
        far = np.argwhere(ground[0])
        near = np.argwhere(bare[0, 3])
        assert np.abs(far[:, None] - near[None]).max(-1).min() > 12
        assert np.abs(np.diff(bare.astype(int), axis=0)).max() > 20


def test_files_with_transparency_are_padded_and_others_cropped(tmp_path: Path) -> None:
    Image.new("RGBA", (40, 20), (200, 0, 0, 128)).save(tmp_path / "sprite.png")
    Image.new("RGB", (40, 20), (200, 0, 0)).save(tmp_path / "photograph.jpg", quality=95)
    sprite, photograph = (read_square(tmp_path / name, 32) for name in ("sprite.png", "photograph.jpg"))
    assert sprite.shape == photograph.shape == (4, 32, 32)
    assert sprite[3].max() == 128
    assert sprite[0].max() == pytest.approx(100, abs=1)
    assert not sprite[:, 0].any()
    assert (photograph[3] == 255).all()
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(LumiereError, match=r"broken\.png is corrupt"):
        read_square(tmp_path / "broken.png", 32)


def test_latents_are_as_a_diffusion_model_sees_them(tmp_path: Path) -> None:
    """A VAE that scales and shifts its latents is decoded as it was encoded."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"in_channels": 4, "out_channels": 4, "block_out_channels": [8], "norm_num_groups": 4}
    AutoencoderKL(**options, sample_size=16, scaling_factor=0.5, shift_factor=0.25).save_pretrained(tmp_path)
    net = load_vae(tmp_path)
    frames = clip().real
    pixels = torch.from_numpy(frames).float() / 127.5 - 1
    with torch.no_grad():
        raw = net.encode(pixels).latent_dist.mode()
        direct = ((net.decode(raw).sample + 1) * 127.5).clamp(0, 255).round().byte().numpy()
    latents = encode(net, frames)
    torch.testing.assert_close(latents, (raw - 0.25) * 0.5)
    assert np.abs(decode(net, latents).astype(int) - direct).max() <= 1


def test_gates_hold_only_where_all_that_they_say_is_true() -> None:
    good = {"psnr": 35.0, "alpha_error": 0.5, "ground_error": 1.0, "flicker": 0.97}
    report = {"animations": {TRANSPARENT: good, PLAIN: dict(good)}, "kinds": {"drawings": {"psnr": 29.0}}}
    assert all(gate["passed"] for gate in gates(report))
    for key, value in (("psnr", 33.9), ("alpha_error", 1.1), ("ground_error", 2.0), ("flicker", 1.06)):
        worse = {**report, "animations": {TRANSPARENT: good, PLAIN: {**good, key: value}}}
        assert [gate["value"] for gate in gates(worse) if not gate["passed"]] == [value]
    worse = {**report, "kinds": {"drawings": {"psnr": 27.0}}}
    assert [gate["gate"] for gate in gates(worse) if not gate["passed"]] == [
        "PSNR of a kind never trained on, drawings, dB"
    ]


def test_the_protocol_writes_what_it_promises(tmp_path: Path, data: Path, artwork: Path, vae: Path) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)).save(photographs / "one.jpg")

    def run() -> dict[str, Any]:
        return evaluate_autoencoder(
            vae, data, artwork, tmp_path / "out", pictures=[photographs], clips=2, num_frames=3, count=2,
            device="cpu", progress=False,
        )  # fmt: skip

    report = run()
    assert json.loads((tmp_path / "out" / "autoencoder.json").read_text()) == report
    assert report["clips"] == min(2, len(HELD_OUT))
    assert not report["passed"]  # it is untrained
    assert list(report["kinds"]) == [*UNSEEN, "photographs"]
    assert report["kinds"]["photographs"]["pictures"] == 1
    drawn = report["kinds"][next(iter(UNSEEN))]
    assert (drawn["pictures"], drawn["empty"]) == (1, 1)  # the first and the last
    assert set(report["noise"]) == {str(level) for level in measured.NOISE}
    assert report["noise"]["0.0"] != report["noise"]["0.3"]
    text = (tmp_path / "out" / "autoencoder.md").read_text()
    assert f"{report['animations'][PLAIN]['psnr']:.2f}" in text
    assert "**missed**" in text
    with Image.open(tmp_path / "out" / "autoencoder.png") as sheet:  # two columns; real, decoded and error of each kind
        assert sheet.size == (2 * SIZE, 3 * (2 + 3) * SIZE)
    assert run() == report


def test_what_cannot_be_measured_is_refused(tmp_path: Path, data: Path, artwork: Path, vae: Path) -> None:
    with pytest.raises(LumiereError, match="holds no autoencoder"):
        load_vae(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(LumiereError, match="holds a UNet2DModel, not an autoencoder"):
        load_vae(tmp_path)
    AutoencoderKL(block_out_channels=[4], norm_num_groups=4).save_pretrained(tmp_path / "rgb")
    with pytest.raises(LumiereError, match="takes 3 channels"):
        load_vae(tmp_path / "rgb")
    with pytest.raises(LumiereError, match="lacks fxemoji, meteocons"):
        evaluate_autoencoder(vae, data, tmp_path, tmp_path / "out")
    with pytest.raises(LumiereError, match="holds no PNG or JPEG"):
        evaluate_autoencoder(vae, data, artwork, tmp_path / "out", pictures=[data])
    with pytest.raises(LumiereError, match=r"frames \(2\)"):
        evaluate_autoencoder(vae, data, artwork, tmp_path / "out", num_frames=2)
