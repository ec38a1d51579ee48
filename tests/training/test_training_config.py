"""Training configurations: recipes, overrides, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml
from diffusers import DDIMScheduler

import tiny
from openlumiere.autoencoder import RGBAAutoencoder
from openlumiere.data.emoji.scenes import check_sampling, vocabulary
from openlumiere.errors import LumiereError
from openlumiere.training.config import as_dict
from openlumiere.training.config_files import load, parse
from openlumiere.training.settings import read_yaml
from openlumiere.training.stages import STAGES, stage_class
from openlumiere.training.stages.denoising import cache_identity

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).with_name("earlier")  # written by runs of earlier versions
EXPORTED = {"runs/emoji-nano/model"}  # by `lumiere export`, as configs/README.md says
# Those of a single training: plans list several (test_plan.py), parts are included by others, comparisons train none.
CONFIGS = sorted(
    path
    for path in (ROOT / "configs").rglob("*.yaml")
    if "\nstages:" not in path.read_text() and path.parent.name not in ("parts", "compare")
)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tiny.TRAINING | {"output": str(tmp_path / "run")}), encoding="utf-8")
    return path


@cache
def outputs_of_all() -> set[str]:
    return {load(other).output for other in CONFIGS}


def test_there_are_recipes() -> None:
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=[str(path.relative_to(ROOT)) for path in CONFIGS])
def test_every_recipe_loads_and_ends_in_zero_snr(path: Path) -> None:
    config = load(path)
    assert type(config) is stage_class(config.stage).Config
    assert load(path, ["seed=11"]).seed == 11
    known = set(vocabulary()["subjects"])
    assert set(getattr(config.data, "subjects", None) or ()) <= known
    if getattr(config, "scheduler", None):  # otherwise the T2I's own
        alpha_bar = DDIMScheduler(**config.scheduler).alphas_cumprod
        assert float(alpha_bar[-1]) == pytest.approx(0, abs=1e-6)  # plain backgrounds are decided there
        assert (alpha_bar.diff() < 0).all()
    outputs = outputs_of_all()
    for needed in (config.initial, getattr(config.model, "t2i", None)):
        if needed and needed.startswith("runs/"):  # made by another recipe
            assert needed.removesuffix("/pipeline").removesuffix("/export") in outputs - {config.output} | EXPORTED


@pytest.mark.parametrize("path", CONFIGS, ids=[str(path.relative_to(ROOT)) for path in CONFIGS])
def test_no_recipe_samples_a_motion_too_rarely(path: Path) -> None:
    config = load(path)
    single = config.stage in ("t2i", "ssr-image", "style")
    if config.data.kind == "emoji" and not single:
        check_sampling(config.data.fps / getattr(config.data, "frame_stride", 1))
        # Whole clips last as long as those that all stages and evaluations are about.
        assert config.data.num_frames / config.data.fps == 5


def test_overrides_change_what_they_name(config_file: Path) -> None:
    config = load(config_file, ["optim.lr=1e-4", "optim.betas=[0.8, 0.95]", "data.subjects=[cat]", "seed=7",
                                "model.temporal.attention_layers=3", "data.subjects=null", "stage=t2v",
                                "model.unet={}"])  # fmt: skip
    assert config.optim.lr == 1e-4
    assert config.optim.betas == (0.8, 0.95)
    assert config.data.subjects is None
    assert config.model.temporal == {"attention_layers": 3}
    assert (config.seed, config.stage) == (7, "t2v")
    plain = load(config_file, ["stage=t2v", "model.unet={}"])
    assert replace(config, optim=plain.optim, data=plain.data, model=plain.model, seed=3) == plain


def test_a_set_of_subjects_is_written_out(config_file: Path) -> None:
    for name in ("emoji", "emoji-nano"):
        assert load(config_file, [f"data.subjects={name}"]).data.subjects == vocabulary()["sets"][name]


def test_numbers_that_yaml_takes_for_text_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("stage: t2i\noutput: run\noptim: {lr: 1e-4, weight_decay: 0}\n", encoding="utf-8")
    assert (load(path).optim.lr, load(path).optim.weight_decay) == (1e-4, 0.0)


def test_a_configuration_survives_its_own_yaml(config_file: Path, tmp_path: Path) -> None:
    config = load(config_file)
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(as_dict(config)), encoding="utf-8")
    assert load(again) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.learning_rate=1", "unknown key 'learning_rate'; known: optimizer, lr, betas"),
        ("colour=1", "unknown key 'colour'; known: stage"),
        ("optim.lr=fast", "optim: lr: expected float, got 'fast'"),
        ("optim.max_steps=2.5", "max_steps: expected int, got 2.5"),
        ("optim.batch_size=true", "batch_size: expected int, got True"),
        ("optim.betas=[0.9]", r"betas: expected tuple.*, got \[0.9\]"),
        ("data.subjects=cat", "no set of subjects is called 'cat': list subjects, or use one of emoji, emoji-nano"),
        ("data.subjects=3", "subjects: expected list.*, got 3"),
        ("optim.uniform_timesteps=1.2", "optim.uniform_timesteps must be between 0 and 1, not 1.2"),
        ("optim.timestep_shift_start=0", "optim.timestep_shift_start must be above 0, not 0"),
        ("optim.timestep_shift_steps=-1", "optim.timestep_shift_steps must be 0 or more, not -1"),
        ("data.channels=2", "data.channels must be 3 or 4, not 2"),
        ("data.transparent=25", "data.transparent must be between 0 and 1, not 25"),
        ("data=emoji", "data: expected a section with keys, got 'emoji'"),
        ("seed.x=1", "seed is not a section"),
        ("optim.lr", "cannot read the override 'optim.lr'; write KEY=VALUE"),
        ("sample_prompts=[a", r"cannot read the value '\[a'"),
        ("optim.batch_size=0", "optim.batch_size must be 1 or more, not 0"),
        ("optim.gradient_accumulation=3", "batch_size, 4, must be a multiple of optim.gradient_accumulation, 3"),
        ("checkpoint_every=0", "checkpoint_every must be 1 or more"),
        ("seed=-1", "seed must be 0 or more, not -1"),
        ("stage=t3i", "unknown stage 't3i'; use one of autoencoder, t2i, t2v"),
        ("model.lora_rank=4", r"config.yaml: model.lora_rank means nothing to stage t2i, only to stage style; leave"),
        (
            "data.window=4",
            "data.window means nothing to stage t2i, only to stages t2v, conditional, distill, ssr; leave it out",
        ),
        ("data.frame_stride=0", "data.frame_stride must be 1 or more, not 0"),
        ("mixed_precision=int8", "mixed_precision 'int8': use no, bf16 or fp16"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(config_file: Path, override: str, message: str) -> None:
    with pytest.raises(LumiereError, match=message) as told:
        load(config_file, [override])
    assert "\n" not in str(told.value)


def test_files_that_are_no_configuration_are_refused(tmp_path: Path) -> None:
    broken = {
        "a: [": "is not valid YAML",
        "- a\n- b": "holds no configuration",
        "seed: 1": "names no stage; write stage: and one of autoencoder, t2i",
        "stage: t2i": "missing 1 required",
    }
    for text, message in broken.items():
        (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(LumiereError, match=message):
            load(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00stage")
    with pytest.raises(LumiereError, match="is not valid YAML"):
        load(tmp_path / "config.yaml")
    with pytest.raises(LumiereError, match=r"cannot read the configuration .*: No such file"):
        load(tmp_path / "nothing.yaml")


# --- Settings of earlier versions -------------------------------------------------------------------------------------


def test_runs_of_earlier_versions_are_read_and_mean_the_same() -> None:
    """Their config.yaml holds the keys of all stages."""
    for name in ("t2i", "autoencoder", "planner"):
        before = load(DATA / f"{name}.yaml")
        written = read_yaml(DATA / f"{name}.yaml")
        assert before.stage == name
        for section in ("model", "data", "optim", "text", "scheduler"):
            for key, value in as_dict(before).get(section, {}).items():
                value = list(value) if isinstance(value, tuple) else value
                assert written[section].get({"frame_stride": "every"}.get(key, key), value) == value
    before, recipe = load(DATA / "t2i.yaml"), load(ROOT / "configs/emoji/t2i.yaml")
    # Given on the command line; how long it went on, and with what samples, was decided later.
    later = {key: getattr(before.optim, key) for key in ("max_steps", "decay_steps", "batch_size")}
    samples = {key: getattr(before.data, key) for key in ("cached", "canonical", "other_names")}
    recipe = replace(recipe, sample_every=0, optim=replace(recipe.optim, **later))
    assert replace(recipe, data=replace(recipe.data, **samples)) == before


def test_a_cache_of_latents_made_by_an_earlier_version_is_still_taken(tmp_path: Path) -> None:
    """With the numbers of weights left out of account: those of `vae` are a stand-in here."""
    config = load(DATA / "t2i.yaml", [f"data.cache={tmp_path}", "data.cached=1"])
    vae = RGBAAutoencoder(latent_channels=4, block_out_channels=(8,), sample_size=16)
    cache = json.loads((DATA / "cache.json").read_text(encoding="utf-8"))
    assert cache_identity(config, vae) | {"shard": 256, "small": False, "vae": cache["vae"]} == cache


def test_keys_of_other_stages_are_left_out_where_they_are_defaults(config_file: Path) -> None:
    config = load(config_file, ["model.lora_rank=16", "data.window=0", "model.masks=null", "model.planner={}"])
    assert config == load(config_file)


def test_a_renamed_key_is_read_by_its_old_name(config_file: Path) -> None:
    assert load(config_file, ["data.every=2"]).data.frame_stride == 2
    with pytest.raises(LumiereError, match=r"data\.every is the old name of data\.frame_stride: leave it out"):
        load(config_file, ["data.every=2", "data.frame_stride=2"])


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_defaults_for_all_but_its_output(stage: str) -> None:
    config = parse({"stage": stage, "output": "run"})
    assert type(config) is stage_class(stage).Config
    assert parse(yaml.safe_load(yaml.safe_dump(as_dict(config)))) == config


# --- Files that include others ----------------------------------------------------------------------------------------


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def test_what_is_included_is_merged_and_the_later_wins(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    write(tmp_path, first="a: 1\nsection: {x: 1, y: {deep: 1, other: 1}}",
          second="include: third.yaml\nsection: {x: 2}", third="section: {x: 3, z: 3}")  # fmt: skip
    write(tmp_path / "below", own="include: [../first.yaml, ../second.yaml]\nsection: {y: {deep: 4}, list: [1]}")
    assert read_yaml(tmp_path / "below" / "own.yaml") == {
        "a": 1, "section": {"x": 2, "y": {"deep": 4, "other": 1}, "z": 3, "list": [1]},
    }  # fmt: skip


def test_wrong_includes_are_one_line_that_names_the_files(tmp_path: Path) -> None:
    write(tmp_path, one="include: two.yaml", two="include: one.yaml", itself="include: itself.yaml",
          lost="include: none.yaml", broken="include: bad.yaml", bad="a: [", number="include: 3")  # fmt: skip
    for name, said in {
        "one": r"two\.yaml includes .*one\.yaml, which leads back to it",
        "itself": r"itself\.yaml includes .*itself\.yaml, which leads back",
        "lost": r"cannot read the configuration .*none\.yaml, included by .*lost\.yaml: No such file",
        "broken": r"bad\.yaml, included by .*broken\.yaml is not valid YAML",
        "number": r"number\.yaml: include: expected names of files, got 3",
    }.items():
        with pytest.raises(LumiereError, match=said) as told:
            read_yaml(tmp_path / f"{name}.yaml")
        assert "\n" not in str(told.value)
