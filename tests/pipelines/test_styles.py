"""Styles: interpolation of weights, training on pictures, and every form that a style may have on disk."""

from __future__ import annotations

import io
import json
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image

import tiny
from openlumiere import LumierePipeline
from openlumiere.cli import main
from openlumiere.data.emoji.designs import DESIGNS, SKETCH
from openlumiere.data.emoji.designs import build as build_designs
from openlumiere.data.style_images import StyleImages
from openlumiere.diffusion.style_interpolation import interpolate
from openlumiere.errors import LumiereError
from openlumiere.generation.recipe import Recipe
from openlumiere.pipelines.load import load_pipeline
from openlumiere.pipelines.styles import LORA, read_style
from openlumiere.training.stages.style import StyleDataConfig
from openlumiere.video import read_clip, read_metadata

pytestmark = pytest.mark.slow  # whole runs

# --- Interpolation ----------------------------------------------------------------------------------------------------


def weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(3, 4, generator=generator), "b": torch.randn(5, generator=generator)}


def test_one_style_is_the_papers_equation() -> None:
    original, style = weights(0), weights(1)
    for alpha in (0.3, 1.0, 1.5):
        mixed = interpolate(original, [(style, alpha)])
        for name in original:
            torch.testing.assert_close(mixed[name], alpha * style[name] + (1 - alpha) * original[name])
    assert interpolate(original, [(style, 0.0)]) == {}
    assert interpolate(original, []) == {}


def test_two_styles_add_up_and_may_hold_other_weights() -> None:
    original, first, second = weights(0), weights(1), {"b": weights(2)["b"]}
    mixed = interpolate(original, [(first, 0.5), (second, 0.25)])
    torch.testing.assert_close(mixed["a"], (first["a"] + original["a"]) / 2)
    torch.testing.assert_close(mixed["b"], original["b"] / 4 + first["b"] / 2 + second["b"] / 4)


def test_half_precision_stays_half_precision() -> None:
    original = {name: value.half() for name, value in weights(0).items()}
    assert {v.dtype for v in interpolate(original, [(weights(1), 0.5)]).values()} == {torch.float16}


# --- Pictures ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two objects with transparency, of which the vocabulary knows one, and a photograph with a caption."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, colour in (("tiger", (250, 130, 0)), ("my-owl", (0, 90, 200))):
        rgba = np.zeros((40, 60, 4), np.uint8)
        rgba[10:30, 15:45] = (*colour, 255)
        Image.fromarray(rgba).save(folder / f"{name}.png")
    Image.new("RGB", (50, 30), (10, 200, 10)).save(folder / "meadow.jpg")
    (folder / "meadow.txt").write_text("a green meadow\nand more")
    (folder / "notes.md").write_text("not a picture")
    return folder


def test_objects_are_placed_and_photographs_are_taken_whole(pictures: Path) -> None:
    found = StyleImages(pictures, size=16, seed=1)
    samples = [found[i] for i in range(60)]
    assert all(s["pixels"].shape == (3, 1, 16, 16) and s["pixels"].abs().max() <= 1 for s in samples)
    whole = [s for s in samples if s["caption"] == "a green meadow"]
    assert 8 < len(whole) < 35
    assert whole[0]["pixels"].std((1, 2, 3)).max() < 0.02
    captions = " ".join(s["caption"] for s in samples)
    assert "tiger" in captions
    assert "my owl" in captions
    torch.testing.assert_close(found[7]["pixels"], samples[7]["pixels"])
    alone = StyleImages(pictures / "my-owl.png", size=16)
    assert all("my owl" in alone[i]["caption"] for i in range(5))
    only = StyleImages(pictures, size=16, only=["tiger"])
    assert list(only.atlases) == ["tiger"]
    assert not only.whole


def test_a_share_of_objects_is_upright_in_the_middle(pictures: Path) -> None:
    found = StyleImages(pictures, size=16, channels=4, seed=1, only=["tiger"], canonical=0.5)
    layouts = torch.cat([found[i]["layout"] for i in range(80)])
    upright = layouts[(layouts[:, :2] == 0).all(1) & (layouts[:, 3] == 0) & (layouts[:, 4] == 1)]
    assert 25 < len(upright) < 65
    assert upright[:, 2].max() <= math.log(0.85) + 1e-6
    with pytest.raises(LumiereError, match=r"data\.canonical must be between 0 and 1, not 2"):
        StyleDataConfig(canonical=2)


def test_pictures_with_alpha_say_where_the_object_is(pictures: Path) -> None:
    found = StyleImages(pictures, size=16, channels=4, seed=1)
    samples = [found[i] for i in range(60)]
    assert all(s["pixels"].shape == (4, 1, 16, 16) and s["layout"].shape == (1, 6) for s in samples)
    told = [s for s in samples if s["caption"] != "a green meadow"]
    assert all(s["layout"][0, -1] == (s["caption"] != "a green meadow") for s in samples)
    clear = [s for s in told if s["pixels"][3].min() == -1]
    assert 5 < len(clear) < len(told) - 5
    for sample in clear:
        shown = (sample["pixels"][3, 0] + 1) / 2
        across = (torch.arange(16) + 0.5) / 8 - 1
        middle = ((shown.sum(0) * across).sum() / shown.sum(), (shown.sum(1) * across).sum() / shown.sum())
        if 0.05 < shown.mean() < 0.25 and max(map(abs, middle)) < 0.3:  # whole within the frame
            torch.testing.assert_close(torch.stack(middle), sample["layout"][0, :2], atol=0.06, rtol=0)


def test_a_caption_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "owl.png")
    (tmp_path / "owl.txt").write_bytes("eine Eule, schön".encode("latin-1"))
    with pytest.raises(LumiereError, match=r"cannot read .*owl.txt .*; save it as UTF-8"):
        StyleImages(tmp_path, size=16)


@pytest.mark.parametrize(
    ("name", "words"), [("none", "does not exist"), ("empty", "holds no images"), ("broken", "corrupt or no picture")]
)
def test_bad_pictures_are_one_line(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_bytes(b"\x89PNG and nothing")
    with pytest.raises(LumiereError, match=words):
        StyleImages(tmp_path / name, size=16)


def test_a_caption_must_say_something(pictures: Path, tmp_path: Path) -> None:
    Image.open(pictures / "meadow.jpg").save(tmp_path / "meadow.jpg")
    (tmp_path / "meadow.txt").write_text("\n")
    with pytest.raises(LumiereError, match=r"write what meadow\.jpg shows"):
        StyleImages(tmp_path, size=16)


# --- Training and using -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pipe = tiny.conditioned()
    return tiny.saved(pipe, tmp_path_factory.mktemp("model"))


def train(model: Path, pictures: Path, output: Path, *overrides: str) -> Path:
    settings = ["optim.max_steps=3", "optim.batch_size=2", "optim.lr=0.02", "model.lora_rank=2", *overrides]
    words = ["train", "style", "--images", str(pictures), "--model", str(model), "-o", str(output), *settings]
    assert main(words) == 0
    return output / "export"


@pytest.fixture(scope="module")
def lora(model: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(model, pictures, tmp_path_factory.mktemp("lora"), "sample_every=3")


@pytest.fixture(scope="module")
def full(model: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(model, pictures, tmp_path_factory.mktemp("full"), "model.lora_rank=0")


def loaded(model: Path) -> LumierePipeline:
    pipe = load_pipeline(str(model), device="cpu")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def clip(pipe: LumierePipeline) -> np.ndarray:
    return pipe("a tiger", num_frames=8, generator=torch.Generator().manual_seed(1))[0]


def test_a_lora_is_small_and_a_whole_style_is_a_unet(lora: Path, full: Path) -> None:
    assert {path.name for path in lora.iterdir()} == {LORA, "style.json"}
    assert json.loads((lora / "style.json").read_text())["lora_rank"] == 2
    assert {path.name for path in full.iterdir()} == {"unet", "style.json"}
    assert list((lora.parent / "samples").glob("*.png"))


@pytest.mark.parametrize("kind", ["lora", "lora file", "full"])
def test_strength_goes_from_the_base_models_clip_to_the_styles(model: Path, lora: Path, full: Path, kind: str) -> None:
    path = str({"lora": lora, "lora file": lora / LORA, "full": full}[kind])
    pipe = loaded(model)
    plain = clip(pipe)
    temporal = {name: value.clone() for name, value in pipe.unet.temporal.state_dict().items()}
    pipe.set_styles({path: 0.0})
    assert np.array_equal(clip(pipe), plain)
    pipe.set_styles({path: 1.0})
    styled = clip(pipe)
    assert np.abs(styled - plain).max() > 0.01
    assert all(torch.equal(value, temporal[name]) for name, value in pipe.unet.temporal.state_dict().items())
    pipe.set_styles({path: 0.5})
    assert not np.array_equal(clip(pipe), styled)
    pipe.set_styles({})
    assert np.array_equal(clip(pipe), plain)


def test_two_styles_mix(model: Path, lora: Path, full: Path) -> None:
    pipe = loaded(model)
    before = {name: value.clone() for name, value in pipe.unet.spatial.state_dict().items()}
    styles = [read_style(path, pipe.unet.spatial) for path in (lora, full)]
    pipe.set_styles({str(lora): 0.5, str(full): 0.25})
    for name, value in pipe.unet.spatial.state_dict().items():
        moves = [
            strength * (style[name] - before[name])
            for style, strength in zip(styles, (0.5, 0.25), strict=True)
            if name in style
        ]
        torch.testing.assert_close(value, before[name] + sum(moves, torch.zeros_like(value)))


def test_every_layer_that_a_lora_holds_is_read(tmp_path: Path) -> None:
    """diffusers writes q_proj, k_proj and v_proj, which pool the text, under names that it does not find again."""
    spatial, trained = tiny.unet("bundled"), tiny.unet("bundled")
    layers = [f"add_embedding.pool.{name}_proj" for name in "qkv"] + ["time_embedding.linear_1"]
    trained.add_adapter(LoraConfig(r=2, target_modules=layers, init_lora_weights=False))
    weights = convert_state_dict_to_diffusers(get_peft_model_state_dict(trained))
    StableDiffusionLoraLoaderMixin.save_lora_weights(tmp_path, unet_lora_layers=weights)
    assert set(read_style(tmp_path, spatial)) == {f"{layer}.weight" for layer in layers}


def test_a_lora_loads_anywhere(pictures: Path, tmp_path: Path) -> None:
    """Trained for a Stable Diffusion, diffusers' own pipeline takes it."""
    t2i = tiny.t2i_pipeline("stable-diffusion", tmp_path / "files")
    assert isinstance(t2i, StableDiffusionPipeline)
    t2i.save_pretrained(tmp_path / "t2i")
    pipe = LumierePipeline.from_t2i(StableDiffusionPipeline.from_pretrained(tmp_path / "t2i"))
    pipe.save_pretrained(tmp_path / "clips")
    style = train(tmp_path / "clips", pictures, tmp_path / "run")
    plain = {name: value.clone() for name, value in t2i.unet.state_dict().items()}
    merged = read_style(style, t2i.unet)
    t2i.load_lora_weights(style)
    t2i.fuse_lora()
    t2i.unload_lora_weights()
    for name, value in t2i.unet.state_dict().items():
        torch.testing.assert_close(value, merged.get(name, plain[name]), atol=1e-5, rtol=1e-4)
    assert any(not torch.equal(value, plain[name]) for name, value in t2i.unet.state_dict().items())


def test_generate_takes_styles_and_tells_of_them(
    model: Path, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    mine = tmp_path / "model"
    shutil.copytree(model, mine)
    shutil.copytree(lora, mine / "styles" / "flat")
    monkeypatch.chdir(tmp_path)
    options = ["--model", str(mine), "--frames", "8", "--steps", "1", "--seed", "1", "--no-mark"]
    words = ["generate", "a tiger", "--style", "flat", "--style-strength", "0.7", "-o", "styled.webp", *options]
    assert main(words) == 0
    recipe = Recipe.from_metadata(read_metadata("styled.webp"), "again.webp")
    assert recipe.request.styles == (("flat", 0.7),)
    assert "--style flat --style-strength 0.7" in recipe.command()
    for name, more in (("plain", []), ("none", ["--style", "flat", "--style-strength", "0"])):
        assert main(["generate", "a tiger", "-o", f"{name}.webp", *more, *options]) == 0
    plain, none, styled = (read_clip(f"{name}.webp").frames for name in ("plain", "none", "styled"))
    np.testing.assert_array_equal(none, plain)
    assert np.abs(styled.astype(int) - plain).max() > 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--style", "nowhere"], "unknown style 'nowhere'"),
        (["--style", "PICTURES"], "is no style for this model"),
        (["--style-strength", "0.5"], "say of which --style"),
        (["--style", "a", "--style", "a"], "the same one twice"),
        (["--style", "a", "--style", "b", *["--style-strength", "1"] * 3], "give one, or one each"),
    ],
)
def test_styles_that_cannot_be_used_are_one_line(
    model: Path, pictures: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], message: str
) -> None:
    given = [str(pictures) if word == "PICTURES" else word for word in words]
    assert main(["generate", "a tiger", "-o", str(tmp_path / "x.webp"), "--model", str(model), *given]) == 2
    assert message in capsys.readouterr().err


def test_a_style_of_another_network_is_refused(full: Path) -> None:
    other = UNet2DConditionModel.from_config(tiny.unet("stable-diffusion").config)
    with pytest.raises(LumiereError, match="of another shape"):
        read_style(full, other)


def test_what_a_style_needs_is_said(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "style", "--model", str(model)]) == 2
    assert "--images PATH and -o FOLDER" in capsys.readouterr().err
    assert main(["train", "t2v"]) == 2
    assert "t2v needs a configuration" in capsys.readouterr().err


# --- Designs ----------------------------------------------------------------------------------------------------------


def test_designs_are_drawn_under_the_subjects_keys(tmp_path: Path) -> None:
    body = '<rect x="4" y="4" width="8" height="8" fill="#f00"/>'
    for design in DESIGNS.values():
        name = f"{design.package.removeprefix('@').replace('/', '-')}-{design.version}.tgz"
        with tarfile.open(tmp_path / name, "w:gz") as tar:
            for file, content in (
                ("icons.json", {"icons": {"tiger": {"body": body}}, "width": 16, "height": 16}),
                ("chars.json", {"1f405": "tiger"}),
            ):
                data = json.dumps(content).encode()
                info = tarfile.TarInfo(f"package/{file}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    lacking = build_designs(tmp_path / "out", size=32, cache=tmp_path)
    assert set(lacking) == set(DESIGNS)
    assert all("tiger" not in keys and "heart" in keys for keys in lacking.values())
    for name in DESIGNS:
        pixels = np.asarray(Image.open(tmp_path / "out" / name / "tiger.png").convert("RGBA"))
        assert pixels.shape == (32, 32, 4)
        assert pixels[16, 16].tolist() == [255, 0, 0, 255]
        assert pixels[2, 2, 3] == 0
    assert not (tmp_path / "out" / SKETCH).exists()
