"""`lumiere evaluate styles`: the style classifier learns real differences, and the protocol writes what it promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

import tiny
from openlumiere import LumierePipeline
from openlumiere.data.emoji.drawing import Atlas
from openlumiere.errors import LumiereError
from openlumiere.evaluation.judges import load_judges
from openlumiere.evaluation.judges.classifier import ClassifierConfig
from openlumiere.evaluation.judges.motion import MotionConfig
from openlumiere.evaluation.judges.style import style_classifier
from openlumiere.evaluation.protocols.styles import ORIGINAL, evaluate_styles, markdown

pytestmark = pytest.mark.slow  # whole protocols

SUBJECTS = ("tiger", "heart", "pig", "car")


def checks(side: int, cell: int) -> np.ndarray:
    rows, columns = np.indices((side, side)) // cell
    return np.where((rows + columns)[..., None] % 2, 255, 40).astype(np.uint8).repeat(3, 2)


def atlas(key: str, pixels: np.ndarray) -> Atlas:
    alpha = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    rgba = np.concatenate([pixels, alpha], 2)
    return Atlas(key, [key], torch.from_numpy(rgba).permute(2, 0, 1)[None].contiguous())


def test_the_classifier_tells_sets_apart(tmp_path: Path) -> None:
    sets = {
        ORIGINAL: {key: atlas(key, np.full((32, 32, 3), 60 + 40 * i, np.uint8)) for i, key in enumerate(SUBJECTS)},
        "checked": {key: atlas(key, checks(32, 4 + 2 * i)) for i, key in enumerate(SUBJECTS)},
    }
    config = ClassifierConfig(width=8, steps=60, batch_size=16, held_out_clips=40)
    network = style_classifier(sets, tmp_path, config=config, progress=False)
    assert network.card["accuracy"]["single frames of held-out combinations"] > 0.8
    again = style_classifier(sets, tmp_path, config=config, progress=False)
    assert again.card == network.card
    assert torch.equal(again.head.weight, network.head.weight)


@pytest.fixture
def model(tmp_path: Path) -> LumierePipeline:
    """With one style, a fine-tuned U-Net."""
    pipe = tiny.conditioned()
    pipe.save_pretrained(tmp_path / "model")
    styled = UNet2DConditionModel.from_config(pipe.unet.spatial.config)
    styled.load_state_dict(pipe.unet.spatial.state_dict())
    with torch.no_grad():
        styled.conv_in.weight.mul_(-1)
    styled.save_pretrained(tmp_path / "model" / "styles" / "flat" / "unet")
    read = LumierePipeline.from_pretrained(tmp_path / "model")
    read.set_progress_bar_config(disable=True)
    return read


def test_the_protocol_writes_what_it_promises(model: LumierePipeline, tmp_path: Path) -> None:
    atlases = {key: atlas(key, checks(32, 8)) for key in SUBJECTS}
    for key in ("tiger", "heart", "pig"):
        folder = tmp_path / "designs" / "flat"
        folder.mkdir(parents=True, exist_ok=True)
        rgba = np.zeros((32, 32, 4), np.uint8)
        rgba[4:28, 4:28] = (200, 30, 30, 255)
        Image.fromarray(rgba).save(folder / f"{key}.png")
    model.register_to_config(subjects=["tiger", "heart"])
    quick = ClassifierConfig(width=4, steps=3, batch_size=4, held_out_clips=2)
    motion = MotionConfig(clips=20, steps=5, batch_size=4, num_frames=16, held_out_clips=2)
    judges = load_judges(atlases, tmp_path / "judges", subject=quick, motion=motion, progress=False)

    def run(**options: object) -> dict:
        given = {"clips": 2, "num_frames": 16, "judges": judges, "style_config": quick, "progress": False} | options
        return evaluate_styles(model, atlases, tmp_path / "designs", tmp_path / "report", **given)

    before = {name: value.clone() for name, value in model.unet.spatial.state_dict().items()}
    report = run(strengths=[0.0, 1.0])
    assert json.loads((tmp_path / "report" / "styles.json").read_text()) == report
    assert set(report["curve"]) == {"0.0", "1.0"}
    assert set(report["curve"]["1.0"]) == {"style", "motion", "subject"}
    assert len(report["each"]["flat"]["1.0"]) == 2
    made = {path.name for path in (tmp_path / "report" / "clips").iterdir()}
    assert made == {f"{name}-0000{i}.npy" for name in ("none-0.0", "flat-1.0") for i in (0, 1)}
    plain, styled = (np.load(tmp_path / "report" / "clips" / f"{n}-00000.npy") for n in ("none-0.0", "flat-1.0"))
    assert (plain != styled).any()
    assert "| flat |" in markdown(report)
    with Image.open(tmp_path / "report" / "sheet.png") as sheet:
        assert sheet.size == (2 * 16 * 3, 16 * 3)
    assert (tmp_path / "report" / "styles.png").stat().st_size > 5000
    # The model is left as it was.
    assert all(torch.equal(value, before[name]) for name, value in model.unet.spatial.state_dict().items())

    # And where it fails midway, on a clip of its own that was damaged.
    (tmp_path / "report" / "clips" / "flat-0.75-00001.npy").write_bytes(b"no clip")
    with pytest.raises(LumiereError, match="damaged"):
        run(strengths=[0.75])
    assert all(torch.equal(value, before[name]) for name, value in model.unet.spatial.state_dict().items())

    assert set(run(strengths=[0.5])["curve"]) == {"0.5"}  # clips of other strengths are kept beside
    with pytest.raises(LumiereError, match="another seed"):
        run(seed=1)
    with pytest.raises(LumiereError, match="it has: flat"):
        run(styles=["noto"])
    (tmp_path / "designs" / "flat").rename(tmp_path / "designs" / "other")
    with pytest.raises(LumiereError, match="lumiere data designs"):
        run()
    with pytest.raises(LumiereError, match="it has: none"):
        evaluate_styles(tiny.conditioned(), atlases, tmp_path, tmp_path / "report")
