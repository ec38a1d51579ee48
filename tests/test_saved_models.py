"""Models saved before still load, whole and without a warning; those that come with the package stand for all."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging

from openlumiere import LumierePipeline, STUNet, load_pipeline
from openlumiere.autoencoder import RGBAAutoencoder
from openlumiere.bundled import bundled_folder, fingerprint, model_folder, models_root, weight_files
from openlumiere.errors import LumiereError
from openlumiere.pipelines.planner import PathPlanner

MODEL = models_root() / "emoji"
NETWORKS: list[tuple[Any, Path]] = [
    (STUNet, MODEL / "unet"),
    (STUNet, MODEL / "super_resolution" / "unet"),
    (RGBAAutoencoder, MODEL / "vae"),
    (PathPlanner, MODEL / "planner"),
]


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail on anything that loading warns of."""
    diffusers_logging.enable_propagation()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    diffusers_logging.disable_propagation()
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("network", "folder"), NETWORKS, ids=lambda value: getattr(value, "name", None))
def test_bundled_networks_load_with_no_key_missing_or_unexpected(network: Any, folder: Path) -> None:
    _, found = network.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    assert {kind: list(keys) for kind, keys in found.items() if keys} == {}


def test_every_module_that_a_saved_pipeline_names_is_there() -> None:
    index = json.loads((MODEL / "model_index.json").read_text(encoding="utf-8"))
    ours = [value for value in index.values() if isinstance(value, list) and str(value[0]).startswith("openlumiere")]
    assert {name for _, name in ours} >= {"STUNet", "RGBAAutoencoder", "PathPlanner"}
    for module, name in ours:
        assert hasattr(import_module(module), name)


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
def test_a_bundled_models_name_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emoji").mkdir()  # someone's clips: no model
    pipe = LumierePipeline.from_pretrained("emoji")
    assert pipe.source_folder == MODEL
    assert pipe.text_encoder is not None


def test_a_folder_of_a_bundled_models_name_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emoji").mkdir()
    (tmp_path / "emoji" / "model_index.json").write_text("{}", encoding="utf-8")
    for load in (LumierePipeline.from_pretrained, load_pipeline):
        with pytest.raises(LumiereError, match="is a bundled model and a folder here") as error:
            load("emoji")
        assert str(tmp_path / "emoji") in str(error.value)
        assert "\n" not in str(error.value)
    assert model_folder(tmp_path / "emoji") == tmp_path / "emoji"
    monkeypatch.chdir(MODEL.parent)
    assert model_folder("emoji") == MODEL


def copy_of_bundled(folder: Path, class_name: Any) -> Path:
    """The bundled model with another `_class_name`; weights are links."""
    folder.mkdir()
    for path in MODEL.iterdir():
        if path.name not in ("model_index.json", "SHA256SUMS"):
            os.symlink(path, folder / path.name)
    index = json.loads((MODEL / "model_index.json").read_text(encoding="utf-8")) | {"_class_name": class_name}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_pipelines_that_name_an_old_module_load(tmp_path: Path) -> None:
    folder = copy_of_bundled(tmp_path / "old", ["openlumiere.pipelines.base", "LumierePipeline"])
    assert type(load_pipeline(str(folder))) is LumierePipeline
    with pytest.raises(LumiereError, match="holds a StableDiffusionPipeline"):
        load_pipeline(str(copy_of_bundled(tmp_path / "other", "StableDiffusionPipeline")))


@pytest.mark.slow
def test_diffusers_own_loader_finds_the_class_once_ours_is_imported() -> None:
    pipe = DiffusionPipeline.from_pretrained(MODEL, local_files_only=True)
    assert type(pipe) is LumierePipeline
    assert type(pipe.unet) is STUNet
    # The text encoder that the folder names comes with the first prompt.
    assert pipe.text_encoder is None
    hidden = pipe.encode_prompts(["a tiger"]).hidden_states
    assert hidden.shape == (1, 24, 384)
    assert isinstance(hidden, torch.Tensor)
    assert pipe.text_encoder is not None


def test_weights_are_hashed_whole_unless_they_are_huge(tmp_path: Path) -> None:
    whole = hashlib.sha256()
    model = bundled_folder("emoji")
    for path in weight_files(model):
        whole.update(path.relative_to(model).as_posix().encode() + hashlib.sha256(path.read_bytes()).digest())
    assert fingerprint(model) == whole.hexdigest()[:12]

    weights = tmp_path / "unet.safetensors"
    with weights.open("wb") as file:
        file.truncate(2**35)  # a hole: 32 GiB that take no place, and minutes to read
    before = fingerprint(tmp_path)
    with weights.open("rb+") as file:
        file.write(b"header")
    assert before != fingerprint(tmp_path)
