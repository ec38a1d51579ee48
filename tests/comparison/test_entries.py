"""What is compared: names, options for all and for each, prompts, pictures; every mistake in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from openlumiere.comparison.entries import (
    Entry,
    Options,
    Settings,
    overridden,
    read_entry,
    read_settings,
    with_defaults,
)
from openlumiere.comparison.pictures import pictures_of
from openlumiere.comparison.plan import make_plan
from openlumiere.comparison.prompts import Shot, read_shots
from openlumiere.errors import LumiereError
from openlumiere.generation.backends.base import Loading
from study_tools import folder_of

PRESET = Path(__file__).parents[2] / "configs" / "compare" / "lumiere-paper.yaml"


def prompts(folder: Path, *lines: str) -> Path:
    path = folder / "prompts.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("word", "name", "model"),
    [
        ("emoji", "emoji", "emoji"),
        ("Few=emoji", "Few", "emoji"),
        ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers@main", "Wan2.1-T2V-1.3B-Diffusers", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers@main"),
        ("guoyww/adapter+stable/sd15", "adapter", "guoyww/adapter+stable/sd15"),
        ("http://127.0.0.1:8000#wan", "wan", "http://127.0.0.1:8000#wan"),
        ("A b=http://host:1?x=1#wan", "A b", "http://host:1?x=1#wan"),
    ],
)
def test_a_model_is_named_after_itself_or_as_told(word: str, name: str, model: str) -> None:
    entry = read_entry(word)
    assert (entry.name, entry.model, entry.clips) == (name, model, "")


def test_a_folder_is_a_model_if_it_holds_one_and_clips_if_not(tmp_path: Path) -> None:
    assert read_entry(f"Pika={tmp_path}").clips == str(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    assert read_entry(f"Mine={tmp_path}").model == str(tmp_path)


def test_an_entry_s_own_options_stand_before_those_of_all(tmp_path: Path) -> None:
    path = tmp_path / "compare.yaml"
    path.write_text(
        "num_frames: 16\nsize: 64x32\nseeds: 2\nmodels:\n- {model: a/b, num_frames: 8, offload: model}\n"
        "- {name: C, model: c/d, size: [16, 16]}\n- {name: Pika, clips: pika}\n"
    )
    settings = overridden(read_settings(path), fps=8.0, seeds=None)
    assert settings.seeds == 2
    one, two, three = with_defaults(settings.models, settings)
    assert (one.name, one.num_frames, one.size, one.fps) == ("b", 8, (64, 32), 8.0)
    assert (two.num_frames, two.size) == (16, (16, 16))
    assert three.num_frames is None
    assert one.loading(Loading(device="cpu")) == Loading(device="cpu", offload="model")


def test_the_paper_s_baselines_are_a_preset() -> None:
    settings = read_settings(PRESET)
    assert [entry.name for entry in settings.models] == ["AnimateDiff", "ZeroScope", "SVD", "Gen-2", "Pika"]
    assert {entry.name: entry.clips for entry in settings.models if entry.clips} == {
        "Gen-2": "clips/gen-2", "Pika": "clips/pika",
    }  # fmt: skip
    with_defaults(settings.models, settings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modls: []", "unknown key 'modls'"),
        ("models:\n- {name: A}", "A: give either a model or a folder of clips"),
        ("models:\n- {name: A, model: x, clips: y}", "A: give either a model or a folder"),
        ("models:\n- {name: A, clips: y, fps: 8}", "A: fps: its clips are there already; leave it out"),
        ("models:\n- {name: 'A/B', model: x}", "'A/B' is no name"),
        ("models:\n- {model: x, steps: 2}", "unknown key 'steps'"),
        ("size: big", "'big' is not a width and a height"),
        ("- 1", "holds no configuration"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "compare.yaml"
    path.write_text(text)
    with pytest.raises(LumiereError, match=re.escape(said)) as found:
        read_settings(path)
    assert "\n" not in str(found.value)


def test_names_are_told_apart() -> None:
    with pytest.raises(LumiereError, match=r"two entries of one name, 'a'; name them apart"):
        with_defaults([read_entry("a"), read_entry("a")], Options())
    with pytest.raises(LumiereError, match=r"two entries of one name, 'A b' and 'a-b'"):
        with_defaults([Entry(name="A b", model="x"), Entry(name="a-b", model="y")], Options())
    with pytest.raises(LumiereError, match="nothing to compare"):
        with_defaults([], Settings())


def test_files_are_named_after_prompt_and_seed_alone(tmp_path: Path) -> None:
    long = "a very long prompt about a small red house on a green hill " * 2
    few = read_shots(prompts(tmp_path, long + "at dawn", "A tiger!"), seeds=2, seed=5)
    more = read_shots(prompts(tmp_path, "a heart", long + "at dawn", long + "at dusk", "A tiger!"), seeds=2, seed=5)
    assert [shot.stem for shot in few][2:] == ["a-tiger-5", "a-tiger-6"]
    assert {shot.stem for shot in few} < {shot.stem for shot in more}
    assert len({shot.stem for shot in more}) == 8
    own = read_shots(prompts(tmp_path, '{"prompt": "a heart", "seed": 9, "negative_prompt": "grey"}'))
    assert own == (Shot("a heart", 9, "grey", 0),)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((), "holds no prompts"),
        (("a tiger", "A  Tiger!"), "line 2: the prompt of line 1 again"),
        (("a tiger", "!!"), "line 2: the prompt '!!' has neither letters nor digits"),
        (('{"prompt": "a", "output": "b.mp4"}',), "line 1: output: clips are named after prompt and seed"),
        (('{"prompt": 1}',), "line 1: prompt is not text"),
    ],
)
def test_bad_prompts_are_told_by_line(tmp_path: Path, lines: tuple[str, ...], said: str) -> None:
    with pytest.raises(LumiereError, match=re.escape(said)):
        read_shots(prompts(tmp_path, *lines))
    with pytest.raises(LumiereError, match="cannot read the prompts"):
        read_shots(tmp_path / "none.txt")


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path)
    return path


def test_pictures_are_found_by_name_else_in_order(tmp_path: Path) -> None:
    shots = [Shot("a heart", 0), Shot("a heart", 1, index=1), Shot("a tiger", 0)]
    named = tmp_path / "named"
    tiger, heart = picture(named / "A-tiger.png"), picture(named / "a_heart.jpg")
    picture(named / "else.png")
    assert pictures_of(named, shots) == {"a heart": heart, "a tiger": tiger}
    ordered = tmp_path / "ordered"
    one, two = picture(ordered / "1.png"), picture(ordered / "2.png")
    assert pictures_of(ordered, shots) == {"a heart": one, "a tiger": two}
    heart.unlink()
    with pytest.raises(LumiereError, match=r"no picture in .* is named after the prompt 'a heart'"):
        pictures_of(named, shots)
    two.unlink()
    with pytest.raises(LumiereError, match="holds 1 pictures for 2 prompts, none named after one"):
        pictures_of(ordered, shots)
    with pytest.raises(LumiereError, match="is not a folder of pictures"):
        pictures_of(tmp_path / "none", shots)


def test_what_cannot_be_made_is_said_before_anything_is(tmp_path: Path) -> None:
    shots = [Shot("a red ball", 0)]
    pika = folder_of(tmp_path / "pika", ("two blue kites",))

    def plan(*entries: Entry, **more: str) -> None:
        make_plan(tmp_path / "out", entries, shots, **more)

    with pytest.raises(LumiereError, match=r"Pika: no clip in .*pika is of one of the prompts"):
        plan(Entry(name="Pika", clips=str(pika)))
    with pytest.raises(LumiereError, match="A: unknown model 'nothing'"):
        plan(Entry(name="A", model="nothing"))
    with pytest.raises(LumiereError, match="A: size: emoji makes clips of"):
        plan(Entry(name="A", model="emoji", size=(64, 64)))
    with pytest.raises(LumiereError, match="A: picture_from 'B' is no other entry's name"):
        plan(Entry(name="A", model="emoji", picture_from="B"))
    with pytest.raises(LumiereError, match="A and B start from each other's clips"):
        plan(*(Entry(name=a, model="emoji", picture_from=b) for a, b in ("AB", "BA")))
    with pytest.raises(LumiereError, match="'Study': the study is called so"):
        plan(Entry(name="Study", model="emoji"))
    assert not (tmp_path / "out").exists()
