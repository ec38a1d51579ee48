"""Whether a network knows what a picture shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openlumiere import LumierePipeline
from openlumiere.diffusion.layout import layout_of
from openlumiere.pipelines.familiarity import is_familiar, knows


def test_what_is_predicted_well_where_the_subject_is_is_known() -> None:
    pictures = torch.zeros(3, 4, 16, 16)
    pictures[:, :, 4:12, 4:12] = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    takes_it_for = pictures.clone()
    takes_it_for[1] = 0  # a mean, which explains nothing
    takes_it_for[2, :, :3] = 9  # wrong where it isn't
    assert is_familiar(lambda noise: takes_it_for + 0.1 * noise, pictures).tolist() == [True, False, True]


@pytest.mark.slow
def test_the_bundled_model_knows_what_it_draws_and_not_what_it_never_saw() -> None:
    pipe = LumierePipeline.from_pretrained("emoji")
    pipe.set_progress_bar_config(disable=True)
    drawn = pipe(
        "a frog on a blue background", num_frames=16, layout=[(0.5, 0.5, 0.7)], num_inference_steps=4,
        upscale=False, generator=torch.Generator().manual_seed(0),
    )[0][0, :1]  # fmt: skip
    house = np.full_like(drawn, 1.0)
    house[:, 60:108, 24:104] = (0.5, 0.4, 0.3)
    for row in range(40):
        house[:, 20 + row, 64 - row : 64 + row] = (0.8, 0.2, 0.4)
    house[:, 80:108, 58:72] = (0.1, 0.3, 0.2)
    house[:, 70:86, 32:48] = (0.6, 0.9, 0.9)
    clips = torch.from_numpy(np.concatenate([drawn, house])).movedim(-1, 1)[:, :, None].expand(-1, -1, 16, -1, -1)
    mask = torch.zeros(2, 1, 16, 128, 128)
    mask[:, :, 0] = 1
    layout = layout_of(torch.tensor([0.0, 0.0, 0.7, 0.0])).expand(2, 16, -1)
    text = pipe.encode_prompts(["a frog on a blue background", "a house"])
    assert knows(pipe, clips * 2 - 1, mask, text, layout).tolist() == [True, False]
