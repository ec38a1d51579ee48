"""How fast a motion the temporal layers can be told: the Fourier series of `TemporalConditioning`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import tiny
from openlumiere import STUNet
from openlumiere.clock import frame_position, frame_seconds
from openlumiere.data.emoji.scenes import SECONDS, Scene, shortest_period, trajectory
from openlumiere.errors import LumiereError
from openlumiere.stunet.modulation import TemporalConditioning

CONFIGS = Path(__file__).parents[2] / "configs" / "emoji"
FRAMES = 80


def explained(path: np.ndarray, harmonics: int) -> float:
    """Share of a path's variance that the series can represent, by least squares."""
    positions = frame_position(torch.arange(FRAMES, dtype=torch.float64), FRAMES)
    basis = TemporalConditioning(8, 8, 1, harmonics=harmonics).series(positions).numpy()
    coefficients = np.linalg.lstsq(basis, path, rcond=1e-6)[0]
    return float(1 - np.var(path - basis @ coefficients) / np.var(path))


@pytest.mark.parametrize("bounces", [4, 8, 12])
def test_n_harmonics_represent_n_half_bounces_a_clip(bounces: int) -> None:
    height = np.abs(np.sin(np.pi * (bounces * np.arange(FRAMES) / FRAMES + 0.3)))
    assert explained(height, 2 * bounces) > 0.9
    assert explained(height, bounces) < 0.6


@pytest.mark.slow
def test_the_emoji_recipes_cover_the_fastest_motion_of_their_data() -> None:
    scene = Scene("tiger", "white", "medium", "center", "bounce", "", (0.5, 0.5, 0.5), phase=0.3)
    fastest = replace(scene, period=shortest_period())
    height = trajectory(fastest, frame_seconds(np.arange(FRAMES)), SECONDS)[:, 1]
    for name in ("conditional", "t2v"):
        options = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))["model"]["temporal"]
        assert options["temporal_harmonics"] >= 2 * SECONDS / shortest_period()
        assert explained(height, options["temporal_harmonics"]) > 0.9
        assert explained(height, 8) < 0.6  # what was before
        net = STUNet.from_unet(tiny.unet("bundled"), **options)
        assert net.temporal.conditioning.harmonics == options["temporal_harmonics"]


@pytest.mark.slow
def test_the_number_of_harmonics_is_saved_and_older_models_have_eight(tmp_path: Path) -> None:
    net = STUNet.from_unet(tiny.unet("bundled"), temporal_conditioning=True, temporal_harmonics=12)
    key = "temporal.conditioning.coefficients.weight"
    dim = net.spatial.time_embedding.linear_2.out_features
    assert net.state_dict()[key].shape == (25 * dim, dim)
    net.save_pretrained(tmp_path / "net")
    assert STUNet.from_pretrained(tmp_path / "net").state_dict()[key].shape == (25 * dim, dim)
    config = {key: value for key, value in net.config.items() if key != "temporal_harmonics"}
    with torch.device("meta"):
        assert STUNet.from_config(config).state_dict()[key].shape == (17 * dim, dim)
    with pytest.raises(LumiereError, match="temporal_harmonics 0"):
        STUNet.from_unet(tiny.unet("bundled"), temporal_conditioning=True, temporal_harmonics=0)


def test_embeddings_start_at_one_scale_whatever_the_number_of_harmonics() -> None:
    positions = frame_position(torch.arange(FRAMES).float(), FRAMES)[None].expand(16, -1)
    text, time = torch.randn(16, 5, 32), torch.randn(16, 64)
    scales = []
    for harmonics in (8, 24):
        conditioning = TemporalConditioning(32, 64, 4, harmonics=harmonics)
        conditioning.init_zero()
        with torch.no_grad():
            embedding, steering = conditioning(text, time, positions)
        assert steering.abs().max() == 0
        scales.append(float(embedding.std()))
    assert scales[1] == pytest.approx(scales[0], rel=0.15)
