"""Whether windows show: the measure, on clips whose answer is known, and the whole protocol on a tiny stage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

import tiny
from openlumiere import LumierePipeline, STUNet
from openlumiere.data.emoji.drawing import Atlas
from openlumiere.errors import LumiereError
from openlumiere.evaluation.protocols.seams import (
    ALONE,
    LOOP,
    MERGED,
    NO_LOOP,
    REAL,
    adjacent_differences,
    border_ratio,
    evaluate_loops,
    evaluate_seams,
    window_borders,
    wrap_ratio,
)

pytestmark = pytest.mark.slow  # whole protocols


def test_a_jump_at_every_border_is_seen_and_steady_motion_is_not() -> None:
    borders = window_borders(32, 8, 0)
    assert np.flatnonzero(borders).tolist() == [7, 15, 23]
    steady = np.tile(np.arange(32)[:, None, None, None] * 0.01, (1, 4, 4, 3))
    assert border_ratio(adjacent_differences(steady), borders) == pytest.approx(1)
    jumping = steady + (np.arange(32) // 8 % 2)[:, None, None, None] * 0.1
    assert border_ratio(adjacent_differences(jumping), borders) > 10


def test_borders_of_overlapping_windows_are_where_a_window_begins_or_ends() -> None:
    assert np.flatnonzero(window_borders(20, 8, 2)).tolist() == [5, 7, 11, 13]
    assert not window_borders(8, 8, 2).any()


def test_a_clip_that_comes_back_does_not_jump_and_one_that_goes_on_does() -> None:
    place = np.arange(20)[:, None, None, None] * np.ones((1, 4, 4, 3))
    angle = place * 2 * np.pi / 20
    around = np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)  # a circle, at an even speed
    assert wrap_ratio(around) == pytest.approx(1)
    assert wrap_ratio(place / 20) == pytest.approx(19**2)


def test_loops_are_measured_on_whole_clips(tmp_path: Path) -> None:
    second = tiny.second_stage()
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=3, out_channels=3, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4, attention_head_dim=4, cross_attention_dim=384,
    )  # fmt: skip
    pipe = LumierePipeline(
        unet=tiny.wake(STUNet.from_unet(unet)), scheduler=second.scheduler, text_encoder=second.text_encoder,
        tokenizer=second.tokenizer, num_inference_steps=2, window_frames=8, subjects=["tiger", "heart"],
        noise_correlation=0.9,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    report = evaluate_loops(pipe, tmp_path, clips=2, num_frames=12, progress=False)
    assert json.loads((tmp_path / "loops.json").read_text()) == report
    assert set(report["ratio_at_wrap"]) == {LOOP, NO_LOOP}
    assert all(len(each) == 2 for each in report["each"].values())


def test_the_protocol_writes_what_it_promises(tmp_path: Path) -> None:
    frames = torch.randint(0, 255, (6, 4, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    atlases = {key: Atlas(key, [key], frames) for key in ("tiger", "heart")}
    pipe = tiny.second_stage()
    report = evaluate_seams(pipe, atlases, tmp_path, clips=2, num_frames=24, size=32, progress=False)
    assert json.loads((tmp_path / "seams.json").read_text()) == report
    assert set(report["ratio_at_borders"]) == {MERGED, ALONE, REAL}
    assert all(len(listed) == 23 for listed in report["differences"].values())
    with Image.open(tmp_path / "seams.png") as picture:
        assert picture.width > 500
    again = evaluate_seams(pipe, atlases, tmp_path, clips=2, num_frames=24, size=32, progress=False)
    assert again == report
    with pytest.raises(LumiereError, match="fit into one window"):
        evaluate_seams(pipe, atlases, tmp_path, num_frames=8, size=32, progress=False)
