"""Training on latents: kept on disk, text to picture to clip, transparency included."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset, default_collate

import tiny
from openlumiere.clock import frame_position
from openlumiere.data.shown_frames import ShownFrames
from openlumiere.errors import LumiereError
from openlumiere.latents import VAECodec, load_vae
from openlumiere.pipelines.load import load_pipeline
from openlumiere.training.cached import CachedLatents, ShownLatents
from openlumiere.training.config_files import parse
from openlumiere.training.export import export
from openlumiere.training.loop import train
from openlumiere.training.stages.conditional import Conditional

pytestmark = pytest.mark.slow  # whole runs


class Drawn(Dataset[dict[str, Any]]):
    """Clips of plain colours that count how often they are drawn."""

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.drawn.append(index)
        pixels = torch.full((4, 2, 16, 16), index / 10 - 1)
        return {"pixels": pixels, "caption": f"clip {index}", "layout": torch.full((2, 6), float(index))}


# --- The cache --------------------------------------------------------------------------------------------------------


def cached(source: Drawn, vae: Path, folder: Path, **options: Any) -> CachedLatents:
    net = load_vae(vae)
    given = {"count": 6, "identity": {"of": "this"}, "shard": 4, "seed": 1} | options
    return CachedLatents(source, lambda pixels: VAECodec(net).encode(pixels), folder, **given)


def test_each_round_shows_every_clip_once_in_another_order(vae: Path, tmp_path: Path) -> None:
    data = cached(Drawn(), vae, tmp_path)
    rounds = [[data[n]["caption"] for n in range(start, start + 6)] for start in (0, 6)]
    assert rounds[0] != rounds[1]
    assert all(sorted(captions) == [f"clip {n}" for n in range(6)] for captions in rounds)
    for n in range(6):
        sample = data[n]
        index = float(sample["caption"].split()[1])
        pixels = torch.full((1, 4, 2, 16, 16), index / 10 - 1)
        assert torch.allclose(sample["latents"], VAECodec(load_vae(vae)).encode(pixels)[0], atol=2e-3)
        assert (sample["layout"] == index).all()


def test_a_cache_that_was_stopped_or_grows_encodes_only_what_is_missing(vae: Path, tmp_path: Path) -> None:
    cached(Drawn(), vae, tmp_path)
    again, grown = Drawn(), Drawn()
    cached(again, vae, tmp_path)
    assert again.drawn == []
    (tmp_path / "0000004.safetensors").unlink()
    cached(grown, vae, tmp_path, count=10)
    assert sorted(set(grown.drawn)) == list(range(4, 12))


def test_latents_of_other_clips_are_refused(vae: Path, tmp_path: Path) -> None:
    cached(Drawn(), vae, tmp_path)
    with pytest.raises(LumiereError, match=r"choose another data\.cache"):
        cached(Drawn(), vae, tmp_path, identity={"of": "that"})


def test_small_clips_are_the_pixels_averaged(vae: Path, tmp_path: Path) -> None:
    sample = cached(Drawn(), vae, tmp_path, small=True)[0]
    index = float(sample["caption"].split()[1])
    assert sample["small"].shape == (4, 2, 2, 2)
    assert torch.allclose(sample["small"], torch.tensor(index / 10 - 1), atol=0.01)


def test_one_cache_of_whole_clips_serves_windows_and_strides(vae: Path, tmp_path: Path) -> None:
    class Numbered(Drawn):
        def __getitem__(self, index: int) -> dict[str, Any]:
            frames = torch.linspace(-1, 1, 8)
            layout = torch.arange(8.0)[:, None].expand(8, 6) + 10 * index
            pixels = frames[None, :, None, None].expand(4, 8, 16, 16)
            return super().__getitem__(index) | {"pixels": pixels, "layout": layout.clone()}

    clips = cached(Numbered(), vae, tmp_path, small=True)
    shown = ShownLatents(clips, ShownFrames(8, stride=2, window=3, seed=1))
    starts = set()
    for n in range(60):
        sample, whole = shown[n], clips[n]
        assert sample["caption"] == whole["caption"]
        frames = (sample["layout"][:, 0] % 10).long()
        assert frames.diff().tolist() == [2, 2]
        starts.add((sample["caption"], int(frames[0])))
        for name in ("latents", "small"):
            assert torch.equal(sample[name], whole[name][:, frames])
        assert torch.equal(sample["frame_positions"], frame_position(frames.float(), 8))
    assert len(starts) == 12  # both windows of each of six clips
    assert "frame_positions" not in ShownLatents(clips, ShownFrames(8, stride=2))[0]


def test_a_cache_for_masks_serves_stages_without_but_is_not_grown_by_them(vae: Path, tmp_path: Path) -> None:
    cached(Drawn(), vae, tmp_path, small=True)
    again = Drawn()
    assert torch.equal(
        cached(again, vae, tmp_path)[0]["latents"], cached(Drawn(), vae, tmp_path, small=True)[0]["latents"]
    )
    assert again.drawn == []
    with pytest.raises(LumiereError, match="begun by a stage with masks"):
        cached(Drawn(), vae, tmp_path, count=20)
    cached(Drawn(), vae, tmp_path / "plain")
    with pytest.raises(LumiereError, match=r"choose another data\.cache"):
        cached(Drawn(), vae, tmp_path / "plain", small=True)


def test_a_folder_without_a_vae_is_named(tmp_path: Path) -> None:
    with pytest.raises(LumiereError, match="holds no VAE"):
        load_vae(tmp_path)


def test_diffusers_own_vaes_are_read_too(tmp_path: Path) -> None:
    net = tiny.stable_diffusion(tmp_path).vae
    net.save_pretrained(tmp_path / "vae")
    again = load_vae(tmp_path / "vae")
    clips = torch.rand(1, 3, 2, 16, 16) * 2 - 1
    latents = VAECodec(again).encode(clips)
    assert torch.allclose(latents, VAECodec(net.eval()).encode(clips), atol=1e-6)
    assert VAECodec(again).decode(latents).shape == clips.shape


# --- From pictures to clips -------------------------------------------------------------------------------------------


def recipe(stage: str, output: Path, data: Path, **model: Any) -> dict[str, Any]:
    return {
        "stage": stage, "output": str(output), "sample_every": 2, "sample_steps": 2, "sample_prompts": ["a tiger"],
        "model": {"size": 32, **model}, "scheduler": tiny.TRAINING["scheduler"],
        "data": {"kind": "emoji", "folder": str(data), "subjects": ["tiger", "heart"], "num_frames": 16,
                 "cache": str(output / "latents"), "cached": 8},
        "optim": {"max_steps": 2, "batch_size": 2, "warmup_steps": 1, "snr_gamma": 0.0},
    }  # fmt: skip


def test_a_t2i_on_latents_grows_into_a_model_of_transparent_clips(loops: Path, vae: Path, tmp_path: Path) -> None:
    unet = tiny.TRAINING["model"]["unet"] | {
        "class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 6,
    }  # fmt: skip
    t2i = train(parse(recipe("t2i", tmp_path / "t2i", loops, vae=str(vae), unet=unet)))
    t2v = train(parse(recipe("t2v", tmp_path / "t2v", loops, t2i=str(t2i), temporal={"attention_layers": 1})))
    assert (t2v / "pipeline" / "vae" / "config.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "t2v" / "latents").iterdir()}
    for shown in ({"window": 4}, {"frame_stride": 2}):
        again = recipe("t2v", tmp_path / "t2v-part", loops, t2i=str(t2v / "pipeline"), spatial_only=True)
        again["data"] |= shown | {"cache": str(tmp_path / "t2v" / "latents")}
        train(parse(again | {"sample_every": 0}))
        shutil.rmtree(tmp_path / "t2v-part")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "t2v" / "latents").iterdir()} == kept

    conditional = recipe("conditional", tmp_path / "conditional", loops, t2i=str(t2v / "pipeline"))
    conditional["model"]["masks"] = ["first frame", "region around the object", "cinemagraph"]
    train(parse(conditional))
    model = export(tmp_path / "conditional", tmp_path / "model")
    index = json.loads((model / "model_index.json").read_text())
    assert index["vae"] == ["openlumiere.autoencoder", "RGBAAutoencoder"]
    weights = load_file(model / "vae" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float16}

    pipe = load_pipeline(str(model), device="cpu")
    pipe.set_progress_bar_config(disable=True)
    frames = pipe("a tiger", num_frames=16, num_inference_steps=2, transparent=True)[0]
    assert frames.shape == (1, 16, 32, 32, 4)
    assert np.isfinite(frames).all()


def test_of_still_pictures_something_is_always_given(loops: Path, vae: Path, tmp_path: Path) -> None:
    unet = tiny.TRAINING["model"]["unet"]
    t2i = train(parse(recipe("t2i", tmp_path / "t2i", loops, vae=str(vae), unet=unet)))
    settings = recipe("conditional", tmp_path / "conditional", loops, t2i=str(t2i), temporal={"attention_layers": 1})
    settings["data"] |= {"subjects": ["tiger"], "stills": 0.5, "cached": 48}  # the heart's are the still ones
    stage = Conditional(parse(settings), torch.device("cpu"))
    batch = default_collate([stage.dataset[n] for n in range(48)])
    given = torch.zeros(48)
    for seed in range(20):
        _, condition = stage.draw_condition(batch, torch.Generator().manual_seed(seed))
        given += condition.channels[:, -stage.codec.mask_channels :].flatten(1).amax(1)
    still = batch["still"] > 0
    assert 12 < still.sum() < 36
    assert all("heart" in caption for caption, is_ in zip(batch["caption"], still, strict=True) if is_)
    # Of 4 x 4 latents a mask may leave none whole, so that a few look as if nothing were given.
    assert 1 - given[still].mean() / 20 < 0.12
    assert 0.3 < 1 - given[~still].mean() / 20 < 0.55  # 0.24 of all clips, here 0.48 / 1.24 of the subjects'


def test_keeping_latents_wants_a_vae_and_a_number(loops: Path, vae: Path, tmp_path: Path) -> None:
    unet = tiny.TRAINING["model"]["unet"]
    with pytest.raises(LumiereError, match="needs a model with a VAE"):
        train(parse(recipe("t2i", tmp_path / "t2i", loops, unet=unet)))


# --- What is given ----------------------------------------------------------------------------------------------------


def test_what_is_not_given_is_blank_whatever_lies_beside_it() -> None:
    pipe = tiny.transparent()
    clips = torch.rand(1, 4, 4, 32, 32) * 2 - 1
    mask = torch.zeros(1, 1, 4, 32, 32)
    mask[:, :, 0] = 1
    mask[:, :, :, :16] = 1
    seen = pipe.encode_condition(clips, mask).channels
    where = seen[:, -1:]
    assert 0 < where.mean() < 1
    blank = seen[:, :-1].transpose(0, 1)[:, (where < 0.5)[0].expand_as(where)[:, 0]]
    assert torch.allclose(blank, blank[:, :1].expand_as(blank), atol=1e-6)
    kept = pipe.condition_of(pipe.encode_clips(clips), where).channels
    # Away from the border latents kept on disk tell the same as pixels.
    assert torch.allclose(kept[:, :, 0], seen[:, :, 0], atol=1e-5)
