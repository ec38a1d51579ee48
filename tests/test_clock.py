"""One definition of where a frame is in its clip, for drawing, windowed training and sampling: `openlumiere.clock`."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from openlumiere import STUNet
from openlumiere.clock import frame_position
from openlumiere.data.emoji.dataset import EmojiClips
from openlumiere.data.emoji.scenes import vocabulary
from openlumiere.diffusion.windows import frame_positions, plan_windows

FRAMES, WINDOW = 16, 8
ACROSS = {"left": 0, "right": 0, "up": 1, "down": 1}  # motions that cross the frame evenly, and their coordinate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of one emoji of two frames."""
    out, code = tmp_path_factory.mktemp("emoji"), vocabulary()["subjects"]["tiger"]["emoji"]
    pictures = [Image.new("RGBA", (32, 32), (red, 90, 0, 255)) for red in (120, 240)]
    webp = io.BytesIO()
    pictures[0].save(webp, "WEBP", save_all=True, append_images=pictures[1:], duration=125, lossless=True)
    meta = {"emoji": code, "names": ["tiger"], "fps": 16, "loop_frames": 2, "size": 32}
    with tarfile.open(out / "emoji-32-0000.tar", "w") as shard:
        for name, data in ((f"{code}.webp", webp.getvalue()), (f"{code}.json", json.dumps(meta).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    (out / "emoji-32-0000.json").write_text("{}", encoding="utf-8")
    return out


def seen_by_network(positions: torch.Tensor | None) -> torch.Tensor:
    """Positions that the temporal layers of a network are told."""
    net = STUNet.from_unet(tiny.unet("bundled"), temporal_conditioning=True)
    seen: list[torch.Tensor] = []
    net.temporal.conditioning.register_forward_pre_hook(lambda _, args: seen.append(args[2]))
    frames = FRAMES if positions is None else positions.shape[1]
    with torch.no_grad():
        net(**tiny.inputs(net.spatial, batch=1, frames=frames), frame_positions=positions)
    return seen[0][0]


@pytest.mark.slow
def test_drawing_training_and_sampling_share_one_definition(folder: Path) -> None:
    whole, windowed = (
        EmojiClips(folder, subjects=["tiger"], size=16, num_frames=FRAMES, window=window) for window in (0, WINDOW)
    )
    index = next(n for n in range(100) if whole.scenes(n).motion in ACROSS)
    coordinate = ACROSS[whole.scenes(index).motion]

    drawn = whole[index]["layout"][:, coordinate]
    drawn = (drawn[0] - drawn) / (2 * drawn[0])  # share of the way across the frame, which takes the whole clip
    expected = frame_position(torch.arange(FRAMES).float(), FRAMES)
    torch.testing.assert_close(drawn, expected)

    part = windowed[index]  # windowed training
    first = int((part["frame_positions"][0] * FRAMES).round())
    assert torch.equal(part["frame_positions"], expected[first : first + WINDOW])
    assert torch.equal(part["layout"], whole[index]["layout"][first : first + WINDOW])

    windows = plan_windows(FRAMES, WINDOW, 4)  # sampling in windows
    positions = frame_positions(windows.frames, FRAMES)
    assert torch.equal(positions, expected[windows.frames])

    assert torch.equal(seen_by_network(None), expected)  # training and sampling of whole clips
    assert torch.equal(seen_by_network(part["frame_positions"][None]), part["frame_positions"])
    assert torch.equal(seen_by_network(positions[-1:]), positions[-1])


def test_a_moment_keeps_its_position_at_any_frame_rate() -> None:
    slow, fast = np.arange(20), np.arange(0, 80, 4)
    np.testing.assert_array_equal(frame_position(slow, 20), frame_position(fast, 80))
