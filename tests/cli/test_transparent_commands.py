"""The commands on a model with alpha: what they keep transparent, and what they lay over the background."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny
from clips import seen, sticker
from openlumiere.cli import main
from openlumiere.pipelines.text import MINILM
from openlumiere.video import read_clip, read_metadata, write_clip

pytestmark = pytest.mark.slow  # clips are made

SIDE = 32  # of what the model makes: 16 pixels, twice as large
BLUE = (0x33, 0x66, 0x99)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    pipe = tiny.transparent(sharpened=4)
    return str(tiny.saved(pipe, tmp_path_factory.mktemp("model")))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, then the current one, with a sticker, an animated one, a photograph and a mask."""
    monkeypatch.chdir(tmp_path)
    pixels = sticker(8, SIDE)
    pixels[pixels[..., 3] < 8] = 0  # as pixels that can't be seen come back
    Image.fromarray(pixels[0]).save("sticker.png")
    Image.fromarray(pixels[0, ..., :3]).save("photo.png")
    write_clip(pixels, "sticker.webp", fps=16, lossless=True)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[12:20, 8:20] = 255
    Image.fromarray(mask).save("mask.png")
    return tmp_path


def lumiere(model: str, *words: str, output: str | None = "out.webp") -> np.ndarray:
    """What a command writes, without the enlarging of the smallest clips to 128 pixels."""
    named = () if output is None else ("-o", output)
    assert main([*words, *named, "--model", model, "--seed", "3", "--steps", "2", "--guidance", "1"]) == 0
    return read_clip(output).frames[:, ::4, ::4] if output else np.zeros(())


def told(name: str = "out.webp") -> tuple[object, object]:
    """What a file says of its transparency, and of what it was laid over."""
    metadata = read_metadata(name)
    return metadata["alpha"], metadata["background"]


def test_generate_keeps_alpha_where_it_is_asked_for_or_the_prompt_says_so(files: Path, model: str) -> None:
    quick = ("--frames", "8")
    clear = lumiere(model, "generate", "a tiger", *quick, "--transparent")
    assert clear.shape == (8, SIDE, SIDE, 4)
    assert told() == ("kept", "white")
    opaque = lumiere(model, "generate", "a tiger", *quick, "--background", "#336699")
    assert opaque.shape == (8, SIDE, SIDE, 3)
    assert told() == ("laid over", "#336699")
    says = "a tiger on a transparent background"
    assert lumiere(model, "generate", says, *quick).shape[-1] == 4
    assert lumiere(model, "generate", says, *quick, "--no-transparent").shape[-1] == 3
    assert lumiere(model, "generate", says, *quick, output="out.mp4").shape[-1] == 3
    assert told("out.mp4") == ("laid over", "white")


def test_names_of_their_own(files: Path, model: str) -> None:
    for words in (("--no-transparent",), ("--transparent",), ()):
        lumiere(model, "animate", "sticker.png", "--frames", "4", *words, output=None)
    lumiere(model, "animate", "photo.png", "--frames", "4", output=None)
    made = {path.name: read_clip(path).frames.shape[-1] for path in files.glob("*.animate*")}
    assert made == {
        "sticker.animate.mp4": 3, "sticker.animate.webp": 4, "sticker.animate-v2.webp": 4, "photo.animate.mp4": 3,
    }  # fmt: skip


def test_a_sticker_keeps_its_alpha_and_a_background_lies_under_it(files: Path, model: str) -> None:
    picture = np.asarray(Image.open("sticker.png"))
    made = lumiere(model, "animate", "sticker.png", "a tiger", "--frames", "8")
    np.testing.assert_array_equal(made[0], picture)
    assert made[1:, ..., 3].std() > 1
    laid = lumiere(model, "animate", "sticker.png", "--frames", "8", "--no-transparent", "--background", "#336699")
    wanted = seen(picture)[..., :3] * 255 + np.array(BLUE) * (1 - seen(picture)[..., 3:])
    assert laid.shape == (8, SIDE, SIDE, 3)
    assert np.abs(laid[0] - wanted).max() <= 1
    solid = lumiere(model, "animate", "photo.png", "--last", "sticker.png", "--frames", "8", "--transparent")
    assert (solid[0, ..., 3] == 255).all()
    np.testing.assert_array_equal(solid[-1], picture)


@pytest.mark.parametrize("words", [("inpaint", "--mask", "mask.png"), ("cinemagraph", "--mask", "mask.png")])
def test_a_region_changes_and_nothing_else(files: Path, model: str, words: tuple[str, ...]) -> None:
    task, *region = words
    source, options = ("sticker.webp", ()) if task == "inpaint" else ("sticker.png", ("--frames", "8"))
    made = lumiere(model, task, source, "a hat", *region, *options)
    before = read_clip(source).frames
    change = np.asarray(Image.open("mask.png")) > 0
    kept = np.where(
        made[..., 3:] > 0, made, 0
    )  # hidden colours are no part of the picture, and WebP's encoder's choice
    np.testing.assert_array_equal(kept[:, ~change], np.broadcast_to(before, made.shape)[:, ~change])
    assert np.abs(made[-1, change].astype(int) - before[-1, change]).mean() > 3


def test_clips_go_on_and_grow_with_their_alpha(files: Path, model: str) -> None:
    before = read_clip("sticker.webp").frames
    longer = lumiere(model, "extend", "sticker.webp", "--frames", "6")
    assert longer.shape == (14, SIDE, SIDE, 4)
    np.testing.assert_array_equal(longer[:8], before)
    wide = lumiere(model, "outpaint", "sticker.webp", "--to", "16:9", output="wide/")
    assert wide.shape[-1] == 4
    middle = np.where(wide[:, :, 12:44, 3:] > 0, wide[:, :, 12:44], 0)  # hidden colours are no part of the picture
    np.testing.assert_array_equal(middle, before)
    smooth = lumiere(model, "interpolate", "sticker.webp", "--factor", "2")
    np.testing.assert_array_equal(smooth[::2], before)
    assert lumiere(model, "restyle", "sticker.webp", "a lion", "--strength", "0.5").shape == (8, SIDE, SIDE, 4)
    laid = lumiere(model, "extend", "sticker.webp", "--frames", "6", "--background", "#336699", output="laid.mp4")
    assert laid.shape == (14, SIDE, SIDE, 3)
    assert np.abs(laid[:8, 0, 0].astype(int) - BLUE).max() <= 3  # H.264


def test_upscale_keeps_alpha_or_lays_it_over_the_background(
    files: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def upscale(*words: str, output: str = "sharp.webp") -> np.ndarray:
        assert main(["upscale", *words, "-o", output, "--model", model, "--seed", "1", "--steps", "1"]) == 0
        return read_clip(output).frames[:, ::2, ::2]

    assert upscale("sticker.webp").shape == (8, 2 * SIDE, 2 * SIDE, 4)
    laid = upscale("sticker.webp", "--no-transparent", "--background", "#336699")
    assert laid.shape == (8, 2 * SIDE, 2 * SIDE, 3)
    assert told("sharp.webp") == ("laid over", "#336699")
    assert upscale("sticker.webp", output="sharp.mp4").shape[-1] == 3
    assert main(["upscale", "photo.png", "-o", "x.webp", "--model", model, "--transparent"]) == 2
    assert "photo.png is opaque" in capsys.readouterr().err
    write_clip(read_clip("sticker.webp").frames, "sticker.mov")
    assert main(["upscale", "sticker.mov", "--model", model, "--steps", "1"]) == 0
    assert read_clip("sticker.sharp.webp").frames.shape[-1] == 4


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "a tiger", "--frames", "4", "--transparent"),
        ("generate", "a tiger, no background", "--frames", "4", "--no-transparent", "--background", "#336699"),
        ("animate", "sticker.png", "--frames", "4", "--no-transparent", "--background", "tomato"),
        ("animate", "sticker.png", "--frames", "4"),
        ("upscale", "sticker.webp", "--no-transparent", "--background", "#336699"),
        ("upscale", "sticker.webp"),
    ],
)
def test_a_clip_tells_how_to_make_it_again(
    files: Path, model: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    lumiere(model, *words)
    made = read_clip("out.webp").frames
    assert main(["info", "out.webp"]) == 0
    command = capsys.readouterr().out.splitlines()[-1].split(maxsplit=1)[1]
    Path("out.webp").unlink()
    assert main(shlex.split(command)) == 0
    np.testing.assert_array_equal(read_clip("out.webp").frames, made)


def test_a_model_without_alpha_refuses_before_it_is_loaded(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tiny.conditioned()
    pipe.register_to_config(text_encoder_id=MINILM)
    pipe.save_pretrained("plain")
    for command in (("generate", "a tiger"), ("animate", "sticker.png")):
        assert main([*command, "--transparent", "--model", "plain", "-o", "out.webp"]) == 2
        assert "--transparent: plain makes opaque clips" in capsys.readouterr().err
    options = ("--frames", "4", "--background", "#336699", "--model", "plain", "--steps", "1")
    assert main(["animate", "sticker.png", *options, "-o", "out.webp"]) == 0
    assert told() == ("", "#336699")
    assert tuple(read_clip("out.webp").frames[0, 0, 0]) == BLUE
    assert main(["generate", "a tiger, no background", "--frames", "4", "--model", "plain", "--steps", "1"]) == 0
    assert Path("a-tiger-no-background.mp4").exists()
