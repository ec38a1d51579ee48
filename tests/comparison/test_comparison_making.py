"""Clips of all models: none is made twice, a killed run goes on, what fails is listed and stops nothing."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from comparison_tools import FAST, LOADING, PROMPTS, ages, plan_of, prompt_file
from PIL import Image

import processes
from openlumiere.comparison.compare import make_report, make_study
from openlumiere.comparison.entries import Entry, Options, overridden
from openlumiere.comparison.making import make_clips
from openlumiere.comparison.plan import read_record
from openlumiere.errors import LumiereError
from openlumiere.files import PARTIAL
from openlumiere.video import probe, read_metadata
from study_tools import folder_of

pytestmark = pytest.mark.slow


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for prompt, colour in zip(PROMPTS, ("red", "blue"), strict=True):
        Image.new("RGB", (16, 16), colour).save(folder / f"{prompt}.png")
    return folder


def test_clips_are_made_once_and_say_by_what(model: str, tmp_path: Path) -> None:
    pika = folder_of(tmp_path / "pika", ("a red ball", "else"), frames=4)
    entries = (
        Entry(name="A", model=model),
        Entry(name="B 2", model=model, num_frames=4),
        Entry(name="Pika", clips=str(pika)),
    )
    plan = plan_of(tmp_path, *entries, seeds=2)
    said: list[str] = []
    assert make_clips(plan, LOADING, report=said.append, progress=False) == []
    assert said[0] == "1 of 3, A: 4 clips to make, 0 already there and skipped"
    assert said[-1] == "3 of 3, Pika: 1 clips to copy, 0 already there and skipped"
    before = ages(plan.folder)
    assert sorted(before) == sorted(
        [*(f"{folder}/{name}-{seed}.mp4" for folder in ("a", "b-2") for name in ("a-red-ball", "two-blue-kites")
           for seed in (0, 1)), "pika/a-red-ball-0.mp4"]
    )  # fmt: skip
    clip = plan.folder / "b-2" / "a-red-ball-1.mp4"
    metadata = read_metadata(clip)
    assert (metadata["prompt"], metadata["seed"], metadata["num_inference_steps"]) == ("a red ball", 1, 2)
    assert metadata["weights"]
    assert probe(clip).duration * probe(clip).fps == pytest.approx(4)
    assert (plan.folder / "pika" / "a-red-ball-0.mp4").read_bytes() == (pika / "a-red-ball.mp4").read_bytes()
    record = read_record(plan.record(plan.entries[0], plan.shots[0]))
    assert record["seconds"] > 0
    assert record["peak_of"] == "cpu"

    more = plan_of(tmp_path, *entries, Entry(name="C", model=model), prompts=("new", *PROMPTS), seeds=2)
    make_clips(more, LOADING, report=said.append, progress=False)
    after = ages(plan.folder)
    assert before.items() < after.items()
    assert len(after) == 3 * 6 + 1


def test_clips_that_were_made_otherwise_are_not_taken_for_what_is_asked(model: str, tmp_path: Path) -> None:
    entry = Entry(name="A", model=model)
    plan = plan_of(tmp_path, entry)
    make_clips(plan, LOADING, report=print, progress=False)
    said = (
        r"a-red-ball-0.mp4 was made with another num_inference_steps \(2, now 3\); choose another -o, or delete .*out/a"
    )
    with pytest.raises(LumiereError, match=said):
        plan_of(tmp_path, entry, of_all=overridden(FAST, num_inference_steps=3))
    with pytest.raises(LumiereError, match="made with another model"):
        plan_of(tmp_path, Entry(name="A", model="emoji"))


def test_what_fails_is_listed_and_stops_nothing(model: str, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures")
    (folder / "a red ball.png").write_bytes(b"no picture")
    first = Entry(name="First", model=model, pictures=str(folder))
    second = Entry(name="Second", model=model, picture_from="First")
    broken = Entry(name="Broken", model=str(tmp_path / "broken"))
    import shutil

    shutil.copytree(model, tmp_path / "broken")
    (weights,) = (tmp_path / "broken" / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    plan = plan_of(tmp_path, first, second, broken)
    said: list[str] = []
    failures = make_clips(plan, LOADING, report=said.append, progress=False)
    assert [(f.entry.name, f.shot.prompt) for f in failures] == [
        ("First", PROMPTS[0]), ("Broken", PROMPTS[0]), ("Broken", PROMPTS[1]), ("Second", PROMPTS[0]),
    ]  # fmt: skip
    assert failures[-1].reason == "there is no clip of First to start from"
    assert not any("\n" in line for line in said)
    assert any(line.startswith("Broken cannot be loaded: ") for line in said)
    assert set(ages(plan.folder)) == {"first/two-blue-kites-0.mp4", "second/two-blue-kites-0.mp4"}

    report = make_report(plan, failures, progress=False)
    missing = {(one["name"], one["prompt"]): one["reason"] for one in report["missing"]}
    assert missing["Second", PROMPTS[0]] == failures[-1].reason
    assert [entry["clips"] for entry in report["entries"]] == [1, 0, 1]

    Image.new("RGB", (16, 16), "green").save(folder / "a red ball.png")
    again = make_clips(plan, LOADING, report=said.append, progress=False)
    assert {failure.entry.name for failure in again} == {"Broken"}
    assert len(ages(plan.folder)) == 4


def test_a_killed_run_goes_on(model: str, tmp_path: Path) -> None:
    words = (
        "compare", "--models", f"A={model}", f"B={model}", "--prompts", prompt_file(tmp_path), "--frames", "8",
        "--steps", "2", "--seeds", "2", "--device", "cpu", "-o", tmp_path / "out",
    )  # fmt: skip
    log = tmp_path / "log"
    process = processes.start(processes.main, [str(word) for word in words], log=log)
    processes.wait_for(lambda: len(ages(tmp_path / "out")) >= 3, process)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    before = ages(tmp_path / "out")
    assert 3 <= len(before) < 8
    code, printed = processes.lumiere(*words, log=tmp_path / "again")
    assert code == 0, printed
    after = ages(tmp_path / "out")
    assert before.items() < after.items()
    assert len(after) == 8
    assert not list((tmp_path / "out").rglob(f"*{PARTIAL}*"))
    assert re.search(r"1 of 2, A: [01] clips to make, [34] already there and skipped", printed)


def test_a_study_of_one_model_against_others(model: str, tmp_path: Path) -> None:
    pika = folder_of(tmp_path / "pika", PROMPTS, frames=4)
    entries = (
        Entry(name="Ours", model=model), Entry(name="Few", model=model, num_inference_steps=1),
        Entry(name="Pika", clips=str(pika)),
    )  # fmt: skip
    plan = plan_of(tmp_path, *entries, seeds=2)
    make_clips(plan, LOADING, report=print, progress=False)
    study = make_study(plan, "Ours", report=print, progress=False)
    assert study is not None
    assert {name: (each.pairs, each.questions) for name, each in study.baselines.items()} == {
        "Few": (2, ("quality", "text")), "Pika": (2, ("quality", "text")),
    }  # fmt: skip
    assert {pair.prompt for pair in study.pairs} == set(PROMPTS)
    said: list[str] = []
    assert make_study(plan, "Ours", report=said.append, progress=False) is None  # it may have answers
    assert "stays as it is" in said[0]


def test_options_of_all_reach_every_model(model: str, tmp_path: Path) -> None:
    of_all = Options(num_frames=8, fps=4, num_inference_steps=1, guidance_scale=1.5, negative_prompt="grey")
    plan = plan_of(tmp_path, Entry(name="A", model=model), of_all=of_all, prompts=PROMPTS[:1])
    make_clips(plan, LOADING, report=print, progress=False)
    metadata = read_metadata(plan.folder / "a" / "a-red-ball-0.mp4")
    found = [metadata[key] for key in ("fps", "num_inference_steps", "guidance_scale", "negative_prompt")]
    assert found == [4, 1, 1.5, "grey"]
