"""Stage `planner`: a prompt to a path, trained on the paths of the scenes; minutes on one core."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm

from openlumiere.diffusion import draws
from openlumiere.diffusion.motion import TURN
from openlumiere.errors import LumiereError
from openlumiere.pipelines.planner import PathPlanner
from openlumiere.pipelines.text import embed, load_text_encoder
from openlumiere.training.config import DataConfig, ModelConfig, TextConfig, TrainConfig
from openlumiere.training.previews import path_sheet
from openlumiere.training.scene_paths import ScenePaths

_PATHS_A_PROMPT = 4
_READ_AT_ONCE = 64
_LAST_LAYER_ALONE = 0.1  # of the samples: what is passed as embeddings is read too
# Few subjects turn, and far; all others would be tilted by the error of a network that sees angles at unit variance.
_PRECISION_OF_TURNS = 4


@dataclass(frozen=True, kw_only=True)
class PlannerModelConfig(ModelConfig):
    """A PathPlanner."""

    planner: dict[str, Any] = field(default_factory=dict)  # arguments of PathPlanner


@dataclass(frozen=True, kw_only=True)
class PlannerDataConfig(DataConfig):
    """Scenes whose captions and paths are learnt."""

    subjects: list[str] | None = None  # keys of the vocabulary, in files also the name of one of its sets; None = all
    pool: int = 0  # number of distinct scenes
    num_frames: int = 80  # of the samples
    fps: float = 16.0

    def __post_init__(self) -> None:
        if self.kind != "emoji":
            raise LumiereError(f"data.kind {self.kind!r}: a planner is trained on emoji scenes")


@dataclass(frozen=True, kw_only=True)
class PlannerConfig(TrainConfig):
    """Configuration of stage `planner`."""

    model: PlannerModelConfig = field(default_factory=PlannerModelConfig)
    data: PlannerDataConfig = field(default_factory=PlannerDataConfig)
    text: TextConfig = field(default_factory=TextConfig)


class Planner:
    """Trains a `PathPlanner` by flow matching (Lipman et al. 2023)."""

    Config = PlannerConfig
    step: int = 0  # see `Stage`

    def __init__(self, config: PlannerConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.tokenizer, encoder = load_text_encoder(config.text.encoder)
        self.encoder = encoder.to(device)
        options = {"text_dim": encoder.config.hidden_size, "fps": config.data.fps} | config.model.planner
        try:
            self.module = PathPlanner(**options).to(device)
        except TypeError as error:
            raise LumiereError(f"model.planner: {error}; see PathPlanner for what can be set") from error
        paths = ScenePaths(
            self.embed, captions=config.data.pool, empty=config.text.dropout, fps=config.data.fps, seed=config.seed,
            subjects=config.data.subjects,
        )  # fmt: skip
        self.dataset: Dataset[Any] = paths
        motions = paths.motions.flatten(0, 1)
        self.module.mean.copy_(motions.mean(0))
        scale = motions.std(0).clamp(min=0.02)
        scale[TURN] /= _PRECISION_OF_TURNS
        self.module.scale.copy_(scale)

    @torch.no_grad()
    def embed(self, captions: list[str]) -> torch.Tensor:
        """Return the layers that the planner reads of captions, (N, L, D), as `text.embed`, but in float16."""
        parts = [captions[i : i + _READ_AT_ONCE] for i in range(0, len(captions), _READ_AT_ONCE)]
        layers, longest = self.module.config.text_layers, self.config.text.max_length
        embedded = torch.zeros(len(captions), longest, self.module.text_width, dtype=torch.float16)
        row = 0
        for part in tqdm(parts, desc="reading captions", leave=False, disable=len(parts) == 1):
            read = embed(part, self.tokenizer, self.encoder, max_length=longest, together=True, layers=layers)
            embedded[row : row + len(part)] = read.half().cpu()
            row += len(part)
        return embedded

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: draws.Generator) -> torch.Tensor:
        """See `Stage`."""
        motion, text, seconds = (batch[key].to(self.device).float() for key in ("motion", "text", "seconds"))
        motion = (motion - self.module.mean) / self.module.scale
        alone = draws.rand(len(motion), generator=generator) < _LAST_LAYER_ALONE
        text = torch.where(alone[:, None, None], self.module.last_layer_alone(text), text)
        noise = draws.randn(*motion.shape, generator=generator)
        time = draws.spread(len(motion), generator=generator)
        noisy = torch.lerp(noise, motion, time[:, None])
        return (module(noisy, time, text, seconds) - (motion - noise)).square().mean()

    def sample(self, folder: Path, step: int) -> None:
        """Write a sheet of paths, a row for each prompt."""
        prompts = self.config.sample_prompts or ["a tiger walking to the left", "a heart bouncing", "a star spinning"]
        module = self.module.eval()
        rows = []
        for prompt in prompts:
            embedded = self.embed([prompt]).float().expand(_PATHS_A_PROMPT, -1, -1)
            generators = [torch.Generator(self.device).manual_seed(i) for i in range(_PATHS_A_PROMPT)]
            rows.append(module.plan(embedded, self.config.data.num_frames, generator=generators))
        module.train()
        folder.mkdir(parents=True, exist_ok=True)
        path_sheet(torch.stack(rows).numpy(), prompts).save(folder / f"{step:07d}.png")

    def export(self, folder: Path) -> None:
        """Write diffusers' folder `planner`."""
        self.module.save_pretrained(folder / "planner")
