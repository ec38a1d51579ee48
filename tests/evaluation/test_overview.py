"""`lumiere evaluate all`: one page with everything on it."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path

import pytest
import torch

import tiny
from openlumiere import files
from openlumiere.cli import build_parser, main
from openlumiere.data.emoji import shards as emoji_data
from openlumiere.data.emoji.drawing import Atlas
from openlumiere.errors import LumiereError
from openlumiere.evaluation import real_clips as test_split
from openlumiere.evaluation.judges import load_judges
from openlumiere.evaluation.judges.classifier import ClassifierConfig
from openlumiere.evaluation.judges.motion import MotionConfig
from openlumiere.evaluation.protocols import overview
from openlumiere.evaluation.protocols.overview import evaluate_all
from openlumiere.evaluation.protocols.page import Section, page

pytestmark = pytest.mark.slow  # whole protocols


def test_the_page_needs_nothing_beside_it(tmp_path: Path) -> None:
    picture = tmp_path / "plot.png"
    picture.write_bytes(b"\x89PNG not really")
    sections = [
        Section("One & two", "lumiere <x>", "| a | b |\n| --- | --- |\n| 1 | **2** |", [picture], [(b"RIFF", "a <b>")]),
        Section("Three", "lumiere y", failed="this model has no <stage>"),
    ]
    text = page("A model", sections, {"seed": "0"}, "lumiere evaluate all")
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert "<td><strong>2</strong></td>" in text
    assert "One &amp; two" in text
    assert "a &lt;b&gt;" in text
    assert "Not measured: this model has no &lt;stage&gt;" in text
    assert text.count("<img") == 2


def test_what_cannot_be_measured_is_named_and_the_rest_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real model, real judges and the real protocols, small; without a second stage and without styles."""
    frames = torch.zeros(6, 4, 32, 32, dtype=torch.uint8)
    frames[:, :, 8:24, 8:24] = torch.randint(100, 255, (6, 4, 16, 16), generator=torch.Generator().manual_seed(0))
    frames[:, 3, 8:24, 8:24] = 255
    atlases = {key: Atlas(key, [key], frames) for key in ("tiger", "heart")}
    pipe = tiny.conditioned()
    pipe.register_to_config(subjects=["tiger", "heart"])
    pipe.save_pretrained(tmp_path / "model")
    judges = load_judges(
        atlases, tmp_path / "judges", progress=False,
        subject=ClassifierConfig(width=4, steps=3, batch_size=4, held_out_clips=2),
        motion=MotionConfig(clips=20, steps=5, batch_size=4, num_frames=16, held_out_clips=2),
    )  # fmt: skip
    # In place of the whole data set, which takes minutes to fetch; everything after reading it is the real thing.
    for module in (emoji_data, overview, test_split, overview.editing):
        monkeypatch.setattr(module, "load_atlases", lambda *_, **__: atlases)
    path = evaluate_all(
        str(tmp_path / "model"), tmp_path / "data", tmp_path / "my report", clips=2, num_frames=16, judges=judges,
        seed=3, device="cpu", progress=False,
    )  # fmt: skip
    text = path.read_text()
    assert text.count("Not measured: this model has no super-resolution stage") == 2
    assert text.count("Not measured: give the folder that lumiere data designs wrote: --designs") == 1
    for found in ("FVD-emoji", "IS-emoji", "image-to-video", "made as a loop", "motion", "weights, SHA-256"):
        assert found in text
    assert text.count("data:image/webp") == 2
    assert (tmp_path / "my report" / "distribution" / "fvd.json").exists()
    shown = [html.unescape(commands) for commands in re.findall(r"<pre>(lumiere evaluate [^<]+)", text)]
    assert len(shown) == 9
    commands = [command for commands in shown for command in commands.splitlines()]
    for command in commands:  # to be copied into a shell as it stands
        args = build_parser().parse_args(shlex.split(command)[1:])
        assert getattr(args, "seed", 3) == 3
        assert not hasattr(args, "model") or args.frames == 16
    for name in ("fvd", "is"):  # the commands that the scores themselves keep
        stored = json.loads((tmp_path / "my report" / "distribution" / f"{name}.json").read_text())["command"]
        args = build_parser().parse_args(shlex.split(stored)[1:])
        assert args.generated == tmp_path / "my report" / "emoji" / "clips"
        assert args.output == tmp_path / "my report" / "distribution"
        assert args.seed == 3
    again = shlex.split(next(command for command in commands if " xt " in command))[1:]
    again[again.index("-o") + 1] = str(tmp_path / "slices.png")
    assert main(again) == 0
    assert (tmp_path / "slices.png").exists()
    with pytest.raises(LumiereError, match="nowhere"):
        evaluate_all("nowhere", tmp_path, tmp_path / "other")

    # A folder of other clips is refused by the first protocol; what depends on it says so, the others go on.
    files.write_json(tmp_path / "used" / "emoji" / "settings.json", {"seed": 99})
    text = evaluate_all(
        str(tmp_path / "model"), tmp_path / "data", tmp_path / "used", clips=1, num_frames=16, judges=judges,
        device="cpu", progress=False,
    ).read_text()  # fmt: skip
    assert "clips made with another" in text
    assert "Not measured: the clips of the first section are needed" in text
    assert "image-to-video" in text
