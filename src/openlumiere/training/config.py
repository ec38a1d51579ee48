"""Training configurations: the keys that stages share. `config_files.py` reads them.

Each stage's own keys are in its file, in `training/stages/`: a subclass of `TrainConfig`, with sections of its own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from openlumiere.errors import LumiereError


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network that trains; the keys are the stage's."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the samples come from; stages add keys."""

    kind: str = "emoji"
    folder: str = "data/emoji"
    workers: int = 0  # processes that prepare samples; 0 = none besides the training


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The frozen text encoder."""

    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    max_length: int = 24
    dropout: float = 0.1  # fraction of prompts emptied, for classifier-free guidance


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Warm-up, then decay to `final_lr_ratio` of the peak at `max_steps`."""

    optimizer: str = "adamw"  # or "muon", see training/muon.py
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    # Beginnings of parameters' names, and by how much their learning rate is larger: for what must go far, as no
    # optimizer here moves a number by more than about the rate in a step.
    lr_scales: dict[str, float] = field(default_factory=dict)
    warmup_steps: int = 100
    max_steps: int = 4000
    final_lr_ratio: float = 0.05
    decay_steps: int = 0  # of the last steps, in which a constant rate falls; 0 = a cosine over the whole run
    max_grad_norm: float = 1.0
    batch_size: int = 48  # samples a step, of all processes together, accumulation included
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = False
    ema_decay: float = 0.999
    compile: bool = False

    def __post_init__(self) -> None:
        if self.optimizer not in ("adamw", "muon"):
            raise LumiereError(f"optim.optimizer {self.optimizer!r}: use adamw or muon")
        if not all(scale > 0 for scale in self.lr_scales.values()):
            raise LumiereError(f"optim.lr_scales must be above 0, not {self.lr_scales}")
        for name in ("max_steps", "batch_size", "gradient_accumulation"):
            if getattr(self, name) < 1:
                raise LumiereError(f"optim.{name} must be 1 or more, not {getattr(self, name)}")
        if self.batch_size % self.gradient_accumulation:
            raise LumiereError(
                f"optim.batch_size, {self.batch_size}, must be a multiple of optim.gradient_accumulation, "
                f"{self.gradient_accumulation}"
            )


@dataclass(frozen=True, kw_only=True)
class DiffusionOptimizerConfig(OptimizerConfig):
    """What is learnt at which noise; for stages that denoise."""

    snr_gamma: float = 5.0  # cap of the loss at low noise, see objective.loss_weights; 0 = none
    timestep_shift: float = 1.0  # above 1 trains more at high noise, see diffusion/timesteps.py
    timestep_shift_start: float = 1.0  # where the shift starts from, if it is annealed
    timestep_shift_steps: int = 0  # steps in which it is, evenly in its logarithm; 0 = it is the same throughout
    uniform_timesteps: float = 0.0  # fraction of the samples whose timesteps are not shifted
    noise_correlation: float = 0.0  # of adjacent frames, see diffusion/noise.py

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("noise_correlation", "uniform_timesteps"):
            if not 0 <= getattr(self, name) <= 1:
                raise LumiereError(f"optim.{name} must be between 0 and 1, not {getattr(self, name)}")
        for name in ("timestep_shift", "timestep_shift_start"):
            if getattr(self, name) <= 0:
                raise LumiereError(f"optim.{name} must be above 0, not {getattr(self, name)}")
        if self.timestep_shift_steps < 0:
            raise LumiereError(f"optim.timestep_shift_steps must be 0 or more, not {self.timestep_shift_steps}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole run, as far as the loop needs to know it. See `configs/` for examples."""

    stage: str
    output: str
    # Output folder of a run of the same network whose average the weights start from, or a model that has the network.
    initial: str | None = None
    seed: int = 0
    mixed_precision: str = "no"  # "no", "bf16" or "fp16"
    # On several processes: "ddp" = each has the whole network, "fsdp" = each a shard of it; "auto" = ddp, unless
    # `accelerate launch --use_fsdp` says otherwise. See docs/scale.md.
    parallel: str = "auto"
    time_budget: float = 0.0  # minutes of wall clock after which the run checkpoints and stops; 0 = none
    checkpoint_every: int = 200  # steps
    keep_checkpoints: int = 2
    sample_every: int = 500  # steps; 0 = never
    sample_prompts: list[str] = field(default_factory=list)
    sample_steps: int = 30
    sample_guidance: float = 4.0
    log_every: int = 10  # steps
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "keep_checkpoints", "log_every"):
            if getattr(self, name) < 1:
                raise LumiereError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.seed < 0:
            raise LumiereError(f"seed must be 0 or more, not {self.seed}")
        if self.parallel not in ("auto", "ddp", "fsdp"):
            raise LumiereError(f"parallel {self.parallel!r}: use auto, ddp or fsdp")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise LumiereError(f"mixed_precision {self.mixed_precision!r}: use no, bf16 or fp16")


def as_dict(config: TrainConfig) -> dict[str, Any]:
    """Return the configuration as plain YAML-able data."""
    return dataclasses.asdict(config)


def check_on_device(data: Any) -> None:
    """Refuse workers and a cache beside ``data.on_device``."""
    if data.on_device and (data.workers or getattr(data, "cache", None) is not None):
        raise LumiereError("data.on_device draws clips as they are needed: leave data.workers and data.cache out")
