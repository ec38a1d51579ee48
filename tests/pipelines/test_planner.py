"""The planner: paths as numbers and back, words for them, and its training."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import tiny
from openlumiere.cli import main
from openlumiere.clock import frame_seconds
from openlumiere.data.emoji.scenes import Scene, SceneSampler, trajectory
from openlumiere.data.emoji.vocabulary import more_words, subject_set, vocabulary
from openlumiere.diffusion.layout import layout_of
from openlumiere.diffusion.motion import MOTION_DIM, TURN, trace, upright
from openlumiere.errors import LumiereError
from openlumiere.evaluation.metrics.paths import describe_path
from openlumiere.pipelines.planner import PathPlanner
from openlumiere.pipelines.text import embed, load_text_encoder
from openlumiere.training.scene_paths import ScenePaths, add_trends, oscillations, retold

FPS = 16.0
NAMES = {key: entry["names"] for key, entry in vocabulary()["subjects"].items()}


def scenes(count: int = 120) -> list[Scene]:
    sampler = SceneSampler(NAMES, seed=3)
    return [sampler(index) for index in range(count)]


def real_paths(chosen: list[Scene], seconds: float) -> np.ndarray:
    at = frame_seconds(np.arange(round(seconds * FPS)), FPS)
    return np.stack([trajectory(scene, at, seconds) for scene in chosen])


# --- Paths as numbers -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1.0, 5.0, 20.0])
def test_a_scenes_path_comes_back_from_its_numbers(seconds: float) -> None:
    chosen = scenes()
    motions = add_trends(oscillations(chosen), chosen, seconds, fps=FPS)
    assert motions.shape == (len(chosen), MOTION_DIM)
    expected = torch.from_numpy(real_paths(chosen, seconds))
    found = trace(motions, expected.shape[1], seconds)
    assert (found - expected)[..., :3].abs().max() < 0.06  # a bounce's turning point is a corner
    assert (found - expected)[..., :3].square().mean().sqrt() < 0.006
    turned = (found - expected)[..., 3]
    assert (turned - (turned / (2 * math.pi)).round() * 2 * math.pi).abs().max() < 1e-3


@pytest.mark.slow
def test_an_oscillations_period_is_the_scenes() -> None:
    chosen = [scene for scene in scenes(400) if scene.motion in ("bounce", "sway")]
    assert len(chosen) > 40
    found = oscillations(chosen)[:, -1].exp()
    expected = torch.tensor([1 / scene.period for scene in chosen if scene.period])
    torch.testing.assert_close(found.float(), expected, rtol=3e-3, atol=0)
    assert (oscillations([s for s in scenes() if s.motion == "left"])[:, 16:-1] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [2.0, 5.0, 9.7])
def test_in_a_loop_every_path_comes_round(seconds: float) -> None:
    """The step from the last frame to the first is like the others, and the motion is still what it was."""
    chosen = scenes()
    frames = round(seconds * FPS)
    paths = trace(add_trends(oscillations(chosen), chosen, seconds, fps=FPS), frames, seconds, loop=True)
    layout = layout_of(paths)
    steps = (layout.roll(-1, dims=1) - layout).abs().amax(-1)
    assert (steps[:, -1] <= steps[:, :-1].amax(1) * 1.2 + 1e-3).all()
    for scene, path in zip(chosen, paths.numpy(), strict=True):
        if scene.motion in ("still", "spin"):
            assert describe_path(path, seconds).motion == scene.motion
        elif scene.motion in ("left", "right"):
            assert np.ptp(path[:, 0]) > 0.4  # there and back again


def test_a_little_tilt_is_taken_out_and_a_turn_is_not() -> None:
    motion = torch.randn(3, MOTION_DIM, generator=torch.Generator().manual_seed(0))
    motion[:, TURN] = torch.tensor([[0.1, -0.2], [0.1, 1.3], [1.0, 0.0]])
    found = upright(motion)
    changed = (found != motion).any(0).nonzero()[:, 0].tolist()
    assert changed == [12, 13, 14, 15]  # the angle's trend
    assert (found[0, 12:16] == 0).all()
    assert torch.equal(found[1:], motion[1:])


# --- Words for paths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [5.0, 8.0])
def test_the_judge_knows_what_scenes_do(seconds: float) -> None:
    chosen = scenes(300)
    for scene, path in zip(chosen, real_paths(chosen, seconds), strict=True):
        told = describe_path(path, seconds)
        assert (told.motion, told.size) == (scene.motion, scene.size)
        if scene.motion in ("still", "spin", "grow", "shrink"):
            assert told.place == scene.place
        if told.period is not None:
            assert told.period == pytest.approx(scene.period, rel=0.15)
        if scene.motion == "spin":
            assert told.degrees == pytest.approx(360 * seconds / (scene.period or 0), rel=0.02)


def test_more_words_are_none_of_those_held_out() -> None:
    for kind, more in more_words().items():
        words = vocabulary()[kind]
        assert more.keys() == (set(subject_set("emoji")) if kind == "subjects" else words.keys())
        unseen = {word for entry in words.values() for phrase in entry.get("unseen", []) for word in phrase.split()}
        said = [phrase for entry in words.values() for phrase in entry.get("words") or entry["names"]]
        common = {word for phrase in said for word in phrase.split()}
        telling = {word for word in unseen - common if len(word) > 3}
        for phrases in more.values():
            assert not telling & {word for phrase in phrases for word in phrase.split()}
        phrases = [phrase for listed in more.values() for phrase in listed]
        assert len(phrases) == len(set(phrases))  # none means two things


def test_scenes_are_retold_in_many_words_that_mean_the_same() -> None:
    told = [(scene, retold(scene, NAMES[scene.subject], n)) for n, scene in enumerate(scenes(300))]
    assert sum(text == scene.caption for scene, text in told) < 200
    spins = {text for scene, text in told if scene.motion == "spin"}
    assert any(phrase in text for phrase in more_words()["motions"]["spin"] for text in spins)
    assert not any("moving left" in text for scene, text in told if scene.motion == "right")
    assert any("oversized" in text or "jumbo" in text for scene, text in told if scene.size == "large")
    assert any(phrase in text for phrase in more_words()["speeds"]["fast"] for _, text in told)
    assert not any("{" in text or "  " in text or " ," in text or text.startswith(",") for _, text in told)
    assert all(text == retold(scene, NAMES[scene.subject], n) for n, (scene, text) in enumerate(told))


def test_a_caption_stands_for_many_paths() -> None:
    data = ScenePaths(lambda texts: torch.ones(len(texts), 2, 4), captions=60, empty=0.5, fps=FPS, seed=1)
    items = [data[index] for index in range(400)]
    assert items[7]["motion"].equal(data[7]["motion"])
    assert len({float(item["seconds"]) for item in items}) == 12
    assert len({tuple(item["motion"].tolist()) for item in items}) > 200


# --- The network ------------------------------------------------------------------------------------------------------


def test_plans_hang_on_prompt_length_and_generator_and_not_on_the_batch() -> None:
    planner = tiny.planner()
    tokenizer, encoder = load_text_encoder()
    text = embed(["a tiger spinning", "a heart"], tokenizer, encoder)

    def seeded(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    both = planner.plan(text, 40, generator=[seeded(0), seeded(1)])
    assert both.shape == (2, 40, 4)
    alone = planner.plan(text[1:], 40, generator=seeded(1))
    torch.testing.assert_close(both[1:], alone)
    assert not torch.allclose(planner.plan(text[1:], 40, generator=seeded(2)), alone, atol=1e-3)
    assert not torch.allclose(planner.plan(text[:1], 40, generator=seeded(1)), alone, atol=1e-3)
    longer = torch.cat([text[1:], torch.zeros(1, 5, text.shape[2])], dim=1)  # padding is nothing
    torch.testing.assert_close(planner.plan(longer, 40, generator=seeded(1)), alone)
    assert (both[..., 2] > 0).all()
    half = planner.to(torch.bfloat16).plan(text[1:].bfloat16(), 40, generator=seeded(1))
    torch.testing.assert_close(half, alone, rtol=0.1, atol=0.1)


def test_layers_of_the_text_encoder_stand_side_by_side_the_last_one_last() -> None:
    tokenizer, encoder = load_text_encoder()
    prompts = ["a tiger spinning", "a heart"]
    last = embed(prompts, tokenizer, encoder)
    for together in (False, True):
        read = embed(prompts, tokenizer, encoder, layers=[3, 6], together=together)
        assert read.shape == (2, 24, 2 * 384)
        torch.testing.assert_close(read[..., 384:], last)
        assert not torch.allclose(read[..., :384], last, atol=0.1)
        assert not read[1, 5:].any()  # beyond the prompt


def test_a_planner_of_several_layers_reads_the_last_one_too_and_nothing_else() -> None:
    planner = tiny.planner(text_layers=[3, 6])
    tokenizer, encoder = load_text_encoder()
    both = embed(["a tiger spinning"], tokenizer, encoder, layers=[3, 6])
    plans = [planner.plan(text, 16, generator=torch.Generator().manual_seed(0)) for text in (both, both[..., 384:])]
    assert not torch.allclose(*plans, atol=1e-3)
    unknown = torch.cat([torch.zeros_like(both[..., 384:]), both[..., 384:]], dim=-1)
    torch.testing.assert_close(planner.plan(unknown, 16, generator=torch.Generator().manual_seed(0)), plans[1])
    with pytest.raises(LumiereError, match="text encoder"):
        planner.plan(both[..., :100], 16)


def test_the_pipeline_reads_prompts_in_the_layers_that_its_planner_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny.conditioned(layout=True)
    tokenizer, encoder = load_text_encoder()
    pipe.register_modules(planner=tiny.planner(text_layers=[3, 6]), tokenizer=tokenizer, text_encoder=encoder)
    seen = []
    plan = pipe.planner.plan

    def spied(text: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
        seen.append(text)
        return plan(text, *args, **more)

    monkeypatch.setattr(pipe.planner, "plan", spied)
    prompts = ["a tiger spinning", "a heart"]
    settings: dict[str, Any] = {"num_frames": 8, "num_inference_steps": 1, "output_type": "latent"}
    pipe(prompts, num_videos_per_prompt=2, **settings)
    expected = embed(prompts, tokenizer, encoder, layers=[3, 6]).repeat_interleave(2, dim=0)
    torch.testing.assert_close(seen.pop(), expected)
    pipe(prompt_embeds=expected[..., 384:], **settings)
    torch.testing.assert_close(seen.pop(), expected[..., 384:])


def test_the_bundled_size_is_below_a_million() -> None:
    assert sum(p.numel() for p in PathPlanner(text_layers=[3, 4, 5, 6]).parameters()) < 1e6


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planner of two motions, trained for seconds."""
    folder = tmp_path_factory.mktemp("planner")
    config: dict[str, Any] = {
        "stage": "planner",
        "output": str(folder / "run"),
        "model": {"planner": {"text_layers": [3, 6], "width": 96, "hidden": 128, "depth": 2}},
        "data": {"subjects": ["tiger", "heart"], "pool": 256, "num_frames": 80},
        "text": {"dropout": 0.05},
        "optim": {"lr": 3e-3, "warmup_steps": 20, "max_steps": 400, "batch_size": 64, "ema_decay": 0.98},
        "checkpoint_every": 200,
        "sample_every": 400,
        "sample_prompts": ["a tiger moving left"],
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert main(["train", "planner", "--config", str(folder / "config.yaml")]) == 0
    return folder / "run"


@pytest.mark.slow
def test_the_stage_learns_which_way_words_point(run: Path) -> None:
    planner = PathPlanner.from_pretrained(run / "export" / "planner").eval()
    tokenizer, encoder = load_text_encoder()
    generator = torch.Generator().manual_seed(0)
    ways = {}
    for prompt in ("a tiger moving up on a green background", "a tiger moving down on a green background"):
        text = embed([prompt], tokenizer, encoder, layers=planner.config.text_layers).expand(24, -1, -1)
        paths = planner.plan(text, 80, generator=generator)
        ways[prompt] = paths[:, -1, 1] - paths[:, 0, 1]
    up, down = ways.values()
    assert (up < 0).float().mean() > 0.75
    assert (down > 0).float().mean() > 0.75
    assert up.std() > 0.02  # no two alike
    assert (run / "samples").is_dir()


@pytest.mark.slow
def test_a_planner_joins_a_model_that_takes_layouts_and_no_other(run: Path, tmp_path: Path, capsys: Any) -> None:
    for layout in (True, False):
        pipe = tiny.conditioned(layout=layout)
        pipe.register_modules(planner=None)
        pipe.register_to_config(text_encoder_id="sentence-transformers/all-MiniLM-L6-v2")
        pipe.save_pretrained(tmp_path / f"model-{layout}")
    words = ["export", str(tmp_path / "model-True"), "--planner", str(run), "-o", str(tmp_path / "out")]
    assert main(words) == 0
    assert (tmp_path / "out" / "planner" / "diffusion_pytorch_model.safetensors").exists()
    shutil.rmtree(tmp_path / "out")
    words[3] = str(run / "export" / "planner")
    assert main(words) == 0
    assert (tmp_path / "out" / "planner" / "diffusion_pytorch_model.safetensors").exists()
    words[1] = str(tmp_path / "model-False")
    assert main(words) == 2
    assert "told where their subject is" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_settings_that_no_planner_has_are_one_line(tmp_path: Path, capsys: Any) -> None:
    config = {"stage": "planner", "output": str(tmp_path / "run"), "data": {"pool": 4}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    words = ["train", "planner", "--config", str(tmp_path / "config.yaml")]
    for override, says in (
        ("model.planner={size: 3}", "model.planner"), ("data.pool=0", "data.pool"),
        ("data.subjects=[wombat]", "wombat"), ("data.kind=folder", "emoji scenes"),
    ):  # fmt: skip
        assert main([*words, override]) == 2
        assert says in capsys.readouterr().err.splitlines()[-1]
