"""What the JSON files of published models say, as they lie in the hub's cache on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openlumiere.generation.abilities import Abilities
from openlumiere.generation.backends.find import read_abilities

_WAN_VAE = {"scale_factor_spatial": 8, "scale_factor_temporal": 4}
_WAN_NET = {"in_channels": 16, "out_channels": 16, "patch_size": [1, 2, 2], "image_dim": None}
_COG_VAE = {"block_out_channels": [128, 256, 256, 512]}
_COG_NET = {"in_channels": 16, "out_channels": 16, "patch_size": 2, "sample_width": 90, "sample_height": 60}
_LTX_VAE = {"patch_size": 4, "patch_size_t": 1, "spatio_temporal_scaling": [True, True, True, False]}


def _published(hub: Path, name: str, pipeline: str, net: dict[str, Any], vae: dict[str, Any], **index: Any) -> Path:
    snapshot = hub / f"models--{name.replace('/', '--')}" / "snapshots" / "0123456789abcdef"
    parts = {"transformer": ["diffusers", "A"], "vae": ["diffusers", "B"], "transformer_2": [None, None], **index}
    for path, data in (
        ("model_index.json", {"_class_name": pipeline, **parts}), ("transformer/config.json", net),
        ("vae/config.json", vae),
    ):  # fmt: skip
        (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / path).write_text(json.dumps(data), encoding="utf-8")
    refs = snapshot.parent.parent / "refs"
    refs.mkdir(exist_ok=True)
    (refs / "main").write_text(snapshot.name, encoding="utf-8")
    return snapshot


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def _shape(found: Abilities) -> tuple[int | None, int | None, int, int | None, float]:
    return found.width, found.height, found.num_frames, found.max_frames, found.fps


def test_wan(hub: Path) -> None:
    _published(hub, "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "WanPipeline", _WAN_NET, _WAN_VAE)
    small = read_abilities("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
    assert _shape(small) == (832, 480, 81, 81, 16)
    assert (small.licence, small.commercial) == ("apache-2.0", True)
    images = _WAN_NET | {"in_channels": 36, "image_dim": 1280, "pos_embed_seq_len": 514}
    _published(hub, "Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers", "WanImageToVideoPipeline", images, _WAN_VAE)
    ends = read_abilities("Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers")
    assert (_shape(ends)[:2], ends.last_frame) == ((1280, 720), True)
    _published(
        hub, "Wan-AI/Wan2.2-TI2V-5B-Diffusers", "WanPipeline", _WAN_NET | {"in_channels": 48, "out_channels": 48},
        {"scale_factor_spatial": 16, "scale_factor_temporal": 4}, expand_timesteps=True,
    )  # fmt: skip
    newer = read_abilities("Wan-AI/Wan2.2-TI2V-5B-Diffusers")
    assert _shape(newer) == (1280, 704, 121, 121, 24)
    assert newer.size_multiple == 32
    assert {"generate", "animate"} <= set(newer.tasks) - set(newer.emulated)
    two = {"boundary_ratio": 0.875, "transformer_2": ["diffusers", "A"]}
    _published(hub, "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "WanPipeline", _WAN_NET, _WAN_VAE, **two)
    both = read_abilities("Wan-AI/Wan2.2-T2V-A14B-Diffusers")
    assert (both.guidance_scale, both.num_inference_steps) == (4.0, 40)


@pytest.mark.parametrize(
    ("name", "licence", "commercial"),
    [("THUDM/CogVideoX-2b", "apache-2.0", True), ("zai-org/CogVideoX1.5-5B", "CogVideoX LICENSE", None)],
)
def test_cogvideox(hub: Path, name: str, licence: str, commercial: bool | None) -> None:
    newer = "1.5" in name
    own = {"sample_width": 170, "sample_height": 96, "sample_frames": 81, "patch_size_t": 2} if newer else {}
    _published(hub, name, "CogVideoXPipeline", {"sample_frames": 49} | _COG_NET | own, _COG_VAE)
    found = read_abilities(name)
    assert _shape(found) == ((1360, 768, 81, 161, 16) if newer else (720, 480, 49, 49, 8))
    assert (found.licence, found.commercial) == (licence, commercial)


def test_a_card_that_names_a_licence_is_believed_and_one_that_says_other_is_not(hub: Path) -> None:
    name, net = "Lightricks/LTX-Video-0.9.7-dev", {"patch_size": 1}
    snapshot = _published(hub, name, "LTXConditionPipeline", net, _LTX_VAE)
    assert _shape(read_abilities(name)) == (704, 512, 121, 257, 25)
    for card, licence in (
        (None, "LTXV Open Weights License"), ("license: other", "LTXV Open Weights License"), ("license: mit", "mit"),
    ):  # fmt: skip
        if card is not None:
            (snapshot / "README.md").write_text(f"---\n{card}\n---\n", encoding="utf-8")
        assert read_abilities(name).licence == licence
