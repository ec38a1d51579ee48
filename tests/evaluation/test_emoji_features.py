"""The feature network of FVD-emoji: it learns, comes back from the disk, and the bundled one is whole and sensible."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from openlumiere.bundled import damaged_files
from openlumiere.data.emoji.drawing import Atlas
from openlumiere.errors import LumiereError
from openlumiere.evaluation.features.emoji import (
    CONFIG,
    FRAMES,
    SIDE,
    WEIGHTS,
    EmojiFeaturesConfig,
    accuracy,
    as_input,
    finish,
    load,
    real_clips,
    sanity,
    spread_frames,
    train,
)
from openlumiere.evaluation.features.networks import find_features
from tiny_data import tiny_atlas

BUNDLED = Path(__file__).parents[2] / "models" / "emoji-features"
CONFIGURATION = EmojiFeaturesConfig(width=4, features=16, clips=60, steps=50, batch_size=12, held_out_clips=30)


@pytest.fixture(scope="module")
def atlases() -> dict[str, Atlas]:
    return {key: tiny_atlas(key) for key in ("ell", "flag")}


@pytest.mark.slow
def test_it_learns_and_comes_back_from_the_disk(atlases: dict[str, Atlas], tmp_path: Path) -> None:
    network = train(atlases, CONFIGURATION, progress=False)
    found = accuracy(network, atlases, split="train")
    assert found["subject"] > 0.7  # of two
    finish(network, atlases, tmp_path, clips=20)
    assert damaged_files(tmp_path) == []
    figures = json.loads((tmp_path / CONFIG).read_text(encoding="utf-8"))
    assert set(figures["accuracy"]) == {"seen combinations", "held-out combinations"}
    clips = as_input(real_clips(atlases, 3)[0])
    back = load(tmp_path)
    torch.testing.assert_close(back.features(clips), network.features(clips))
    (tmp_path / WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(LumiereError, match="holds no whole feature network"):
        load(tmp_path)


def test_the_same_seed_trains_the_same_network(atlases: dict[str, Atlas]) -> None:
    short = EmojiFeaturesConfig(width=4, features=8, clips=8, steps=3, batch_size=4)
    first, second = (train(atlases, short, progress=False).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_frames_are_spread_from_first_to_last() -> None:
    assert spread_frames(FRAMES).tolist() == list(range(FRAMES))
    assert spread_frames(80)[[0, -1]].tolist() == [0, 79]


def test_the_bundled_network_is_whole_and_its_figures_are_sensible() -> None:
    assert damaged_files(BUNDLED) == []
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) < 2_000_000
    config = json.loads((BUNDLED / CONFIG).read_text(encoding="utf-8"))
    assert config["accuracy"]["held-out combinations"]["motion"] > 0.9
    distances = config["fvd_emoji_from_500_real_clips"]
    worse = [value for name, value in distances.items() if name != "real"]
    assert distances["real"] < 0.5 * min(worse)
    assert distances["noise"] == max(worse)


@pytest.mark.slow
def test_the_bundled_network_tells_noise_stillness_and_disorder_from_clips(atlases: dict[str, Atlas]) -> None:
    """On shapes that it was not trained on."""
    distances = sanity(load(BUNDLED), atlases, clips=40)
    assert distances["real"] < min(value for name, value in distances.items() if name != "real")


def test_it_is_found_in_the_package_and_wherever_it_is_given(tmp_path: Path) -> None:
    net = find_features("emoji")
    assert net.path == BUNDLED / WEIGHTS
    copy = shutil.copytree(BUNDLED, tmp_path / "copy")
    assert find_features("emoji", path=copy).sha256 == net.sha256
    found = net.load()(np.zeros((2, FRAMES, SIDE, SIDE, 3), np.uint8))
    assert {name: array.shape for name, array in found.items()} == {"features": (2, 128), "probabilities": (2, 74)}
    np.testing.assert_allclose(found["probabilities"].sum(1), 1, rtol=1e-5)
