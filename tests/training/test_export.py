"""Exports: what may be replaced, and what stays."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from openlumiere import LumierePipeline
from openlumiere.cli import main
from openlumiere.errors import LumiereError
from openlumiere.training.export import export


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.conditioned().save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("other", ["notes.txt", "model_index.json", "a file"])
def test_a_folder_of_other_files_is_never_replaced(
    model: Path, tmp_path: Path, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    written = out if other == "a file" else out / other
    written.parent.mkdir(exist_ok=True)
    written.write_text('{"_class_name": "StableDiffusionPipeline"}', encoding="utf-8")
    assert main(["export", str(model), "-o", str(out)]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line == (
        f"lumiere: error: {out} holds something else than a model of openlumiere; name a new or an empty folder"
    )
    assert written.read_text(encoding="utf-8") == '{"_class_name": "StableDiffusionPipeline"}'
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.slow
def test_an_older_model_is_replaced_and_what_lies_beside_it_stays(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()  # an empty folder will do
    export(model, out)
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    (out / "unet" / "old.txt").write_text("of the older model", encoding="utf-8")
    export(model, out, guidance_scale=3.0)
    assert LumierePipeline.load_config(out)["guidance_scale"] == 3.0
    assert (out / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert "notes.txt" in (out / "SHA256SUMS").read_text(encoding="utf-8")
    assert not (out / "unet" / "old.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_damaged_index_is_no_model(model: Path, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{", encoding="utf-8")
    with pytest.raises(LumiereError, match="missing or damaged"):
        export(model, tmp_path)
