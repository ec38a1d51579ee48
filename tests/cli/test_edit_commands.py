"""The commands that start from a picture or a clip, run whole on a small model with both stages."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny
from clips import moving
from openlumiere.cli import main
from openlumiere.pipelines.text import MINILM
from openlumiere.stunet import STUNet
from openlumiere.video import read_clip, read_metadata, write_clip

pytestmark = pytest.mark.slow  # clips are made

SIDE = 32  # of what the model makes: 16 pixels, twice as large


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    pipe = tiny.conditioned(upscale=True)
    return str(tiny.saved(pipe, tmp_path_factory.mktemp("model")))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, then the current one, with a picture, two clips and a mask."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    Image.fromarray(255 - pixels).save("last.png")
    write_clip(rng.integers(0, 256, (8, SIDE, SIDE, 3), dtype=np.uint8), "clip.webp", fps=16, lossless=True)
    write_clip(moving(6, 40, 60), "odd.mp4", fps=10)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[4:20, 8:20] = 255
    Image.fromarray(mask).save("mask.png")
    return tmp_path


def lumiere(model: str, *words: str, output: str = "out.webp") -> np.ndarray:
    """What a command writes, without the enlarging of the smallest clips to 128 pixels."""
    options = ["-o", output, "--model", model, "--seed", "3", "--steps", "2", "--guidance", "1"]
    assert main([*words, *options]) == 0
    times = 8 if "--no-upscale" in words else 4
    return read_clip(output).frames[:, ::times, ::times]


def pixels_of(name: str) -> np.ndarray:
    return np.asarray(Image.open(name).convert("RGB"))


def change() -> np.ndarray:
    return pixels_of("mask.png")[..., 0] > 0


def test_animate_starts_with_the_picture_and_ends_with_the_other(files: Path, model: str) -> None:
    made = lumiere(model, "animate", "photo.png", "a tiger", "--frames", "8")
    assert made.shape == (8, SIDE, SIDE, 3)
    np.testing.assert_array_equal(made[0], pixels_of("photo.png"))
    assert np.abs(made[7].astype(int) - made[0]).mean() > 3
    both = lumiere(model, "animate", "photo.png", "--last", "last.png", "a tiger", "--frames", "6")
    assert read_metadata("out.webp")["prompt"] == "a tiger"
    assert len(both) == 6
    np.testing.assert_array_equal(both[0], pixels_of("photo.png"))
    np.testing.assert_array_equal(both[5], pixels_of("last.png"))


def test_a_subject_stays_as_it_was_drawn_or_moves_by_itself(
    files: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pipe = tiny.conditioned(layout=True)
    pipe.register_to_config(follow_layout=True, spread_condition=True)
    model = str(tiny.saved(pipe, tmp_path_factory.mktemp("model")))
    drawn = np.full((16, 16, 3), 255, np.uint8)
    drawn[5:11, 5:11] = (255, 0, 0)
    Image.fromarray(drawn).save("square.png")
    words = ("animate", "square.png", "--frames", "8", "--path", "0.5,0.5,0.44,0 0.75,0.5,0.44,0", "--no-upscale")
    made = {how: lumiere(model, *words, *how).astype(int) for how in [("--rigid",), ("--no-rigid",), ()]}
    rigid, itself, otherwise = made.values()
    red = (rigid[..., 1] < 60) & (rigid[..., 0] > 200)
    assert (red.sum((1, 2)) >= 25).all()  # of the 36 that were drawn, wherever they are between pixels
    assert np.nonzero(red[7])[1].mean() > np.nonzero(red[0])[1].mean() + 3
    assert np.abs(otherwise - rigid).max() < 24  # an untrained network knows nothing; each has a watermark of its own
    assert np.abs(itself[1:] - rigid[1:]).mean() > 3


@pytest.mark.parametrize("region", [("--mask", "mask.png"), ("--box", "8,4,12,16"), ("--box", "0.25,0.125,0.375,0.5")])
def test_inpaint_changes_the_region_and_nothing_else(files: Path, model: str, region: tuple[str, str]) -> None:
    made = lumiere(model, "inpaint", "clip.webp", "a hat", *region)
    before = read_clip("clip.webp").frames
    np.testing.assert_array_equal(made[:, ~change()], before[:, ~change()])
    assert np.abs(made[:, change()].astype(int) - before[:, change()]).mean() > 3


def test_outpaint_keeps_the_clip_in_the_middle(files: Path, model: str) -> None:
    made = lumiere(model, "outpaint", "clip.webp", "a field", "--to", "16:9", output="wide/")
    assert made.shape == (8, SIDE, 2 * 28, 3)
    np.testing.assert_array_equal(made[:, :, 12:44], read_clip("clip.webp").frames)
    tall = lumiere(model, "outpaint", "odd.mp4", "--to", "1:2", output="tall/")
    assert tall.shape[1:] == (2 * SIDE, SIDE, 3)


def test_cinemagraph_moves_only_the_region_and_loops(files: Path, model: str) -> None:
    made = lumiere(model, "cinemagraph", "photo.png", "fire", "--mask", "mask.png", "--frames", "8")
    assert (made[:, ~change()] == pixels_of("photo.png")[~change()]).all()
    assert np.abs(np.diff(made[:, change()].astype(int), axis=0)).mean() > 1
    assert read_metadata("out.webp")["loop"]
    straight = lumiere(model, "cinemagraph", "photo.png", "--mask", "mask.png", "--frames", "8", "--no-loop")
    assert np.abs(straight.astype(int) - made).max() > 3


def test_restyle_goes_from_the_clip_to_something_else(files: Path, model: str) -> None:
    soft = ("--no-upscale", "--strength")
    same = lumiere(model, "restyle", "clip.webp", "a lion", *soft, "0")
    other = lumiere(model, "restyle", "clip.webp", "a lion", *soft, "1")
    before = read_clip("clip.webp").frames.reshape(8, 16, 2, 16, 2, 3).mean((2, 4))
    assert np.abs(same - before).mean() < 20  # two ways of shrinking
    assert np.abs(other - before).mean() > 40
    assert lumiere(model, "restyle", "clip.webp", "a lion", "--strength", "0.5").shape == (8, SIDE, SIDE, 3)


def test_extend_goes_on_after_the_last_frame(files: Path, model: str) -> None:
    made = lumiere(model, "extend", "clip.webp", "--frames", "6")
    assert made.shape == (14, SIDE, SIDE, 3)
    np.testing.assert_array_equal(made[:8], read_clip("clip.webp").frames)


def test_interpolate_keeps_the_frames_and_the_duration(files: Path, model: str) -> None:
    made = lumiere(model, "interpolate", "clip.webp", "--factor", "3")
    assert len(made) == 7 * 3 + 1
    np.testing.assert_array_equal(made[::3], read_clip("clip.webp").frames)
    assert read_clip("out.webp").fps == pytest.approx(48)


@pytest.mark.parametrize(
    "words",
    [
        ("animate", "photo.png", "a tiger", "--frames", "8", "--fps", "12.5", "--last", "last.png", "--num", "1"),
        ("inpaint", "odd.mp4", "a hat", "--box", "5,5,20,20", "--feather", "2", "--fit", "pad", "--negative", "grey"),
        ("outpaint", "clip.webp", "--to", "3:2", "--frames", "5", "--background", "#102030"),
        ("cinemagraph", "photo.png", "--mask", "mask.png", "--no-loop", "--frames", "8", "--no-upscale"),
        ("restyle", "odd.mp4", "-a lion", "--strength", "0.5", "--fit", "stretch", "--fps", "16"),
        ("extend", "clip.webp", "a tiger", "--frames", "4"),
        ("extend", "clip.webp", "--frames", "4", "--no-rigid"),
        ("interpolate", "odd.mp4", "--factor", "2", "--loop"),
    ],
)
def test_a_clip_tells_how_to_make_it_again(
    files: Path, model: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    if "-a lion" in words:
        words = (words[0], *words[3:], "--", *words[1:3])
        options = ["-o", "out.webp", "--model", model, "--seed", "3", "--steps", "2"]
        assert main([words[0], *options, *words[1:]]) == 0
    else:
        lumiere(model, *words)
    made = read_clip("out.webp").frames
    assert main(["info", "out.webp"]) == 0
    command = capsys.readouterr().out.splitlines()[-1].split(maxsplit=1)[1]
    Path("out.webp").unlink()
    assert main(shlex.split(command)) == 0
    np.testing.assert_array_equal(read_clip("out.webp").frames, made)


def test_several_seeds_and_names_of_their_own(files: Path, model: str) -> None:
    options = ["--model", model, "--frames", "4", "--num", "2", "--steps", "1"]
    assert main(["animate", "photo.png", *options]) == 0
    assert sorted(path.name for path in files.glob("photo.*.mp4")) == ["photo.animate-0.mp4", "photo.animate-1.mp4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("animate", "none.png"), "none.png does not exist"),
        (("animate", "photo.png", "--last", "none.png"), "none.png does not exist"),
        (("animate", "photo.png", "--background", "blurple"), "no colour"),
        (("inpaint", "clip.webp"), "one of the arguments --mask --box is required"),
        (("inpaint", "clip.webp", "--box", "1,2,3"), "not four numbers"),
        (("inpaint", "clip.webp", "--box", "90,90,5,5"), "lies outside"),
        (("inpaint", "odd.mp4", "--mask", "mask.png"), "must have the same proportions"),
        (("inpaint", "clip.webp", "--mask", "odd.mp4"), "make them equally long"),
        (("inpaint", "notes.txt", "--box", "0,0,1,1"), "notes.txt is corrupt or no picture"),
        (("cinemagraph", "photo.png", "--mask", "black.png"), "paint white what should move"),
        (("outpaint", "clip.webp", "--to", "wide"), "16:9"),
        (("outpaint", "clip.webp", "--to", "1:1"), "leaves no room"),
        (("restyle", "clip.webp", "a lion", "--strength", "2"), "a number from 0 to 1"),
        (("restyle", "clip.webp"), "prompt"),
        (("interpolate", "photo.png"), "nothing to fill in"),
        (("interpolate", "clip.webp", "--factor", "1"), "nothing to fill in"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    files: Path, model: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    Path("notes.txt").write_text("hello")
    Image.new("L", (SIDE, SIDE)).save("black.png")
    try:
        code = main([*words, "-o", "out.webp", "--model", model])
    except SystemExit as error:
        code = int(error.code or 0)
    assert code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("lumiere: error:")
    assert message in line
    assert not Path("out.webp").exists()


def test_a_model_of_text_alone_says_how_to_train_one(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tiny.conditioned()
    pipe.register_to_config(text_encoder_id=MINILM)
    pipe.register_modules(unet=STUNet.from_unet(pipe.unet.spatial))
    pipe.save_pretrained(tmp_path / "plain")
    assert main(["animate", "photo.png", "--model", "plain", "-o", "out.webp"]) == 2
    assert "lumiere train conditional" in capsys.readouterr().err
    assert len(lumiere("plain", "restyle", "clip.webp", "a lion", "--strength", "0.5")) == 8
